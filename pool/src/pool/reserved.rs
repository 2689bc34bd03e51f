//! A warm VM between the books and its tenant.

use std::sync::Arc;

use hearth_providers::model::VmStatus;

use super::Pool;
use crate::ledger::WarmVm;
use crate::mutants::{self, Mutant};

/// A warm VM held for one caller; dropped, it goes back to the pool or to the next in line.
#[derive(Debug)]
pub(crate) struct Reserved {
    pool: Arc<Pool>,
    vm: Option<WarmVm>,
}

impl Reserved {
    /// Holds what the books have just reserved.
    pub(crate) fn new(pool: &Arc<Pool>, vm: WarmVm) -> Self {
        Self { pool: Arc::clone(pool), vm: Some(vm) }
    }

    /// Takes it over: whoever calls brings it back to the books.
    pub(crate) fn take(mut self) -> Option<WarmVm> {
        self.vm.take()
    }

    /// Takes the VM out of the books, to be promised. `None` when it has died: it is destroyed.
    pub(crate) fn commit(mut self) -> Option<WarmVm> {
        let vm = self.vm.take()?;
        let alive = matches!(
            self.pool.provider.runtime.status(&vm.vm_id),
            Some(VmStatus::Running | VmStatus::Stopped)
        );
        let alive = alive || mutants::is(Mutant::DeadHandedOut);
        if self.pool.ledger.lock().commit(&vm.vm_id) && alive {
            return Some(vm);
        }
        self.pool.discard([vm], "died");
        self.pool.bell.notify_one();
        None
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(vm) = self.vm.take()
            && !mutants::is(Mutant::LeakedReservation)
        {
            let now = self.pool.env.boot_time();
            let settled = self.pool.ledger.lock().give_back(&vm.vm_id, now);
            settled.into_iter().for_each(|settled| self.pool.settle(settled));
        }
    }
}
