//! Destroys VMs that nobody is to have any more, until they are gone.
//!
//! Anybody may hand a VM in, from a `drop` too: nothing is spawned or awaited there. A destroy
//! that fails is tried again, ever more rarely, for as long as hearth runs; at the next start
//! recovery finds what is left. What is destroyed is the instance that had the name when it was
//! handed in: while that is tried again, the name may be another one's, a tenant's even.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::model::VmStatus;
use hearth_providers::{Uid, VmId, VmRuntime, VmRuntimeError};
use tokio::sync::{mpsc, oneshot};

use crate::jobs::{Class, Jobs};
use crate::mutants::{self, Mutant};
use crate::pool::Provider;
use crate::tasks::TaskGroup;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is called when a VM is gone.
pub(crate) type OnGone = Box<dyn FnOnce() + Send>;

struct Doomed {
    provider: Arc<Provider>,
    vm_id: VmId,
    /// Unset: nothing had the name.
    uid: Option<Uid>,
    on_gone: Option<OnGone>,
    gone: Option<oneshot::Sender<()>>,
}

/// Takes in what is to be destroyed. The queue is bounded by the number of VMs.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    queue: mpsc::UnboundedSender<Doomed>,
}

impl Reaper {
    /// A reaper whose work is done by a task of `tasks`.
    pub(crate) fn start(tasks: &TaskGroup, jobs: Jobs, timeout: Duration) -> Self {
        let (queue, mut doomed) = mpsc::unbounded_channel::<Doomed>();
        let group = tasks.clone();
        tasks.spawn_critical("reaper", async move {
            loop {
                let next = tokio::select! {
                    // What was handed in before the stop is still destroyed.
                    biased;
                    next = doomed.recv() => next,
                    () = group.stopping().cancelled() => None,
                };
                let Some(next) = next else { return };
                group.spawn(destroy(next, jobs.clone(), timeout, group.clone()));
            }
        });
        Self { queue }
    }

    /// Has a VM destroyed; `on_gone` is called when it is. A name that a tenant may ask for again is
    /// free at once, where the provider can rename.
    pub(crate) fn retire(&self, provider: &Arc<Provider>, vm_id: VmId, on_gone: Option<OnGone>) {
        let uid = provider.runtime.get_vm(&vm_id).map(|view| view.uid);
        let aside = uid.filter(|_| !vm_id.is_pools_own()).map(VmId::warm);
        let vm_id = aside
            .filter(|aside| provider.runtime.rename_vm(&vm_id, aside).is_ok())
            .unwrap_or(vm_id);
        let provider = Arc::clone(provider);
        // After the stop nobody listens: recovery finds the VM at the next start.
        let _ = self.queue.send(Doomed { provider, vm_id, uid, on_gone, gone: None });
    }

    /// As [`Self::retire`], of the instance `uid`, whatever it is called; the answer comes when it is
    /// gone.
    pub(crate) fn retire_instance(
        &self,
        provider: &Arc<Provider>,
        uid: Uid,
        called: VmId,
        on_gone: OnGone,
    ) -> oneshot::Receiver<()> {
        let (gone, is_gone) = oneshot::channel();
        let provider = Arc::clone(provider);
        let (on_gone, gone) = (Some(on_gone), Some(gone));
        let doomed = Doomed { provider, vm_id: called, uid: Some(uid), on_gone, gone };
        let _ = self.queue.send(doomed);
        is_gone
    }
}

async fn destroy(doomed: Doomed, jobs: Jobs, timeout: Duration, group: TaskGroup) {
    let Doomed { provider, vm_id, uid, on_gone, gone } = doomed;
    let mut pause = FIRST_PAUSE;
    loop {
        let (runtime, name) = (Arc::clone(&provider.runtime), vm_id.clone());
        let call = move || destroy_instance(&*runtime, &name, uid);
        match jobs.run(Class::Destroy, "destroy", timeout, call, drop).await {
            Ok(()) | Err(VmRuntimeError::NotFound { .. }) => break,
            Err(VmRuntimeError::InvalidTransition { status: VmStatus::Destroyed, .. }) => break,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%vm_id, %error, source, "a VM could not be destroyed yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = group.stopping().cancelled() => return,
        }
    }
    if let Some(on_gone) = on_gone {
        on_gone();
    }
    if let Some(gone) = gone {
        let _ = gone.send(());
    }
}

fn destroy_instance(
    runtime: &dyn VmRuntime,
    vm_id: &VmId,
    uid: Option<Uid>,
) -> Result<(), VmRuntimeError> {
    if mutants::is(Mutant::DestroyedByName) {
        return runtime.destroy_vm(vm_id);
    }
    let Some(uid) = uid else {
        // A pool's name is given once; it may be that its VM came late.
        return if vm_id.is_pools_own() { runtime.destroy_vm(vm_id) } else { Ok(()) };
    };
    let living = || runtime.get_vm_by_uid(uid).filter(|view| view.status != VmStatus::Destroyed);
    // It may be called otherwise by now.
    let Some(view) = living() else { return Ok(()) };
    let done = runtime.destroy_vm(&view.vm_id);
    match living() {
        // It was renamed meanwhile, or what was answered is not so.
        Some(_) if matches!(done, Ok(()) | Err(VmRuntimeError::NotFound { .. })) => {
            Err(VmRuntimeError::Unavailable {
                what: "the destroy: the VM lives on".to_owned(),
                source: None,
            })
        }
        _ => done,
    }
}
