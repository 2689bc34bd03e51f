//! Callers who acquire, rename, freeze and release while things go wrong, and remember what they
//! were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_pool::acquire::{AcquireRequest, Expiration};
use hearth_pool::freeze::FreezeRequest;
use hearth_pool::ids::{ArtifactId, Tenant};
use hearth_pool::manager::Manager;
use hearth_pool::operations::Outcome;
use hearth_providers::{Uid, VmId};
use parking_lot::Mutex;

use crate::Answer;
use crate::node::{PATIENCE, pool_id};

/// Longer than any run.
const TTL: std::time::Duration = std::time::Duration::from_secs(3600);

/// What callers were told.
#[derive(Default)]
pub(crate) struct Told {
    /// Each VM that was answered, and to which request.
    given: BTreeMap<Uid, String>,
    /// Leases that are neither released nor being released.
    pub(crate) held: BTreeMap<Uid, VmId>,
    /// Requests without an answer.
    unanswered: Vec<AcquireRequest>,
    /// Releases without an answer.
    unreleased: Vec<(Uid, VmId)>,
    pub(crate) artifacts: Vec<ArtifactId>,
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    pub(crate) wrong: Vec<String>,
}

/// The callers of one run.
#[derive(Clone, Default)]
pub(crate) struct Callers {
    pub(crate) told: Arc<Mutex<Told>>,
}

fn request(caller: usize, round: usize) -> AcquireRequest {
    let name = format!("vm-{caller}-{round}");
    AcquireRequest {
        tenant: Tenant::anonymous(),
        pool: pool_id(),
        vm_id: round.is_multiple_of(2).then(|| VmId::parse(&name).expect("it is an id")),
        request_id: Some(name.into()),
        expiration: Some(Expiration::After(TTL)),
        overflow: None,
        labels: BTreeMap::new(),
        network_overrides: Vec::new(),
        deadline: None,
        validate_only: false,
    }
}

impl Callers {
    /// One of them, for so many rounds.
    pub(crate) async fn call(&self, manager: Arc<Manager>, caller: usize, rounds: usize) {
        for round in 0..rounds {
            let request = request(caller, round);
            let Some((uid, mut vm_id)) = self.acquire(&manager, request).await else { continue };
            if round.is_multiple_of(3) {
                vm_id = self.rename(&manager, uid, vm_id);
            }
            if round % 4 == 1 {
                self.freeze(&manager, &vm_id, caller, round).await;
            }
            // Some are kept.
            if round % 5 != 4 {
                self.release(&manager, uid, vm_id).await;
            }
        }
    }

    async fn acquire(
        &self,
        manager: &Arc<Manager>,
        request: AcquireRequest,
    ) -> Option<(Uid, VmId)> {
        let got = manager.acquire(request.clone()).await;
        let mut told = self.told.lock();
        let Ok(Some(got)) = got else {
            told.failed += 1;
            told.unanswered.push(request);
            return None;
        };
        told.answered += 1;
        let (uid, vm_id) = (got.lease.uid, got.lease.held().vm_id);
        let request_id = request.request_id.map_or_else(String::new, |it| it.as_str().to_owned());
        if let Some(other) = told.given.insert(uid, request_id.clone()) {
            told.wrong.push(format!("{uid} was given to {request_id} after {other}"));
        }
        told.held.insert(uid, vm_id.clone());
        Some((uid, vm_id))
    }

    fn rename(&self, manager: &Arc<Manager>, uid: Uid, vm_id: VmId) -> VmId {
        let new = VmId::parse(&format!("re-{vm_id}")).expect("it is short");
        match manager.rename_vm(&vm_id, Some(uid), None, &new) {
            Ok(_) => {
                self.told.lock().held.insert(uid, new.clone());
                new
            }
            Err(_) => vm_id,
        }
    }

    async fn freeze(&self, manager: &Arc<Manager>, vm_id: &VmId, caller: usize, round: usize) {
        let id = ArtifactId::parse(&format!("frozen-{caller}-{round}")).expect("it is an id");
        let request = FreezeRequest {
            vm_id: vm_id.clone(),
            uid: None,
            tenant: None,
            artifact_id: Some(id.clone()),
            allow_stop: true,
            ttl: None,
        };
        let Ok(operation) = manager.freeze_vm(request).await else { return };
        let ended = manager.operations().wait(&operation, PATIENCE).await;
        if ended.is_ok_and(|it| matches!(it.outcome, Some(Outcome::Done))) {
            self.told.lock().artifacts.push(id);
        }
    }

    pub(crate) async fn release(&self, manager: &Arc<Manager>, uid: Uid, vm_id: VmId) {
        self.told.lock().held.remove(&uid);
        if manager.release(&vm_id, Some(uid), None).await.is_err() {
            self.told.lock().unreleased.push((uid, vm_id));
        }
    }

    /// Now that nothing goes wrong any longer, everything gets its answer.
    pub(crate) async fn make_up(&self, manager: &Arc<Manager>) -> Answer<()> {
        let unreleased = std::mem::take(&mut self.told.lock().unreleased);
        for (uid, vm_id) in unreleased {
            manager.release(&vm_id, Some(uid), None).await?;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let unanswered = std::mem::take(&mut self.told.lock().unanswered);
            if unanswered.is_empty() {
                return Ok(());
            }
            for request in unanswered {
                self.acquire(manager, request).await;
            }
            if tokio::time::Instant::now() > deadline {
                let left = &self.told.lock().unanswered;
                return Err(format!("nothing goes wrong, and there is no answer: {left:?}").into());
            }
            tokio::time::sleep(crate::node::POLL).await;
        }
    }
}
