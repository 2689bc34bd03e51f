//! Histories that were tampered with: what the checker is for is found in each.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_proto::v1;
use hearth_providers::VmId;

use crate::checker::check;
use crate::history::{AcquireAsk, Answer, Ask, Event, What, Who};
use crate::world;

/// One way to tamper; false when there was nothing to tamper with.
type Forge = fn(&mut Vec<Event>) -> bool;

/// In how many histories something to tamper with is looked for.
const SEEDS: u64 = 12;

const FORGERIES: [(&str, Forge); 12] = [
    ("a VM is answered to another tenant, too", |events| {
        let got = |event: &Event| match &event.what {
            What::Answer(call, Answer::Got { replayed: false, .. }) => Some(*call),
            _ => None,
        };
        let Some((place, call)) = find(events, got) else { return false };
        let again = events[place].what.clone();
        let asked = |event: &Event| match &event.what {
            What::Ask(of, Who::Tenant(who), ask) if *of == call => Some((*who, ask.clone())),
            _ => None,
        };
        let Some((_, (who, ask))) = find(events, asked) else { return false };
        let other = u64::MAX;
        let What::Answer(_, answer) = again else { return false };
        insert(events, place + 1, What::Ask(other, Who::Tenant(who + 1), ask));
        insert(events, place + 2, What::Answer(other, answer));
        true
    }),
    ("VMs are not probed", |events| {
        let before = events.len();
        events.retain(|event| !matches!(event.what, What::Probed { .. }));
        events.len() < before
    }),
    ("a leased VM is destroyed", |events| {
        let got = |event: &Event| match &event.what {
            What::Answer(_, Answer::Got { replayed: false, vm, .. }) => {
                Some((vm.vm_id.clone(), vm.uid))
            }
            _ => None,
        };
        let Some((place, (vm_id, uid))) = find(events, got) else { return false };
        insert(events, place + 1, What::Destroyed { uid, vm_id });
        true
    }),
    ("a VM is dead when it is handed out", |events| {
        let renamed = |event: &Event| match &event.what {
            What::Renamed { uid, from, to } if from.is_pools_own() && !to.is_pools_own() => {
                Some(*uid)
            }
            _ => None,
        };
        let Some((place, uid)) = find(events, renamed) else { return false };
        insert(events, place, What::Died { uid });
        true
    }),
    ("a VM is of an old generation", |events| {
        for event in events.iter_mut() {
            if let What::Answer(_, Answer::Built(generation)) = &mut event.what {
                *generation += 1;
                return true;
            }
        }
        false
    }),
    ("a VM is left", |events| {
        let made = |event: &Event| match &event.what {
            What::Made { uid, .. } => Some(*uid),
            _ => None,
        };
        let Some((_, uid)) = find(events, made) else { return false };
        let emptied = events.iter_mut().find_map(|event| match &mut event.what {
            What::Emptied(left) => Some(left),
            _ => None,
        });
        let Some(left) = emptied else { return false };
        left.extend(VmId::parse("left").map(|vm_id| (vm_id, uid)));
        true
    }),
    ("a call takes for ever", |events| {
        let answered = |event: &Event| matches!(event.what, What::Answer(..)).then_some(());
        let Some((place, ())) = find(events, answered) else { return false };
        events[place].at += Duration::from_secs(3600);
        true
    }),
    ("callers wait beside a warm VM", |events| {
        for event in events.iter_mut() {
            if let What::Answer(_, Answer::Status { waiting, warm: 1.., .. }) = &mut event.what {
                *waiting += 1;
                return true;
            }
        }
        false
    }),
    ("an artifact is lost", |events| {
        let frozen = |event: &Event| match &event.what {
            What::Answer(_, Answer::Artifacts(artifacts)) => Some(artifacts.first()?.uid),
            _ => None,
        };
        let Some((_, uid)) = find(events, frozen) else { return false };
        for event in events.iter_mut() {
            if let What::Answer(_, Answer::Artifacts(artifacts)) = &mut event.what {
                artifacts.retain(|artifact| artifact.uid != uid);
            }
        }
        true
    }),
    ("a VM is taken that was committed, and that nobody heard of", |events| {
        let handed = |event: &Event| match &event.what {
            What::Handed { uid, to } if !to.as_str().starts_with("vm-") => Some((*uid, to.clone())),
            _ => None,
        };
        let Some((place, (uid, vm_id))) = find(events, handed) else { return false };
        events.retain(
            |event| !matches!(&event.what, What::Answer(_, Answer::Got { vm, .. }) if vm.uid == uid),
        );
        insert(events, place + 1, What::Destroyed { uid, vm_id });
        true
    }),
    ("a VM that was adopted was not probed in this life", |events| {
        let (mut begun, mut made) = (0, BTreeMap::new());
        let mut unprobed = None;
        for (place, event) in events.iter().enumerate() {
            match &event.what {
                What::Pool { is_paused: true, .. } => return false,
                What::Life(_) => begun = place,
                What::Made { uid, .. } => drop(made.insert(*uid, place)),
                What::Handed { uid, .. } if made.get(uid).is_some_and(|made| *made < begun) => {
                    unprobed = Some((begun, *uid));
                    break;
                }
                _ => {}
            }
        }
        let Some((begun, of)) = unprobed else { return false };
        let mut place = 0;
        events.retain(|event| {
            place += 1;
            !(place > begun && matches!(&event.what, What::Probed { uid } if *uid == of))
        });
        true
    }),
    ("a newcomer barges", |events| {
        let warm = |event: &Event| match &event.what {
            What::Answer(call, Answer::Got { replayed: false, is_cold: false, .. }) => Some(*call),
            _ => None,
        };
        let Some((place, call)) = find(events, warm) else { return false };
        let asked = |event: &Event| match &event.what {
            What::Ask(of, Who::Tenant(who), ask) if *of == call => Some((*who, ask.clone())),
            _ => None,
        };
        let Some((_, (who, Ask::Acquire(ask)))) = find(events, asked) else { return false };
        let then = events[place].at;
        let Some(before) = events.iter().rposition(|event| event.at < then) else { return false };
        let waits = AcquireAsk {
            vm_id: None,
            request_id: None,
            device: None,
            overflow: v1::pool::Overflow::Wait,
            ..ask
        };
        // Numbers begin at 1.
        insert(events, before, What::Ask(0, Who::Tenant(who), Ask::Acquire(waits)));
        true
    }),
];

fn find<T>(events: &[Event], is_it: impl Fn(&Event) -> Option<T>) -> Option<(usize, T)> {
    events.iter().enumerate().find_map(|(place, event)| Some((place, is_it(event)?)))
}

fn insert(events: &mut Vec<Event>, place: usize, what: What) {
    let at = events[place.saturating_sub(1)].at;
    events.insert(place, Event { at, what });
}

/// Tampers with the history of a seed in every way; with that of the next where it has nothing to
/// tamper with, or something else explains it.
///
/// # Errors
/// What was not found, or could not be done.
pub(crate) fn all_are_found() -> Result<(), String> {
    let mut histories = Vec::new();
    for (what, forge) in FORGERIES {
        let mut is_found = false;
        for seed in 0..SEEDS {
            if histories.len() as u64 == seed {
                let (history, _) = world::run(seed);
                check(&history).map_err(|violation| violation.why)?;
                histories.push(history);
            }
            let mut forged = histories[seed as usize].clone();
            is_found = forge(&mut forged) && check(&forged).is_err();
            if is_found {
                break;
            }
        }
        if !is_found {
            return Err(format!("not found: {what}"));
        }
    }
    Ok(())
}
