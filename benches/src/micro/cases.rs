//! The list of cases. To add one is to add one entry here.

use super::export::Seen;
use super::ledger::{Books, Line};
use super::node::{Names, Node, Size};
use super::parts::Parts;
use super::refill::Refill;
use super::{Fixture, Result, journal, metrics, sizing, wire};

/// A case: what is measured, under a name.
pub struct Case {
    /// `<what>/<operation>`, and what its cost could depend on.
    pub name: String,
    /// It is counted, too: so small that it can be set up where everything takes fifty times as long.
    pub is_counted: bool,
    /// Sets it up. May block, for seconds where there are many VMs.
    pub set_up: Box<dyn Fn() -> Result<Box<dyn Fixture>>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    fn new<F>(name: impl Into<String>, set_up: F) -> Self
    where
        F: Fn() -> Result<Box<dyn Fixture>> + 'static,
    {
        Self { name: name.into(), is_counted: true, set_up: Box::new(set_up) }
    }

    fn counted_if(self, is_counted: bool) -> Self {
        Self { is_counted, ..self }
    }
}

/// No more VMs than this are set up to be counted.
const COUNTED_VMS: usize = 1_000;
/// No more pools either.
const COUNTED_POOLS: usize = 100;

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = vec![
        Case::new("decode/acquire_request", || Ok(wire::decode_request())),
        Case::new("encode/acquire_response", || Ok(wire::encode_response())),
        Case::new("metrics/acquire_failed", metrics::acquire_failed),
        Case::new("journal/write_lease", || Ok(Box::new(journal::Append::new()?))),
    ];
    for pools in [1, 1_000] {
        let name = format!("metrics/acquired/pools_{pools}");
        cases.push(Case::new(name, move || metrics::acquired(pools)));
        let name = format!("metrics/scrape/pools_{pools}");
        cases.push(Case::new(name, move || metrics::scrape(pools)).counted_if(pools == 1));
    }
    for load in [1, 100, 10_000] {
        let name = format!("sizing/depth_for/load_{load}");
        cases.push(Case::new(name, move || Ok(sizing::depth_for(f64::from(load)))));
        let name = format!("sizing/claim_and_depth/load_{load}");
        cases.push(Case::new(name, move || Ok(sizing::claim_and_depth(load))));
    }
    for vms in [10, 1_000, 100_000] {
        let is_counted = vms <= COUNTED_VMS;
        let name = format!("ledger/cycle/vms_{vms}");
        let set_up = move || -> Result<Box<dyn Fixture>> { Ok(Box::new(Books::new(vms)?)) };
        cases.push(Case::new(name, set_up).counted_if(is_counted));
        let name = format!("acquire/memory/vms_{vms}");
        let set_up = move || -> Result<Box<dyn Fixture>> { Ok(Box::new(Parts::in_memory(vms)?)) };
        cases.push(Case::new(name, set_up).counted_if(is_counted));
        let name = format!("acquire/memory_directory/vms_{vms}");
        let set_up = move || -> Result<Box<dyn Fixture>> { Ok(Box::new(Parts::on_disk(vms)?)) };
        cases.push(Case::new(name, set_up).counted_if(is_counted));
    }
    for tenants in [1, 100] {
        let name = format!("ledger/line/tenants_{tenants}");
        cases.push(Case::new(name, move || Ok(Line::new(tenants)?.fixture())));
    }
    for pools in [1, 100, 1_000] {
        let name = format!("refill/step/pools_{pools}");
        let set_up = move || -> Result<Box<dyn Fixture>> { Ok(Box::new(Refill::new(pools)?)) };
        cases.push(Case::new(name, set_up).counted_if(pools <= COUNTED_POOLS));
    }
    for (pools, vms) in [(1, 10), (1, 1_000), (1, 100_000), (100, 1_000), (1_000, 10_000)] {
        let is_counted = pools <= COUNTED_POOLS && vms <= COUNTED_VMS;
        let name = format!("acquire/memory_directory_journal/pools_{pools}/vms_{vms}");
        let size = Size { pools, depth: vms / pools };
        let set_up =
            move || -> Result<Box<dyn Fixture>> { Ok(Box::new(Node::start(size, Names::OnDisk)?)) };
        cases.push(Case::new(name, set_up).counted_if(is_counted));
    }
    let size = Size { pools: 1, depth: 1_000 };
    let in_memory = Case::new("acquire/memory_journal/pools_1/vms_1000", move || {
        Ok(Box::new(Node::start(size, Names::InMemory)?))
    });
    // Counted, it would say nothing that the one with a directory does not.
    cases.push(in_memory.counted_if(false));
    let size = Size { pools: 1, depth: 200 };
    for (name, is_exported) in [("not_exported", false), ("exported", true)] {
        cases.push(Case::new(format!("spans/{name}/acquire"), move || {
            Ok(Box::new(Seen::start(size, is_exported)?))
        }));
    }
    cases
}
