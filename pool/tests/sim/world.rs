//! One seed: a host with its VMs and its journal, and the lives of the service on it.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::env::Env;
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::pool::Provider;
use hearth_pool::tasks::TaskGroup;
use hearth_providers::VmRuntime;
use hearth_providers::faulty::Faulty;
use hearth_providers::memory::MemoryBackend;

use crate::env::{Dice, SimEnv};
use crate::history::{Event, History, What};
use crate::operator::Operator;
use crate::panics;
use crate::recorder::{KillSwitch, Recorder};
use crate::tenant::Caller;
use crate::weather::{self, Weather};

/// What outlives the service.
pub(crate) struct World {
    seed: u64,
    dir: tempfile::TempDir,
    dice: Dice,
    pub(crate) env: Arc<SimEnv>,
    pub(crate) history: History,
    pub(crate) memory: Arc<dyn VmRuntime>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) callers: Vec<Caller>,
    kill: Arc<KillSwitch>,
    weather: Weather,
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Complete,
}

/// Runs `seed`: everything that happened, and its hash.
pub(crate) fn run(seed: u64) -> (Vec<Event>, String) {
    match World::new(seed) {
        Ok(world) => {
            let world = Arc::new(world);
            let lives = 1 + world.dice.below(3) as usize;
            (0..lives).for_each(|number| world.live(number, End::Killed));
            world.weather.clear();
            world.live(lives, End::Complete);
            world.history.finish()
        }
        Err(error) => {
            let panicked = What::Panicked(format!("no world: {error}"));
            (vec![Event { at: Duration::ZERO, what: panicked }], String::new())
        }
    }
}

impl World {
    fn new(seed: u64) -> std::io::Result<Self> {
        let env = Arc::new(SimEnv::new(seed));
        let history = History::new(Arc::clone(&env));
        let dynamic = || Arc::clone(&env) as Arc<dyn Env>;
        let memory: Arc<dyn VmRuntime> = Arc::new(MemoryBackend::provider("memory", dynamic()));
        let inside = Recorder::inside(Arc::clone(&memory), history.clone());
        let (faulty, faults) = Faulty::new(Arc::new(inside), dynamic());
        let kill = Arc::<KillSwitch>::default();
        let outside = Recorder::outside(Arc::new(faulty), history.clone(), Arc::clone(&kill));
        let runtime: Arc<dyn VmRuntime> = Arc::new(outside);
        let (name, kind) = ("memory".to_owned(), "memory".to_owned());
        let dice = Dice::new(seed, 1);
        let tenants = 2 + dice.below(4);
        Ok(Self {
            seed,
            dir: state_dir()?,
            weather: Weather::new(seed, &env, &history, faults),
            callers: (0..tenants).map(|it| Caller::new(seed, it, history.clone())).collect(),
            provider: Arc::new(Provider { name, kind, runtime }),
            env,
            history,
            memory,
            kill,
            dice,
        })
    }

    /// The journal, as the life before left it: the one place where it is opened.
    fn journal(&self) -> Result<Journal, String> {
        let journal = Journal::open(&self.dir.path().join("journal"), self.env.as_ref());
        journal.map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
    }

    /// One life of the service. A runtime of its own, so that its end is that of every task.
    fn live(self: &Arc<Self>, number: usize, end: End) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            // The kill is looked for after each task.
            .event_interval(1)
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return self.history.push(What::Panicked(error.to_string())),
        };
        self.kill.arm(0);
        let longest = match end {
            End::Killed => self.dice.millis(500, 6_000),
            End::Complete => Duration::from_secs(3600),
        };
        runtime.block_on(async {
            self.env.begin();
            self.history.push(What::Life(number));
            let world = Arc::clone(self);
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(async move { world.serve(number, end).await });
            tokio::select! {
                biased;
                () = self.kill.killed() => {}
                ended = tasks.join_next() => match ended {
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(why))) => self.history.push(What::Panicked(why)),
                    ended => self.history.push(What::Panicked(format!("{ended:?}"))),
                },
                () = tokio::time::sleep(longest) => self.history.push(What::Crash("at a time")),
            }
            self.env.end();
            tasks.detach_all();
        });
        drop(runtime);
        panics::heard().into_iter().for_each(|why| self.history.push(What::Panicked(why)));
        if end == End::Killed && self.dice.percent(20) {
            self.kill_a_vm(&self.dice);
        }
    }

    async fn serve(self: Arc<Self>, number: usize, end: End) -> Result<(), String> {
        let tasks = TaskGroup::new();
        let limits = weather::limits();
        let jobs =
            Jobs::simulated(tasks.clone(), limits.places(), Arc::clone(&self.weather.latency));
        let env = Arc::clone(&self.env) as Arc<dyn Env>;
        let providers = vec![Arc::clone(&self.provider)];
        let manager = Manager::new(env, limits, self.journal()?, jobs, tasks, providers);
        if number > 0 && end == End::Killed && self.dice.percent(10) {
            // In the midst of the recovery.
            self.kill.arm(1 + self.dice.below(20));
        }
        manager.start(false).await.map_err(|error| error.to_string())?;
        self.history.push(What::Started);
        let operator = Operator::new(&self, &manager)?;
        if number == 0 {
            operator.set_up(&self.dice).await?;
        }
        let is_disturbed = end == End::Killed || self.dice.percent(60);
        if !is_disturbed {
            operator.end().await;
            return Ok(());
        }
        self.weather.change(&self.dice);
        if end == End::Killed && self.dice.percent(60) {
            self.kill.arm(1 + self.dice.below(900));
        }
        // One that is to be killed is, before that.
        let longest = match end {
            End::Killed => Duration::from_secs(3600),
            End::Complete => self.dice.millis(300, 4_000),
        };
        let (world, operated) = (Arc::clone(&self), Arc::clone(&manager));
        let mut actors = tokio::task::JoinSet::<Result<(), String>>::new();
        for caller in &self.callers {
            let (caller, manager) = (caller.clone(), Arc::clone(&manager));
            actors.spawn(async move {
                caller.live(manager).await;
                Ok(())
            });
        }
        let dice = Dice::new(self.seed, 1_000 + number as u64);
        let dice = Arc::new(dice);
        actors.spawn(async move { Operator::new(&world, &operated)?.live(dice).await });
        tokio::select! {
            biased;
            ended = actors.join_next() => return Err(format!("an actor has ended: {ended:?}")),
            () = tokio::time::sleep(longest) => {}
        }
        // Everybody leaves, and nothing is disturbed any more.
        actors.shutdown().await;
        self.history.push(What::Quiet);
        self.weather.clear();
        operator.end().await;
        Ok(())
    }
}

/// In memory where the host has a place for that: a journal is opened some times a seed.
fn state_dir() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}
