//! Ends VMMs and hearth by `kill -9`, at random.

use std::sync::Arc;
use std::time::Duration;

use hearth_proto::v1::vm::State;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::hearth::{Answer, Host, Outcome};
use crate::kind::Kind;
use crate::ledger::Ledger;
use crate::node::{Door, Node};
use crate::scene::{PATIENCE, POLL, beside};

/// The longest pause between two kills.
const PAUSE_MILLIS: u64 = 700;
/// How long hearth may be away.
const AWAY_MILLIS: u64 = 1500;
/// How long after its start one may be killed that has hardly begun.
const HARDLY_MILLIS: u64 = 300;

pub(crate) struct Killer {
    pub(crate) host: Arc<Host>,
    pub(crate) kind: Arc<dyn Kind>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) node: Node,
    random: StdRng,
    /// Each waits until hearth knows of one death.
    witnesses: JoinSet<Outcome>,
}

impl Killer {
    pub(crate) fn new(
        host: Arc<Host>,
        kind: Arc<dyn Kind>,
        ledger: Arc<Ledger>,
        node: Node,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { host, kind, ledger, node, random, witnesses: JoinSet::new() }
    }

    /// Kills until `end`; a hearth serves when it returns.
    pub(crate) async fn run(&mut self, end: Instant) -> Outcome {
        while Instant::now() < end {
            self.pause(PAUSE_MILLIS).await;
            match self.random.random_range(0..10) {
                0 | 1 => self.restart().await?,
                2 => self.stay_away().await?,
                _ => self.kill_vmm(true).await?,
            }
        }
        Ok(())
    }

    /// Waits until hearth knows of everything that was killed.
    pub(crate) async fn known(&mut self) -> Outcome {
        while let Some(known) = self.witnesses.join_next().await {
            known??;
        }
        Ok(())
    }

    /// `kill -9` of hearth, and the next one at once.
    async fn restart(&mut self) -> Outcome {
        self.kill_hearth()?;
        self.begin().await
    }

    /// As [`Self::restart`], after a while in which VMMs die whose ends nobody sees.
    async fn stay_away(&mut self) -> Outcome {
        self.kill_hearth()?;
        for _ in 0..self.random.random_range(0..3) {
            self.pause(AWAY_MILLIS / 3).await;
            self.kill_vmm(false).await?;
        }
        self.pause(AWAY_MILLIS / 3).await;
        self.begin().await
    }

    async fn begin(&mut self) -> Outcome {
        self.node.begin(&self.host, &[]).await?;
        while self.random.random_bool(0.3) {
            self.pause(HARDLY_MILLIS).await;
            self.kill_hearth()?;
            self.node.begin(&self.host, &[]).await?;
        }
        self.node.ready().await?;
        self.node.audit(&self.ledger).await
    }

    fn kill_hearth(&mut self) -> Outcome {
        self.node.kill()?;
        self.ledger.count(|counts| counts.hearths_killed += 1);
        Ok(())
    }

    /// Kills one, whoever has it.
    async fn kill_vmm(&mut self, is_hearth_up: bool) -> Outcome {
        let processes = self.blocking(|kind, host| kind.processes(host)).await?;
        self.ledger.see(processes.keys().cloned());
        let chosen = processes.into_iter().choose(&mut self.random);
        let Some((uid, pid)) = chosen else { return Ok(()) };
        if self.ledger.is_killed(&uid) {
            return Ok(());
        }
        let is_odd = self.random.random_bool(0.5);
        self.ledger.killing(&uid);
        let victim = uid.clone();
        if !self.blocking(move |kind, host| kind.kill(host, &victim, pid, is_odd)).await? {
            self.ledger.not_killed(&uid);
            return Ok(());
        }
        self.ledger.count(|counts| counts.vmms_killed += 1);
        match is_hearth_up {
            true => {
                drop(self.witnesses.spawn(witness(self.node.door(), Arc::clone(&self.ledger), uid)))
            }
            // The next one looks before it hands anything out.
            false => self.ledger.known_dead(&uid),
        }
        Ok(())
    }

    async fn pause(&mut self, most_millis: u64) {
        let millis = self.random.random_range(0..most_millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn blocking<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Kind, &Host) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let (kind, host) = (Arc::clone(&self.kind), Arc::clone(&self.host));
        beside(move || ask(&*kind, &host)).await
    }
}

/// Waits until no hearth shows it as running any longer.
async fn witness(mut door: Door, ledger: Arc<Ledger>, uid: String) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let vms = door.vms().await?;
        if !vms.iter().any(|vm| vm.uid == uid && vm.state() == State::Running) {
            ledger.known_dead(&uid);
            return Ok(());
        }
        if Instant::now() > deadline {
            ledger.violation(format!("hearth never noticed the death of {uid}"));
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
