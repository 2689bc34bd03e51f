//! Histories that were tampered with: what the checker is for is found in each.

use std::time::Duration;

use hearth_providers::VmId;

use crate::checker::check;
use crate::history::{Answer, Event, What, Who};
use crate::world;

/// One way to tamper; false when there was nothing to tamper with.
type Forge = fn(&mut Vec<Event>) -> bool;

const FORGERIES: [(&str, Forge); 7] = [
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
            What::Answer(_, Answer::Got { replayed: false, vm_id, uid, .. }) => {
                Some((vm_id.clone(), *uid))
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
        let (Some((_, uid)), Some(last)) = (find(events, made), events.last_mut()) else {
            return false;
        };
        let What::Emptied(left) = &mut last.what else { return false };
        left.extend(VmId::parse("left").map(|vm_id| (vm_id, uid)));
        true
    }),
    ("a call takes for ever", |events| {
        let answered = |event: &Event| matches!(event.what, What::Answer(..)).then_some(());
        let Some((place, ())) = find(events, answered) else { return false };
        events[place].at += Duration::from_secs(3600);
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

/// Tampers with the history of one seed in every way.
///
/// # Errors
/// What was not found, or could not be done.
pub(crate) fn all_are_found() -> Result<(), String> {
    let (history, _) = world::run(0);
    check(&history).map_err(|violation| violation.why)?;
    for (what, forge) in FORGERIES {
        let mut forged = history.clone();
        if !forge(&mut forged) {
            return Err(format!("nothing to tamper with: {what}"));
        }
        if check(&forged).is_ok() {
            return Err(format!("not found: {what}"));
        }
    }
    Ok(())
}
