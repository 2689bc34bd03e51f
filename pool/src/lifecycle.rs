//! The life of one VM as the pool sees it.
//!
//! ```text
//!  Restoring ─Probed─► Warm ─Reserved─► Reserved ─Appended─► Committed ─HandedOver─► Leased
//!      │                ▲  │               │  │                  │                     │
//!      │                └──┼───Dropped─────┘  │                Aborted              Released
//!      │                Retired            Retired               │                     │
//!      │                   └───────────────┴────────► Releasing ◄┴─────────────────────┘
//!      └──Died, and from every live state──► Failed ─Retired/Released─► Releasing ─Destroyed─► Gone
//! ```
//!
//! Invariants: nothing leads from Committed or Leased back to Warm (a VM that may have run
//! tenant code is never warm again); nothing leads out of Gone; Leased is reached through
//! Committed alone, which is the journal append. There is no `_` arm.

/// Where a VM stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmState {
    /// Being made from a snapshot.
    Restoring,
    /// Probed, and waiting for a tenant.
    Warm,
    /// Held for one caller; nothing has been promised.
    Reserved,
    /// The journal has the lease: it is the tenant's, though not yet by name.
    Committed,
    /// The tenant has it.
    Leased,
    /// On its way out.
    Releasing,
    /// It ended by itself.
    Failed,
    /// Nothing of it is left.
    Gone,
}

/// What happens to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmEvent {
    /// It answered its probe.
    Probed,
    /// A caller was found for it.
    Reserved,
    /// That caller left.
    Dropped,
    /// The journal has the lease.
    Appended,
    /// It carries the tenant's name.
    HandedOver,
    /// The handover failed after the append.
    Aborted,
    /// Its lease ended: by the tenant, or by time.
    Released,
    /// The pool wants it no longer: too old, too many, the wrong generation.
    Retired,
    /// It ended by itself.
    Died,
    /// The provider has destroyed it.
    Destroyed,
}

impl VmState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Restoring,
        Self::Warm,
        Self::Reserved,
        Self::Committed,
        Self::Leased,
        Self::Releasing,
        Self::Failed,
        Self::Gone,
    ];

    /// The state after `event`; `None` where it cannot happen.
    pub const fn next(self, event: VmEvent) -> Option<Self> {
        use {VmEvent as E, VmState as S};
        match (self, event) {
            (S::Restoring, E::Probed) => Some(S::Warm),
            (S::Restoring, E::Retired) => Some(S::Releasing),
            (S::Restoring, E::Died) => Some(S::Failed),
            (
                S::Restoring,
                E::Reserved | E::Dropped | E::Appended | E::HandedOver | E::Aborted | E::Released,
            )
            | (S::Restoring, E::Destroyed) => None,

            (S::Warm, E::Reserved) => Some(S::Reserved),
            (S::Warm, E::Retired) => Some(S::Releasing),
            (S::Warm, E::Died) => Some(S::Failed),
            (
                S::Warm,
                E::Probed | E::Dropped | E::Appended | E::HandedOver | E::Aborted | E::Released,
            )
            | (S::Warm, E::Destroyed) => None,

            (S::Reserved, E::Dropped) => Some(S::Warm),
            (S::Reserved, E::Appended) => Some(S::Committed),
            (S::Reserved, E::Retired) => Some(S::Releasing),
            (S::Reserved, E::Died) => Some(S::Failed),
            (
                S::Reserved,
                E::Probed | E::Reserved | E::HandedOver | E::Aborted | E::Released | E::Destroyed,
            ) => None,

            (S::Committed, E::HandedOver) => Some(S::Leased),
            (S::Committed, E::Aborted) => Some(S::Releasing),
            (S::Committed, E::Died) => Some(S::Failed),
            (
                S::Committed,
                E::Probed | E::Reserved | E::Dropped | E::Appended | E::Released | E::Retired,
            )
            | (S::Committed, E::Destroyed) => None,

            (S::Leased, E::Released) => Some(S::Releasing),
            (S::Leased, E::Died) => Some(S::Failed),
            (
                S::Leased,
                E::Probed | E::Reserved | E::Dropped | E::Appended | E::HandedOver | E::Aborted,
            )
            | (S::Leased, E::Retired | E::Destroyed) => None,

            (S::Failed, E::Released | E::Retired | E::Aborted) => Some(S::Releasing),
            (
                S::Failed,
                E::Probed | E::Reserved | E::Dropped | E::Appended | E::HandedOver | E::Died,
            )
            | (S::Failed, E::Destroyed) => None,

            (S::Releasing, E::Destroyed) => Some(S::Gone),
            // It may die, be released again, or fall due while it is on its way out: no news.
            (S::Releasing, E::Died | E::Released | E::Retired) => Some(S::Releasing),
            (
                S::Releasing,
                E::Probed | E::Reserved | E::Dropped | E::Appended | E::HandedOver | E::Aborted,
            ) => None,

            (
                S::Gone,
                E::Probed | E::Reserved | E::Dropped | E::Appended | E::HandedOver | E::Aborted,
            )
            | (S::Gone, E::Released | E::Retired | E::Died | E::Destroyed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [VmEvent; 10] = [
        VmEvent::Probed,
        VmEvent::Reserved,
        VmEvent::Dropped,
        VmEvent::Appended,
        VmEvent::HandedOver,
        VmEvent::Aborted,
        VmEvent::Released,
        VmEvent::Retired,
        VmEvent::Died,
        VmEvent::Destroyed,
    ];

    proptest! {
        #[test]
        fn a_vm_that_was_committed_is_never_warm_again(picks in prop::collection::vec(0..10_usize, 1..60)) {
            let mut state = VmState::Restoring;
            let mut committed = false;
            for pick in picks {
                let Some(next) = state.next(EVENTS[pick]) else { continue };
                state = next;
                committed |= state == VmState::Committed;
                prop_assert!(!(committed && matches!(state, VmState::Warm | VmState::Reserved)));
                prop_assert!(committed || state != VmState::Leased, "leased without an append");
            }
        }
    }

    #[test]
    fn every_state_but_gone_has_a_way_out() {
        for state in VmState::ALL {
            let leads_on = EVENTS.iter().filter_map(|event| state.next(*event));
            let leaves = leads_on.into_iter().any(|next| next != state);
            assert_eq!(leaves, state != VmState::Gone, "{state:?}");
        }
    }
}
