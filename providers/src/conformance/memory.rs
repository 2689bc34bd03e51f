//! The fixture of the memory provider, whose backend can be held.

use std::sync::Arc;

use super::fixture::Fixture;
use super::held::{Gate, Held};
use crate::directory::Paths;
use crate::engine::Engine;
use crate::env::{Env, SystemEnv};
use crate::error::Result;
use crate::memory::MemoryBackend;
use crate::model::VmSpec;
use crate::provider::VmRuntime;
use crate::readiness::Readiness;

impl Fixture {
    /// A fixture for a memory provider as `wrap` wraps it; with `paths` it is durable and
    /// keeps names, instances and snapshots there.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub fn of_memory(
        name: &str,
        paths: Option<Paths>,
        wrap: impl FnOnce(Arc<dyn VmRuntime>) -> Arc<dyn VmRuntime>,
    ) -> Result<Self> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let gate = Gate::default();
        let backend = match paths {
            None => MemoryBackend::new(Arc::clone(&env)),
            Some(_) => MemoryBackend::durable(Arc::clone(&env)),
        };
        let backend = Held::new(backend, gate.clone());
        let engine = match paths {
            None => Engine::in_memory("memory", backend, env),
            Some(paths) => Engine::open("memory", backend, env, paths)?.0,
        };
        let readiness = Readiness::ConsoleMarker("READY".to_owned());
        let provider = wrap(Arc::new(engine));
        let mut fixture = Self::new(name, provider, VmSpec::default(), readiness);
        fixture.holder = Some(Arc::new(gate));
        Ok(fixture)
    }
}
