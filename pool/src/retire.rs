//! Destroys VMs that nobody is to have any more, until they are gone.
//!
//! Anybody may hand a VM in, from a `drop` too: nothing is spawned or awaited there. A destroy
//! that fails is tried again, ever more rarely, for as long as hearth runs; at the next start
//! recovery finds what is left. What is destroyed is the instance that had the name when it was
//! handed in: while that is tried again, the name may be another one's, a tenant's even.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_providers::model::VmStatus;
use hearth_providers::{Uid, VmId, VmRuntime, VmRuntimeError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::changes::Changes;
use crate::jobs::{Class, Jobs};
use crate::mutants::{self, Mutant};
use crate::pool::Provider;
use crate::release::EndedLease;
use crate::restore::QUICK;
use crate::tasks::TaskGroup;

/// Where the last destroy was quick, more of them are waited for so long: one thread is then woken
/// for all of them.
const GATHER: Duration = Duration::from_millis(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is to be done when a VM is gone.
pub(crate) enum OnGone {
    /// Nothing but this.
    Call(Box<dyn FnOnce() + Send>),
    /// The end of its lease is written, that of many at once.
    End(EndedLease),
}

impl OnGone {
    /// Does it, for several. Blocks on the journal for microseconds.
    fn all(gone: Vec<Self>) {
        let (mut records, mut ended) = (Vec::new(), Vec::new());
        for one in gone {
            match one {
                Self::Call(call) => call(),
                Self::End(lease) => {
                    records.push(lease.record());
                    ended.push(lease);
                }
            }
        }
        if let Some(first) = ended.first() {
            first.write(&records);
        }
        ended.into_iter().for_each(EndedLease::settle);
    }
}

struct Doomed {
    provider: Arc<Provider>,
    vm_id: VmId,
    /// Unset: nothing had the name.
    uid: Option<Uid>,
    on_gone: Option<OnGone>,
    gone: Option<oneshot::Sender<()>>,
}

impl Doomed {
    fn instance(&self) -> (Arc<dyn VmRuntime>, VmId, Option<Uid>) {
        (Arc::clone(&self.provider.runtime), self.vm_id.clone(), self.uid)
    }

    fn are_gone(all: Vec<Self>, changes: &Changes) {
        all.iter().filter_map(|it| it.uid).for_each(|uid| changes.vm(uid));
        let (on_gone, gone): (Vec<_>, Vec<_>) =
            all.into_iter().map(|it| (it.on_gone, it.gone)).unzip();
        OnGone::all(on_gone.into_iter().flatten().collect());
        for gone in gone.into_iter().flatten() {
            // Whoever waited may have left.
            let _ = gone.send(());
        }
    }
}

/// Takes in what is to be destroyed. The queue is bounded by the number of VMs.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    queue: mpsc::UnboundedSender<Doomed>,
}

/// What a reaper's tasks share.
#[derive(Clone)]
struct Works {
    jobs: Jobs,
    timeout: Duration,
    tasks: TaskGroup,
    /// The last destroy was quick.
    is_quick: Arc<AtomicBool>,
    changes: Changes,
}

impl Reaper {
    /// A reaper whose work is done by a task of `tasks`.
    pub(crate) fn start(
        tasks: &TaskGroup,
        jobs: Jobs,
        timeout: Duration,
        changes: Changes,
    ) -> Self {
        let (queue, mut doomed) = mpsc::unbounded_channel::<Doomed>();
        let most = jobs.most_in_a_row();
        let is_quick = Arc::new(AtomicBool::new(false));
        let works = Works { jobs, timeout, tasks: tasks.clone(), is_quick, changes };
        tasks.spawn_critical("reaper", async move {
            loop {
                let mut row = Vec::new();
                tokio::select! {
                    // What was handed in before the stop is still destroyed.
                    biased;
                    _ = doomed.recv_many(&mut row, most) => {}
                    () = works.tasks.stopping().cancelled() => {}
                }
                if row.is_empty() {
                    return;
                }
                if most > 1 && works.is_quick.load(Ordering::Relaxed) {
                    if row.len() < most {
                        tokio::time::sleep(GATHER).await;
                        while row.len() < most
                            && let Ok(more) = doomed.try_recv()
                        {
                            row.push(more);
                        }
                    }
                    works.tasks.spawn(destroy_row(row, works.clone()));
                } else {
                    row.into_iter().for_each(|it| works.tasks.spawn(destroy(it, works.clone())));
                }
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

/// Destroys VMs one after another on one thread while each is quick; the others as if they had come
/// one by one.
async fn destroy_row(row: Vec<Doomed>, works: Works) {
    let row = Arc::new(Mutex::new(VecDeque::from(row)));
    let (left, is_quick) = (Arc::clone(&row), Arc::clone(&works.is_quick));
    let changes = works.changes.clone();
    let call = move || {
        let mut gone = Vec::new();
        let done = loop {
            // It stays in the row until it is gone, so that one that hangs is not lost.
            let next = left.lock().front().map(Doomed::instance);
            let Some((runtime, vm_id, uid)) = next else { break Ok(()) };
            let begun = Instant::now();
            let done = destroy_instance(&*runtime, &vm_id, uid);
            let was_quick = begun.elapsed() <= QUICK;
            is_quick.store(was_quick, Ordering::Relaxed);
            if is_gone(&done) {
                gone.extend(left.lock().pop_front());
            }
            if !was_quick || !is_gone(&done) {
                break done;
            }
        };
        Doomed::are_gone(gone, &changes);
        done
    };
    // Whatever went wrong: what is still there is tried again, and what hangs keeps its thread.
    drop(works.jobs.run(Class::Destroy, "destroy", works.timeout, call, drop).await);
    let left = std::mem::take(&mut *row.lock());
    left.into_iter().for_each(|it| works.tasks.spawn(destroy(it, works.clone())));
}

async fn destroy(doomed: Doomed, works: Works) {
    let Works { jobs, timeout, tasks, is_quick, changes } = works;
    let vm_id = doomed.vm_id.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let (runtime, name, uid) = doomed.instance();
        let is_quick = Arc::clone(&is_quick);
        let call = move || {
            let begun = Instant::now();
            let done = destroy_instance(&*runtime, &name, uid);
            is_quick.store(begun.elapsed() <= QUICK, Ordering::Relaxed);
            done
        };
        let done = jobs.run(Class::Destroy, "destroy", timeout, call, drop).await;
        if is_gone(&done) {
            break;
        }
        if let Err(error) = done {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%vm_id, %error, source, "a VM could not be destroyed yet");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = tasks.stopping().cancelled() => return,
        }
    }
    Doomed::are_gone(vec![doomed], &changes);
}

const fn is_gone(done: &Result<(), VmRuntimeError>) -> bool {
    matches!(
        done,
        Ok(())
            | Err(VmRuntimeError::NotFound { .. }
                | VmRuntimeError::InvalidTransition { status: VmStatus::Destroyed, .. })
    )
}

fn destroy_instance(
    runtime: &dyn VmRuntime,
    vm_id: &VmId,
    uid: Option<Uid>,
) -> Result<(), VmRuntimeError> {
    let named = (vm_id.as_str(), uid.map(tracing::field::display));
    let _span =
        tracing::debug_span!(parent: None, "destroy", vm = named.0, uid = named.1).entered();
    if mutants::is(Mutant::DestroyedByName) {
        return runtime.destroy_vm(vm_id);
    }
    let Some(uid) = uid else {
        // A pool's name is given once; it may be that its VM came late.
        return if vm_id.is_pools_own() { runtime.destroy_vm(vm_id) } else { Ok(()) };
    };
    // It may be called otherwise by now.
    let Some(vm_id) = runtime.name_of(uid) else { return Ok(()) };
    let done = runtime.destroy_vm(&vm_id);
    match runtime.name_of(uid) {
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
