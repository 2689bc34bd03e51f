//! A VM that changes hands: a retry of the call finds the one VM that it got, or gets one.

use std::time::Duration;

use hearth_proto::v1;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;
use hearth_providers::env::{Env as _, SystemEnv};
use tonic::Status;

use crate::driver::Scene;
use crate::host::{BLOCKING, DEPTH, Hearth, Host, WORKER};
use crate::{Answer, Outcome, check};

const VM: &str = "mine";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Of a warm VM.
pub(crate) struct Handoff(Acquire);

/// Of one that is restored for the call.
pub(crate) struct Restore(Acquire);

/// Giving it back.
pub(crate) struct Release {
    vm: Option<v1::Vm>,
}

struct Acquire {
    overflow: v1::pool::Overflow,
    request_id: String,
    /// What an answer said.
    answered: Option<v1::Vm>,
}

impl Acquire {
    const fn new(overflow: v1::pool::Overflow) -> Self {
        Self { overflow, request_id: String::new(), answered: None }
    }

    fn request(&self) -> v1::AcquireVmRequest {
        v1::AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id: VM.to_owned(),
            request_id: self.request_id.clone(),
            overflow: self.overflow.into(),
            ..Default::default()
        }
    }

    async fn act(&mut self, hearth: &Hearth, source: Source) -> Result<(), Status> {
        self.request_id = SystemEnv.uid().to_string();
        self.answered = None;
        let answer = hearth.client.acquire(self.request(), PATIENCE).await?;
        if answer.source() != source {
            return Err(Status::internal(format!("not what was asked for: {answer:?}")));
        }
        self.answered = answer.vm;
        Ok(())
    }

    /// Looks, while `others` have VMs too.
    async fn look(&mut self, hearth: &Hearth, others: usize) -> Answer<bool> {
        let before = hearth.get(VM).await.ok();
        if let Some(answered) = &self.answered {
            let is_there = before.as_ref().is_some_and(|vm| vm.uid == answered.uid);
            check(is_there, || format!("answered {answered:?}, and there is {before:?}"))?;
        }
        let again = hearth.client.acquire(self.request(), PATIENCE).await?;
        let replayed = again.replayed;
        let vm = again.vm.ok_or("no vm")?;
        check(vm.state() == State::Running, || format!("{vm:?}"))?;
        let is_same = before.as_ref().is_none_or(|before| before.uid == vm.uid);
        check(is_same && replayed == before.is_some(), || format!("{before:?}, then {vm:?}"))?;
        settled(hearth, others + 1).await?;
        hearth.client.release(&vm).await?;
        settled(hearth, others).await?;
        Ok(replayed)
    }
}

impl Handoff {
    /// As [`Scene::look`], on a hearth of which one other has a VM.
    pub(crate) async fn recovered(&mut self, hearth: &Hearth) -> Answer<bool> {
        self.0.look(hearth, 1).await
    }
}

impl Scene for Handoff {
    const NAME: &'static str = "handoff";
    const THREADS: &'static [&'static str] = &[WORKER];
    const HALLMARKS: &'static [&'static str] = &["renameat2", "write"];

    async fn begin(_: &Host, _: &Hearth) -> Answer<Self> {
        Ok(Self(Acquire::new(v1::pool::Overflow::WarmOnly)))
    }

    async fn act(&mut self, _: &Host, hearth: &Hearth) -> Result<(), Status> {
        self.0.act(hearth, Source::Warm).await
    }

    async fn look(&mut self, _: &Host, hearth: &Hearth) -> Answer<bool> {
        self.0.look(hearth, 0).await
    }
}

impl Scene for Restore {
    const NAME: &'static str = "restore";
    const THREADS: &'static [&'static str] = &[WORKER, BLOCKING];
    const HALLMARKS: &'static [&'static str] = &["symlink", "mkdir", "write"];

    async fn begin(_: &Host, _: &Hearth) -> Answer<Self> {
        Ok(Self(Acquire::new(v1::pool::Overflow::ColdOnly)))
    }

    async fn act(&mut self, _: &Host, hearth: &Hearth) -> Result<(), Status> {
        self.0.act(hearth, Source::Cold).await
    }

    async fn look(&mut self, _: &Host, hearth: &Hearth) -> Answer<bool> {
        self.0.look(hearth, 0).await
    }
}

impl Scene for Release {
    const NAME: &'static str = "release";
    const THREADS: &'static [&'static str] = &[WORKER, BLOCKING];
    const HALLMARKS: &'static [&'static str] = &["renameat2", "unlink", "write"];

    async fn begin(_: &Host, hearth: &Hearth) -> Answer<Self> {
        Ok(Self { vm: Some(take(hearth).await?) })
    }

    /// Gives it back, and waits until nothing of it is left.
    async fn act(&mut self, host: &Host, hearth: &Hearth) -> Result<(), Status> {
        let vm = self.vm.as_ref().ok_or_else(|| Status::internal("no vm"))?;
        hearth.client.release(vm).await?;
        let gone = Hearth::until("it is destroyed", async || {
            // A hearth that is killed destroys nothing.
            host.instances() == DEPTH || hearth.vms().await.is_err()
        })
        .await;
        gone.map_err(|error| Status::internal(error.to_string()))
    }

    async fn look(&mut self, _: &Host, hearth: &Hearth) -> Answer<bool> {
        // A look that a late kill cut short is begun again.
        let vm = self.vm.clone().ok_or("no vm")?;
        let left = hearth.get(VM).await.ok();
        let is_it = left.as_ref().is_none_or(|left| left.uid == vm.uid);
        check(is_it, || format!("{left:?} in place of {vm:?}"))?;
        // Giving back what is given back is no error.
        hearth.client.release(&vm).await?;
        settled(hearth, 0).await?;
        self.vm = Some(take(hearth).await?);
        Ok(left.is_none())
    }
}

async fn take(hearth: &Hearth) -> Answer<v1::Vm> {
    let mut acquire = Acquire::new(v1::pool::Overflow::Unspecified);
    acquire.request_id = SystemEnv.uid().to_string();
    let vm = hearth.client.acquire(acquire.request(), PATIENCE).await?.vm.ok_or("no vm")?;
    settled(hearth, 1).await?;
    Ok(vm)
}

/// Waits until what lives is what is warm and `leased`.
pub(crate) async fn settled(hearth: &Hearth, leased: usize) -> Outcome {
    Hearth::until("what lives is warm or leased", async || {
        let Ok(vms) = hearth.vms().await else { return false };
        // One that is listed may still be asked whether it is ready.
        let is_full = hearth.is_full().await.unwrap_or(false);
        let held = vms.iter().filter(|vm| vm.lease.is_some()).count();
        let running = vms.iter().filter(|vm| vm.state() == State::Running).count();
        held == leased && running == vms.len() && vms.len() == DEPTH + leased && is_full
    })
    .await
}
