//! A tenant: it acquires, retries, renews, renames, freezes, resumes, releases and leaves, as its
//! dice say. What it knows outlives the service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::{names, v1};
use hearth_providers::{Uid, VmId};
use parking_lot::Mutex;
use tonic::Request;

use crate::env::Dice;
use crate::frozen;
use crate::history::{AcquireAsk, Answer, Ask, CallId, History, ResumeAsk, SeenVm, What, Who};
use crate::wire::{self, Wire};

/// The name of the one pool.
pub(crate) const POOL: &str = "default";
/// The network interface that every VM of its template has.
pub(crate) const INTERFACE: &str = "eth0";
/// How often one who may leave at any news does.
const LEAVES_PERCENT: u64 = 30;
/// How many of what it has asked for a tenant remembers.
const REMEMBERED: usize = 6;
/// A caller that leaves at no time of its own.
const PATIENT: Duration = Duration::from_secs(3600);

/// What a tenant knows.
#[derive(Default)]
struct Notes {
    mine: Vec<(VmId, Uid)>,
    asked: Vec<AcquireAsk>,
    resumed: Vec<ResumeAsk>,
    frozen: BTreeMap<Uid, String>,
    requests: u64,
}

/// One tenant.
#[derive(Clone)]
pub(crate) struct Caller {
    number: u64,
    dice: Arc<Dice>,
    history: History,
    notes: Arc<Mutex<Notes>>,
}

impl Caller {
    pub(crate) fn new(seed: u64, number: u64, history: History) -> Self {
        let dice = Arc::new(Dice::new(seed, 100 + number));
        Self { number, dice, history, notes: Arc::default() }
    }

    pub(crate) const fn who(&self) -> Who {
        Who::Tenant(self.number)
    }

    /// Calls the service for as long as it lives.
    pub(crate) async fn live(self, wire: Wire) {
        loop {
            tokio::time::sleep(self.dice.millis(1, 250)).await;
            match self.dice.below(100) {
                0..40 => self.acquire(&wire, self.new_ask()).await,
                40..52 => {
                    let asked = self.dice.pick(&self.notes.lock().asked).cloned();
                    if let Some(asked) = asked {
                        self.acquire(&wire, asked).await;
                    }
                }
                52..55 => self.storm(&wire).await,
                55..57 => self.list(&wire).await,
                57..64 => self.use_artifact(&wire).await,
                64..67 => self.poke(&wire).await,
                _ => {
                    let mine = self.dice.pick(&self.notes.lock().mine).cloned();
                    if let Some((vm_id, uid)) = mine {
                        self.use_vm(&wire, vm_id, uid).await;
                    }
                }
            }
        }
    }

    /// Asks again for everything that it remembers to have asked for by an id.
    pub(crate) async fn retry_all(&self, wire: &Wire) {
        let (asked, resumed) = {
            let notes = self.notes.lock();
            (notes.asked.clone(), notes.resumed.clone())
        };
        for ask in asked {
            self.call(wire, AcquireAsk { deadline: None, ..ask }, PATIENT, 0).await;
        }
        for ask in resumed {
            self.resume(wire, ask, PATIENT).await;
        }
    }

    /// Looks at everything that it has.
    pub(crate) async fn look_all(&self, wire: &Wire) {
        let mine = self.notes.lock().mine.clone();
        for (vm_id, _) in mine {
            self.get(wire, vm_id).await;
        }
        self.list(wire).await;
        self.list_artifacts(wire).await;
    }

    fn ask(&self, ask: Ask) -> CallId {
        self.history.ask(self.who(), ask)
    }

    fn next_request_id(&self) -> String {
        let mut notes = self.notes.lock();
        notes.requests += 1;
        wire::request_id(self.number, notes.requests)
    }

    fn new_ask(&self) -> AcquireAsk {
        use v1::pool::Overflow;
        let dice = &self.dice;
        let vm_id = dice.percent(40).then(|| self.any_name()).flatten();
        let request_id = dice.percent(50).then(|| self.next_request_id());
        let device = dice.percent(8).then(|| format!("tap{}", dice.below(100)));
        let overflow = match dice.below(10) {
            0..5 => Overflow::Unspecified,
            5..7 => Overflow::Wait,
            7 => Overflow::WarmOnly,
            _ => Overflow::ColdOnly,
        };
        let ttl = self.any_ttl();
        let deadline = dice.percent(30).then(|| dice.millis(0, 120));
        let ask = AcquireAsk { vm_id, request_id, overflow, ttl, deadline, device };
        if ask.request_id.is_some() {
            let mut notes = self.notes.lock();
            notes.asked.push(ask.clone());
            if notes.asked.len() > REMEMBERED {
                notes.asked.remove(0);
            }
        }
        ask
    }

    fn any_ttl(&self) -> Duration {
        match self.dice.below(10) {
            0..6 => self.dice.millis(100, 3_000),
            _ => self.dice.millis(60_000, 600_000),
        }
    }

    fn any_name(&self) -> Option<VmId> {
        VmId::parse(&format!("n{}", self.dice.below(12))).ok()
    }

    fn patience(&self) -> Duration {
        if self.dice.percent(35) { self.dice.millis(0, 90) } else { PATIENT }
    }

    /// Many at once, most with little time, some twice.
    async fn storm(&self, wire: &Wire) {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..self.dice.below(10) + 4 {
            let ask = AcquireAsk {
                deadline: Some(self.dice.millis(0, 80)),
                ttl: self.dice.millis(50, 500),
                ..self.new_ask()
            };
            for _ in 0..1 + self.dice.below(4) / 3 {
                let (caller, wire, ask) = (self.clone(), wire.clone(), ask.clone());
                calls.spawn(async move { caller.acquire(&wire, ask).await });
            }
        }
        while let Some(done) = calls.join_next().await {
            if let Err(error) = done
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }

    async fn acquire(&self, wire: &Wire, ask: AcquireAsk) {
        let patience = self.patience();
        let leaves = if self.dice.percent(20) { LEAVES_PERCENT } else { 0 };
        self.call(wire, ask, patience, leaves).await;
    }

    /// Calls, and waits for the answer for as long as it has patience; whenever there is news, it leaves
    /// without a look at them with a chance of `leaves` percent.
    async fn call(&self, wire: &Wire, ask: AcquireAsk, patience: Duration, leaves: u64) {
        use v1::acquire_vm_request::Expiration;
        let device = |host_dev_name| v1::NetworkInterface {
            iface_id: INTERFACE.to_owned(),
            host_dev_name,
            ..Default::default()
        };
        let mut request = Request::new(v1::AcquireVmRequest {
            pool: names::POOLS.name(POOL),
            vm_id: ask.vm_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            request_id: ask.request_id.clone().unwrap_or_default(),
            expiration: Some(Expiration::Ttl(duration_to_wire(ask.ttl))),
            overflow: ask.overflow.into(),
            network_overrides: ask.device.clone().map(device).into_iter().collect(),
            ..Default::default()
        });
        // A client stops at its deadline, whether it was told why or not.
        let patience = ask.deadline.map_or(patience, |deadline| deadline.min(patience));
        ask.deadline.iter().for_each(|deadline| request.set_timeout(*deadline));
        let call = self.ask(Ask::Acquire(ask));
        let mut vms = wire.vms();
        let done = {
            let mut answer = std::pin::pin!(vms.acquire_vm(request));
            let mut has_begun = false;
            let unless_left = std::future::poll_fn(|context| {
                let leaves = std::mem::replace(&mut has_begun, true) && self.dice.percent(leaves);
                if leaves { Poll::Ready(None) } else { answer.as_mut().poll(context).map(Some) }
            });
            tokio::time::timeout(patience, unless_left).await.ok().flatten()
        };
        let Some(done) = done else {
            self.history.push(What::Leave(call));
            return;
        };
        let answer = wire::answer(done.map(tonic::Response::into_inner), wire::got);
        if let Answer::Got { vm, .. } = &answer {
            self.have(vm);
        }
        self.history.answer(call, answer);
    }

    fn have(&self, vm: &SeenVm) {
        let mut notes = self.notes.lock();
        notes.mine.retain(|(_, other)| *other != vm.uid);
        notes.mine.push((vm.vm_id.clone(), vm.uid));
    }

    async fn use_vm(&self, wire: &Wire, vm_id: VmId, uid: Uid) {
        match self.dice.below(100) {
            0..32 => self.get(wire, vm_id).await,
            32..58 => {
                let by_uid = self.dice.percent(70);
                self.release(wire, vm_id, uid, by_uid).await;
            }
            58..72 => {
                let ttl = self.dice.millis(100, 5_000);
                let request = v1::RenewLeaseRequest {
                    name: names::VMS.name(vm_id.as_str()),
                    uid: uid.to_string(),
                    expiration: Some(v1::renew_lease_request::Expiration::Ttl(duration_to_wire(
                        ttl,
                    ))),
                    request_id: self.some_request_id(),
                    ..Default::default()
                };
                for _ in 0..self.times(&request.request_id) {
                    let call = self.ask(Ask::Renew { vm_id: vm_id.clone(), uid, ttl });
                    let done = wire.vms().renew_lease(request.clone()).await;
                    let done = done.map(tonic::Response::into_inner);
                    self.history.answer(call, wire::answer(done, wire::seen));
                }
            }
            72..82 => {
                let Some(to) = self.any_name() else { return };
                let request = v1::RenameVmRequest {
                    name: names::VMS.name(vm_id.as_str()),
                    uid: uid.to_string(),
                    new_vm_id: to.to_string(),
                    request_id: self.some_request_id(),
                };
                for _ in 0..self.times(&request.request_id) {
                    let ask = Ask::Rename { vm_id: vm_id.clone(), uid, to: to.clone() };
                    let call = self.ask(ask);
                    let done = wire.vms().rename_vm(request.clone()).await;
                    let is_done = done.is_ok();
                    if is_done {
                        let mut notes = self.notes.lock();
                        let mine = notes.mine.iter_mut().filter(|(_, other)| *other == uid);
                        mine.for_each(|(name, _)| name.clone_from(&to));
                    }
                    self.history.answer(call, wire::answer(done, wire::done));
                    if !is_done {
                        break;
                    }
                }
            }
            _ => self.freeze(wire, vm_id, uid).await,
        }
    }

    /// A request id, or none.
    fn some_request_id(&self) -> String {
        if self.dice.percent(50) { self.next_request_id() } else { String::new() }
    }

    /// How often a request is made: one that has an id may be made twice.
    fn times(&self, request_id: &str) -> usize {
        1 + usize::from(!request_id.is_empty() && self.dice.percent(30))
    }

    async fn release(&self, wire: &Wire, vm_id: VmId, uid: Uid, by_uid: bool) {
        let request = v1::ReleaseVmRequest {
            name: names::VMS.name(vm_id.as_str()),
            uid: if by_uid { uid.to_string() } else { String::new() },
            ..Default::default()
        };
        let call = self.ask(Ask::Release { vm_id, uid, by_uid });
        let done = wire.vms().release_vm(request).await;
        // Most forget it; some release it again some time.
        if done.is_ok() && self.dice.percent(80) {
            self.notes.lock().mine.retain(|(_, other)| *other != uid);
        }
        self.history.answer(call, wire::answer(done, wire::done));
    }

    async fn get(&self, wire: &Wire, vm_id: VmId) {
        let request = v1::GetVmRequest { name: names::VMS.name(vm_id.as_str()) };
        let call = self.ask(Ask::Get { vm_id: vm_id.clone() });
        let done = wire.vms().get_vm(request).await.map(tonic::Response::into_inner);
        let answer = wire::answer(done, wire::seen);
        if matches!(&answer, Answer::Refused { reason, .. } if reason == "VM_NOT_FOUND") {
            self.notes.lock().mine.retain(|(name, _)| *name != vm_id);
        }
        self.history.answer(call, answer);
    }

    async fn list(&self, wire: &Wire) {
        let call = self.ask(Ask::List);
        self.history.answer(call, wire::answer(wire.list().await, wire::vms));
    }

    /// Names VMs that are most often another's.
    async fn poke(&self, wire: &Wire) {
        let Some(vm_id) = self.any_name() else { return };
        if self.dice.percent(50) {
            return self.get(wire, vm_id).await;
        }
        self.release(wire, vm_id, frozen::nobody(), false).await;
    }

    async fn freeze(&self, wire: &Wire, vm_id: VmId, uid: Uid) {
        let artifact_id = self.dice.percent(30).then(|| format!("a{}", self.dice.below(6)));
        let request = v1::FreezeVmRequest {
            name: names::VMS.name(vm_id.as_str()),
            uid: uid.to_string(),
            artifact_id: artifact_id.clone().unwrap_or_default(),
            // No step of the wall clock reaches its end.
            ttl: Some(duration_to_wire(Duration::from_secs(300 * 24 * 3600))),
            request_id: self.some_request_id(),
            ..Default::default()
        };
        let call = self.ask(Ask::Freeze { uid, artifact_id });
        let mut vms = wire.vms();
        let freeze = async {
            let begun = vms.freeze_vm(request).await?.into_inner();
            wire.made::<v1::Artifact>(begun).await
        };
        let Ok(done) = tokio::time::timeout(self.patience(), freeze).await else {
            self.history.push(What::Leave(call));
            return;
        };
        let answer = wire::answer(done, wire::frozen);
        let was_frozen = matches!(&answer, Answer::Frozen(_));
        if let Answer::Frozen(artifact) = &answer {
            self.notes.lock().frozen.insert(artifact.uid, artifact.id.clone());
        }
        self.history.answer(call, answer);
        if was_frozen && self.dice.percent(50) {
            self.release(wire, vm_id, uid, true).await;
        }
    }

    async fn use_artifact(&self, wire: &Wire) {
        let artifacts: Vec<_> = {
            let notes = self.notes.lock();
            notes.frozen.iter().map(|(uid, id)| (*uid, id.clone())).collect()
        };
        let Some((artifact, id)) = self.dice.pick(&artifacts).cloned() else { return };
        match self.dice.below(100) {
            0..60 => {
                let asked = self.dice.pick(&self.notes.lock().resumed).cloned();
                let ask = asked.filter(|_| self.dice.percent(25)).unwrap_or_else(|| {
                    let vm_id = self.dice.percent(40).then(|| self.any_name()).flatten();
                    let request_id = self.dice.percent(60).then(|| self.next_request_id());
                    ResumeAsk { id, artifact, vm_id, request_id, ttl: self.any_ttl() }
                });
                let patience = self.patience();
                self.resume(wire, ask, patience).await;
            }
            60..75 => self.list_artifacts(wire).await,
            _ => {
                let request = v1::DeleteArtifactRequest {
                    name: names::ARTIFACTS.name(&id),
                    uid: artifact.to_string(),
                    request_id: self.some_request_id(),
                };
                let call = self.ask(Ask::DeleteArtifact { uid: artifact });
                let done = wire.artifacts().delete_artifact(request).await;
                if done.is_ok() {
                    self.notes.lock().frozen.remove(&artifact);
                }
                self.history.answer(call, wire::answer(done, wire::done));
            }
        }
    }

    async fn resume(&self, wire: &Wire, ask: ResumeAsk, patience: Duration) {
        if ask.request_id.is_some() {
            let mut notes = self.notes.lock();
            notes.resumed.retain(|other| other.request_id != ask.request_id);
            notes.resumed.push(ask.clone());
            if notes.resumed.len() > REMEMBERED {
                notes.resumed.remove(0);
            }
        }
        let request = v1::ResumeVmRequest {
            source: Some(v1::resume_vm_request::Source::Artifact(names::ARTIFACTS.name(&ask.id))),
            vm_id: ask.vm_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            ttl: Some(duration_to_wire(ask.ttl)),
            request_id: ask.request_id.clone().unwrap_or_default(),
            ..Default::default()
        };
        let call = self.ask(Ask::Resume(ask));
        let mut vms = wire.vms();
        let Ok(done) = tokio::time::timeout(patience, vms.resume_vm(request)).await else {
            self.history.push(What::Leave(call));
            return;
        };
        let answer = wire::answer(done.map(tonic::Response::into_inner), wire::resumed);
        if let Answer::Resumed(vm) = &answer {
            self.have(vm);
        }
        self.history.answer(call, answer);
    }

    async fn list_artifacts(&self, wire: &Wire) {
        let request = v1::ListArtifactsRequest { page_size: 1000, ..Default::default() };
        let call = self.ask(Ask::Artifacts);
        let done = wire.artifacts().list_artifacts(request).await;
        let done = done.map(tonic::Response::into_inner);
        self.history.answer(call, wire::answer(done, wire::artifacts));
    }
}
