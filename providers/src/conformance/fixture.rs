//! What a test brings for the suite to run on its provider.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::held::Holder;
use super::outcome::{Broken, Outcome, ensure};
use crate::agent::{Agent, Pong};
use crate::capabilities::{Capabilities, RunningSnapshot};
use crate::env::{Env as _, SystemEnv};
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotSource, SnapshotView, VmSpec};
use crate::provider::VmRuntime;
use crate::readiness::{Readiness, wait_ready};

const HOLDER: &str = "template:conformance@1";

/// A provider and what the suite has to know of it.
pub struct Fixture {
    /// What the provider is called in the results.
    pub name: String,
    /// The provider; nobody else uses it, and its exits are not observed yet.
    pub provider: Arc<dyn VmRuntime>,
    /// What boots on it.
    pub spec: VmSpec,
    /// When that is ready.
    pub readiness: Readiness,
    /// How hard races are tried.
    pub effort: Effort,
    /// How long a case may take. Waits inside of a case are given half of it.
    pub patience: Duration,
    /// How to make one VM's backend slow, where that is possible.
    pub holder: Option<Arc<dyn Holder>>,
    /// Every VM that runs has a process of its own on this host, and shows it.
    pub has_processes: bool,
    /// Where snapshots lie, each in a directory named by its uid, if a restore needs what is
    /// there.
    pub snapshots_dir: Option<PathBuf>,
    ended: Arc<Mutex<HashSet<Uid>>>,
    scenes: AtomicU64,
    template: OnceLock<Outcome<Template>>,
}

/// How hard races are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// How often each is run.
    pub rounds: usize,
    /// How many take part.
    pub threads: usize,
}

/// A snapshot of a VM that was booted and ready, and is gone.
#[derive(Clone, Debug)]
pub struct Template {
    /// The snapshot, pinned.
    pub snapshot: SnapshotView,
    /// What the guest said last before it was captured; `None` without a guest channel.
    pub pong: Option<Pong>,
}

impl Template {
    /// A reference to it, by uid; the restored VM runs at once.
    pub fn reference(&self) -> SnapshotRef {
        SnapshotRef {
            source: SnapshotSource::VmUid(self.snapshot.vm_uid),
            snapshot_id: self.snapshot.snapshot_id.clone(),
            resume_immediately: true,
            network_overrides: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Fixture {
    /// A fixture for a quick `provider` on which `spec` boots: many rounds, a minute a case.
    /// Observes the provider's exits.
    pub fn new(
        name: &str,
        provider: Arc<dyn VmRuntime>,
        spec: VmSpec,
        readiness: Readiness,
    ) -> Self {
        let ended = Arc::new(Mutex::new(HashSet::new()));
        let seen = Arc::clone(&ended);
        provider.observe_exits(Arc::new(move |uid| {
            seen.lock().insert(uid);
        }));
        Self {
            name: name.to_owned(),
            provider,
            spec,
            readiness,
            effort: Effort { rounds: 200, threads: 8 },
            patience: Duration::from_secs(60),
            holder: None,
            has_processes: false,
            snapshots_dir: None,
            ended,
            scenes: AtomicU64::new(0),
            template: OnceLock::new(),
        }
    }

    /// What the provider can do.
    pub fn capabilities(&self) -> Capabilities {
        self.provider.capabilities()
    }

    /// A VM can be made to end by itself: its guest can be told to.
    pub fn can_fail(&self) -> bool {
        self.capabilities().guest_channel
    }

    /// One VM's backend can be made slow.
    pub fn can_hold(&self) -> bool {
        self.holder.is_some()
    }

    /// Snapshots hold memory, and guests can tell.
    pub fn can_continue(&self) -> bool {
        let able = self.capabilities();
        able.restore && able.memory_in_snapshots && able.guest_channel
    }

    /// The end of the VM of this uid was reported to the observer.
    pub fn saw_end_of(&self, uid: Uid) -> bool {
        self.ended.lock().contains(&uid)
    }

    /// The template, made when it is asked for first. Blocks while it boots.
    ///
    /// # Errors
    /// [`Broken`] when that failed, now or then.
    pub fn template(&self) -> Outcome<&Template> {
        self.template.get_or_init(|| self.make_template()).as_ref().map_err(Broken::clone)
    }

    /// Unpins the template; then nothing may be left. To be called after the last case.
    ///
    /// # Errors
    /// [`Broken`] with what is left.
    pub fn finish(&self) -> Outcome {
        if let Some(Ok(template)) = self.template.get() {
            self.provider.unpin_snapshot(template.snapshot.uid, HOLDER)?;
        }
        let vms = self.provider.list_vms();
        ensure!(vms.is_empty(), "VMs are left: {vms:?}");
        let snapshots = self.provider.all_snapshots();
        ensure!(snapshots.is_empty(), "snapshots are left: {snapshots:?}");
        Ok(())
    }

    pub(super) fn next_scene(&self) -> u64 {
        self.scenes.fetch_add(1, Ordering::Relaxed)
    }

    fn make_template(&self) -> Outcome<Template> {
        let (provider, able) = (&self.provider, self.capabilities());
        let id = |text| VmId::parse(text).map_err(crate::VmRuntimeError::from);
        let (vm_id, snapshot_id) = (id("template")?, SnapshotId::parse("ready"));
        let snapshot_id = snapshot_id.map_err(crate::VmRuntimeError::from)?;
        provider.create_vm_with_spec(&vm_id, &self.spec)?;
        provider.start_vm(&vm_id)?;
        wait_ready(&**provider, &vm_id, &self.readiness, self.patience)?;
        let pong = able.guest_channel.then(|| -> Outcome<Pong> {
            let channel = provider.guest_channel(&vm_id)?;
            let mut agent = Agent::greet(channel, SystemEnv.uid(), self.patience)?;
            agent.ask("write note template", self.patience)?;
            // Several times, so that a counter that begins anew is told from one that goes on.
            (0..8).try_for_each(|_| agent.ping(self.patience).map(drop))?;
            Ok(agent.ping(self.patience)?)
        });
        let pong = pong.transpose()?;
        if able.snapshot_running == RunningSnapshot::StopRequired {
            provider.stop_vm(&vm_id)?;
        }
        provider.snapshot_vm(&vm_id, &snapshot_id)?;
        let reference = SnapshotRef {
            source: SnapshotSource::Name(vm_id.clone()),
            snapshot_id,
            resume_immediately: true,
            network_overrides: Vec::new(),
        };
        let snapshot = provider.pin_snapshot(&reference, HOLDER)?;
        provider.destroy_vm(&vm_id)?;
        Ok(Template { snapshot, pong })
    }
}
