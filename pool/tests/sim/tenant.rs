//! A tenant: it acquires, retries, renews, renames, releases and leaves, as its dice say. What it
//! knows outlives the service.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::acquire::{AcquireRequest, Expiration};
use hearth_pool::error::Error;
use hearth_pool::ids::{PoolId, Tenant};
use hearth_pool::manager::Manager;
use hearth_pool::pool::Overflow;
use hearth_providers::{Uid, VmId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::env::Dice;
use crate::history::{AcquireAsk, Answer, Ask, History, Who};

/// The name of the one pool.
pub(crate) const POOL: &str = "default";
/// How many of what it has asked for a tenant remembers.
const REMEMBERED: usize = 6;

/// What a tenant knows.
#[derive(Default)]
struct Notes {
    mine: Vec<(VmId, Uid)>,
    asked: Vec<AcquireAsk>,
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

/// The tenant called so by the service.
pub(crate) fn tenant(number: u64) -> Tenant {
    Tenant::new(&format!("t{number}"))
}

impl Caller {
    pub(crate) fn new(seed: u64, number: u64, history: History) -> Self {
        let dice = Arc::new(Dice::new(seed, 100 + number));
        Self { number, dice, history, notes: Arc::default() }
    }

    /// Calls the service for as long as it lives.
    pub(crate) async fn live(self, manager: Arc<Manager>) {
        loop {
            tokio::time::sleep(self.dice.millis(1, 250)).await;
            match self.dice.below(100) {
                0..42 => self.acquire(&manager, self.new_ask()).await,
                42..54 => {
                    let asked = self.pick_asked();
                    if let Some(asked) = asked {
                        self.acquire(&manager, asked).await;
                    }
                }
                54..57 => self.storm(&manager).await,
                57..100 => {
                    let mine = self.dice.pick(&self.notes.lock().mine).cloned();
                    if let Some((vm_id, uid)) = mine {
                        self.use_vm(&manager, vm_id, uid).await;
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks again for everything that it remembers to have asked for by an id.
    pub(crate) async fn retry_all(&self, manager: &Arc<Manager>) {
        let asked = self.notes.lock().asked.clone();
        for ask in asked {
            self.call(manager, AcquireAsk { deadline: None, ..ask }, None).await;
        }
    }

    /// Looks at everything that it has.
    pub(crate) fn get_all(&self, manager: &Arc<Manager>) {
        let mine = self.notes.lock().mine.clone();
        mine.into_iter().for_each(|(vm_id, _)| self.get(manager, vm_id));
    }

    fn new_ask(&self) -> AcquireAsk {
        let dice = &self.dice;
        let vm_id = dice.percent(40).then(|| self.any_name()).flatten();
        let request_id = dice.percent(50).then(|| {
            let mut notes = self.notes.lock();
            notes.requests += 1;
            format!("r{}", notes.requests)
        });
        let overflow = match dice.below(10) {
            0..5 => None,
            5..7 => Some(Overflow::Wait),
            7 => Some(Overflow::WarmOnly),
            _ => Some(Overflow::ColdOnly),
        };
        let ttl = match dice.below(10) {
            0..6 => dice.millis(100, 3_000),
            _ => dice.millis(60_000, 600_000),
        };
        let deadline = dice.percent(30).then(|| dice.millis(0, 120));
        let ask = AcquireAsk { vm_id, request_id, overflow, ttl, deadline };
        if ask.request_id.is_some() {
            let mut notes = self.notes.lock();
            notes.asked.push(ask.clone());
            if notes.asked.len() > REMEMBERED {
                notes.asked.remove(0);
            }
        }
        ask
    }

    fn any_name(&self) -> Option<VmId> {
        VmId::parse(&format!("n{}", self.dice.below(12))).ok()
    }

    fn pick_asked(&self) -> Option<AcquireAsk> {
        self.dice.pick(&self.notes.lock().asked).cloned()
    }

    /// Many at once, most with little time, some twice.
    async fn storm(&self, manager: &Arc<Manager>) {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..self.dice.below(10) + 4 {
            let ask = AcquireAsk {
                deadline: Some(self.dice.millis(0, 80)),
                ttl: self.dice.millis(50, 500),
                ..self.new_ask()
            };
            for _ in 0..1 + self.dice.below(4) / 3 {
                let (caller, manager, ask) = (self.clone(), Arc::clone(manager), ask.clone());
                calls.spawn(async move { caller.acquire(&manager, ask).await });
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

    async fn acquire(&self, manager: &Arc<Manager>, ask: AcquireAsk) {
        let patience = self.dice.percent(35).then(|| self.dice.millis(0, 90));
        self.call(manager, ask, patience).await;
    }

    async fn call(&self, manager: &Arc<Manager>, ask: AcquireAsk, patience: Option<Duration>) {
        let Ok(pool) = PoolId::parse(POOL) else { return };
        let request = AcquireRequest {
            tenant: tenant(self.number),
            pool,
            vm_id: ask.vm_id.clone(),
            request_id: ask.request_id.clone(),
            expiration: Some(Expiration::After(ask.ttl)),
            overflow: ask.overflow,
            labels: std::collections::BTreeMap::new(),
            network_overrides: Vec::new(),
            deadline: ask.deadline.map(|deadline| Instant::now() + deadline),
            validate_only: false,
        };
        let call = self.history.ask(Who::Tenant(self.number), Ask::Acquire(ask));
        let acquire = manager.acquire(request);
        let patience = patience.unwrap_or(Duration::from_secs(3600));
        let Ok(done) = tokio::time::timeout(patience, acquire).await else {
            self.history.push(crate::history::What::Leave(call));
            return;
        };
        let answer = match done {
            Ok(None) => Answer::Done,
            Err(error) => Answer::Refused(error.reason()),
            Ok(Some(got)) => {
                let (uid, held) = (got.lease.uid, got.lease.held());
                let (replayed, source) = (got.replayed, got.lease.source);
                let mut notes = self.notes.lock();
                notes.mine.retain(|(_, other)| *other != uid);
                notes.mine.push((held.vm_id.clone(), uid));
                Answer::Got { vm_id: held.vm_id, uid, replayed, source, deadline: held.deadline }
            }
        };
        self.history.answer(call, answer);
    }

    async fn use_vm(&self, manager: &Arc<Manager>, vm_id: VmId, uid: Uid) {
        let me = tenant(self.number);
        let ask = |ask| self.history.ask(Who::Tenant(self.number), ask);
        match self.dice.below(100) {
            0..40 => self.get(manager, vm_id),
            40..72 => {
                let by_uid = self.dice.percent(70);
                let call = ask(Ask::Release { vm_id: vm_id.clone(), uid, by_uid });
                let done = manager.release(&vm_id, by_uid.then_some(uid), Some(&me)).await;
                // Most forget it; some release it again some time.
                if done.is_ok() && self.dice.percent(80) {
                    self.notes.lock().mine.retain(|(_, other)| *other != uid);
                }
                self.history.answer(call, done.into());
            }
            72..88 => {
                let ttl = self.dice.millis(100, 5_000);
                let call = ask(Ask::Renew { vm_id: vm_id.clone(), uid, ttl });
                let until = Expiration::After(ttl);
                let done = manager.renew(&vm_id, Some(&me), Some(uid), until, false);
                self.history.answer(call, self.seen(manager, done.map(|lease| lease.uid)));
            }
            _ => {
                let Some(to) = self.any_name() else { return };
                let call = ask(Ask::Rename { vm_id: vm_id.clone(), uid, to: to.clone() });
                let done = manager.rename_vm(&vm_id, Some(uid), Some(&me), &to);
                if done.is_ok() {
                    let mut notes = self.notes.lock();
                    let mine = notes.mine.iter_mut().filter(|(_, other)| *other == uid);
                    mine.for_each(|(name, _)| name.clone_from(&to));
                }
                self.history.answer(call, done.map(drop).into());
            }
        }
    }

    fn get(&self, manager: &Arc<Manager>, vm_id: VmId) {
        let who = Who::Tenant(self.number);
        let call = self.history.ask(who, Ask::Get { vm_id: vm_id.clone() });
        let found = manager.vm(&vm_id, Some(&tenant(self.number))).map(|info| info.view.uid);
        if let Err(Error::NotFound { .. }) = found {
            self.notes.lock().mine.retain(|(name, _)| *name != vm_id);
        }
        self.history.answer(call, self.seen(manager, found));
    }

    fn seen(&self, manager: &Arc<Manager>, found: Result<Uid, Error>) -> Answer {
        let uid = match found {
            Ok(uid) => uid,
            Err(error) => return Answer::Refused(error.reason()),
        };
        let Some(lease) = manager.lease_by_uid(uid, Some(&tenant(self.number))) else {
            return Answer::Refused("not_found");
        };
        let held = lease.held();
        let status = manager.leased_info(&lease).view.status;
        Answer::Seen { vm_id: held.vm_id, uid, deadline: held.deadline, status }
    }
}

impl From<Result<(), Error>> for Answer {
    fn from(done: Result<(), Error>) -> Self {
        done.map_or_else(|error| Self::Refused(error.reason()), |()| Self::Done)
    }
}
