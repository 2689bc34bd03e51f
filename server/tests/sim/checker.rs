//! Reads a history, and nothing else, and finds what must not be in it.
//!
//! | invariant | here |
//! |---|---|
//! | 1: no VM to two tenants | an answered uid belongs to one tenant and one request for ever; nobody sees another's |
//! | 2: no VM leaks | settled, the provider has the warm and the leased; released, it has nothing; swept, no artifact's snapshot either |
//! | 3: no answered acquire is lost | a VM is neither taken nor unknown while its lease lives, nor an artifact before it is deleted; a request id stands for one VM; a rename that is done is kept ([`crate::kept`]) |
//! | 4: nothing that is not ready | at the rename: probed in this life, alive, young, of this generation, never a tenant's |
//! | 5: VMs outlive the service | as 3, across every crash |
//! | 6: bounds | callers in line, restores, jobs of a class, the time until an answer; nobody waits beside a warm VM, and no newcomer is served first ([`crate::line`]) |

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_providers::{Uid, VmId};

use crate::claims::Claims;
use crate::counts::Counts;
use crate::frozen::Artifacts;
use crate::history::{Answer, Ask, CallId, Event, What, Who};
use crate::kept::Kept;
use crate::line::Line;
use crate::operator::MAX_PARALLEL_RESTORES;
use crate::truth::Truth;
use crate::weather::limits;

/// The longest that any call may take; a retry waits for the call before it.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(60);

/// What must not have happened, and after which event.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) event: usize,
    pub(crate) why: String,
}

/// Reads `history`.
///
/// # Errors
/// The first violation.
pub(crate) fn check(history: &[Event]) -> Result<Counts, Violation> {
    let mut checker = Checker::default();
    for (event, Event { at, what }) in history.iter().enumerate() {
        checker.next(*at, what).map_err(|why| Violation { event, why })?;
    }
    let is_whole = matches!(history.last(), Some(Event { what: What::Swept(..), .. }));
    if !is_whole {
        let why = "the run did not come to its end".to_owned();
        return Err(Violation { event: history.len().saturating_sub(1), why });
    }
    checker.counts.expiries = checker.claims.expiries;
    Ok(checker.counts)
}

/// A call that has no answer yet.
pub(crate) struct Open {
    pub(crate) at: Duration,
    pub(crate) who: Who,
    pub(crate) ask: Ask,
    /// The generation of the template then.
    pub(crate) generation: i64,
}

#[derive(Default)]
struct Checker {
    truth: Truth,
    claims: Claims,
    artifacts: Artifacts,
    kept: Kept,
    line: Line,
    open: BTreeMap<CallId, Open>,
    jobs: BTreeMap<&'static str, Vec<Duration>>,
    counts: Counts,
    target: usize,
}

impl Checker {
    fn next(&mut self, at: Duration, what: &What) -> Result<(), String> {
        self.counts.note(what);
        self.line.pass(at)?;
        match what {
            What::Panicked(why) => return Err(format!("a panic: {why}")),
            What::Life(_) => self.claims.recovers(at, true),
            What::Crash(_) | What::Quiet => {
                let open = std::mem::take(&mut self.open);
                open.into_values().try_for_each(|call| self.unanswered(at, call))?;
                self.line.clear();
                if matches!(what, What::Crash(_)) {
                    self.jobs.clear();
                    self.kept.crashed(at);
                }
            }
            What::Rebooted => {
                self.claims.rebooted(at);
                self.kept = Kept::default();
            }
            What::Stepped(seconds) => {
                self.claims.stepped(at, *seconds);
                if !self.truth.is_serving {
                    self.claims.recovers(at, false);
                }
            }
            What::Leave(call) => {
                self.line.ended(*call);
                if let Some(call) = self.open.remove(call) {
                    self.unanswered(at, call)?;
                }
            }
            What::Ask(call, who, ask) => {
                self.claims.asked(at, *who, ask);
                self.artifacts.asked(ask);
                self.kept.asked(&self.truth, *who, ask);
                self.line.asked(at, *call, *who, ask, self.truth.is_paused);
                let (who, ask) = (*who, ask.clone());
                // Where a new generation rolls in the truth looks at the order alone.
                let generation = if self.truth.is_rolling { 0 } else { self.truth.generation };
                self.open.insert(*call, Open { at, who, ask, generation });
            }
            What::Answer(id, answer) => {
                self.line.answered(at, *id, answer);
                let Some(call) = self.open.remove(id) else { return Ok(()) };
                self.in_time(at, &call)?;
                self.answered(at, &call, answer)?;
            }
            What::Failed { verb, vm_id, .. } => {
                self.line.disturbed(at);
                self.kept.failed(verb, vm_id.as_ref());
            }
            What::Died { .. } => self.line.disturbed(at),
            What::Handed { uid, to } if self.truth.is_serving => {
                self.kept.handed(at, *uid, to, self.truth.is_paused, self.open.values());
            }
            What::Job { class, until } => self.job(at, class, *until)?,
            What::Settled(vms) => {
                self.same_as_truth(vms)?;
                self.claims.settled(at, &self.truth, self.target)?;
                self.kept.settled(at, &self.claims)?;
            }
            What::Emptied(vms) if !vms.is_empty() => {
                return Err(format!("everything was released, and these are left: {vms:?}"));
            }
            What::Swept(vms, snapshots) => {
                if !vms.is_empty() {
                    return Err(format!("a start finds, or makes, what nobody wants: {vms:?}"));
                }
                self.artifacts.swept(snapshots)?;
            }
            What::Destroyed { uid, .. } => self.taken(at, *uid)?,
            What::Renamed { uid, from, to } if to.is_pools_own() && !from.is_pools_own() => {
                self.taken(at, *uid)?;
            }
            _ => {}
        }
        self.truth.follow(at, what)
    }

    fn taken(&mut self, at: Duration, uid: Uid) -> Result<(), String> {
        self.claims.taken(at, uid)?;
        self.kept.taken(at, uid)
    }

    fn unanswered(&mut self, at: Duration, call: Open) -> Result<(), String> {
        self.in_time(at, &call)?;
        self.claims.unanswered(at, call);
        Ok(())
    }

    fn in_time(&self, at: Duration, call: &Open) -> Result<(), String> {
        match at - call.at > LONGEST_CALL {
            true => Err(format!("{:?} took {:?}", call.ask, at - call.at)),
            false => Ok(()),
        }
    }

    fn answered(&mut self, at: Duration, call: &Open, answer: &Answer) -> Result<(), String> {
        match answer {
            Answer::Nonsense(why) => return Err(format!("no answer of this API: {why}")),
            Answer::Built(generation) => self.truth.generation = *generation,
            Answer::Status { waiting, restoring, target, warm } => {
                self.target = *target;
                if *waiting > limits().max_waiting || *restoring > MAX_PARALLEL_RESTORES {
                    return Err(format!("out of bounds: {answer:?}"));
                }
                if *waiting > 0 && *warm > 0 {
                    return Err(format!("callers wait beside a warm VM: {answer:?}"));
                }
            }
            Answer::Got { .. } => self.counts.got(&call.ask, answer),
            Answer::Refused { allocated: None, reason } if matches!(call.ask, Ask::Acquire(_)) => {
                return Err(format!("{reason} does not say whether a VM is left"));
            }
            _ => {}
        }
        self.artifacts.answered(call, answer)?;
        self.claims.answered(at, &self.truth, call, answer)
    }

    fn job(&mut self, at: Duration, class: &'static str, until: Duration) -> Result<(), String> {
        let places = limits().places();
        let bound = match class {
            "restore" => places.restore,
            "destroy" => places.destroy,
            "verb" => places.verb,
            "build" => places.build,
            _ => places.export,
        };
        let jobs = self.jobs.entry(class).or_default();
        jobs.retain(|until| *until > at);
        jobs.push(until);
        match jobs.len() > bound {
            true => Err(format!("{} jobs of the class {class} at once", jobs.len())),
            false => Ok(()),
        }
    }

    /// The record of what was done explains what there is.
    fn same_as_truth(&self, vms: &[(VmId, Uid)]) -> Result<(), String> {
        match self.truth.list() == vms {
            true => Ok(()),
            false => Err(format!("the provider has {vms:?}; done was {:?}", self.truth.list())),
        }
    }
}
