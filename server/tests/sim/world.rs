//! One seed: a host with its VMs and its journal, and the lives of the service on it.

use std::sync::{Arc, LazyLock};
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
use hearth_server::config::Config;
use hearth_server::front::{Front, Layers};

use crate::env::{Dice, SimEnv};
use crate::history::{Event, History, What, Who};
use crate::operator::Operator;
use crate::recorder::{KillSwitch, Recorder};
use crate::tenant::Caller;
use crate::weather::{self, Weather};
use crate::wire::Wire;
use crate::{panics, tears};

/// What outlives the service.
pub(crate) struct World {
    seed: u64,
    dir: tempfile::TempDir,
    pub(crate) dice: Dice,
    pub(crate) env: Arc<SimEnv>,
    pub(crate) history: History,
    pub(crate) memory: Arc<dyn VmRuntime>,
    provider: Arc<Provider>,
    pub(crate) callers: Vec<Caller>,
    kill: Arc<KillSwitch>,
    weather: Weather,
    layers: Layers,
}

/// Those of every world.
static LAYERS: LazyLock<Result<Layers, String>> =
    LazyLock::new(|| Layers::new().map_err(|error| error.to_string()));

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    /// Everything is given back at its end.
    Complete,
    /// It looks what is left after that.
    Swept,
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
            world.live(lives + 1, End::Swept);
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
        let (name, kind) = ("memory".into(), "memory".to_owned());
        let dice = Dice::new(seed, 1);
        let tenants = 2 + dice.below(4);
        Ok(Self {
            seed,
            dir: state_dir()?,
            layers: LAYERS.clone().map_err(std::io::Error::other)?,
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
            End::Killed => self.dice.millis(500, 5_200),
            End::Complete | End::Swept => Duration::from_secs(3600),
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
        if end == End::Killed {
            self.between_lives();
        }
    }

    /// What happens to a host whose service was killed.
    fn between_lives(&self) {
        if self.dice.percent(20) {
            self.kill_a_vm(&self.dice);
        }
        if self.dice.percent(60) {
            match tears::tear(&self.dir.path().join("journal"), &self.dice) {
                Ok(Some(bytes)) => self.history.push(What::Torn(bytes)),
                Ok(None) => {}
                Err(error) => self.history.push(What::Panicked(error.to_string())),
            }
        }
        if self.dice.percent(25) {
            self.reboot();
        }
    }

    async fn serve(self: Arc<Self>, number: usize, end: End) -> Result<(), String> {
        let (tasks, limits) = (TaskGroup::new(), weather::limits());
        let latency = Arc::clone(&self.weather.latency);
        let jobs = Jobs::simulated(tasks.clone(), limits.places(), latency);
        let env = || Arc::clone(&self.env) as Arc<dyn Env>;
        let providers = vec![Arc::clone(&self.provider)];
        let journal = self.journal()?;
        let manager = Manager::new(env(), limits, journal, jobs, tasks.clone(), providers);
        let settings = Config::default().grpc;
        let front = Front::new(&self.layers, Arc::clone(&manager), &tasks, env(), &settings);
        let operator = Operator::new(&self, Wire::new(&front, Who::Operator));
        let wires: Vec<_> = self.callers.iter().map(|it| Wire::new(&front, it.who())).collect();
        let is_disturbed = match end {
            End::Killed => true,
            End::Complete => self.dice.percent(60),
            End::Swept => false,
        };
        let mut actors = tokio::task::JoinSet::new();
        if is_disturbed && number > 0 {
            // Nobody knows that it is only starting.
            self.disturb(&mut actors, &front, number);
        }
        if number > 0 && end == End::Killed && self.dice.percent(10) {
            // In the midst of the recovery.
            self.kill.arm(1 + self.dice.below(20));
        }
        manager.start(false).await.map_err(|error| error.to_string())?;
        front.open();
        self.history.push(What::Started);
        if number == 0 {
            operator.set_up(&self.dice).await?;
            self.disturb(&mut actors, &front, number);
        }
        if is_disturbed {
            self.weather.change(&self.dice);
            if end == End::Killed && self.dice.percent(60) {
                self.kill.arm(1 + self.dice.below(900));
            }
            // One that is to be killed is, before that.
            let longest = match end {
                End::Killed => Duration::from_secs(3600),
                _ => self.dice.millis(300, 3_500),
            };
            tokio::select! {
                biased;
                ended = actors.join_next() => return Err(format!("an actor has ended: {ended:?}")),
                () = tokio::time::sleep(longest) => {}
            }
            // Everybody leaves, and nothing is disturbed any more.
            actors.shutdown().await;
            self.history.push(What::Quiet);
            self.weather.clear();
        }
        match end {
            End::Killed => {}
            End::Complete => operator.end(&wires).await,
            End::Swept => operator.sweep().await,
        }
        Ok(())
    }

    /// Tenants and an operator come.
    fn disturb(
        self: &Arc<Self>,
        actors: &mut tokio::task::JoinSet<()>,
        front: &Front,
        number: usize,
    ) {
        for caller in &self.callers {
            actors.spawn(caller.clone().live(Wire::new(front, caller.who())));
        }
        let dice = Arc::new(Dice::new(self.seed, 1_000 + number as u64));
        let operator = Operator::new(self, Wire::new(front, Who::Operator));
        actors.spawn(operator.live(dice));
    }
}

/// In memory where the host has a place for that: a journal is opened some times a seed.
fn state_dir() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}
