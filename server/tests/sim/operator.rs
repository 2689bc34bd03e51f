//! The operator: changes depths, drains, builds templates anew, steps clocks; VMs that end by
//! themselves; and the end of a run, when everything has to be accounted for.

use std::sync::Arc;
use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::{names, v1};

use crate::env::Dice;
use crate::history::{Answer, Ask, SeenArtifact, SeenVm, What, Who};
use crate::tenant::{INTERFACE, POOL};
use crate::wire::{self, Wire};
use crate::world::World;

/// The oldest that a warm VM may get, where the pool of a seed bounds it.
pub(crate) const MAX_WARM_AGE: Duration = Duration::from_secs(2);
/// Restores of the pool at once.
pub(crate) const MAX_PARALLEL_RESTORES: usize = 2;

/// A job that hangs goes on for that long, and more may wait behind it, whoever has left.
const LONGEST_HANG: Duration = Duration::from_secs(5);
/// The capture of a freeze, and its record.
const LONGEST_FREEZE: Duration = Duration::from_secs(9);

/// How often, and how long in between, a state is waited for.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Operator {
    world: Arc<World>,
    wire: Wire,
}

impl Operator {
    pub(crate) fn new(world: &Arc<World>, wire: Wire) -> Self {
        Self { world: Arc::clone(world), wire }
    }

    async fn ask(&self, ask: Ask, answer: impl Future<Output = Answer>) -> Answer {
        let call = self.world.history.ask(Who::Operator, ask);
        let answer = answer.await;
        self.world.history.answer(call, answer.clone());
        answer
    }

    /// Makes the template and the pool.
    pub(crate) async fn set_up(&self, dice: &Dice) -> Result<(), String> {
        let interface = v1::NetworkInterface {
            iface_id: INTERFACE.to_owned(),
            host_dev_name: "tap".to_owned(),
            ..Default::default()
        };
        let spec = v1::VmSpec { network_interfaces: vec![interface], ..Default::default() };
        let template = v1::Template { spec: Some(spec), warm_up: warm_up(), ..Default::default() };
        let request = v1::CreateTemplateRequest {
            template_id: POOL.to_owned(),
            template: Some(template),
            ..Default::default()
        };
        let build = async {
            let begun = self.wire.templates().create_template(request).await?.into_inner();
            self.wire.made::<v1::Template>(begun).await
        };
        self.ask(Ask::Rebuild, async { wire::answer(build.await, built) }).await;
        let (is_paused, is_rolling) = (dice.percent(30), dice.percent(40));
        let cut_over = match is_rolling {
            true => v1::pool::CutOver::Rolling,
            false => v1::pool::CutOver::Immediate,
        };
        let rollout = v1::pool::Rollout { cut_over: cut_over.into(), max_surge: 0 };
        let max_warm_age = dice.percent(50).then_some(MAX_WARM_AGE);
        let warm_state =
            if is_paused { v1::pool::WarmState::Paused } else { v1::pool::WarmState::Running };
        let pool = v1::Pool {
            template: names::TEMPLATES.name(POOL),
            warm_state: warm_state.into(),
            max_warm_age: max_warm_age.map(duration_to_wire),
            max_parallel_restores: MAX_PARALLEL_RESTORES as i32,
            sizing: Some(fixed(1 + dice.below(4) as i32)),
            rollout: Some(rollout),
            ..Default::default()
        };
        let request = v1::CreatePoolRequest {
            pool_id: POOL.to_owned(),
            pool: Some(pool),
            ..Default::default()
        };
        let made = self.wire.pools().create_pool(request).await;
        self.world.history.push(What::Pool { max_warm_age, is_paused, is_rolling });
        made.map(drop).map_err(|status| format!("no pool: {status:?}"))
    }

    /// Does what the dice say for as long as the service lives.
    pub(crate) async fn live(self, dice: Arc<Dice>) {
        loop {
            tokio::time::sleep(dice.millis(1, 400)).await;
            match dice.below(100) {
                0..40 => self.status().await,
                40..50 => {
                    self.depth(dice.below(8) as i32).await;
                    // While what is missing is being restored.
                    tokio::time::sleep(dice.millis(1, 15)).await;
                    self.status().await;
                }
                50..53 => {
                    self.drain(true).await;
                    tokio::time::sleep(dice.millis(0, 400)).await;
                    self.drain(false).await;
                }
                53..56 => drop(self.list().await),
                56..62 => self.rebuild().await,
                62..72 => {
                    let seconds = dice.below(200_000) as i64 - 100_000;
                    self.world.env.step(seconds);
                    self.world.history.push(What::Stepped(seconds));
                }
                72..85 => self.world.kill_a_vm(&dice),
                _ => {}
            }
        }
    }

    async fn rebuild(&self) {
        let template = v1::Template {
            name: names::TEMPLATES.name(POOL),
            warm_up: warm_up(),
            ..Default::default()
        };
        let request = v1::UpdateTemplateRequest {
            template: Some(template),
            update_mask: Some(mask("warm_up")),
            ..Default::default()
        };
        let build = async {
            let begun = self.wire.templates().update_template(request).await?.into_inner();
            self.wire.made::<v1::Template>(begun).await
        };
        self.ask(Ask::Rebuild, async { wire::answer(build.await, built) }).await;
    }

    async fn depth(&self, depth: i32) {
        let pool = v1::Pool {
            name: names::POOLS.name(POOL),
            sizing: Some(fixed(depth)),
            ..Default::default()
        };
        let request = v1::UpdatePoolRequest {
            pool: Some(pool),
            update_mask: Some(mask("sizing")),
            ..Default::default()
        };
        let change =
            async { wire::answer(self.wire.pools().update_pool(request).await, wire::done) };
        self.ask(Ask::Depth(depth.unsigned_abs() as usize), change).await;
    }

    async fn drain(&self, drains: bool) {
        let mut node = self.wire.node();
        let change = async {
            match drains {
                true => wire::answer(node.drain(v1::DrainRequest::default()).await, wire::done),
                false => {
                    wire::answer(node.undrain(v1::UndrainRequest::default()).await, wire::done)
                }
            }
        };
        self.ask(Ask::Drain(drains), change).await;
    }

    async fn pool(&self) -> Answer {
        let request = v1::GetPoolRequest { name: names::POOLS.name(POOL) };
        let got = self.wire.pools().get_pool(request).await.map(tonic::Response::into_inner);
        wire::answer(got, wire::status)
    }

    async fn status(&self) {
        self.ask(Ask::Status, self.pool()).await;
    }

    async fn vms(&self) -> Answer {
        wire::answer(self.wire.list().await, wire::vms)
    }

    /// Lists every VM; answers those that tenants have.
    async fn list(&self) -> Vec<SeenVm> {
        let Answer::Vms(vms) = self.ask(Ask::List, self.vms()).await else { return Vec::new() };
        vms.into_iter().filter(|vm| !vm.tenant.is_empty()).collect()
    }

    async fn release(&self, vm: SeenVm) {
        let request = v1::ReleaseVmRequest {
            name: names::VMS.name(vm.vm_id.as_str()),
            uid: vm.uid.to_string(),
            ..Default::default()
        };
        let release = async { wire::answer(self.wire.vms().release_vm(request).await, wire::done) };
        let ask = Ask::Release { vm_id: vm.vm_id, uid: vm.uid, by_uid: true };
        self.ask(ask, release).await;
    }

    async fn artifacts(&self) -> Vec<SeenArtifact> {
        let request = v1::ListArtifactsRequest { page_size: 1000, ..Default::default() };
        let list = async {
            let listed = self.wire.artifacts().list_artifacts(request).await;
            wire::answer(listed.map(tonic::Response::into_inner), wire::artifacts)
        };
        match self.ask(Ask::Artifacts, list).await {
            Answer::Artifacts(artifacts) => artifacts,
            _ => Vec::new(),
        }
    }

    /// Ends a run on a service that nothing disturbs any more: it settles, answers every retry,
    /// and after the release and deletion of everything nothing is left.
    pub(crate) async fn end(&self, wires: &[Wire]) {
        // What was begun before everybody left comes to its end, a drain among it.
        tokio::time::sleep(LONGEST_HANG).await;
        self.drain(false).await;
        self.depth(2).await;
        for (caller, wire) in self.world.callers.iter().zip(wires) {
            caller.retry_all(wire).await;
        }
        for _ in 0..LOOKS {
            if self.has_settled().await {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.status().await;
        for (caller, wire) in self.world.callers.iter().zip(wires) {
            caller.look_all(wire).await;
        }
        let leased = self.list().await;
        self.artifacts().await;
        self.world.history.push(What::Settled(self.world.provider_list()));
        for vm in leased {
            self.release(vm).await;
        }
        self.depth(0).await;
        self.until_empty().await;
        self.world.history.push(What::Emptied(self.world.provider_list()));
        // A freeze whose caller left goes on.
        tokio::time::sleep(LONGEST_FREEZE).await;
        for artifact in self.artifacts().await {
            let request = v1::DeleteArtifactRequest {
                name: names::ARTIFACTS.name(&artifact.id),
                uid: artifact.uid.to_string(),
                ..Default::default()
            };
            let delete = async {
                wire::answer(self.wire.artifacts().delete_artifact(request).await, wire::done)
            };
            self.ask(Ask::DeleteArtifact { uid: artifact.uid }, delete).await;
        }
    }

    /// The last look, by another life: what a start finds to be tidied up is tidied up.
    pub(crate) async fn sweep(&self) {
        self.until_empty().await;
        self.list().await;
        self.artifacts().await;
        let snapshots = self.world.memory.all_snapshots().into_iter();
        let snapshots = snapshots.map(|it| format!("{} {:?}", it.snapshot_id, it.pinned_by));
        let swept = What::Swept(self.world.provider_list(), snapshots.collect());
        self.world.history.push(swept);
    }

    async fn has_settled(&self) -> bool {
        let (Answer::Status { restoring: 0, warm, target, .. }, Answer::Vms(vms)) =
            (self.pool().await, self.vms().await)
        else {
            return false;
        };
        let leased = vms.iter().filter(|vm| !vm.tenant.is_empty()).count();
        warm == target && self.world.memory.list_vms().len() == warm + leased
    }

    /// Waits, bounded; the checker finds out whether it is.
    async fn until_empty(&self) {
        for _ in 0..LOOKS {
            if self.world.memory.list_vms().is_empty() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn warm_up() -> Vec<v1::WarmUp> {
    let step = Some(v1::warm_up::Step::Request("name template".to_owned()));
    vec![v1::WarmUp { step, ..Default::default() }]
}

const fn fixed(depth: i32) -> v1::Sizing {
    v1::Sizing { mode: Some(v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth })) }
}

fn mask(path: &str) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: vec![path.to_owned()] }
}

fn built(template: v1::Template) -> Result<Answer, String> {
    Ok(Answer::Built(template.generation))
}
