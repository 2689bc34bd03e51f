//! The apple-container provider on our fake of the tool, in its newest version and in an old one
//! that answers in the older shape. The real one runs on a Mac alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmSpec;
use hearth_providers::apple_container::AppleContainer;
use hearth_providers::cli::{CliBackend, CliConfig};
use hearth_providers::conformance::{Effort, Fixture, Gate, Held};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::readiness::Readiness;

use crate::cli_fake::{self, Kind, Settings};
use crate::suites::{Permits, Suite, paths};

pub(crate) fn fake() -> Suite {
    on_fake("apple-container-fake", "1.2.1", false)
}

pub(crate) fn old_fake() -> Suite {
    on_fake("apple-container-fake-old", "0.12.0", true)
}

fn on_fake(name: &'static str, version: &str, old_shape: bool) -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let version = version.to_owned();
    let settings = Settings { kind: Kind::Apple, version, old_shape, ..Settings::default() };
    let fixture = fixture(name, dir.path(), &settings).map(Arc::new);
    Suite { name, fixture, permits: Permits::new(4), dir: Some(dir) }
}

fn fixture(name: &str, dir: &Path, settings: &Settings) -> Result<Fixture, String> {
    let (program, _) = cli_fake::install(dir, settings);
    let (env, paths): (Arc<dyn Env>, _) = (Arc::new(SystemEnv), paths(dir));
    let config = CliConfig::new(program, "conformance");
    let gate = Gate::default();
    let engine = AppleContainer::find(&config)
        .and_then(|tool| CliBackend::new(tool, config, &paths, Arc::clone(&env)))
        .and_then(|it| Engine::open("apple", Held::new(it, gate.clone()), env, paths.clone()));
    let (engine, _) = engine.map_err(|error| error.to_string())?;
    let readiness = Readiness::ConsoleMarker("READY".to_owned());
    let spec = VmSpec { image: Some("base".to_owned()), ..VmSpec::default() };
    let mut fixture = Fixture::new(name, Arc::new(engine), spec, readiness);
    fixture.effort = Effort { rounds: 4, threads: 4 };
    fixture.patience = Duration::from_secs(120);
    if !settings.old_shape {
        // Without, nobody can be held in a snapshot of a running VM: that is refused at once.
        fixture.holder = Some(Arc::new(gate));
    }
    fixture.snapshots_dir = Some(paths.state.join("snapshots"));
    Ok(fixture)
}
