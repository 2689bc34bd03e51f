//! Reads a history, and nothing else, and finds what must not be in it.
//!
//! | invariant | here |
//! |---|---|
//! | 1: no VM to two tenants | an answered uid belongs to one tenant and one request for ever |
//! | 2: no VM leaks | settled, the provider has the warm and the leased; released, it has nothing |
//! | 3: no answered acquire is lost | a VM is neither taken nor unknown while its lease lives; a request id stands for one VM |
//! | 4: nothing that is not ready | at the rename: probed, alive, young, of this generation, never a tenant's |
//! | 5: VMs outlive the service | as 3, across every crash |
//! | 6: bounds | callers in line, restores, jobs of a class, the time until an answer |

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_providers::Uid;

use crate::claims::Claims;
use crate::history::{Answer, Ask, CallId, Event, What, Who};
use crate::truth::Truth;
use crate::weather::limits;

/// The longest that any call may take; a retry waits for the call before it.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// How often it happened what a simulation is for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) crashes: u64,
    pub(crate) cancels: u64,
    pub(crate) replays: u64,
    pub(crate) cold_acquires: u64,
    pub(crate) expiries: u64,
    pub(crate) provider_errors: u64,
}

impl Counts {
    /// Each with its name.
    pub(crate) const fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("crashes", self.crashes),
            ("cancels", self.cancels),
            ("replays", self.replays),
            ("cold acquires", self.cold_acquires),
            ("expiries", self.expiries),
            ("provider errors", self.provider_errors),
        ]
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.cancels += other.cancels;
        self.replays += other.replays;
        self.cold_acquires += other.cold_acquires;
        self.expiries += other.expiries;
        self.provider_errors += other.provider_errors;
    }
}

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
    let is_whole = matches!(history.last(), Some(Event { what: What::Emptied(_), .. }));
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
    open: BTreeMap<CallId, Open>,
    jobs: BTreeMap<&'static str, Vec<Duration>>,
    counts: Counts,
    target: usize,
}

impl Checker {
    fn next(&mut self, at: Duration, what: &What) -> Result<(), String> {
        match what {
            What::Panicked(why) => return Err(format!("a panic: {why}")),
            What::Pool { max_warm_age } => self.truth.max_warm_age = *max_warm_age,
            What::Started => self.truth.is_serving = true,
            What::Crash(_) => {
                self.counts.crashes += 1;
                self.truth.is_serving = false;
                self.jobs.clear();
                let open = std::mem::take(&mut self.open);
                open.into_values().try_for_each(|call| self.unanswered(at, call))?;
            }
            What::Quiet => {
                let open = std::mem::take(&mut self.open);
                open.into_values().try_for_each(|call| self.unanswered(at, call))?;
            }
            What::Leave(call) => {
                self.counts.cancels += 1;
                if let Some(call) = self.open.remove(call) {
                    self.unanswered(at, call)?;
                }
            }
            What::Ask(call, who, ask) => {
                self.claims.asked(*who, ask);
                let (who, ask, generation) = (*who, ask.clone(), self.truth.generation);
                self.open.insert(*call, Open { at, who, ask, generation });
            }
            What::Answer(call, answer) => {
                let Some(call) = self.open.remove(call) else { return Ok(()) };
                self.in_time(at, &call)?;
                self.answered(at, &call, answer)?;
            }
            What::Failed { .. } => self.counts.provider_errors += 1,
            What::Job { class, until } => self.job(at, class, *until)?,
            What::Settled(vms) => {
                self.same_as_truth(vms)?;
                self.claims.settled(at, &self.truth, self.target)?;
            }
            What::Emptied(vms) if !vms.is_empty() => {
                return Err(format!("everything was released, and these are left: {vms:?}"));
            }
            What::Destroyed { uid, .. } => self.claims.taken(at, *uid)?,
            What::Renamed { uid, from, to } if to.is_pools_own() && !from.is_pools_own() => {
                self.claims.taken(at, *uid)?;
            }
            _ => {}
        }
        self.truth.follow(at, what)
    }

    fn unanswered(&mut self, at: Duration, call: Open) -> Result<(), String> {
        self.in_time(at, &call)?;
        self.claims.unanswered(call);
        Ok(())
    }

    fn in_time(&self, at: Duration, call: &Open) -> Result<(), String> {
        match at - call.at > LONGEST_CALL {
            true => Err(format!("{:?} took {:?}", call.ask, at - call.at)),
            false => Ok(()),
        }
    }

    fn answered(&mut self, at: Duration, call: &Open, answer: &Answer) -> Result<(), String> {
        use hearth_pool::journal::Source;
        match answer {
            Answer::Got { replayed, source, .. } => {
                self.counts.replays += u64::from(*replayed);
                self.counts.cold_acquires += u64::from(*source == Source::Cold && !replayed);
            }
            Answer::Built(generation) => self.truth.generation = *generation,
            Answer::Status { waiting, restoring, target, .. } => {
                self.target = *target;
                let pool_bound = 3;
                if *waiting > limits().max_waiting || *restoring > pool_bound {
                    return Err(format!("out of bounds: {answer:?}"));
                }
            }
            _ => {}
        }
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
    fn same_as_truth(&self, vms: &[(hearth_providers::VmId, Uid)]) -> Result<(), String> {
        match self.truth.list() == vms {
            true => Ok(()),
            false => Err(format!("the provider has {vms:?}; done was {:?}", self.truth.list())),
        }
    }
}
