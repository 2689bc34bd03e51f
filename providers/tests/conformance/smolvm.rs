//! The smolvm provider on our fake of the tool. The real one needs hardware virtualisation: what
//! runs of it without is among the cases of `cli_providers`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmSpec;
use hearth_providers::cli::{CliBackend, CliConfig};
use hearth_providers::conformance::{Effort, Fixture};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::readiness::Readiness;
use hearth_providers::smolvm::Smolvm;

use crate::cli_fake::{self, Settings};
use crate::suites::{Permits, Suite, paths};

pub(crate) fn fake() -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let fixture = fixture(dir.path()).map(Arc::new);
    Suite { name: "smolvm-fake", fixture, permits: Permits::new(4), dir: Some(dir) }
}

fn fixture(dir: &Path) -> Result<Fixture, String> {
    let settings = Settings { version: "1.32.2".to_owned(), ..Settings::default() };
    let (program, _) = cli_fake::install(dir, &settings);
    let (env, paths): (Arc<dyn Env>, _) = (Arc::new(SystemEnv), paths(dir));
    let config = CliConfig::new(program, "conformance");
    let engine = Smolvm::find(&config)
        .and_then(|tool| CliBackend::new(tool, config, &paths, Arc::clone(&env)))
        .and_then(|it| Engine::open("smolvm", it, env, paths.clone()));
    let (engine, _) = engine.map_err(|error| error.to_string())?;
    let readiness = Readiness::ConsoleMarker("READY".to_owned());
    let spec = VmSpec { image: Some("base".to_owned()), ..VmSpec::default() };
    let mut fixture = Fixture::new("smolvm-fake", Arc::new(engine), spec, readiness);
    fixture.effort = Effort { rounds: 4, threads: 4 };
    fixture.patience = Duration::from_secs(120);
    // Nobody can be held in a snapshot of a running VM, since that is refused at once.
    fixture.snapshots_dir = Some(paths.state.join("snapshots"));
    Ok(fixture)
}
