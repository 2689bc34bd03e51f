//! Real containers: the docker provider on a Docker Engine, and on podman's socket, that the
//! tests start themselves.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmSpec;
use hearth_providers::conformance::{Effort, Fixture, Gate, Held, Hold, Holder};
use hearth_providers::docker::{DockerBackend, DockerConfig};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::model::VmView;
use hearth_providers::readiness::Readiness;

use crate::docker_engine::{BASE, EngineHost};
use crate::suites::{Permits, Suite, paths};

/// On the Docker Engine.
pub(crate) fn docker() -> Suite {
    on("docker")
}

/// On podman's compatible socket.
pub(crate) fn podman() -> Suite {
    on("podman")
}

fn on(kind: &'static str) -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let fixture = EngineHost::start(kind).and_then(|host| {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let command = ["sh", "-c", "echo READY; exec sleep 1000000"].map(str::to_owned).to_vec();
        let config =
            DockerConfig { socket: host.socket(), command, ..DockerConfig::new("conformance") };
        let paths = paths(dir.path());
        let backend = DockerBackend::new(config, &paths, Arc::clone(&env));
        let gate = Gate::default();
        let engine = backend
            .and_then(|it| Engine::open("docker", Held::new(it, gate.clone()), env, paths.clone()));
        let (engine, _) = engine.map_err(|error| error.to_string())?;
        let readiness = Readiness::ConsoleMarker("READY".to_owned());
        let spec = VmSpec { image: Some(BASE.to_owned()), ..VmSpec::default() };
        let mut fixture = Fixture::new(kind, Arc::new(engine), spec, readiness);
        fixture.effort = Effort { rounds: 4, threads: 4 };
        fixture.patience = Duration::from_secs(240);
        fixture.holder = Some(Arc::new(HoldsAndKeeps { gate, _host: host }));
        fixture.snapshots_dir = Some(paths.state.join("snapshots"));
        Ok(Arc::new(fixture))
    });
    Suite { name: kind, fixture, permits: Permits::new(2), dir: Some(dir) }
}

/// Goes with the fixture, after its provider: so does the engine.
struct HoldsAndKeeps {
    gate: Gate,
    _host: EngineHost,
}

impl Holder for HoldsAndKeeps {
    fn hold(&self, vm: &VmView, bound: Duration) -> Box<dyn Hold> {
        self.gate.hold(vm, bound)
    }
}
