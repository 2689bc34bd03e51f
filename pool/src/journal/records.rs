//! A lease, as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_providers::{Uid, VmId};
use serde::{Deserialize, Serialize};

use crate::ids::{PoolId, RequestId, TemplateId, Tenant};

/// How an acquired VM came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It was warm when the call arrived.
    Warm,
    /// The call waited for a restore.
    Cold,
}

/// Where a lease stands in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Promised, and still to be resumed: the tenant's from the moment this is written.
    Resuming,
    /// Promised: the tenant's from the moment this is written.
    Leased,
    /// The handover failed afterwards: the VM is to be destroyed, the tenant never had it.
    Aborted,
    /// Released or expired: the VM is to be destroyed.
    Releasing,
    /// Nothing is left but the memory of the request.
    Gone,
}

/// A lease, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The instance.
    pub uid: Uid,
    /// Where it stands.
    pub state: RecordState,
    /// The tenant's name for it.
    pub vm_id: VmId,
    /// The name it has before and after the tenant.
    pub pool_vm_id: VmId,
    /// The configured provider that has it.
    pub provider: Arc<str>,
    /// The pool it came from; unset for one that the tenant created.
    pub pool: Option<PoolId>,
    /// The template it was restored from.
    pub template: Option<TemplateId>,
    /// That template's generation.
    pub generation: i64,
    /// Whose it is.
    pub tenant: Tenant,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// The request that made it.
    pub request_id: Option<RequestId>,
    /// What that request asked for, hashed.
    pub fingerprint: u64,
    /// Grows with every holder.
    pub fence: i64,
    /// How it came to be.
    pub source: Source,
    /// The host's boot that `deadline` counts in.
    pub boot_id: Arc<str>,
    /// When the lease ends, in boot time.
    pub deadline: Duration,
    /// When the lease ends, by the wall clock: for people, and for another boot.
    pub expire_time: SystemTime,
    /// When it was acquired, by the wall clock.
    pub acquire_time: SystemTime,
}
