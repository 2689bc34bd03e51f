//! Newcomers never barge: whoever stands in line is served before a later call gets a warm VM.
//!
//! An acquire that may wait, is no retry, and has no answer stands in line from the moment it was
//! asked, as far as a history tells. While it does no later one is answered `WARM`, but for one in
//! whose moment this one was served, too, or left. What fails or dies in that moment explains it as
//! well: a VM that was given to the one in line was of no use. Of pools that keep their VMs paused
//! nothing is said: who waits there may wait for a resume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_proto::v1::pool::Overflow;

use crate::history::{Answer, Ask, CallId, Who};

/// Who stands in line.
#[derive(Default)]
pub(crate) struct Line {
    waiting: BTreeMap<CallId, Duration>,
    requests: BTreeSet<(Who, String)>,
    /// Who was passed by whom, and when.
    passed: BTreeMap<CallId, (CallId, Duration)>,
    disturbed: Option<Duration>,
}

impl Line {
    pub(crate) fn asked(&mut self, at: Duration, call: CallId, who: Who, ask: &Ask, paused: bool) {
        let Ask::Acquire(ask) = ask else { return };
        let is_new = match &ask.request_id {
            Some(id) => self.requests.insert((who, id.clone())),
            None => true,
        };
        let may_wait = matches!(ask.overflow, Overflow::Unspecified | Overflow::Wait);
        if is_new && may_wait && ask.device.is_none() && !paused {
            self.waiting.insert(call, at);
        }
    }

    pub(crate) fn answered(&mut self, at: Duration, call: CallId, answer: &Answer) {
        if matches!(answer, Answer::Got { replayed: false, is_cold: false, .. }) {
            let before = self.waiting.range(..call).filter(|(_, since)| **since < at);
            let before: Vec<_> = before.map(|(before, _)| *before).collect();
            for before in before {
                self.passed.entry(before).or_insert((call, at));
            }
        }
        self.ended(call);
    }

    pub(crate) fn ended(&mut self, call: CallId) {
        self.waiting.remove(&call);
        self.passed.remove(&call);
    }

    /// Something fails, or a VM dies.
    pub(crate) fn disturbed(&mut self, at: Duration) {
        self.disturbed = Some(at);
    }

    /// Time has come to `at`.
    pub(crate) fn pass(&mut self, at: Duration) -> Result<(), String> {
        let disturbed = self.disturbed;
        self.passed.retain(|_, (_, then)| disturbed != Some(*then));
        let late = self.passed.iter().find(|(_, (_, then))| *then < at);
        match late {
            Some((call, (by, _))) => Err(format!("call {by} was served before {call}, in line")),
            None => Ok(()),
        }
    }

    /// Nobody stands in line any more.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.passed.clear();
    }
}
