//! What is kept of VMs that ended by themselves, and no more than that.

use super::*;
use crate::engine::evidence::{KEPT_FOR, MAX_FILE_BYTES, MAX_VMS};
use crate::files;

fn durable(dir: &Path, env: &Arc<SeededEnv>) -> MemoryProvider {
    let env: Arc<dyn Env> = Arc::clone(env) as Arc<dyn Env>;
    let backend = MemoryBackend::durable(Arc::clone(&env));
    Engine::open("memory", backend, env, paths(dir)).unwrap().0
}

/// A VM that ends by itself after it has said more than is kept, and is destroyed.
fn fail(provider: &MemoryProvider, name: &str, console: &[u8]) {
    provider.create_vm(&id(name)).unwrap();
    provider.start_vm(&id(name)).unwrap();
    let uid = uid_of(provider, name);
    let dir = provider.directory.paths().unwrap().instance(uid);
    std::fs::write(dir.join("console"), console).unwrap();
    std::fs::write(dir.join("vmm.log"), "the last word").unwrap();
    std::fs::write(dir.join("ram"), vec![1; 1 << 20]).unwrap();
    let instance = Arc::clone(provider.instances.get(&uid).unwrap().value());
    instance.machine().fail(&format!("the end of {name}"));
    provider.destroy_vm(&id(name)).unwrap();
}

fn kept(dir: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(dir.join("state/quarantine")).into_iter().flatten();
    let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_failed_vm_leaves_how_it_ended_and_its_last_words() {
    let (dir, env) = (tempfile::tempdir().unwrap(), seeded());
    let provider = durable(dir.path(), &env);
    let mut console = vec![b'.'; 2 * MAX_FILE_BYTES as usize];
    console.extend(b"last line");
    fail(&provider, "fails", &console);
    provider.create_vm(&id("well")).unwrap();
    provider.destroy_vm(&id("well")).unwrap();
    let [evidence] = kept(dir.path()).try_into().unwrap();
    let record = std::fs::read_to_string(evidence.join("failure.json")).unwrap();
    for told in ["\"vm_id\": \"fails\"", "the end of fails", "READY", "\"provider\": \"memory\""] {
        assert!(record.contains(told), "{told} in {record}");
    }
    let console = std::fs::read(evidence.join("console")).unwrap();
    assert_eq!(console.len() as u64, MAX_FILE_BYTES);
    assert!(console.ends_with(b"last line"));
    assert_eq!(std::fs::read(evidence.join("vmm.log")).unwrap(), b"the last word");
    assert_eq!(entries(&evidence), 3, "and no memory");
    assert_eq!(entries(&dir.path().join("state/instances")), 0);
}

#[test]
fn evidence_is_bounded_in_number_and_bytes_and_the_oldest_goes() {
    let (dir, env) = (tempfile::tempdir().unwrap(), seeded());
    let provider = durable(dir.path(), &env);
    let console = vec![b'.'; 2 * MAX_FILE_BYTES as usize];
    for number in 0..MAX_VMS + 6 {
        env.advance(Duration::from_secs(1));
        fail(&provider, &format!("vm-{number}"), &console);
    }
    let all = kept(dir.path());
    assert_eq!(all.len(), MAX_VMS);
    let first = std::fs::read_to_string(all[0].join("failure.json")).unwrap();
    assert!(first.contains("\"vm_id\": \"vm-6\""), "{first}");
    let bytes = files::bytes_on_disk(&dir.path().join("state/quarantine"));
    let most = MAX_VMS as u64 * (MAX_FILE_BYTES + (32 << 10));
    assert!(bytes <= most, "{bytes} of {most}");
}

#[test]
fn evidence_goes_in_its_time_and_what_is_no_evidence_stays() {
    let (dir, env) = (tempfile::tempdir().unwrap(), seeded());
    let provider = durable(dir.path(), &env);
    fail(&provider, "old", b"");
    let stranger = dir.path().join("state/quarantine/notes");
    std::fs::write(&stranger, "of an operator").unwrap();
    env.advance(KEPT_FOR + Duration::from_secs(1));
    fail(&provider, "new", b"");
    assert_eq!(kept(dir.path()).len(), 2);
    assert!(stranger.exists());
    // Also at a start, after which nothing may fail for long.
    env.advance(KEPT_FOR + Duration::from_secs(1));
    drop(provider);
    drop(durable(dir.path(), &env));
    assert_eq!(kept(dir.path()), [stranger]);
}
