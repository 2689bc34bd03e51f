//! What the page shows of each thing: fields named as in the API, and no more of them than are shown.
//! Times are RFC 3339, enum values without their prefix.

use std::collections::BTreeMap;

use hearth_proto::v1;
use serde::Serialize;

use super::history::Hour;

/// A VM.
#[derive(Serialize)]
pub(super) struct Vm {
    id: String,
    uid: String,
    state: String,
    tenant: String,
    /// Somebody has it.
    leased: bool,
    pool: String,
    template: String,
    generation: i64,
    provider: String,
    labels: BTreeMap<String, String>,
    create_time: Option<String>,
    acquire_time: Option<String>,
    expire_time: Option<String>,
    endpoints: Vec<String>,
    pid: Option<i64>,
    preserved: bool,
    failure: Option<Failure>,
}

/// How something came to its end.
#[derive(Serialize)]
pub(super) struct Failure {
    reason: String,
    message: String,
    exit_status: Option<i32>,
    exit_signal: Option<i32>,
}

/// A pool, and why it is as deep as it is.
#[derive(Serialize)]
pub(super) struct Pool {
    id: String,
    template: String,
    generation: i64,
    warm: i32,
    target: i32,
    restoring: i32,
    leased: i32,
    waiting: i32,
    quarantined: i32,
    outdated: i32,
    not_ready: String,
    draining: bool,
    breaker: Breaker,
    summary: String,
    bound: String,
    /// Empty: nothing keeps more from running.
    restore_limit: String,
    claims_per_second: f64,
    offered_load: f64,
    predicted_miss_ratio: f64,
    misses: Vec<Miss>,
    last_hour: Hour,
}

/// Whether restores are held back.
#[derive(Serialize)]
struct Breaker {
    open: bool,
    reason: String,
    failures: i32,
    retry_time: Option<String>,
}

/// Acquires that found nothing warm, for one reason.
#[derive(Serialize)]
struct Miss {
    reason: String,
    count: i64,
    last_time: Option<String>,
}

/// One generation of a template.
#[derive(Serialize)]
pub(super) struct Generation {
    id: String,
    provider: String,
    state: String,
    generation: i64,
    update_time: Option<String>,
    failure: Option<Failure>,
}

/// The server and what it runs on.
#[derive(Serialize)]
pub(super) struct Node {
    version: String,
    start_time: Option<String>,
    draining: bool,
    cpu_count: i32,
    mem_size_mib: i64,
    mem_available_mib: i64,
    live_vms: i32,
    /// 0: as many as there is room for.
    max_vms: i32,
    max_parallel_restores: i32,
    providers: Vec<Provider>,
}

/// A backend, and what it can do.
#[derive(Serialize)]
struct Provider {
    name: String,
    kind: String,
    version: String,
    accel: String,
    can: Vec<&'static str>,
    cannot: Vec<&'static str>,
}

fn time(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|it| it.to_string())
}

/// A name without its collection.
fn id_of(name: &str) -> String {
    name.split_once('/').map_or(name, |(_, id)| id).to_owned()
}

fn without(prefix: &str, name: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

impl From<v1::Vm> for Vm {
    fn from(vm: v1::Vm) -> Self {
        let endpoint = |it: v1::Endpoint| {
            format!("{} {}", without("KIND_", it.kind().as_str_name()), it.address)
        };
        Self {
            state: without("STATE_", vm.state().as_str_name()),
            id: id_of(&vm.name),
            uid: vm.uid,
            tenant: vm.tenant,
            leased: vm.lease.is_some(),
            pool: id_of(&vm.pool),
            template: id_of(&vm.template),
            generation: vm.template_generation,
            provider: vm.provider,
            labels: vm.labels.into_iter().collect(),
            create_time: time(vm.create_time),
            acquire_time: time(vm.acquire_time),
            expire_time: time(vm.lease.and_then(|lease| lease.expire_time)),
            endpoints: vm.endpoints.into_iter().map(endpoint).collect(),
            pid: vm.process.map(|it| it.pid),
            preserved: vm.preserved,
            failure: vm.failure.map(Failure::from),
        }
    }
}

impl From<v1::Failure> for Failure {
    fn from(it: v1::Failure) -> Self {
        let (exit_status, exit_signal) = (it.exit_status, it.exit_signal);
        Self { reason: it.reason, message: it.message, exit_status, exit_signal }
    }
}

impl Pool {
    pub(super) fn of(it: v1::ExplainPoolResponse, last_hour: Hour) -> Self {
        let (bound, limit) = (it.bound().as_str_name(), it.restore_limit().as_str_name());
        let (bound, restore_limit) = (without("BOUND_", bound), without("RESTORE_LIMIT_", limit));
        let pool = it.pool.unwrap_or_default();
        let status = pool.status.unwrap_or_default();
        let breaker = status.breaker.unwrap_or_default();
        let miss = |it: v1::explain_pool_response::Miss| Miss {
            reason: it.reason,
            count: it.count,
            last_time: time(it.last_time),
        };
        Self {
            id: id_of(&pool.name),
            template: id_of(&pool.template),
            generation: status.generation,
            warm: status.warm,
            target: status.target,
            restoring: status.restoring,
            leased: status.leased,
            waiting: status.waiting,
            quarantined: status.quarantined,
            outdated: status.outdated,
            not_ready: status.not_ready,
            draining: status.draining,
            breaker: Breaker {
                open: breaker.open,
                reason: breaker.reason,
                failures: breaker.failures,
                retry_time: time(breaker.retry_time),
            },
            summary: it.summary,
            bound,
            restore_limit: if restore_limit == "UNSPECIFIED" {
                String::new()
            } else {
                restore_limit
            },
            claims_per_second: it.claims_per_second,
            offered_load: it.offered_load,
            predicted_miss_ratio: it.predicted_miss_ratio,
            misses: it.misses.into_iter().map(miss).collect(),
            last_hour,
        }
    }
}

impl From<v1::Template> for Generation {
    fn from(it: v1::Template) -> Self {
        Self {
            state: without("STATE_", it.state().as_str_name()),
            id: id_of(&it.name),
            provider: it.provider,
            generation: it.generation,
            update_time: time(it.update_time),
            failure: it.failure.map(Failure::from),
        }
    }
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        let capacity = node.capacity.unwrap_or_default();
        Self {
            version: node.hearth_version,
            start_time: time(node.start_time),
            draining: node.draining,
            cpu_count: capacity.cpu_count,
            mem_size_mib: capacity.mem_size_mib,
            mem_available_mib: capacity.mem_available_mib,
            live_vms: capacity.live_vms,
            max_vms: capacity.max_vms,
            max_parallel_restores: node.bounds.unwrap_or_default().max_parallel_restores,
            providers: node.providers.into_iter().map(Provider::from).collect(),
        }
    }
}

impl From<v1::Provider> for Provider {
    fn from(it: v1::Provider) -> Self {
        let able = it.capabilities.unwrap_or_default();
        let (can, cannot): (Vec<_>, Vec<_>) = [
            ("rename", able.rename),
            ("pause", able.pause),
            ("snapshots", able.snapshot),
            ("memory in snapshots", able.snapshot_memory),
            ("freeze", able.freeze),
            ("guest channel", able.guest_channel),
            ("console", able.console),
            ("export", able.export),
        ]
        .into_iter()
        .partition(|(_, can)| *can);
        let name = |(name, _): (&'static str, bool)| name;
        Self {
            name: it.name,
            kind: it.kind,
            version: it.version,
            accel: it.accel,
            can: can.into_iter().map(name).collect(),
            cannot: cannot.into_iter().map(name).collect(),
        }
    }
}
