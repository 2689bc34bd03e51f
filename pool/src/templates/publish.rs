//! A change of a template, from the journal to everybody who looks.
//!
//! Whoever changes one has the turn of `Manager::control`. A snapshot is pinned before the record that
//! names it is written, and let go of after the record that does not. So a crash leaves a pin too many
//! and never one too few; the next start lets go of that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::Uid;

use super::{History, Template, TemplateSnapshot};
use crate::error::{Error, Kind, Result};
use crate::ids::TemplateId;
use crate::jobs::Class;
use crate::journal::Control;
use crate::manager::{Manager, UNTIL_KNOWN};
use crate::pool::{Pool, Provider};

/// What the names begin with under which templates pin.
const PIN: &str = "template:";

impl Template {
    /// The name under which its snapshot is pinned.
    pub fn pin(&self) -> String {
        format!("{PIN}{}@{}", self.id, self.generation)
    }
}

impl Manager {
    /// The generations of a template that are kept, the newest first; one that is being built and
    /// those that failed are among them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn generations(&self, id: &TemplateId) -> Result<Vec<Arc<Template>>> {
        Ok(self.history(id)?.generations())
    }

    /// One generation of a template.
    ///
    /// # Errors
    /// `NotFound` when it is not kept.
    pub fn generation(&self, id: &TemplateId, generation: i64) -> Result<Arc<Template>> {
        let missing =
            || Error::NotFound { kind: Kind::Template, name: format!("{id}@{generation}") };
        self.history(id)?.get(generation).ok_or_else(missing)
    }

    pub(crate) fn history(&self, id: &TemplateId) -> Result<History> {
        let missing = || Error::NotFound { kind: Kind::Template, name: id.to_string() };
        self.histories.read().get(id).cloned().ok_or_else(missing)
    }

    /// Journals a history and lets everybody see it: pools that restore from the template follow. What is
    /// not kept any more is let go of.
    pub(crate) async fn publish(&self, history: History) -> Result<Arc<Template>> {
        let id = history.written().id.clone();
        let pinned = self.history(&id).map(|it| it.pins()).unwrap_or_default();
        let served = self.served_from(&id);
        let history = history.trimmed(|generation| served.contains(&generation));
        let (journal, written) = (Arc::clone(&self.journal), history.clone());
        let call = move || {
            let id = written.written().id.clone();
            Ok(journal.write_control(Control::Template, id.as_str(), &written))
        };
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await??;
        let kept = history.pins();
        let provider = history.written().provider.clone();
        let current = self.show(history);
        self.let_go(&provider, pinned.difference(&kept).cloned().collect()).await;
        Ok(current)
    }

    /// The first VM of `generation` has become warm: it is not taken back any more.
    pub(crate) async fn note_proven(&self, id: &TemplateId, generation: i64) {
        let _turn = self.control.lock().await;
        let Ok(history) = self.history(id) else { return };
        let current = history.written();
        if current.generation != generation || current.is_proven {
            return;
        }
        tracing::info!(template = %id, generation, "a generation is proven");
        if let Err(error) = self.publish(history.proven()).await {
            tracing::warn!(template = %id, %error, "the next start will have it proven again");
        }
    }

    /// Lets everybody see a history as it is, in this life.
    pub(crate) fn show(&self, history: History) -> Arc<Template> {
        let current = history.current();
        let id = current.id.clone();
        self.histories.write().insert(id.clone(), history);
        let former = self.templates.write().insert(id.clone(), Arc::clone(&current));
        if former.as_ref() != Some(&current) {
            for pool in self.pools_of(&id) {
                pool.set_template(Arc::clone(&current));
                self.shared.changes.pool(&pool);
            }
        }
        current
    }

    /// Ends the pins of a template; one that cannot be ended now is found by the next start.
    pub(crate) async fn let_go(&self, provider: &str, pins: BTreeSet<(Uid, String)>) {
        let Ok(provider) = self.provider(provider).cloned() else { return };
        for (snapshot, pin) in pins {
            let (runtime, holder) = (Arc::clone(&provider.runtime), pin.clone());
            let call = move || runtime.unpin_snapshot(snapshot, &holder);
            let limit = self.limits.verb_timeout;
            if let Err(error) = self.jobs.run(Class::Verb, "unpin", limit, call, drop).await {
                tracing::warn!(pin, %error, "an old snapshot could not be let go");
            }
        }
    }

    /// Makes the pins agree with `histories`, whatever a crash left of a change. Before anything is
    /// built.
    pub(crate) async fn settle_pins(&self, histories: &[History]) -> Result<()> {
        let known: BTreeSet<_> = histories.iter().flat_map(History::pins).collect();
        let providers = self.providers().to_vec();
        let call = move || {
            providers.iter().for_each(|provider| settle(provider, &known));
            Ok(())
        };
        Ok(self.jobs.run(Class::Verb, "templates", Duration::MAX, call, drop).await?)
    }

    pub(crate) fn pools_of(&self, template: &TemplateId) -> Vec<Arc<Pool>> {
        self.pools().into_iter().filter(|pool| pool.config().template == *template).collect()
    }

    /// The generations that pools restore from now.
    fn served_from(&self, id: &TemplateId) -> BTreeSet<i64> {
        let served = self.pools().into_iter().map(|pool| pool.template());
        served.filter(|it| it.id == *id).map(|it| it.generation).collect()
    }
}

/// Pins what is known and is not pinned, then lets go of what nobody knows of. Blocks.
fn settle(provider: &Provider, known: &BTreeSet<(Uid, String)>) {
    for snapshot in provider.runtime.all_snapshots() {
        let of_it = known.iter().filter(|(uid, _)| *uid == snapshot.uid).map(|(_, pin)| pin);
        for pin in of_it.filter(|pin| !snapshot.pinned_by.contains(pin)) {
            let (vm_uid, snapshot_id) = (snapshot.vm_uid, snapshot.snapshot_id.clone());
            let (uid, restore_time) = (snapshot.uid, None);
            let taken = TemplateSnapshot { uid, vm_uid, snapshot_id, restore_time };
            if let Err(error) = provider.runtime.pin_snapshot(&taken.reference(false), pin) {
                tracing::warn!(pin, %error, "a template's snapshot could not be pinned");
            }
        }
        let pins = snapshot.pinned_by.into_iter().filter(|pin| pin.starts_with(PIN));
        for pin in pins.map(|pin| (snapshot.uid, pin)).filter(|pin| !known.contains(pin)) {
            tracing::info!(pin = pin.1, snapshot = %pin.0, "what a change cut short left is let go");
            if let Err(error) = provider.runtime.unpin_snapshot(pin.0, &pin.1) {
                tracing::warn!(pin = pin.1, %error, "it could not be let go");
            }
        }
    }
}
