//! What a start finds after `kill -9`: the VMs live on, the journal has the last word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adoption;
#[path = "../common/mod.rs"]
mod common;
mod counts;
mod leases;
mod orphans;
mod reboot;
mod shutdown;

use common::Host;
use hearth_pool::env::SystemEnv;
use hearth_pool::journal::{Journal, LeaseRecord};

/// Changes the journal as a crash at that moment would have left it.
fn journal(host: &Host, change: impl FnOnce(&Journal)) {
    let journal = Journal::open(&host.dir.path().join("journal"), &SystemEnv).unwrap();
    change(&journal);
}

fn only_lease(journal: &Journal) -> LeaseRecord {
    let mut leases = journal.leases().unwrap();
    assert_eq!(leases.len(), 1);
    leases.remove(0)
}
