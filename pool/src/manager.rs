//! What holds everything together: providers, templates, pools, leases, and their journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::env::Env;
use hearth_providers::model::{Failure, VmStatus, VmView};
use hearth_providers::provider::{ConsoleChunk, GuestStream};
use hearth_providers::{Uid, VmId};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc};

use crate::attached::{Attached, Attachment};
use crate::budget::Shares;
use crate::changes::Changes;
use crate::config::Limits;
use crate::error::{Error, Kind, Result};
use crate::freeze::Artifacts;
use crate::ids::{ArtifactId, PoolId, TemplateId, Tenant};
use crate::jobs::{Class, Jobs};
use crate::journal::{Control, Journal};
use crate::lease::{Lease, Leases};
use crate::lifecycle::VmState;
use crate::metrics;
use crate::operations::Operations;
pub use crate::phase::Phase;
use crate::phase::{PhaseCell, PhaseEvent};
use crate::pool::{Pool, Provider, Shared};
use crate::requests::RequestLog;
use crate::retire::Reaper;
use crate::tasks::TaskGroup;
use crate::templates::{History, Template};
use crate::tenants::Tenants;
use crate::throttle::Throttle;

/// The manager of all pools on this node.
pub struct Manager {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) limits: Limits,
    pub(crate) journal: Arc<Journal>,
    pub(crate) jobs: Jobs,
    pub(crate) tasks: TaskGroup,
    pub(crate) reaper: Reaper,
    pub(crate) leases: Arc<Leases>,
    pub(crate) requests: Arc<RequestLog>,
    pub(crate) shared: Shared,
    pub(crate) boot_id: Arc<str>,
    /// The first one is the default.
    providers: Vec<Arc<Provider>>,
    pub(crate) templates: RwLock<BTreeMap<TemplateId, Arc<Template>>>,
    /// The generations of each.
    pub(crate) histories: RwLock<BTreeMap<TemplateId, History>>,
    pub(crate) pools: RwLock<BTreeMap<PoolId, Arc<Pool>>>,
    pub(crate) artifacts: RwLock<Artifacts>,
    /// Changes of templates and pools take turns: they read, journal and publish.
    pub(crate) control: tokio::sync::Mutex<()>,
    /// Who is connected to VMs that tenants have.
    pub(crate) attached: Arc<Attached>,
    operations: Operations,
    phase: PhaseCell,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

/// How long a write of the journal is waited for: whoever gave up would undo what is written after
/// all, and a later start would find it.
pub(crate) const UNTIL_KNOWN: Duration = Duration::MAX;

/// How often it is looked whether the journal's log is to be kept short.
const TEND_PERIOD: Duration = Duration::from_secs(1);
/// How long after a try that failed.
const TEND_PAUSE: Duration = Duration::from_secs(10);

/// The key of whether the node drains.
const DRAINS: &str = "drains";

/// A VM as its tenant, or an operator, sees it.
#[derive(Clone, Debug)]
pub struct VmInfo {
    /// What the provider shows; made up for one that it does not know any more.
    pub view: VmView,
    /// Who runs it.
    pub provider: Arc<Provider>,
    /// Its lease; a warm one has none.
    pub lease: Option<Arc<Lease>>,
    /// Its pool.
    pub pool: Option<PoolId>,
    /// Its template and that one's generation.
    pub template: Option<(TemplateId, i64)>,
    /// What it was last frozen into.
    pub artifact: Option<ArtifactId>,
    /// The artifact that it was resumed from.
    pub resumed_from: Option<ArtifactId>,
}

impl Manager {
    /// A manager that has begun nothing yet; `jobs` and its tasks belong to `tasks`.
    pub fn new(
        env: Arc<dyn Env>,
        limits: Limits,
        journal: Journal,
        jobs: Jobs,
        tasks: TaskGroup,
        providers: Vec<Arc<Provider>>,
    ) -> Arc<Self> {
        metrics::describe();
        let changes = Changes::default();
        let reaper = Reaper::start(&tasks, jobs.clone(), limits.verb_timeout, changes.clone());
        let max_ended = limits.max_remembered_requests;
        let requests = RequestLog::new(max_ended);
        let journal = Arc::new(journal);
        let waiting = limits.max_waiting_total.min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            throttle: Throttle::new(
                limits.max_parallel_restores,
                limits.restore_rate,
                env.boot_time(),
            ),
            shares: Shares::new(limits.budget),
            tenants: Tenants::new(limits.tenants.clone()),
            changes,
            waiting: Arc::new(Semaphore::new(waiting)),
        };
        let manager = Arc::new(Self {
            boot_id: env.boot_id().into(),
            operations: Operations::new(Arc::clone(&env), Arc::clone(&journal)),
            env,
            limits,
            journal,
            jobs,
            tasks,
            reaper,
            leases: Arc::new(Leases::new(max_ended)),
            requests,
            shared,
            providers,
            templates: RwLock::default(),
            histories: RwLock::default(),
            pools: RwLock::default(),
            artifacts: RwLock::default(),
            control: tokio::sync::Mutex::default(),
            attached: Arc::default(),
            phase: PhaseCell::default(),
        });
        manager.watch_exits();
        manager
    }

    /// Adopts or reaps what a former life left, begins to fill the pools and then to serve.
    ///
    /// # Errors
    /// `Storage` when the journal cannot be read or is not of this state directory.
    pub async fn start(self: &Arc<Self>, reap: bool) -> Result<()> {
        self.recover(reap).await?;
        let expiry = Arc::clone(self);
        self.tasks.spawn_critical("expiry", async move { expiry.expire_leases().await });
        let expiry = Arc::clone(self);
        let artifacts = async move { expiry.expire_artifacts().await };
        self.tasks.spawn_critical("expiry of artifacts", artifacts);
        let keeper = Arc::clone(self);
        self.tasks.spawn_critical("journal", async move { keeper.tend_journal().await });
        let turn = self.control.lock().await;
        let drains = self.journal.control::<bool>(Control::Node)?.contains(&true);
        self.phase.advance(PhaseEvent::Recovered { drains });
        drop(turn);
        self.pools().iter().for_each(|pool| pool.bell.notify_one());
        Ok(())
    }

    /// Takes no acquires any more, tells those in line, and empties the pools; leases go on.
    /// Holds across a restart, until [`Self::undrain`].
    ///
    /// # Errors
    /// `Storage`, and nothing has changed.
    pub async fn drain(self: &Arc<Self>) -> Result<()> {
        // What is written down and what is so change together.
        let _turn = self.turn_to_change().await?;
        self.write_drains(true).await?;
        self.turn_away(PhaseEvent::Drained);
        self.pools().iter().for_each(|pool| pool.bell.notify_one());
        Ok(())
    }

    /// Takes acquires again, and fills the pools.
    ///
    /// # Errors
    /// `Storage`, and nothing has changed.
    pub async fn undrain(self: &Arc<Self>) -> Result<()> {
        let _turn = self.turn_to_change().await?;
        self.write_drains(false).await?;
        self.phase.advance(PhaseEvent::Undrained);
        self.pools().iter().for_each(|pool| pool.bell.notify_one());
        Ok(())
    }

    /// The turn to change pools, templates or the node. Who has it waits for the journal, for as
    /// long as that takes; who wants it is told after a while.
    ///
    /// # Errors
    /// `Storage`: somebody has waited for the journal for too long.
    pub(crate) async fn turn_to_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let turn = tokio::time::timeout(self.limits.verb_timeout, self.control.lock()).await;
        let waits = "a change before this one still waits for the journal";
        turn.map_err(|_| Error::Storage { source: waits.into() })
    }

    async fn write_drains(&self, drains: bool) -> Result<()> {
        let journal = Arc::clone(&self.journal);
        let call = move || Ok(journal.write_control(Control::Node, DRAINS, &drains));
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await?
    }

    /// Keeps the journal's log short, for as long as hearth runs.
    async fn tend_journal(self: Arc<Self>) {
        let mut pause = TEND_PERIOD;
        while !self.tasks.stopping().is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tasks.stopping().cancelled() => return,
            }
            if !self.journal.wants_tending() {
                continue;
            }
            let journal = Arc::clone(&self.journal);
            let tend = move || Ok(journal.tend());
            let tended = self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, tend, drop).await;
            pause = match tended.map_err(Error::from).flatten() {
                Ok(()) => TEND_PERIOD,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "the journal's log grows: it cannot be tended");
                    TEND_PAUSE
                }
            };
        }
    }

    /// Takes no acquires any more because hearth is ending; tells those in line. VMs stay.
    pub fn end_service(&self) {
        self.turn_away(PhaseEvent::Ended);
    }

    fn turn_away(&self, event: PhaseEvent) {
        self.phase.advance(event);
        for pool in self.pools() {
            pool.dismiss_waiters(|| Error::Draining);
        }
    }

    /// Ends: waits, bounded, for what is under way. VMs are left as they are, or all destroyed.
    pub async fn shut_down(self: &Arc<Self>, destroy_vms: bool) {
        self.end_service();
        for pool in self.pools() {
            match destroy_vms {
                // What a restore under way brings is then destroyed, not kept warm.
                true => pool.close(),
                false => pool.stop.cancel(),
            }
        }
        if destroy_vms && !self.destroy_all().await {
            tracing::warn!("some VMs were not destroyed in time: the next start finds them");
        }
        self.tasks.stop();
        if !self.tasks.join(self.limits.drain_timeout).await {
            tracing::warn!("work under way did not end in time: the next start finishes it");
        }
    }

    /// Whether acquires are taken.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The operations under way and recently ended.
    pub const fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Names this state directory for ever.
    pub fn state_uuid(&self) -> Uid {
        self.journal.state_uuid()
    }

    /// Names this boot of the host.
    pub fn boot_id(&self) -> &Arc<str> {
        &self.boot_id
    }

    /// What has changed, for whoever tells those who watch.
    pub const fn changes(&self) -> &Changes {
        &self.shared.changes
    }

    /// What bounds this manager.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many requests are remembered.
    pub fn remembered_requests(&self) -> usize {
        self.requests.len()
    }

    /// The providers, the default one first.
    pub fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// One provider; the default one when `name` is empty.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn provider(&self, name: &str) -> Result<&Arc<Provider>> {
        let wanted = |provider: &&Arc<Provider>| name.is_empty() || *provider.name == *name;
        let missing = || Error::NotFound { kind: Kind::Provider, name: name.to_owned() };
        self.providers.iter().find(wanted).ok_or_else(missing)
    }

    /// Every pool, sorted by name.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools.read().values().cloned().collect()
    }

    /// One pool.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn pool(&self, id: &PoolId) -> Result<Arc<Pool>> {
        let missing = || Error::NotFound { kind: Kind::Pool, name: id.to_string() };
        self.pools.read().get(id).cloned().ok_or_else(missing)
    }

    /// Every template, sorted by name.
    pub fn templates(&self) -> Vec<Arc<Template>> {
        self.templates.read().values().cloned().collect()
    }

    /// One template.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn template(&self, id: &TemplateId) -> Result<Arc<Template>> {
        let missing = || Error::NotFound { kind: Kind::Template, name: id.to_string() };
        self.templates.read().get(id).cloned().ok_or_else(missing)
    }

    /// The VM that `tenant` has under this name; an operator sees every tenant's, and warm ones.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn vm(&self, vm_id: &VmId, tenant: Option<&Tenant>) -> Result<VmInfo> {
        if let Some(lease) = self.leases.by_name(vm_id).filter(|it| is_seen_by(it, tenant)) {
            return Ok(self.leased_info(&lease));
        }
        let is_operator = tenant.is_none();
        let warm = self.providers.iter().filter(|_| is_operator).find_map(|provider| {
            let view = provider.runtime.get_vm(vm_id)?;
            (view.status != VmStatus::Destroyed).then(|| self.unleased_info(provider, view))
        });
        warm.ok_or_else(|| Error::no_vm(vm_id))
    }

    /// The VM of this uid as an operator's list has it; `None` for one that is in none.
    pub fn vm_by_uid(&self, uid: Uid) -> Option<VmInfo> {
        if let Some(lease) = self.leases.by_uid(uid) {
            return self.live_info(&lease);
        }
        self.providers.iter().find_map(|provider| {
            let view = provider.runtime.get_vm_by_uid(uid)?;
            (view.status != VmStatus::Destroyed).then(|| self.unleased_info(provider, view))
        })
    }

    /// Every VM that `tenant` has; for an operator every VM, warm ones too. Sorted by name.
    pub fn vms(&self, tenant: Option<&Tenant>) -> Vec<VmInfo> {
        let leased = self.leases.live().into_iter().filter(|it| is_seen_by(it, tenant));
        let mut vms: Vec<_> = leased.filter_map(|lease| self.live_info(&lease)).collect();
        if tenant.is_none() {
            for provider in &self.providers {
                let others = provider.runtime.list_vms().into_iter();
                let others = others.filter(|view| self.leases.by_uid(view.uid).is_none());
                vms.extend(others.map(|view| self.unleased_info(provider, view)));
            }
            vms.sort_by(|a, b| a.view.vm_id.cmp(&b.view.vm_id));
        }
        vms
    }

    /// Whether a lease of this name has ended, as far as that is remembered.
    pub fn has_ended(&self, vm_id: &VmId, tenant: Option<&Tenant>) -> bool {
        let ended = self.leases.ended_by_name(vm_id, None);
        ended.is_some_and(|lease| is_seen_by(&lease, tenant))
    }

    /// The live lease of this instance.
    pub fn lease_by_uid(&self, uid: Uid, tenant: Option<&Tenant>) -> Option<Arc<Lease>> {
        self.leases.by_uid(uid).filter(|lease| lease.is_live() && is_seen_by(lease, tenant))
    }

    /// Reads the console of a VM that a tenant has: at most `max_bytes` from `offset`.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; those of the provider.
    pub async fn read_console(
        &self,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
        offset: u64,
        max_bytes: usize,
    ) -> Result<ConsoleChunk> {
        let lease = self.lease_of(vm_id, uid, tenant)?;
        let call = move || lease.provider.runtime.console(&lease.held().vm_id, offset, max_bytes);
        let limit = self.limits.verb_timeout;
        Ok(self.jobs.run(Class::Verb, "console", limit, call, drop).await?)
    }

    /// Connects whoever has a VM to its guest: to `port` of its vsock, or to its channel. The second of
    /// the answer says when the lease ends, and is to be kept for as long as the connection.
    ///
    /// # Errors
    /// `NotFound`, `UidMismatch`, `VmInPool`; those of the provider.
    ///
    /// # Cancel safety
    /// A dropped future leaves no connection.
    pub async fn connect_vm(
        &self,
        vm_id: &VmId,
        uid: Option<Uid>,
        tenant: Option<&Tenant>,
        port: Option<u32>,
    ) -> Result<(GuestStream, Attachment)> {
        let lease = self.lease_of(vm_id, uid, tenant)?;
        // First, so that no end of the lease is missed.
        let attachment = self.attached.attach(lease.uid);
        if !lease.is_live() {
            return Err(Error::no_vm(vm_id));
        }
        let call = move || lease.provider.runtime.connect_vm(&lease.held().vm_id, port);
        let limit = self.limits.verb_timeout;
        let stream = self.jobs.run(Class::Verb, "connect", limit, call, drop).await?;
        Ok((stream, attachment))
    }

    /// How `lease`'s VM looks, which a tenant has: one that is live after it was looked at was so then, too.
    fn live_info(&self, lease: &Arc<Lease>) -> Option<VmInfo> {
        let info = self.leased_info(lease);
        lease.is_live().then_some(info)
    }

    /// How `lease`'s VM looks now.
    pub fn leased_info(&self, lease: &Arc<Lease>) -> VmInfo {
        let held = lease.held();
        let is_ended = matches!(held.state, VmState::Releasing | VmState::Gone);
        // One that a tenant has was not destroyed by its wish: it is lost.
        let found = lease.provider.runtime.get_vm_by_uid(lease.uid);
        let is_lost = |view: &VmView| match view.status {
            VmStatus::Destroyed => true,
            // What it ended with is kept.
            VmStatus::Failed => false,
            // It runs without what it had in memory, and is about to be destroyed.
            _ => view.tags.get(tags::BOOT).is_some_and(|boot| **boot != *self.boot_id),
        };
        let found = found.filter(|view| is_ended || !is_lost(view));
        let mut view = found.unwrap_or_else(|| self.lost_view(lease));
        // The promise is the journal's: the name follows within the same call.
        view.vm_id = held.vm_id;
        if is_ended {
            view.status = VmStatus::Destroyed;
        }
        VmInfo {
            artifact: self.artifact_of(lease.uid),
            resumed_from: view.restored_from.and_then(|from| self.artifact_by_snapshot(from)),
            view,
            provider: Arc::clone(&lease.provider),
            pool: lease.pool.as_ref().map(|pool| pool.id.clone()),
            template: lease.template.clone(),
            lease: Some(Arc::clone(lease)),
        }
    }

    fn unleased_info(&self, provider: &Arc<Provider>, view: VmView) -> VmInfo {
        let tag = |name: &str| view.tags.get(name).map(String::as_str).unwrap_or_default();
        let template = TemplateId::parse(tag(tags::TEMPLATE)).ok();
        let generation = tag(tags::GENERATION).parse().unwrap_or(0);
        VmInfo {
            artifact: self.artifact_of(view.uid),
            resumed_from: view.restored_from.and_then(|from| self.artifact_by_snapshot(from)),
            provider: Arc::clone(provider),
            lease: None,
            pool: PoolId::parse(tag(tags::POOL)).ok(),
            template: template.map(|template| (template, generation)),
            view,
        }
    }

    /// What is shown of a leased VM that its provider does not know: it is lost, and said to be.
    fn lost_view(&self, lease: &Lease) -> VmView {
        VmView {
            vm_id: lease.held().vm_id,
            uid: lease.uid,
            status: VmStatus::Failed,
            create_time: lease.acquire_time,
            tags: hearth_providers::model::Tags::default(),
            snapshots: Vec::new(),
            restored_from: None,
            endpoints: Vec::new(),
            process: None,
            failure: Some(Failure {
                reason: "its provider does not know it any more".to_owned(),
                time: self.env.now(),
                exit_status: None,
                console_tail: String::new(),
            }),
        }
    }

    /// Has the books of a pool follow the deaths that its provider reports.
    fn watch_exits(self: &Arc<Self>) {
        for provider in &self.providers {
            metrics::provider_known(&provider.name);
            // Bounded by the number of VMs: each ends once.
            let (ended, mut endings) = mpsc::unbounded_channel::<Uid>();
            provider.runtime.observe_exits(Arc::new(move |uid| {
                // Nobody listens any more once the manager is gone.
                let _ = ended.send(uid);
            }));
            let (manager, provider) = (Arc::downgrade(self), Arc::clone(provider));
            let stopping = self.tasks.stopping().clone();
            // A provider that reports no exits drops the observer, and this ends at once.
            self.tasks.spawn(async move {
                loop {
                    let uid = tokio::select! {
                        uid = endings.recv() => uid,
                        () = stopping.cancelled() => None,
                    };
                    let Some((uid, manager)) = uid.zip(manager.upgrade()) else { return };
                    manager.vm_ended(&provider, uid);
                }
            });
        }
    }

    fn vm_ended(&self, provider: &Arc<Provider>, uid: Uid) {
        let Some(view) = provider.runtime.get_vm_by_uid(uid) else { return };
        let reason = view.failure.as_ref().map(|failure| failure.reason.as_str());
        tracing::warn!(vm_id = %view.vm_id, %uid, reason, "a VM ended by itself");
        let pool = view.tags.get(tags::POOL).and_then(|pool| PoolId::parse(pool).ok());
        if let Some(pool) = pool.and_then(|pool| self.pool(&pool).ok()) {
            pool.died(&view.vm_id);
        }
        if let Some(lease) = self.leases.by_uid(uid) {
            self.quarantine(&lease);
        }
        self.shared.changes.vm(uid);
    }

    /// A VM that a tenant has is dead or lost, and stays until the lease ends.
    pub(crate) fn quarantine(&self, lease: &Lease) {
        let Some(pool) = &lease.pool else { return };
        pool.quarantine(lease.uid);
        // Its lease may have ended meanwhile.
        if self.leases.by_uid(lease.uid).is_none() {
            pool.end_quarantine(lease.uid);
        }
    }
}

fn is_seen_by(lease: &Lease, tenant: Option<&Tenant>) -> bool {
    tenant.is_none_or(|tenant| lease.tenant == *tenant)
}

/// What the pool writes on its instances, to know them after a restart.
pub(crate) mod tags {
    pub(crate) const STATE: &str = "hearth-state";
    pub(crate) const POOL: &str = "hearth-pool";
    pub(crate) const TEMPLATE: &str = "hearth-template";
    pub(crate) const GENERATION: &str = "hearth-generation";
    pub(crate) const BOOT: &str = "hearth-boot";
    /// Boot time at which it was made, in milliseconds.
    pub(crate) const MADE_AT: &str = "hearth-made-at-ms";
}
