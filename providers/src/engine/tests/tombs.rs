//! What is remembered of the destroyed, and for how long.

use super::*;
use crate::engine::tombstones::{MAX_REMEMBERED, REMEMBERED_FOR};

#[test]
fn the_destroyed_are_remembered_up_to_a_number() {
    let provider = MemoryBackend::provider("memory", seeded());
    let uids: Vec<_> = (0..MAX_REMEMBERED + 10)
        .map(|number| {
            let vm_id = format!("vm-{number}");
            provider.create_vm(&id(&vm_id)).unwrap();
            let uid = uid_of(&provider, &vm_id);
            provider.destroy_vm(&id(&vm_id)).unwrap();
            uid
        })
        .collect();
    let remembered = uids.iter().filter(|uid| provider.get_vm_by_uid(**uid).is_some()).count();
    assert!((MAX_REMEMBERED - 1..=MAX_REMEMBERED).contains(&remembered), "{remembered}");
    assert_eq!(provider.get_vm(&id("vm-0")), None, "the oldest are forgotten first");
    assert!(provider.get_vm_by_uid(uids[MAX_REMEMBERED + 9]).is_some());
}

#[test]
fn the_destroyed_are_remembered_for_a_time() {
    let env = seeded();
    let provider = MemoryBackend::provider("memory", Arc::clone(&env) as Arc<dyn Env>);
    provider.create_vm(&id("vm")).unwrap();
    let uid = uid_of(&provider, "vm");
    provider.destroy_vm(&id("vm")).unwrap();
    env.step_wall_clock(REMEMBERED_FOR * 2);
    env.advance(REMEMBERED_FOR - Duration::from_secs(1));
    assert_eq!(provider.status(&id("vm")), Some(VmStatus::Destroyed));
    assert_eq!(provider.start_vm(&id("vm")).unwrap_err().kind(), "invalid_transition");
    env.advance(Duration::from_secs(1));
    assert_eq!(provider.get_vm(&id("vm")), None);
    assert_eq!(provider.get_vm_by_uid(uid), None);
    assert_eq!(provider.start_vm(&id("vm")).unwrap_err().kind(), "not_found");
}

#[test]
fn a_forgotten_holder_of_a_name_takes_nothing_from_the_next() {
    let env = seeded();
    let provider = MemoryBackend::provider("memory", Arc::clone(&env) as Arc<dyn Env>);
    provider.create_vm(&id("vm")).unwrap();
    provider.destroy_vm(&id("vm")).unwrap();
    env.advance(REMEMBERED_FOR / 2);
    provider.create_vm(&id("vm")).unwrap();
    let second = uid_of(&provider, "vm");
    provider.destroy_vm(&id("vm")).unwrap();
    env.advance(REMEMBERED_FOR / 2);
    assert_eq!(provider.get_vm(&id("vm")).map(|vm| vm.uid), Some(second));
}
