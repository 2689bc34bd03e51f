//! Opens the configured providers.

use std::sync::Arc;

use hearth_pool::metrics::orphans_reaped;
use hearth_pool::pool::Provider;
use hearth_providers::directory::Paths;
use hearth_providers::engine::{Engine, OpenReport};
use hearth_providers::env::Env;
use hearth_providers::error::Result;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::{Uid, VmRuntime};

use crate::config::{Config, ProviderConfig, ProviderKind};

/// The configured providers, the default one first, with what they left on `paths`. Blocks on
/// the disk.
///
/// # Errors
/// Those of the provider that cannot be opened, with its name.
pub(crate) fn open(
    config: &Config,
    paths: &Paths,
    state_uuid: Uid,
    env: &Arc<dyn Env>,
) -> Result<Vec<Arc<Provider>>, (String, hearth_providers::VmRuntimeError)> {
    let mut providers = Vec::new();
    for (name, settings) in &config.providers {
        let runtime =
            open_one(name, settings, paths, state_uuid, env).map_err(|it| (name.clone(), it))?;
        let facts = runtime.describe();
        let facts: Vec<_> = facts.iter().map(|(what, is)| format!("{what}: {is}")).collect();
        let (kind, facts) = (settings.kind.as_str(), facts.join("; "));
        tracing::info!(provider = name, kind, facts, "a provider is open");
        let kind = settings.kind.as_str().to_owned();
        providers.push(Arc::new(Provider { name: name.as_str().into(), kind, runtime }));
    }
    // Stable: the others stay sorted by name.
    providers.sort_by_key(|provider| Some(&*provider.name) != config.default_provider());
    Ok(providers)
}

fn open_one(
    name: &str,
    settings: &ProviderConfig,
    paths: &Paths,
    state_uuid: Uid,
    env: &Arc<dyn Env>,
) -> Result<Arc<dyn VmRuntime>> {
    // What a build without some kinds does not need.
    let _ = state_uuid;
    match settings.kind {
        ProviderKind::Memory if settings.durable == Some(true) => {
            let backend = MemoryBackend::durable(Arc::clone(env));
            let (engine, report) = Engine::open(name, backend, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
        // It keeps nothing on disk.
        ProviderKind::Memory => Ok(Arc::new(MemoryBackend::provider(name, Arc::clone(env)))),
        #[cfg(feature = "qemu")]
        ProviderKind::Qemu => {
            use hearth_providers::qemu::QemuBackend;
            let backend = QemuBackend::new(settings.to_qemu(), Arc::clone(env))?;
            let (engine, report) = Engine::open(name, backend, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
        #[cfg(feature = "firecracker")]
        ProviderKind::Firecracker => {
            use hearth_providers::firecracker::FirecrackerBackend;
            let backend = FirecrackerBackend::new(settings.to_firecracker(), Arc::clone(env))?;
            let (engine, report) = Engine::open(name, backend, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
        #[cfg(feature = "docker")]
        ProviderKind::Docker => {
            use hearth_providers::docker;
            let config = settings.to_docker(state_uuid.to_string());
            let (engine, report) = docker::open(name, config, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
        #[cfg(feature = "apple-container")]
        ProviderKind::AppleContainer => {
            use hearth_providers::apple_container;
            let config = settings.to_cli(apple_container::config(state_uuid.to_string()));
            let (engine, report) =
                apple_container::open(name, config, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
        #[cfg(feature = "smolvm")]
        ProviderKind::Smolvm => {
            use hearth_providers::smolvm;
            let config = settings.to_cli(smolvm::config(state_uuid.to_string()));
            let (engine, report) = smolvm::open(name, config, Arc::clone(env), paths.clone())?;
            reaped(name, report);
            Ok(Arc::new(engine))
        }
    }
}

fn reaped(name: &str, report: OpenReport) {
    let OpenReport { adopted, reaped_instances, reaped_snapshots, .. } = report;
    let OpenReport { reaped_processes, reaped_containers, reaped_cgroups, .. } = report;
    tracing::info!(
        provider = name,
        adopted,
        reaped_instances,
        reaped_processes,
        reaped_containers,
        reaped_cgroups,
        reaped_sockets = report.reaped_sockets,
        reaped_snapshots,
        "a provider has looked at what it left"
    );
    orphans_reaped("instance", reaped_instances);
    orphans_reaped("process", reaped_processes);
    orphans_reaped("container", reaped_containers);
    orphans_reaped("cgroup", reaped_cgroups);
    orphans_reaped("socket", report.reaped_sockets);
    orphans_reaped("snapshot", reaped_snapshots);
}
