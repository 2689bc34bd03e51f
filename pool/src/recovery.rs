//! What a start does before it serves: adopt, roll forward, or reap.
//!
//! The journal has the last word. Providers have adopted their instances by the time this runs;
//! it decides what becomes of each:
//!
//! | journal | instance | becomes |
//! |---|---|---|
//! | leased | lives | the tenant's: its name is made good |
//! | leased | dead, lost, or of another boot | the tenant's, FAILED, found by name and request id |
//! | aborted, releasing | any | destroyed |
//! | gone | any | destroyed; the request is remembered for its time |
//! | nothing | of this boot, pool, make and state, young and answering | warm |
//! | nothing | with our state uuid, otherwise | destroyed, counted |
//! | nothing | of another state | never touched |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::model::{VmStatus, VmView};
use hearth_providers::{Uid, VmId, VmRuntimeError};

use crate::budget::Cost;
use crate::error::{Error, Result};
use crate::ids::PoolId;
use crate::jobs::Class;
use crate::journal::{Control, LeaseRecord, RecordState};
use crate::lease::Lease;
use crate::ledger::WarmVm;
use crate::lifecycle::{VmEvent, VmState};
use crate::manager::{Manager, tags};
use crate::metrics;
use crate::mutants::{self, Mutant};
use crate::pool::{Pool, PoolConfig, Provider, WarmState};
use crate::templates::{History, Template};

/// How often a name is made good at once, and how long it is waited then.
const NAME_TRIES: usize = 5;
const NAME_PAUSE: Duration = Duration::from_millis(500);

/// What a recovery did, for the log.
#[derive(Debug, Default)]
struct Report {
    leases: usize,
    failed_leases: usize,
    ended_leases: usize,
    adopted_warm: usize,
    reaped: usize,
    strangers: usize,
}

impl Manager {
    /// Does all of it. See the table above.
    pub(crate) async fn recover(self: &Arc<Self>, reap: bool) -> Result<()> {
        let (histories, pools, records) = self.read_journal().await?;
        let views = self.all_instances();
        self.check_ours(&views, reap)?;
        self.settle_pins(&histories).await?;
        for history in self.judge_snapshots(histories).await {
            self.show(history.take_up());
        }
        let mut report = Report::default();
        // In order, so that a recovery can be repeated.
        let mut by_uid: BTreeMap<_, _> =
            records.into_iter().map(|record| (record.uid, record)).collect();
        // Pools are opened before their leases, which count in them, and after their VMs are
        // known, so that nothing is restored that is there.
        let mut pool_configs: Vec<PoolConfig> = pools;
        pool_configs.sort_by(|a, b| a.id.cmp(&b.id));
        let opened = self.open_pools(pool_configs);
        let mut adoptions = Vec::new();
        for (provider, view) in views {
            match by_uid.remove(&view.uid) {
                Some(record) => self.recover_lease(record, Some(view), &mut report),
                None => {
                    // A lease before it may have needed its name.
                    let view = provider.runtime.get_vm_by_uid(view.uid).unwrap_or(view);
                    self.recover_unleased(&provider, view, &mut adoptions, &mut report, reap);
                }
            }
        }
        by_uid.into_values().for_each(|record| self.recover_lease(record, None, &mut report));
        self.recover_artifacts().await?;
        self.recover_operations().await?;
        self.adopt_warm(adoptions, &mut report).await;
        opened.iter().for_each(|pool| self.drive(pool));
        self.rebuild_unfit().await;
        let Report { leases, failed_leases, ended_leases, adopted_warm, reaped, strangers } =
            report;
        tracing::info!(
            leases,
            failed_leases,
            ended_leases,
            adopted_warm,
            reaped,
            strangers,
            "recovery has finished"
        );
        Ok(())
    }

    async fn read_journal(&self) -> Result<(Vec<History>, Vec<PoolConfig>, Vec<LeaseRecord>)> {
        let journal = Arc::clone(&self.journal);
        let call = move || {
            let read = || {
                let histories = journal.control(Control::Template)?;
                Ok((histories, journal.control(Control::Pool)?, journal.leases()?))
            };
            Ok(read())
        };
        self.jobs.run(Class::Journal, "read the journal", Duration::MAX, call, drop).await?
    }

    fn all_instances(&self) -> Vec<(Arc<Provider>, VmView)> {
        let of = |provider: &Arc<Provider>| {
            let views = provider.runtime.list_vms().into_iter();
            let provider = Arc::clone(provider);
            views.map(move |view| (Arc::clone(&provider), view)).collect::<Vec<_>>()
        };
        self.providers().iter().flat_map(of).collect()
    }

    /// Instances without their journal are nobody's to decide on.
    fn check_ours(&self, views: &[(Arc<Provider>, VmView)], reap: bool) -> Result<()> {
        let state = self.state_uuid().to_string();
        let foreign = views
            .iter()
            .filter(|(_, view)| view.tags.get(tags::STATE).is_some_and(|other| *other != state));
        let count = foreign.count();
        if count == 0 || reap {
            return Ok(());
        }
        let what = format!(
            "{count} VMs here belong to another journal than this one ({state}): put the journal \
             back, or start once with --reap to destroy them"
        );
        Err(Error::Storage { source: what.into() })
    }

    fn open_pools(self: &Arc<Self>, configs: Vec<PoolConfig>) -> Vec<Arc<Pool>> {
        let open = |config: PoolConfig| {
            let id = config.id.clone();
            let opened = self.make_pool(config);
            opened.inspect_err(|error| {
                tracing::error!(pool = %id, %error, "a pool cannot be opened: it is left closed");
            })
        };
        configs.into_iter().filter_map(|config| open(config).ok()).collect()
    }

    fn recover_lease(
        self: &Arc<Self>,
        record: LeaseRecord,
        view: Option<VmView>,
        report: &mut Report,
    ) {
        self.leases.fence_seen(record.fence);
        let Ok(provider) = self.provider(&record.provider).cloned() else {
            tracing::error!(
                uid = %record.uid, provider = &*record.provider,
                "a lease is of a provider that is not configured: it is left alone"
            );
            return;
        };
        let pool = record.pool.as_ref().and_then(|pool| self.pool(pool).ok());
        let state = match record.state {
            RecordState::Leased | RecordState::Resuming => VmState::Leased,
            RecordState::Aborted | RecordState::Releasing => VmState::Releasing,
            RecordState::Gone => VmState::Gone,
        };
        let is_live = state == VmState::Leased;
        let (vm_id, fingerprint) = (record.vm_id.clone(), record.fingerprint);
        let was_aborted = record.state == RecordState::Aborted;
        let was_resuming = record.state == RecordState::Resuming;
        let is_of_this_boot = record.boot_id == self.boot_id;
        let record = self.on_this_boot(record);
        let lease = Lease::new(record, state, provider, pool);
        if let Some(request) = lease.request.clone().filter(|_| !was_aborted)
            && !mutants::is(Mutant::ForgottenRequest)
        {
            self.requests.adopt(request, fingerprint, Arc::clone(&lease));
        }
        if !is_live {
            report.ended_leases += 1;
            self.finish_release(&lease, view, was_aborted);
            return;
        }
        report.leases += 1;
        let looks_alive = view.as_ref().is_some_and(|it| it.status != VmStatus::Failed);
        let lives = looks_alive && is_of_this_boot;
        report.failed_leases += usize::from(!lives);
        if let Some(view) = view.as_ref().filter(|_| looks_alive && !is_of_this_boot) {
            // No VM outlives its host's boot: what runs has nothing of what the tenant had in memory.
            tracing::warn!(%vm_id, uid = %view.uid, "a leased VM of another boot is destroyed");
            let called = self.put_aside(&lease.provider, view, &lease.pool_vm_id);
            self.reaper.retire(&lease.provider, called, None);
        } else if view.is_some_and(|view| view.vm_id != vm_id)
            && !mutants::is(Mutant::NotRolledForward)
        {
            self.make_name_good(&lease);
        }
        match &lease.pool {
            Some(pool) => pool.leased_changed(1),
            // What it was made of is not in its record: it counts as one VM.
            None => *lease.room.lock() = self.shared.shares.keep_room(Cost::default()),
        }
        *lease.place.lock() = self.shared.tenants.keep_place(&lease.tenant);
        self.leases.insert(&lease);
        self.leases.hold_name(&vm_id, &lease);
        if !lives {
            self.quarantine(&lease);
        }
        if was_resuming && lives {
            self.finish_resume(&lease, vm_id);
        }
    }

    /// The crash came between the append and the resume; it is done as a job of its own.
    fn finish_resume(self: &Arc<Self>, lease: &Arc<Lease>, vm_id: VmId) {
        let (manager, lease) = (Arc::clone(self), Arc::clone(lease));
        self.tasks.spawn(async move {
            let (runtime, name) = (Arc::clone(&lease.provider.runtime), vm_id.clone());
            let call = move || match runtime.status(&name) {
                Some(VmStatus::Stopped) => runtime.resume_vm(&name),
                _ => Ok(()),
            };
            let limit = manager.limits.verb_timeout;
            match manager.jobs.run(Class::Verb, "resume", limit, call, drop).await {
                Ok(()) => manager.note_resumed(&lease),
                Err(error) => tracing::error!(%vm_id, %error, "a leased VM could not be resumed"),
            }
        });
    }

    /// Boot times of another boot mean nothing: the wall clock stands in for them.
    fn on_this_boot(&self, mut record: LeaseRecord) -> LeaseRecord {
        if record.boot_id != self.boot_id {
            let left = record.expire_time.duration_since(self.env.now()).unwrap_or_default();
            record.deadline = self.env.boot_time() + left.min(crate::release::MAX_TTL);
            record.boot_id.clone_from(&self.boot_id);
        }
        record
    }

    /// The crash came between the append and the rename, or within a rename of the tenant's. One that
    /// fails is tried again: some times before anybody is served, then for as long as the lease lives.
    fn make_name_good(self: &Arc<Self>, lease: &Arc<Lease>) {
        for _ in 0..NAME_TRIES {
            match self.give_its_name(lease) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(uid = %lease.uid, %error, "a leased VM has a wrong name");
                }
            }
        }
        let (manager, lease) = (Arc::clone(self), Arc::clone(lease));
        self.tasks.spawn(async move {
            while lease.is_live() && manager.give_its_name(&lease).is_err() {
                tokio::select! {
                    () = tokio::time::sleep(NAME_PAUSE) => {}
                    () = manager.tasks.stopping().cancelled() => return,
                }
            }
        });
    }

    fn give_its_name(&self, lease: &Lease) -> Result<(), VmRuntimeError> {
        let (runtime, vm_id) = (&lease.provider.runtime, lease.held().vm_id);
        // The answer of the try before may have been lost.
        let called = runtime.get_vm_by_uid(lease.uid).map(|view| view.vm_id);
        let Some(called) = called.filter(|called| *called != vm_id) else { return Ok(()) };
        match runtime.rename_vm(&called, &vm_id) {
            // Whoever has the name has no lease for it: the journal would have said so.
            Err(VmRuntimeError::AlreadyExists { .. }) => {
                let aside = runtime.get_vm(&vm_id).map_or_else(|| self.env.uid(), |it| it.uid);
                let aside = VmId::warm(aside);
                runtime.rename_vm(&vm_id, &aside).and_then(|()| runtime.rename_vm(&called, &vm_id))
            }
            renamed => renamed,
        }
    }

    fn finish_release(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        view: Option<VmView>,
        was_aborted: bool,
    ) {
        let now = self.env.boot_time();
        match view {
            // Nobody ever had it: its record goes with it, and its request may have led to another.
            Some(view) if was_aborted => {
                let called = self.put_aside(&lease.provider, &view, &lease.pool_vm_id);
                self.retire_unhanded(lease, called);
            }
            Some(view) => {
                lease.pool.as_ref().inspect(|pool| pool.leased_changed(1));
                self.leases.insert(lease);
                // Whoever asks again for its release is told that it was released.
                self.leases.free_name(&lease.held().vm_id, lease, now);
                let called = self.put_aside(&lease.provider, &view, &lease.pool_vm_id);
                drop(self.destroy(lease, called, None));
            }
            None if was_aborted => {
                let _ = self.journal.forget_lease(lease.uid);
            }
            None => {
                let _ = lease.advance(VmEvent::Destroyed);
                self.leases.free_name(&lease.held().vm_id, lease, now);
                self.requests.ended(lease.request.clone(), lease.uid, now);
            }
        }
    }

    /// Of an instance that no record mentions.
    fn recover_unleased(
        &self,
        provider: &Arc<Provider>,
        view: VmView,
        adoptions: &mut Vec<(Arc<Pool>, VmView)>,
        report: &mut Report,
        reap: bool,
    ) {
        let state = self.state_uuid().to_string();
        match view.tags.get(tags::STATE) {
            Some(other) if *other == state => {}
            Some(_) if reap => {}
            _ => {
                report.strangers += 1;
                tracing::warn!(vm_id = %view.vm_id, uid = %view.uid, "a stranger is left alone");
                return;
            }
        }
        if let Some(pool) = self.adopting_pool(&view) {
            adoptions.push((pool, view));
            return;
        }
        let called = self.put_aside(provider, &view, &VmId::warm(view.uid));
        self.reap_vm(provider, called, view.uid, report);
    }

    /// What is to be destroyed does not keep a name that a tenant may ask for meanwhile.
    /// Answers what it is called.
    fn put_aside(&self, provider: &Provider, view: &VmView, aside: &VmId) -> VmId {
        let is_asked_for = !view.vm_id.is_pools_own();
        match is_asked_for && provider.runtime.rename_vm(&view.vm_id, aside).is_ok() {
            true => aside.clone(),
            false => view.vm_id.clone(),
        }
    }

    /// The pool in which a VM may be warm: all that can be known without asking it agrees.
    fn adopting_pool(&self, view: &VmView) -> Option<Arc<Pool>> {
        let tag = |name: &str| view.tags.get(name);
        let pool = self.pool(&PoolId::parse(tag(tags::POOL)?).ok()?).ok()?;
        let template = pool.template();
        let wanted = match pool.config().warm_state {
            WarmState::Running => VmStatus::Running,
            WarmState::Paused => VmStatus::Stopped,
        };
        let agrees = view.status == wanted
            && view.vm_id.is_pools_own()
            // Not one that was put aside, to be destroyed, by a recovery that was cut short.
            && view.vm_id != VmId::warm(view.uid)
            && *tag(tags::STATE)? == self.state_uuid().to_string()
            && **tag(tags::BOOT)? == *self.boot_id
            && tag(tags::TEMPLATE)?.as_str() == template.id.as_str()
            && self.is_of_make(tag(tags::GENERATION)?, &template);
        let age = self.env.boot_time().saturating_sub(made_at(view)?);
        let is_young = pool.config().max_warm_age.is_none_or(|max| age < max);
        (agrees && is_young).then_some(pool)
    }

    /// What was restored from `generation` is as good as what is restored from `template`: it is the same,
    /// or the one that was gone back to.
    fn is_of_make(&self, generation: &str, template: &Template) -> bool {
        let Ok(number) = generation.parse::<i64>() else { return false };
        number == template.generation
            || self.generation(&template.id, number).is_ok_and(|it| it.is_same_make(template))
    }

    /// Probes those that may be warm, at once, and takes up those that answer.
    async fn adopt_warm(
        self: &Arc<Self>,
        adoptions: Vec<(Arc<Pool>, VmView)>,
        report: &mut Report,
    ) {
        let mut probes = tokio::task::JoinSet::new();
        for (pool, _) in &adoptions {
            pool.hold_one_more();
        }
        for (pool, view) in adoptions {
            let (manager, probed) = (Arc::clone(self), view.vm_id.clone());
            probes.spawn(async move {
                let answers = manager.probe_adopted(&pool, &probed).await;
                (pool, view, answers)
            });
        }
        while let Some(Ok((pool, view, answers))) = probes.join_next().await {
            let (vm_id, uid) = (view.vm_id.clone(), view.uid);
            match (answers, made_at(&view)) {
                (Ok(()), Some(ready_at)) => {
                    report.adopted_warm += 1;
                    let vm = WarmVm { vm_id, uid, ready_at, made_of: pool.template() };
                    let adopted = pool.ledger.lock().adopt(vm);
                    pool.settle(adopted);
                }
                (answers, _) => {
                    let error = answers.err().map(|error| error.to_string());
                    tracing::warn!(%vm_id, error, "a warm VM does not answer and is reaped");
                    self.reap_vm(&pool.provider, vm_id, uid, report);
                }
            }
        }
    }

    async fn probe_adopted(&self, pool: &Arc<Pool>, vm_id: &VmId) -> Result<(), VmRuntimeError> {
        if pool.config().warm_state == WarmState::Paused || mutants::is(Mutant::AdoptUnprobed) {
            // It was probed before it was paused, and nothing has run in it since.
            return Ok(());
        }
        let (runtime, name) = (Arc::clone(&pool.provider.runtime), vm_id.clone());
        let (template, limit) = (pool.template(), self.limits.probe_timeout);
        let call = move || template.wait_restored(&*runtime, &name, limit);
        self.jobs.run(Class::Restore, "probe", limit * 2, call, drop).await
    }

    fn reap_vm(&self, provider: &Arc<Provider>, vm_id: VmId, uid: Uid, report: &mut Report) {
        tracing::info!(%vm_id, %uid, "a VM that nobody has is reaped");
        report.reaped += 1;
        metrics::orphans_reaped("vm", 1);
        self.reaper.retire(provider, vm_id, None);
    }
}

fn made_at(view: &VmView) -> Option<Duration> {
    view.tags.get(tags::MADE_AT)?.parse().ok().map(Duration::from_millis)
}
