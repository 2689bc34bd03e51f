//! What the previous release left is taken up whole: see `tests/fixtures/state-0.1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_pool::env::{Env as _, SystemEnv};
use hearth_pool::freeze::Artifact;
use hearth_pool::journal::{Control, Journal, LeaseRecord};
use hearth_proto::v1;
use hearth_proto::v1::vm::State;
use hearth_providers::VmId;
use hearth_providers::agent::Agent;
use hearth_server::config::Config;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Server, eventually, from, reason, starting_server_in, ttl};

/// The boot that the fixture was written in.
const ITS_BOOT: &str = "00000000-0000-0000-0000-0000000000b0";
const HOUR: Duration = Duration::from_secs(3600);

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state-0.1/state")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A copy. Times in it begin anew, as its leases and its artifact would have ended by now.
fn copied() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    copy(&fixture(), &state);
    // A source tree keeps no empty directories.
    for keyspace in 0..4 {
        let tables = state.join(format!("journal/keyspaces/{keyspace}/tables"));
        fs::create_dir_all(tables).unwrap();
    }
    let journal = Journal::open(&state.join("journal"), &SystemEnv).unwrap();
    for record in journal.leases().unwrap() {
        let (deadline, expire_time) = (SystemEnv.boot_time() + HOUR, SystemEnv.now() + HOUR);
        journal.write_lease(&LeaseRecord { deadline, expire_time, ..record }).unwrap();
    }
    for artifact in journal.control::<Artifact>(Control::Artifact).unwrap() {
        let artifact = Artifact { expire_time: SystemEnv.now() + HOUR, ..artifact };
        let id = artifact.id.clone();
        journal.write_control(Control::Artifact, id.as_str(), &artifact).unwrap();
    }
    drop(journal);
    dir
}

/// As if it had been written in the boot of the host in which the test runs.
fn of_this_boot(dir: &Path) {
    let journal = Journal::open(&dir.join("state/journal"), &SystemEnv).unwrap();
    for record in journal.leases().unwrap() {
        assert_eq!(&*record.boot_id, ITS_BOOT);
        journal
            .write_lease(&LeaseRecord { boot_id: SystemEnv.boot_id().into(), ..record })
            .unwrap();
    }
    for entry in fs::read_dir(dir.join("state/instances")).unwrap() {
        let record = entry.unwrap().path().join("instance.json");
        let text = fs::read_to_string(&record).unwrap();
        fs::write(record, text.replace(ITS_BOOT, &SystemEnv.boot_id())).unwrap();
    }
}

async fn start(dir: TempDir) -> Server {
    let durable = |config: &mut Config| {
        config.providers.get_mut("memory").unwrap().durable = Some(true);
        config.default_pool.depth = Some(2);
    };
    let server = starting_server_in(dir, durable).await;
    server.hearth.begin(false).await.unwrap();
    server
}

/// What asked for the lease, and asks again.
fn asked(pool: &str, vm_id: &str, number: u32) -> v1::AcquireVmRequest {
    v1::AcquireVmRequest {
        vm_id: vm_id.to_owned(),
        request_id: format!("00000000-0000-4000-8000-{number:012}"),
        expiration: ttl(12 * 3600),
        ..from(pool)
    }
}

fn of_the_team() -> v1::AcquireVmRequest {
    let labels = [("team".to_owned(), "blue".to_owned())].into();
    v1::AcquireVmRequest { labels, ..asked("default", "leased", 1) }
}

fn read_note(server: &Server, vm_id: &str) -> String {
    let provider = server.hearth.manager().provider("").unwrap();
    let channel = provider.runtime.guest_channel(&VmId::parse(vm_id).unwrap()).unwrap();
    let mut agent = Agent::greet(channel, SystemEnv.uid(), HOUR).unwrap();
    agent.ask("read note", HOUR).unwrap()
}

#[tokio::test]
async fn what_the_previous_release_left_goes_on() {
    let dir = copied();
    of_this_boot(dir.path());
    let state = dir.path().join("state");
    let instances = || {
        let all = fs::read_dir(state.join("instances")).unwrap();
        let mut all: Vec<_> = all.map(|entry| entry.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let before = instances();
    let server = start(dir).await;

    // Leases, by name and by request, with all that they said.
    let leased = server.get("vms/leased").await.unwrap();
    assert_eq!((leased.state(), leased.pool.as_str()), (State::Running, "pools/default"));
    assert_eq!(leased.labels.get("team").map(String::as_str), Some("blue"), "{leased:?}");
    for (request, name) in [(of_the_team(), "leased"), (asked("second", "other", 3), "other")] {
        let got = server.acquire(request).await.unwrap();
        assert!(got.replayed);
        assert_eq!(got.vm.unwrap().name, format!("vms/{name}"));
    }
    let released = v1::AcquireVmRequest { expiration: None, ..asked("default", "released", 2) };
    let ended = server.acquire(released).await.unwrap_err();
    assert_eq!(reason(&ended, Code::FailedPrecondition), "LEASE_EXPIRED");
    assert_eq!(read_note(&server, "leased"), "data of the release");

    // Templates and pools, whose VMs are adopted: not one instance is gone or new.
    for id in ["default", "second"] {
        let name = format!("templates/{id}");
        let request = v1::GetTemplateRequest { name };
        let template = server.client.templates.clone().get_template(request).await.unwrap();
        assert_eq!(template.into_inner().state(), v1::template::State::Ready, "{id}");
    }
    server.until_warm("default", 2).await;
    server.until_warm("second", 1).await;
    assert_eq!(instances(), before);
    let warm = server.acquire(from("default")).await.unwrap();
    assert_eq!(warm.source(), v1::acquire_vm_response::Source::Warm);

    // The artifact, from which a VM goes on.
    let request = v1::ResumeVmRequest {
        source: Some(v1::resume_vm_request::Source::Artifact("artifacts/kept".to_owned())),
        vm_id: "resumed".to_owned(),
        ..Default::default()
    };
    server.client.vms.clone().resume_vm(request).await.unwrap();
    assert_eq!(read_note(&server, "resumed"), "data of the release");

    // And all of it can be given back.
    server.client.release(&leased).await.unwrap();
    assert!(server.get("vms/leased").await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn what_the_previous_release_left_in_another_boot_is_found_and_failed() {
    let dir = copied();
    let state = dir.path().join("state");
    let server = start(dir).await;
    for (request, name) in [(of_the_team(), "leased"), (asked("second", "other", 3), "other")] {
        let got = server.acquire(request).await.unwrap();
        assert!(got.replayed);
        assert_eq!(got.vm.unwrap().name, format!("vms/{name}"));
    }
    let leased = server.get("vms/leased").await.unwrap();
    assert_eq!(leased.state(), State::Failed, "{leased:?}");
    server.until_warm("default", 2).await;
    server.until_warm("second", 1).await;
    server.client.release(&leased).await.unwrap();
    let preserved = state.join("instances").join(&leased.uid).join("preserved.json");
    eventually("its machine's file is gone", async || {
        preserved.is_file() && !preserved.with_file_name("guest.json").exists()
    })
    .await;
    server.stop().await;
}
