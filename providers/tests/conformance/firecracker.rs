//! The firecracker provider: on our fake everywhere, and on the real one where
//! `HEARTH_FIRECRACKER` says where it is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmSpec;
use hearth_providers::conformance::{Effort, Fixture, ProcessHolder};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig, JailerConfig};
use hearth_providers::readiness::Readiness;

use crate::firecracker_fake::{self, Settings};
use crate::suites::{Permits, Suite, paths};

/// What the fake's guest listens on.
const AGENT_PORT: u32 = 5005;

/// Our fake of the version that we know best: its guests have no vsock, as on the real one here.
pub(crate) fn fake() -> Suite {
    on_fake("firecracker-fake", &Settings::default(), false)
}

/// Our fake of the next version, whose vsock lives through a pause, with an agent behind it.
pub(crate) fn fake_with_agent() -> Suite {
    let settings = Settings {
        version: "1.17.0".to_owned(),
        agent_port: Some(AGENT_PORT),
        ..Settings::default()
    };
    on_fake("firecracker-fake-vsock", &settings, false)
}

/// The same in jails.
pub(crate) fn fake_in_jails() -> Suite {
    let settings = Settings {
        version: "1.17.0".to_owned(),
        agent_port: Some(AGENT_PORT),
        ..Settings::default()
    };
    on_fake("firecracker-fake-jailed", &settings, true)
}

/// The real one.
pub(crate) fn real() -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let fixture = std::env::var_os("HEARTH_FIRECRACKER")
        .ok_or_else(|| "HEARTH_FIRECRACKER does not say where a Firecracker is".to_owned())
        .and_then(|binary| {
            let kernel = crate::firecracker_guest::build(dir.path())?;
            let config = FirecrackerConfig { binary: binary.into(), ..Default::default() };
            fixture("firecracker", dir.path(), config, spec(dir.path(), kernel, None))
        });
    Suite { name: "firecracker", fixture, permits: Permits::new(2), dir: Some(dir) }
}

fn on_fake(name: &'static str, settings: &Settings, jailed: bool) -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let fixture = match jailed && !rustix::process::geteuid().is_root() {
        true => Err("jails need root".to_owned()),
        false => fixture_on_fake(name, dir.path(), settings, jailed),
    };
    Suite { name, fixture, permits: Permits::new(4), dir: Some(dir) }
}

fn fixture_on_fake(
    name: &str,
    dir: &Path,
    settings: &Settings,
    jailed: bool,
) -> Result<Arc<Fixture>, String> {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).map_err(|error| error.to_string())?;
    let installed = firecracker_fake::install(&bin, settings);
    let devices = dir.join("net");
    for tap in ["tap-template", "tap-clone"] {
        let tap = devices.join(tap);
        std::fs::create_dir_all(&tap)
            .and_then(|()| std::fs::write(tap.join("tun_flags"), "0x1002"))
            .map_err(|error| error.to_string())?;
    }
    let config = FirecrackerConfig {
        binary: installed.firecracker,
        jailer: jailed.then(|| JailerConfig { binary: installed.jailer, ..JailerConfig::new() }),
        agent_port: settings.agent_port,
        network_devices: devices,
        ..FirecrackerConfig::default()
    };
    let kernel = dir.join("kernel");
    std::fs::write(&kernel, b"\x7fELF, as far as the fake looks")
        .map_err(|error| error.to_string())?;
    let cid = settings.agent_port.map(|_| 3);
    fixture(name, dir, config, spec(dir, kernel, cid))
}

fn spec(dir: &Path, kernel: PathBuf, vsock_cid: Option<u32>) -> VmSpec {
    let rootfs = dir.join("rootfs");
    std::fs::write(&rootfs, vec![0; 1 << 20]).expect("a disk can be written");
    let everybody = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&kernel, everybody).expect("it is ours");
    VmSpec { kernel: Some(kernel), rootfs: Some(rootfs), vsock_cid, ..VmSpec::default() }
}

fn fixture(
    name: &str,
    dir: &Path,
    config: FirecrackerConfig,
    spec: VmSpec,
) -> Result<Arc<Fixture>, String> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let backend = FirecrackerBackend::new(config, Arc::clone(&env));
    let engine = backend.and_then(|it| Engine::open("firecracker", it, env, paths(dir)));
    let (engine, _) = engine.map_err(|error| error.to_string())?;
    let readiness = Readiness::ConsoleMarker("READY".to_owned());
    let mut fixture = Fixture::new(name, Arc::new(engine), spec, readiness);
    fixture.effort = Effort { rounds: 6, threads: 4 };
    fixture.patience = Duration::from_secs(120);
    fixture.holder = Some(Arc::new(ProcessHolder));
    fixture.has_processes = true;
    fixture.snapshots_dir = Some(paths(dir).state.join("snapshots"));
    Ok(Arc::new(fixture))
}
