//! The generations of one template that are kept, and how that changes: pure bookkeeping.
//!
//! In the journal a history is one record, the current generation with the former ones in it: a crash
//! finds what was before a change or what is after it, and nothing between. A record without former
//! ones, as older versions wrote it, is a history of one.
//!
//! - Numbers only grow, and none is given twice.
//! - What a kept generation's snapshot is pinned under has its number: two generations that share a
//!   snapshot, as after a rollback, pin it twice.
//! - One that failed has no snapshot.
//! - What is only so in this life (a build under way, a snapshot that does not fit this host) is not
//!   written: the next start finds out for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_providers::Uid;
use serde::{Deserialize, Serialize};

use super::{Template, TemplateState};

/// How many generations with a snapshot are kept, the current one among them.
pub const KEPT_GENERATIONS: usize = 4;
/// How many generations that failed are kept.
pub const KEPT_FAILURES: usize = 4;

/// The generations of one template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Record", into = "Record")]
pub(crate) struct History {
    current: Arc<Template>,
    /// The newest first.
    former: Vec<Arc<Template>>,
    /// What is being built, to become the current one.
    building: Option<Arc<Template>>,
    /// What is so of the current one in this life, whatever is written.
    verdict: Option<TemplateState>,
}

/// A history as it is journaled.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    current: Template,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<Template>,
}

impl From<Record> for History {
    fn from(record: Record) -> Self {
        let former = record.former.into_iter().map(Arc::new).collect();
        Self { former, ..Self::new(record.current) }
    }
}

impl From<History> for Record {
    fn from(history: History) -> Self {
        let former = history.former.iter().map(|it| it.as_ref().clone()).collect();
        Self { current: history.current.as_ref().clone(), former }
    }
}

impl History {
    /// Of a template that is made now.
    pub(crate) fn new(first: Template) -> Self {
        Self { current: Arc::new(first), former: Vec::new(), building: None, verdict: None }
    }

    /// The current generation, as it is written.
    pub(crate) fn written(&self) -> &Arc<Template> {
        &self.current
    }

    /// The current generation, as it is in this life.
    pub(crate) fn current(&self) -> Arc<Template> {
        match &self.verdict {
            None => Arc::clone(&self.current),
            Some(state) => {
                Arc::new(Template { state: state.clone(), ..self.current.as_ref().clone() })
            }
        }
    }

    /// Every generation, the newest first, one that is being built among them.
    pub(crate) fn generations(&self) -> Vec<Arc<Template>> {
        let mut all = self.former.clone();
        all.push(self.current());
        all.extend(self.building.clone());
        all.sort_by_key(|it| std::cmp::Reverse(it.generation));
        all
    }

    /// The generation of this number.
    pub(crate) fn get(&self, generation: i64) -> Option<Arc<Template>> {
        self.generations().into_iter().find(|it| it.generation == generation)
    }

    /// Those before the current one that VMs could be restored from, the newest first.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = &Arc<Template>> {
        let current = self.current.generation;
        self.former.iter().filter(move |it| it.generation < current && it.not_ready().is_none())
    }

    /// Those that are not current and failed, the newest first.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Arc<Template>> {
        self.former.iter().filter(|it| it.has_failed())
    }

    /// The number of the next one.
    pub(crate) fn next_generation(&self) -> i64 {
        self.generations().first().map_or(0, |it| it.generation) + 1
    }

    /// Whether what has this etag was made.
    pub(crate) fn has_made(&self, etag: &str) -> bool {
        let mut kept = self.former.iter().chain([&self.current]);
        kept.any(|it| it.etag == etag && it.state == TemplateState::Ready)
    }

    /// The same, its current generation proven.
    pub(crate) fn proven(self) -> Self {
        let current = Template { is_proven: true, ..self.current.as_ref().clone() };
        Self { current: Arc::new(current), ..self }
    }

    /// Something builds a generation of it.
    pub(crate) fn is_building(&self) -> bool {
        self.building.is_some() || self.current.state == TemplateState::Building
    }

    /// Another generation took its place while this one was built.
    pub(crate) fn has_overtaken(&self, template: &Template) -> bool {
        let others = self.former.iter().chain([&self.current]);
        others.map(|it| it.generation).any(|it| it > template.generation)
    }

    /// The build of `template` begins. Nothing can be restored meanwhile where nothing could before.
    pub(crate) fn begin(mut self, template: &Template) -> Self {
        if self.current.generation != template.generation {
            self.building = Some(Arc::new(template.clone()));
            if self.current().not_ready().is_some() {
                self.verdict = Some(TemplateState::Building);
            }
        }
        self
    }

    /// What was made becomes the current one.
    pub(crate) fn succeed(mut self, template: Template) -> Self {
        self.end_build(&template);
        self.verdict = None;
        let former = std::mem::replace(&mut self.current, Arc::new(template));
        if former.generation != self.current.generation {
            self.add(former);
        }
        self
    }

    /// What was to be made could not be, for this reason: the one before it stays in use, if it can be.
    pub(crate) fn fail(mut self, template: Template, reason: String) -> Self {
        self.end_build(&template);
        let failed = template.into_failed(reason.clone());
        if self.current.state != TemplateState::Ready {
            return self.succeed(failed);
        }
        self.add(Arc::new(failed));
        self.verdict = self.verdict.map(|_| TemplateState::Failed(reason));
        self
    }

    /// What was to be made is not, and that could not be written.
    pub(crate) fn abandon(mut self, template: &Template, reason: String) -> Self {
        self.end_build(template);
        if self.current().state == TemplateState::Building {
            self.verdict = Some(TemplateState::Failed(reason));
        }
        self
    }

    /// As a start finds it: what was being built is not any more.
    pub(crate) fn take_up(self) -> Self {
        if self.current.state != TemplateState::Building {
            return self;
        }
        let why = "hearth ended while it was being built: create it again";
        let unfinished = self.current.as_ref().clone();
        self.fail(unfinished, why.to_owned())
    }

    /// What is so of the current one, in this life.
    pub(crate) fn judge(mut self, state: TemplateState) -> Self {
        self.verdict = Some(state);
        self
    }

    /// The generation of this number, which is not current, turned out to be no good.
    pub(crate) fn condemn(mut self, generation: i64, reason: &str) -> Self {
        for it in self.former.iter_mut().filter(|it| it.generation == generation) {
            *it = Arc::new(it.as_ref().clone().into_failed(reason.to_owned()));
        }
        self
    }

    /// Without what is too old to be kept, unless it is `served` from.
    pub(crate) fn trimmed(mut self, served: impl Fn(i64) -> bool) -> Self {
        let (mut whole, mut failed) = (1, 0);
        self.former.retain(|it| {
            let (count, bound) = match it.has_failed() {
                true => (&mut failed, KEPT_FAILURES),
                false => (&mut whole, KEPT_GENERATIONS),
            };
            *count += 1;
            *count <= bound || (!it.has_failed() && served(it.generation))
        });
        self
    }

    /// What its generations pin: snapshots, and under which names.
    pub(crate) fn pins(&self) -> BTreeSet<(Uid, String)> {
        let kept = self.former.iter().chain([&self.current]);
        let pins = kept.filter_map(|it| Some((it.snapshot.as_ref()?.uid, it.pin())));
        pins.collect()
    }

    fn add(&mut self, former: Arc<Template>) {
        self.former.push(former);
        self.former.sort_by_key(|it| std::cmp::Reverse(it.generation));
    }

    fn end_build(&mut self, template: &Template) {
        self.building = self.building.take().filter(|it| it.etag != template.etag);
    }
}

#[cfg(test)]
mod tests;
