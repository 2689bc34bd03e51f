//! A handoff's parts alone: reserved and committed in the books, renamed by the memory provider.
//!
//! No request id, no quota, no lease and no journal: what these add is in the node's acquire.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::env::{Env, SystemEnv};
use hearth_pool::ids::Tenant;
use hearth_pool::ledger::{Floors, Ledger, WarmVm};
use hearth_providers::directory::Paths;
use hearth_providers::engine::Engine;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::{VmId, VmRuntime};
use tempfile::TempDir;

use super::ledger::{Source, bounds};
use super::{Fixture, Meter, Result};

/// How many are handed out before they are given back.
const AT_ONCE: usize = 200;

/// Books, and a provider that has their VMs.
pub(super) struct Parts {
    ledger: Ledger<()>,
    source: Source,
    runtime: Arc<dyn VmRuntime>,
    tenant: Tenant,
    names: Vec<VmId>,
    taken: Vec<WarmVm>,
    _dir: Option<TempDir>,
}

impl Parts {
    /// Names are in memory.
    pub(super) fn in_memory(vms: usize) -> Result<Self> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let backend = MemoryBackend::new(Arc::clone(&env));
        Self::new(vms, Arc::new(Engine::in_memory("memory", backend, env)), None)
    }

    /// Names are links in a directory.
    pub(super) fn on_disk(vms: usize) -> Result<Self> {
        let (dir, env): (_, Arc<dyn Env>) = (super::node::temporary()?, Arc::new(SystemEnv));
        let paths = Paths { state: dir.path().join("state"), runtime: dir.path().join("run") };
        let backend = MemoryBackend::new(Arc::clone(&env));
        let (engine, _) = Engine::open("memory", backend, env, paths)?;
        Self::new(vms, Arc::new(engine), Some(dir))
    }

    fn new(vms: usize, runtime: Arc<dyn VmRuntime>, dir: Option<TempDir>) -> Result<Self> {
        let mut ledger = Ledger::new(bounds(vms), Floors::default(), Duration::ZERO);
        let source = Source::new()?;
        for _ in 0..vms {
            let vm = source.next();
            runtime.create_vm(&vm.vm_id)?;
            ledger.adopt(vm);
        }
        let at_once = vms.min(AT_ONCE);
        let names: std::result::Result<_, _> =
            (0..at_once).map(|it| VmId::parse(&format!("tenants-{it}"))).collect();
        let (tenant, taken) = (Tenant::anonymous(), Vec::with_capacity(at_once));
        Ok(Self { ledger, source, runtime, tenant, names: names?, taken, _dir: dir })
    }
}

impl Fixture for Parts {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let Self { ledger, source, runtime, tenant, names, taken, .. } = self;
        let names = &names[..most.min(names.len())];
        meter.measure(&mut || {
            for name in names {
                let vm = ledger.reserve(tenant, Duration::ZERO).vm.expect("the books are full");
                assert!(ledger.commit(&vm.vm_id), "nothing has died");
                runtime.rename_vm(&vm.vm_id, name).expect("the name is free");
                taken.push(vm);
            }
        });
        taken.clear();
        for name in names {
            let vm = source.next();
            runtime.rename_vm(name, &vm.vm_id)?;
            ledger.adopt(vm);
        }
        Ok(names.len())
    }
}
