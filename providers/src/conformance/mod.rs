//! The contract as executable cases, run on every adapter and on every wrapper.
//!
//! A case is a plain function over a provider: [`Scene`] is the provider (it dereferences to
//! `dyn VmRuntime`) with names of the case's own and a few ways to come by a VM in some status.
//! A case that the provider's capabilities exclude is *unsupported*, never passed. What a test
//! has to bring is a [`Fixture`].
//!
//! Cases run in parallel on one provider. Each looks only at VMs of its own names, and after
//! each of them these are destroyed and must be gone: nothing may be left behind. VMs mostly
//! start from one template that all cases share, since a restore is cheaper than a boot.
//!
//! Nothing is judged by how long it took. Waits poll a condition, and a case that does not end
//! within the fixture's patience fails by its name.

mod case;
mod deaths;
mod fixture;
mod guests;
mod held;
mod memory;
mod names;
mod outcome;
mod pins;
mod processes;
mod races;
mod refusals;
mod restores;
mod scene;
mod slow;
mod sources;
mod specs;
#[cfg(target_os = "linux")]
mod stopped;
mod table;

use std::sync::Arc;

pub use case::{Case, Verdict};
pub use fixture::{Effort, Fixture, Template};
pub use held::{Gate, Held, HeldMachine, Hold, Holder};
pub use outcome::{Broken, Outcome};
pub use scene::{Scene, Vm};
#[cfg(target_os = "linux")]
pub use stopped::ProcessHolder;

/// A case and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The case's name.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

/// Every case, grouped by theme.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        table::CASES,
        specs::CASES,
        refusals::CASES,
        names::CASES,
        restores::CASES,
        sources::CASES,
        pins::CASES,
        guests::CASES,
        deaths::CASES,
        processes::CASES,
        slow::CASES,
        races::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs every case, one after another. Blocks.
pub fn run(fixture: &Arc<Fixture>) -> Vec<CaseResult> {
    cases().map(|case| CaseResult { name: case.name, verdict: case.run(fixture) }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: HashSet<_> = cases().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().count());
    }
}
