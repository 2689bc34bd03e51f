//! When a host has changed since its snapshots were taken: a look at each start.
//!
//! A snapshot restores on the kernel, the processor and the version of the VMM that it was made with.
//! What no longer fits, or is lost, is built again by its recipe, as the next generation; the start does
//! not wait for that, and callers are told to come back. Nothing of it is written until that is made: a
//! start that is cut short, or one on the former host, finds out anew how things are.

use std::sync::Arc;

use hearth_providers::VmRuntimeError;

use super::{History, Template, TemplateState};
use crate::manager::Manager;

/// What makes an imported template usable again.
const IMPORT_AGAIN: &str = "it was imported without its spec, and cannot be built again here: \
                            import a snapshot that was made on this host as another template, \
                            and have its pools use that, or update this one with its spec";

impl Manager {
    /// Looks at the current snapshot of each template; what cannot be restored says so from here on.
    pub(crate) async fn judge_snapshots(self: &Arc<Self>, histories: Vec<History>) -> Vec<History> {
        let mut looks = tokio::task::JoinSet::new();
        let mut judged = Vec::new();
        for history in histories {
            if history.written().not_ready().is_some() {
                judged.push(history);
                continue;
            }
            let manager = Arc::clone(self);
            looks.spawn(async move {
                let fits = manager.fits(history.written()).await;
                judge(history, fits)
            });
        }
        while let Some(looked) = looks.join_next().await {
            // The call itself is a job, whose panic is an error; there is nothing else to panic.
            judged.extend(looked);
        }
        // In order, so that a recovery can be repeated.
        judged.sort_by(|a, b| a.written().id.cmp(&b.written().id));
        judged
    }

    /// Begins to build again what does not fit, once everything else is taken up.
    pub(crate) async fn rebuild_unfit(self: &Arc<Self>) {
        let _turn = self.control.lock().await;
        for template in self.templates() {
            // What is written is ready, so it was this start that judged it.
            let Ok(history) = self.history(&template.id) else { continue };
            let is_unfit = template.state == TemplateState::Building && !history.is_building();
            if !is_unfit {
                continue;
            }
            let recipe = Template { imported: false, ..history.written().as_ref().clone() };
            if let Err(error) =
                self.begin_build(recipe, Some(history.clone()), "RebuildTemplate").await
            {
                tracing::error!(template = %template.id, %error, "it cannot be built again");
                let reason = format!("it has to be built again, and that cannot begin: {error}");
                self.show(history.judge(TemplateState::Failed(reason)));
            }
        }
    }
}

fn judge(history: History, fits: Result<(), VmRuntimeError>) -> History {
    let template = history.written();
    let error = match fits {
        Ok(()) => return history,
        Err(
            error @ (VmRuntimeError::SnapshotIncompatible { .. }
            | VmRuntimeError::SnapshotNotFound { .. }),
        ) => error,
        Err(error) => {
            tracing::warn!(template = %template.id, %error, "whether its snapshot fits is not known");
            return history;
        }
    };
    let generation = template.generation;
    if template.has_recipe() {
        tracing::warn!(
            template = %template.id, generation, %error,
            "a template's snapshot cannot be restored here: it is built again"
        );
        return history.judge(TemplateState::Building);
    }
    tracing::warn!(
        template = %template.id, generation, %error,
        "a template's snapshot cannot be restored here, and it cannot be built again"
    );
    history.judge(TemplateState::Failed(format!("{error}; {IMPORT_AGAIN}")))
}
