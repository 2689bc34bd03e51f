//! The operator: changes depths, drains, builds templates anew, steps clocks; VMs that end by
//! themselves; and the end of a run, when everything has to be accounted for.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::env::Env as _;
use hearth_pool::error::Error;
use hearth_pool::ids::{PoolId, TemplateId};
use hearth_pool::manager::Manager;
use hearth_pool::operations::Outcome;
use hearth_pool::pool::{PoolConfig, Sizing, WarmState};
use hearth_pool::templates::Template;
use hearth_providers::agent::Agent;
use hearth_providers::{Uid, VmId, VmSpec};

use crate::env::Dice;
use crate::history::{Answer, Ask, What, Who};
use crate::tenant::POOL;
use crate::world::World;

/// The oldest that a warm VM may get, where the pool of a seed bounds it.
pub(crate) const MAX_WARM_AGE: Duration = Duration::from_secs(2);

/// How often, and how long in between, a state is waited for.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Operator {
    world: Arc<World>,
    manager: Arc<Manager>,
    pool: PoolId,
}

impl Operator {
    pub(crate) fn new(world: &Arc<World>, manager: &Arc<Manager>) -> Result<Self, String> {
        let pool = PoolId::parse(POOL).map_err(|error| error.to_string())?;
        Ok(Self { world: Arc::clone(world), manager: Arc::clone(manager), pool })
    }

    /// Makes the template and the pool.
    pub(crate) async fn set_up(&self, dice: &Dice) -> Result<(), String> {
        self.build(false).await;
        let template = TemplateId::parse(POOL).map_err(|error| error.to_string())?;
        let warm_state = if dice.percent(30) { WarmState::Paused } else { WarmState::Running };
        let depth = 1 + dice.below(4) as usize;
        let config = PoolConfig {
            sizing: Sizing::Fixed { depth },
            warm_state,
            max_warm_age: dice.percent(50).then_some(MAX_WARM_AGE),
            max_parallel_restores: 3,
            ..PoolConfig::new(self.pool.clone(), template)
        };
        let max_warm_age = config.max_warm_age;
        let made = self.manager.create_pool(config, false).await;
        self.world.history.push(What::Pool { max_warm_age });
        made.map(drop).map_err(|error| error.to_string())
    }

    /// Does what the dice say for as long as the service lives.
    pub(crate) async fn live(self, dice: Arc<Dice>) -> Result<(), String> {
        loop {
            tokio::time::sleep(dice.millis(1, 400)).await;
            match dice.below(100) {
                0..40 => self.status(),
                40..50 => self.depth(dice.below(6) as usize).await,
                50..53 => {
                    self.drain(true).await;
                    tokio::time::sleep(dice.millis(0, 400)).await;
                    self.drain(false).await;
                }
                53..56 => drop(self.list()),
                56..62 => self.build(true).await,
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

    async fn build(&self, replaces: bool) {
        let Ok(id) = TemplateId::parse(POOL) else { return };
        let call = self.world.history.ask(Who::Operator, Ask::Rebuild);
        let warm_up = vec!["name template".to_owned()];
        let template =
            Template { warm_up, ..Template::new(id.clone(), "memory", VmSpec::default()) };
        let built = match self.manager.create_template(template, replaces).await {
            Err(error) => Answer::Refused(error.reason()),
            Ok(operation) => {
                let patience = Duration::from_secs(60);
                let ended = self.manager.operations().wait(&operation, patience).await;
                let is_done = ended.is_ok_and(|it| matches!(it.outcome, Some(Outcome::Done)));
                match (is_done, self.manager.template(&id)) {
                    (true, Ok(template)) => Answer::Built(template.generation),
                    _ => Answer::Refused("not_built"),
                }
            }
        };
        self.world.history.answer(call, built);
    }

    async fn depth(&self, depth: usize) {
        let call = self.world.history.ask(Who::Operator, Ask::Depth(depth));
        let change = |config: &mut PoolConfig| {
            config.sizing = Sizing::Fixed { depth };
            Ok(())
        };
        let done = self.manager.update_pool(&self.pool, "", false, change).await;
        self.world.history.answer(call, done.map(drop).into());
    }

    async fn drain(&self, drains: bool) {
        let call = self.world.history.ask(Who::Operator, Ask::Drain(drains));
        let done = if drains { self.manager.drain().await } else { self.manager.undrain().await };
        self.world.history.answer(call, done.into());
    }

    fn status(&self) {
        let call = self.world.history.ask(Who::Operator, Ask::Status);
        let answer = match self.manager.pool(&self.pool) {
            Err(error) => Answer::Refused(error.reason()),
            Ok(pool) => {
                let status = pool.status();
                Answer::Status {
                    waiting: status.waiting,
                    restoring: status.restoring,
                    warm: status.warm,
                    target: status.target,
                }
            }
        };
        self.world.history.answer(call, answer);
    }

    /// Lists every VM; answers those that tenants have.
    fn list(&self) -> Vec<(VmId, Uid)> {
        let call = self.world.history.ask(Who::Operator, Ask::List);
        let vms = self.manager.vms(None).into_iter().map(|vm| {
            let lease = vm.lease.map(|lease| {
                let request_id = lease.request.as_ref().map(|request| request.request_id.clone());
                (lease.tenant.as_str().to_owned(), request_id)
            });
            (vm.view.vm_id, vm.view.uid, lease)
        });
        let vms: Vec<_> = vms.collect();
        let leased = vms.iter().filter(|(_, _, lease)| lease.is_some());
        let leased = leased.map(|(vm_id, uid, _)| (vm_id.clone(), *uid)).collect();
        self.world.history.answer(call, Answer::Vms(vms));
        leased
    }

    async fn release(&self, vm_id: VmId, uid: Uid) -> Result<(), Error> {
        let ask = Ask::Release { vm_id: vm_id.clone(), uid, by_uid: true };
        let call = self.world.history.ask(Who::Operator, ask);
        let done = self.manager.release(&vm_id, Some(uid), None).await;
        let answer =
            done.as_ref().map_or_else(|it| Answer::Refused(it.reason()), |()| Answer::Done);
        self.world.history.answer(call, answer);
        done
    }

    /// Ends a run on a service that nothing disturbs any more: it settles, answers every retry,
    /// and after the release of everything nothing is left.
    pub(crate) async fn end(&self) {
        self.drain(false).await;
        self.depth(2).await;
        for caller in &self.world.callers {
            caller.retry_all(&self.manager).await;
        }
        self.look(|operator| {
            let Ok(pool) = operator.manager.pool(&operator.pool) else { return false };
            let status = pool.status();
            let leased = operator.manager.vms(None).iter().filter(|vm| vm.lease.is_some()).count();
            let live = operator.world.provider.runtime.list_vms().len();
            status.warm == status.target && status.restoring == 0 && live == status.warm + leased
        })
        .await;
        self.status();
        self.world.callers.iter().for_each(|caller| caller.get_all(&self.manager));
        let leased = self.list();
        self.world.history.push(What::Settled(self.world.provider_list()));
        for (vm_id, uid) in leased {
            let _ = self.release(vm_id, uid).await;
        }
        self.depth(0).await;
        self.look(|operator| operator.world.provider.runtime.list_vms().is_empty()).await;
        self.world.history.push(What::Emptied(self.world.provider_list()));
    }

    /// Waits, bounded, until `done`; the checker finds out whether it is.
    async fn look(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..LOOKS {
            if done(self) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl World {
    /// What the provider has.
    fn provider_list(&self) -> Vec<(VmId, Uid)> {
        self.memory.list_vms().into_iter().map(|view| (view.vm_id, view.uid)).collect()
    }

    /// Some VM powers itself off.
    pub(crate) fn kill_a_vm(&self, dice: &Dice) {
        let vms = self.memory.list_vms();
        let Some(view) = dice.pick(&vms) else { return };
        let patience = Duration::from_secs(5);
        let Ok(channel) = self.memory.guest_channel(&view.vm_id) else { return };
        let Ok(mut agent) = Agent::greet(channel, self.env.uid(), patience) else { return };
        self.history.push(What::Died { uid: view.uid });
        let _ = agent.ask("poweroff", patience);
    }
}
