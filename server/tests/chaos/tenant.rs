//! A client: acquires, proves that what it got is its own and stays so, renews, gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_proto::StatusDetails;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{
    AcquireVmRequest, GetVmRequest, RenewLeaseRequest, Vm, pool, renew_lease_request,
};
use hearth_providers::Uid;
use hearth_providers::env::{Env as _, SystemEnv};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::hearth::{Answer, Outcome};
use crate::kind::{Kind, Traces};
use crate::ledger::Ledger;
use crate::node::Door;
use crate::scene::{PATIENCE, POLL, beside};

/// The most VMs that one has at a time.
const MOST: usize = 2;
/// How often one leaves before the answer, and how long it then stays at most.
const LEAVES: f64 = 0.3;
const STAYS_MICROS: u64 = 20_000;
/// Deadline of one call; a call without an answer is made again.
const CALL: Duration = Duration::from_secs(20);
const LONG_TTL_SECONDS: i64 = 3600;
/// Of leases that are left to end by themselves.
const SHORT_TTL_SECONDS: i64 = 3;

pub(crate) struct Tenant {
    name: String,
    kind: Arc<dyn Kind>,
    ledger: Arc<Ledger>,
    door: Door,
    random: StdRng,
    number: usize,
    mine: Vec<Mine>,
}

/// A VM that it has.
struct Mine {
    vm: Vm,
    request: AcquireVmRequest,
    token: String,
    traces: Traces,
    is_short: bool,
}

impl Tenant {
    pub(crate) fn new(
        number: u64,
        seed: u64,
        kind: Arc<dyn Kind>,
        ledger: Arc<Ledger>,
        door: Door,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (number + 1));
        let name = format!("tenant-{number}");
        Self { name, kind, ledger, door, random, number: 0, mine: Vec::new() }
    }

    /// Goes on until `stop`, then gives everything back.
    pub(crate) async fn run(mut self, stop: &AtomicBool) -> Outcome {
        while !stop.load(Ordering::Relaxed) {
            if self.mine.len() < MOST && (self.mine.is_empty() || self.random.random_bool(0.4)) {
                self.acquire().await?;
                continue;
            }
            let mine = self.mine.swap_remove(self.random.random_range(0..self.mine.len()));
            match self.random.random_range(0..10) {
                _ if mine.is_short => self.leave_it(mine).await?,
                0..5 => self.go_on(mine).await?,
                5..7 => self.renew(mine).await?,
                _ => self.release(mine).await?,
            }
        }
        while let Some(mine) = self.mine.pop() {
            match mine.is_short {
                true => self.leave_it(mine).await?,
                false => self.release(mine).await?,
            }
        }
        Ok(())
    }

    fn request(&mut self) -> (AcquireVmRequest, bool) {
        self.number += 1;
        let vm_id = format!("{}-{}", self.name, self.number);
        let vm_id = if self.random.random_bool(0.7) { vm_id } else { String::new() };
        let is_short = self.random.random_bool(0.1);
        let overflow = match self.random.random_range(0..10) {
            0 => pool::Overflow::ColdOnly,
            1 => pool::Overflow::Wait,
            _ => pool::Overflow::Unspecified,
        };
        let ttl = if is_short { SHORT_TTL_SECONDS } else { LONG_TTL_SECONDS };
        let request = AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id,
            // Another one at each run: a log of the host may have several.
            request_id: Uid::from_random(self.random.random()).to_string(),
            overflow: overflow.into(),
            expiration: Some(Expiration::Ttl(prost_types::Duration { seconds: ttl, nanos: 0 })),
            ..AcquireVmRequest::default()
        };
        (request, is_short)
    }

    /// Asks until there is an answer, and looks whether the VM is a fresh one.
    async fn acquire(&mut self) -> Outcome {
        let (request, is_short) = self.request();
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        let (asked, got) = loop {
            tries += 1;
            let asked = self.ledger.now();
            let client = self.door.client().await?;
            let call = client.acquire(request.clone(), CALL);
            let answered = match tries == 1 && self.random.random_bool(LEAVES) {
                // It leaves; what it asked for goes on, or has not begun.
                true => {
                    let patience = Duration::from_micros(self.random.random_range(0..STAYS_MICROS));
                    match tokio::time::timeout(patience, call).await {
                        Ok(answered) => answered,
                        Err(_) => continue,
                    }
                }
                false => call.await,
            };
            let error = match answered {
                Ok(got) => break (asked, got),
                Err(error) => error,
            };
            let reason = StatusDetails::of(&error).reason.unwrap_or_default();
            match error.code() {
                Code::FailedPrecondition if is_short && reason == "LEASE_EXPIRED" => return Ok(()),
                _ if may_be_retried(&error) && Instant::now() < deadline => self.wait(&error).await,
                _ => {
                    self.ledger.violation(format!("no answer to {request:?}: {error:?}"));
                    return Ok(());
                }
            }
        };
        let vm = got.vm.clone().ok_or("an answer without a VM")?;
        self.ledger.answered(&request.request_id, asked, &got, &vm);
        self.ledger.count(|counts| {
            counts.retries += usize::from(tries > 1);
            counts.replays += usize::from(got.replayed);
        });
        if tries == 1 && got.replayed {
            self.ledger.violation(format!("the first try was answered as a replay: {got:?}"));
        }
        let token = format!("{}-{}-{}", self.name, self.number, &vm.uid[..8]);
        match self.claim(&vm, &token).await {
            Ok(traces) => self.mine.push(Mine { vm, request, token, traces, is_short }),
            Err(error) => {
                let traces = Traces { tokens: Vec::new(), boot: String::new(), age: 0 };
                self.bury(Mine { vm, request, token, traces, is_short }, error.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Looks for traces of others, and leaves its own.
    async fn claim(&self, vm: &Vm, token: &str) -> Answer<Traces> {
        let fresh = self.traces(vm).await?;
        if fresh.tokens.iter().any(Option::is_some) {
            self.ledger.violation(format!("{} was used before: {fresh:?}", vm.uid));
        }
        let (kind, left, name) = (Arc::clone(&self.kind), vm.clone(), token.to_owned());
        beside(move || kind.leave(&left, &name)).await?;
        self.traces(vm).await
    }

    async fn traces(&self, vm: &Vm) -> Answer<Traces> {
        let (kind, vm) = (Arc::clone(&self.kind), vm.clone());
        beside(move || kind.traces(&vm)).await
    }

    /// It is still what it was: by what hearth says, and by what the guest says.
    async fn go_on(&mut self, mut mine: Mine) -> Outcome {
        let now = match self.traces(&mine.vm).await {
            Ok(now) => now,
            Err(error) => return self.bury(mine, error.to_string()).await,
        };
        let is_own = now.tokens.iter().all(|token| token.as_ref() == Some(&mine.token));
        let is_same = now.boot == mine.traces.boot && now.age >= mine.traces.age;
        if !is_own || !is_same {
            let was = &mine.traces;
            self.ledger.violation(format!("{}: {now:?} after {was:?}", mine.token));
        }
        mine.traces = now;
        self.ledger.count(|counts| counts.uses += 1);
        let found = self.get(&mine.vm.name).await?;
        let uid = found.as_ref().map(|vm| vm.uid.as_str());
        let is_killed = self.ledger.is_killed(&mine.vm.uid);
        let runs = found.as_ref().is_some_and(|vm| vm.state() == State::Running);
        if uid != Some(&mine.vm.uid) || !(runs || is_killed) {
            self.ledger.violation(format!("{} is {found:?}", mine.token));
        }
        self.mine.push(mine);
        Ok(())
    }

    async fn renew(&mut self, mine: Mine) -> Outcome {
        let ttl = prost_types::Duration { seconds: LONG_TTL_SECONDS, nanos: 0 };
        let request = RenewLeaseRequest {
            name: mine.vm.name.clone(),
            uid: mine.vm.uid.clone(),
            expiration: Some(renew_lease_request::Expiration::Ttl(ttl)),
            ..RenewLeaseRequest::default()
        };
        let renewed = self
            .asked(async |client| client.vms.clone().renew_lease(request.clone()).await)
            .await?;
        match renewed.map(tonic::Response::into_inner) {
            Ok(vm) => {
                self.ledger.renewed(&vm);
                self.ledger.count(|counts| counts.renewals += 1);
            }
            Err(error) => self.ledger.violation(format!("no renewal of {}: {error:?}", mine.token)),
        }
        self.mine.push(mine);
        Ok(())
    }

    /// Gives it back: afterwards its name is free.
    async fn release(&mut self, mine: Mine) -> Outcome {
        self.ledger.let_go(&mine.vm.uid);
        let released = self.asked(async |client| client.release(&mine.vm).await).await?;
        if let Err(error) = released {
            self.ledger.violation(format!("no release of {}: {error:?}", mine.token));
        }
        self.ledger.released(&mine.vm.uid);
        self.ledger.count(|counts| counts.releases += 1);
        let found = self.get(&mine.vm.name).await?;
        if let Some(found) = found {
            self.ledger.violation(format!("{} was released: {found:?}", mine.token));
        }
        Ok(())
    }

    /// A short lease ends by itself.
    async fn leave_it(&mut self, mine: Mine) -> Outcome {
        let expires = self.ledger.expire_time(&mine.vm.uid).ok_or("a lease without an end")?;
        let deadline = Instant::now() + PATIENCE;
        while self.get(&mine.vm.name).await?.is_some() {
            if Instant::now() > deadline {
                self.ledger.violation(format!("{} never ends", mine.token));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        if SystemEnv.now() < expires {
            self.ledger.violation(format!("{} ended before its time", mine.token));
        }
        self.ledger.let_go(&mine.vm.uid);
        self.ledger.count(|counts| counts.expiries += 1);
        Ok(())
    }

    /// What does not answer was killed: it is found by name, FAILED, and by its request.
    async fn bury(&mut self, mine: Mine, error: String) -> Outcome {
        let uid = &mine.vm.uid;
        let expires = self.ledger.expire_time(uid).ok_or("a lease without an end")?;
        if mine.is_short && SystemEnv.now() >= expires {
            return self.leave_it(mine).await;
        }
        if !self.ledger.is_killed(uid) {
            self.ledger.violation(format!("nobody killed {uid}, and it does not answer: {error}"));
            return self.release(mine).await;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.get(&mine.vm.name).await? {
                None if mine.is_short && SystemEnv.now() >= expires => break,
                Some(vm) if vm.uid == *uid && vm.state() == State::Failed => break,
                Some(vm) if vm.uid == *uid && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                found => {
                    let what = format!("{uid} was killed, and by its name there is {found:?}");
                    self.ledger.violation(what);
                    break;
                }
            }
        }
        self.ledger.count(|counts| counts.failures += 1);
        if mine.is_short {
            return self.leave_it(mine).await;
        }
        let again =
            self.asked(async |client| client.acquire(mine.request.clone(), CALL).await).await?;
        let again = again.map(|again| again.vm.map(|vm| vm.uid));
        if !matches!(&again, Ok(Some(found)) if found == uid) {
            self.ledger.violation(format!("the request of {uid}, which failed: {again:?}"));
        }
        self.release(mine).await
    }

    async fn get(&mut self, name: &str) -> Answer<Option<Vm>> {
        let request = GetVmRequest { name: name.to_owned() };
        let found =
            self.asked(async |client| client.vms.clone().get_vm(request.clone()).await).await?;
        match found {
            Ok(vm) => Ok(Some(vm.into_inner())),
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a call until it is answered for good.
    async fn asked<R>(
        &mut self,
        call: impl AsyncFn(hearth_proto::HearthClient) -> Result<R, Status>,
    ) -> Answer<Result<R, Status>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = self.door.client().await?;
            match call(client).await {
                Err(error) if may_be_retried(&error) && Instant::now() < deadline => {
                    self.wait(&error).await;
                }
                answered => return Ok(answered),
            }
        }
    }

    /// As long as the answer has it, and no longer than is good for the load.
    async fn wait(&mut self, error: &Status) {
        let after = StatusDetails::of(error).retry_after.unwrap_or(POLL);
        let longest = Duration::from_millis(self.random.random_range(100..500));
        tokio::time::sleep(after.min(longest)).await;
    }
}

/// The code says whether to retry; a connection that broke has said nothing.
fn may_be_retried(error: &Status) -> bool {
    let of_transport = StatusDetails::of(error).reason.is_none();
    match error.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
        Code::Unknown | Code::Cancelled | Code::Internal => of_transport,
        _ => false,
    }
}
