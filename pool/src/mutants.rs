//! Faults of this crate, one line each, of which a test may select one: what proves that the
//! simulation's checker would find such a fault.
//!
//! A release build has none of them. Nothing but a test's own program selects one, and once
//! selected it stays for as long as that program runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::lease::Lease;
use crate::ledger::WarmVm;

static SELECTED: OnceLock<Mutant> = OnceLock::new();

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A warm VM that is reserved stays in line for the next caller.
    DoublePop,
    /// A warm VM is renamed first, and its lease is appended then.
    RenameBeforeAppend,
    /// A VM that comes in wakes nobody who waits.
    LostWakeUp,
    /// Leases that are due are not ended.
    MissingExpiry,
    /// A request that succeeded is forgotten.
    ForgottenReplay,
    /// A restart forgets which requests were made.
    ForgottenRequest,
    /// A released VM is warm again.
    ReleaseToPool,
    /// A release is answered and not written.
    UnwrittenRelease,
    /// A renewal is answered and not written.
    UnwrittenRenewal,
    /// A restart takes warm VMs up without asking them.
    AdoptUnprobed,
    /// A restart leaves a leased VM under its pool's name.
    NotRolledForward,
    /// What was reserved for a caller that left is not given back.
    LeakedReservation,
    /// Warm VMs of the generation before stay.
    OldGeneration,
    /// While a generation rolls in its VMs are handed out before those of the one before.
    NewBeforeOld,
    /// Warm VMs get as old as they like.
    OverAge,
    /// A warm VM that died stays in line.
    DeadHandedOut,
    /// A VM of a paused pool is handed out as it is.
    ForgottenResume,
    /// The VM of a handover that failed is left.
    AbortedLeft,
    /// The end of a VM frees its name once more, whoever has it by then.
    NameFreedTwice,
    /// What is to be destroyed is whatever has the name by then.
    DestroyedByName,
    /// As many restores run at once as VMs are missing.
    UnboundedRestores,
}

impl Mutant {
    /// Every one.
    pub const ALL: [Self; 21] = [
        Self::DoublePop,
        Self::RenameBeforeAppend,
        Self::LostWakeUp,
        Self::MissingExpiry,
        Self::ForgottenReplay,
        Self::ForgottenRequest,
        Self::ReleaseToPool,
        Self::UnwrittenRelease,
        Self::UnwrittenRenewal,
        Self::AdoptUnprobed,
        Self::NotRolledForward,
        Self::LeakedReservation,
        Self::OldGeneration,
        Self::NewBeforeOld,
        Self::OverAge,
        Self::DeadHandedOut,
        Self::ForgottenResume,
        Self::AbortedLeft,
        Self::NameFreedTwice,
        Self::DestroyedByName,
        Self::UnboundedRestores,
    ];
}

/// Has this process act with the fault `mutant` from now on; only the first call counts. In a
/// release build it changes nothing.
pub fn select(mutant: Mutant) {
    let _ = SELECTED.set(mutant);
}

/// Whether this fault was selected: false, and known to be, in a release build.
#[inline]
pub(crate) fn is(mutant: Mutant) -> bool {
    cfg!(debug_assertions) && SELECTED.get() == Some(&mutant)
}

/// What [`Mutant::ReleaseToPool`] does.
pub(crate) fn warm_again(lease: &Arc<Lease>, ready_at: Duration) {
    let Some(pool) = &lease.pool else { return };
    let (vm_id, made_of) = (lease.pool_vm_id.clone(), pool.template());
    let vm = WarmVm { vm_id, uid: lease.uid, ready_at, made_of };
    let settled = pool.ledger.lock().adopt(vm);
    pool.settle(settled);
}
