//! Real virtual machines: the qemu provider with the guest that `scripts/guest` builds. As root, with
//! `HEARTH_QEMU_USER=UID:GID`, each QEMU becomes that user.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmSpec;
use hearth_providers::conformance::{Effort, Fixture, ProcessHolder};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::qemu::{QemuBackend, QemuConfig};
use hearth_providers::readiness::Readiness;

use crate::suites::{Permits, Suite, paths};

pub(crate) fn suite() -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let fixture = guest().and_then(|spec| {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let backend = QemuBackend::new(config()?, Arc::clone(&env));
        let engine = backend.and_then(|it| Engine::open("qemu", it, env, paths(dir.path())));
        let (engine, _) = engine.map_err(|error| error.to_string())?;
        let readiness = Readiness::ConsoleMarker("READY".to_owned());
        let mut fixture = Fixture::new("qemu", Arc::new(engine), spec, readiness);
        fixture.effort = Effort { rounds: 6, threads: 4 };
        fixture.patience = Duration::from_secs(240);
        fixture.holder = Some(Arc::new(ProcessHolder));
        fixture.has_processes = true;
        fixture.snapshots_dir = Some(paths(dir.path()).state.join("snapshots"));
        Ok(Arc::new(fixture))
    });
    Suite { name: "qemu", fixture, permits: Permits::new(2), dir: Some(dir) }
}

fn config() -> Result<QemuConfig, String> {
    let user = std::env::var("HEARTH_QEMU_USER").ok().map(|user| user.parse());
    Ok(QemuConfig { user: user.transpose()?, ..QemuConfig::default() })
}

/// What boots, from `HEARTH_GUEST_DIR` or from where `scripts/guest` puts it.
fn guest() -> Result<VmSpec, String> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    let dir = std::env::var_os("HEARTH_GUEST_DIR").map_or(built, PathBuf::from);
    let file = |name: &str| {
        let path = dir.join(name);
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
        path.map(Some)
    };
    Ok(VmSpec {
        kernel: file("vmlinuz")?,
        initrd: file("initrd.cpio.gz")?,
        rootfs: file("rootfs.ext4")?,
        boot_args: "quiet".to_owned(),
        ..VmSpec::default()
    })
}
