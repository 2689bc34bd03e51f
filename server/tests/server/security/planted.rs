//! Links that were planted in the state directory, in place of every file and every directory that there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hearth_proto::v1;
use hearth_server::config::{Config, ProviderConfig, ProviderKind};
use hearth_server::serve::Hearth;
use hearth_server::telemetry::Levels;

use super::site::{Who, auth_file};
use crate::harness::{starting_server_in, ttl};

/// A server on `root/state` that keeps everything that it can keep.
fn configure(config: &mut Config, root: &Path) {
    config.state = Some(root.join("state"));
    config.runtime = Some(root.join("run"));
    config.listen = ([127, 0, 0, 1], 0).into();
    config.admin = ([127, 0, 0, 1], 0).into();
    config.auth.file = Some(root.join("auth.toml"));
    let memory = ProviderConfig { durable: Some(true), ..ProviderConfig::of(ProviderKind::Memory) };
    config.providers.insert("memory".to_owned(), memory);
    config.default_pool.depth = Some(1);
}

/// Every file and directory below `dir`, with what is in it; of links where they lead.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            let within = path.strip_prefix(dir).unwrap().to_owned();
            let content = match () {
                () if kind.is_symlink() => {
                    std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                () if kind.is_dir() => {
                    dirs.push(path);
                    Vec::new()
                }
                () => std::fs::read(&path).unwrap(),
            };
            found.insert(within, content);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, content) in tree(from) {
        let (from, to) = (from.join(&path), to.join(&path));
        match std::fs::symlink_metadata(&from).unwrap().file_type() {
            kind if kind.is_symlink() => {
                std::os::unix::fs::symlink(std::fs::read_link(from).unwrap(), to).unwrap();
            }
            kind if kind.is_dir() => std::fs::create_dir_all(to).unwrap(),
            // Space that is kept back is only space.
            _ if path.ends_with("reserve") => {}
            _ => std::fs::write(to, content).unwrap(),
        }
    }
}

/// A state directory in which there is something of every kind.
async fn furnished() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    std::fs::write(root.join("auth.toml"), auth_file()).unwrap();
    let mut server = starting_server_in(dir, |config| configure(config, &root)).await;
    server.hearth.begin(false).await.unwrap();
    server.client = super::site::client(&server, Who::Root).await;
    server.until_warm("default", 1).await;
    let request = v1::AcquireVmRequest {
        pool: "pools/default".to_owned(),
        vm_id: "kept".to_owned(),
        expiration: ttl(3600),
        ..Default::default()
    };
    let vm = server.acquire(request).await.unwrap().vm.unwrap();
    let mut vms = server.client.vms.clone();
    let name = vm.name.clone();
    let request = v1::SnapshotVmRequest { name, snapshot_id: "s".to_owned(), ..Default::default() };
    vms.snapshot_vm(request).await.unwrap();
    let request = v1::FreezeVmRequest { name: vm.name, ..Default::default() };
    let begun = vms.freeze_vm(request).await.unwrap().into_inner();
    server.client.wait_operation(&begun.name, std::time::Duration::from_secs(30)).await.unwrap();
    let kept = tempfile::tempdir().unwrap();
    server.hearth.end(false).await;
    copy(&root, kept.path());
    kept
}

#[tokio::test]
async fn what_is_planted_in_the_state_directory_leads_nowhere() {
    let kept = furnished().await;
    let places: Vec<_> = tree(&kept.path().join("state")).into_keys().collect();
    for kind in ["journal", "instances", "snapshots", "audit"] {
        assert!(
            places.iter().any(|it| it.starts_with(kind) && it.components().count() > 1),
            "{kind}"
        );
    }
    let mut refused = 0;
    for place in &places {
        // To something of the same content, and to nothing.
        for dangles in [false, true] {
            let root = tempfile::tempdir().unwrap();
            copy(kept.path(), root.path());
            let (path, outside) =
                (root.path().join("state").join(place), root.path().join("outside"));
            std::fs::create_dir(&outside).unwrap();
            let target = outside.join("target");
            std::fs::rename(&path, &target).unwrap();
            if dangles {
                let removed = std::fs::remove_file(&target);
                removed.or_else(|_| std::fs::remove_dir_all(&target)).unwrap();
            }
            std::os::unix::fs::symlink(&target, &path).unwrap();
            let before = tree(&outside);
            let mut config = Config::default();
            configure(&mut config, root.path());
            match Hearth::open(config, Levels::detached()).await {
                Ok(mut hearth) => {
                    // Some of it may be lost, or all.
                    let _ = hearth.begin(true).await;
                    hearth.end(true).await;
                }
                Err(_) => refused += 1,
            }
            let after = tree(&outside);
            let changed: Vec<_> = before
                .keys()
                .chain(after.keys())
                .filter(|it| before.get(*it) != after.get(*it))
                .collect();
            assert!(changed.is_empty(), "{} -> {changed:?} (dangles: {dangles})", place.display());
        }
    }
    println!("{} places, {refused} of {} starts refused", places.len(), 2 * places.len());
    assert!(refused > 0, "a start on a journal that leads elsewhere is refused");
}

#[tokio::test]
async fn a_journal_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let kept = furnished().await;
    let mut config = Config::default();
    configure(&mut config, kept.path());
    let log = kept.path().join("state/journal/1.log");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = Hearth::open(config.clone(), Levels::detached()).await.unwrap_err().to_string();
    assert!(refused.contains("1.log can be written by others"), "{refused}");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o600)).unwrap();
    Hearth::open(config, Levels::detached()).await.unwrap().end(true).await;
}
