//! The books of one pool: a VM's whole way through them, and a caller's way through the line.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::ids::{TemplateId, Tenant};
use hearth_pool::ledger::{Bounds, Floors, Ledger, Settled, WarmVm};
use hearth_pool::templates::Template;
use hearth_providers::env::{Env as _, SeededEnv};
use hearth_providers::{VmId, VmSpec};

use super::{AT_ONCE, Fixture, Meter, Result, repeat};

/// What passes between two operations: claims come at a steady rate.
const STEP: Duration = Duration::from_micros(100);
/// The seed of names and uids.
const SEED: u64 = 7;

/// Makes VMs that are warm and in no books yet. Each has a name of its own: books take one that comes
/// twice for one that never went.
pub(super) struct Source {
    env: SeededEnv,
    made_of: Arc<Template>,
}

impl Source {
    pub(super) fn new() -> Result<Self> {
        let template = Template::new(TemplateId::parse("default")?, "memory", VmSpec::default());
        Ok(Self { env: SeededEnv::new(SEED), made_of: Arc::new(template) })
    }

    pub(super) fn next(&self) -> WarmVm {
        let uid = self.env.uid();
        let (vm_id, made_of) = (VmId::warm(uid), Arc::clone(&self.made_of));
        WarmVm { vm_id, uid, ready_at: Duration::ZERO, made_of }
    }
}

/// Bounds of books that should have `target` VMs, and are held back by nothing.
pub(super) const fn bounds(target: usize) -> Bounds {
    Bounds {
        target,
        max_parallel_restores: usize::MAX,
        max_waiting: usize::MAX,
        max_warm_age: Some(Duration::from_secs(24 * 3600)),
        most: usize::MAX,
        max_surge: 1,
    }
}

/// Books that are full.
pub(super) struct Books {
    ledger: Ledger<()>,
    source: Source,
    tenant: Tenant,
    now: Duration,
}

impl Books {
    pub(super) fn new(vms: usize) -> Result<Self> {
        let (source, now) = (Source::new()?, Duration::ZERO);
        let mut ledger = Ledger::new(bounds(vms), Floors::default(), now);
        (0..vms).for_each(|_| drop(ledger.adopt(source.next())));
        Ok(Self { ledger, source, tenant: Tenant::anonymous(), now })
    }

    /// A warm VM is claimed, reserved and committed; `fresh` is restored in its place.
    fn cycle(&mut self, fresh: WarmVm) {
        self.now += STEP;
        let Self { ledger, tenant, now, .. } = self;
        ledger.demand().claimed(*now);
        let vm = ledger.reserve(tenant, *now).vm.expect("the books are full");
        assert!(ledger.commit(&vm.vm_id), "nothing has died");
        assert!(ledger.begin_restore(fresh.vm_id.clone(), *now), "one is missing");
        let settled = ledger.restored(WarmVm { ready_at: *now, ..fresh }, *now);
        assert!(matches!(black_box(settled), Settled::Warm), "nobody waits");
    }
}

impl Fixture for Books {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let count = most.min(AT_ONCE);
        let mut fresh: Vec<_> = (0..count).map(|_| self.source.next()).collect();
        meter.measure(&mut || fresh.drain(..).for_each(|vm| self.cycle(vm)));
        Ok(count)
    }
}

/// Books that have nothing warm, and a line in which each tenant waits once.
pub(super) struct Line {
    ledger: Ledger<usize>,
    tenants: Vec<Tenant>,
    vm: WarmVm,
    now: Duration,
}

impl Line {
    pub(super) fn new(tenants: usize) -> Result<Self> {
        let tenants: Vec<_> = (0..tenants).map(|it| Tenant::new(&format!("tenant-{it}"))).collect();
        let mut ledger = Ledger::new(bounds(0), Floors::default(), Duration::ZERO);
        for (number, tenant) in tenants.iter().enumerate() {
            let stands = ledger.wait(tenant, 1, true, number);
            stands.map_err(|_| "the line is full")?;
        }
        let vm = Source::new()?.next();
        Ok(Self { ledger, tenants, vm, now: Duration::ZERO })
    }

    pub(super) fn fixture(mut self) -> Box<dyn Fixture> {
        repeat(move || self.turn())
    }

    /// A VM is restored for whoever is next, who then stands in line again.
    fn turn(&mut self) {
        self.now += STEP;
        let Self { ledger, tenants, vm, now } = self;
        assert!(ledger.begin_restore(vm.vm_id.clone(), *now), "somebody waits");
        let Settled::Serves(number, served) = ledger.restored(vm.clone(), *now) else {
            panic!("somebody waits");
        };
        assert!(ledger.commit(&served.vm_id), "nothing has died");
        assert!(black_box(ledger.wait(&tenants[number], 1, true, number)).is_ok(), "there is room");
    }
}
