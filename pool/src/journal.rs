//! What survives a restart: leases with their request ids, templates, pools, and whose state it
//! is.
//!
//! A lease is one record under its VM's uid, written anew at each turn of its life; the write
//! that first has it is the moment at which a VM changes hands. It reaches the kernel before
//! [`Journal::write_lease`] returns and is not fsynced: it must outlive this process, and no VM
//! outlives the host. What operators decide (templates, pools) is fsynced.
//!
//! Records are JSON with a format number in `meta`: a reader of a later version knows what it
//! reads, and so does a person at night.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use hearth_providers::env::Env;
use hearth_providers::{Uid, VmId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{PoolId, TemplateId, Tenant};
use crate::metrics::JournalMetrics;

/// The format that this version writes, and the only one so far.
const FORMAT: u32 = 1;

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
    pub provider: String,
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
    pub request_id: Option<String>,
    /// What that request asked for, hashed.
    pub fingerprint: u64,
    /// Grows with every holder.
    pub fence: i64,
    /// How it came to be.
    pub source: Source,
    /// The host's boot that `deadline` counts in.
    pub boot_id: String,
    /// When the lease ends, in boot time.
    pub deadline: Duration,
    /// When the lease ends, by the wall clock: for people, and for another boot.
    pub expire_time: SystemTime,
    /// When it was acquired, by the wall clock.
    pub acquire_time: SystemTime,
}

/// Whose state this is; written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    format: u32,
    state_uuid: Uid,
}

/// The kinds of what operators decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Templates, by id.
    Template,
    /// Pools, by id.
    Pool,
    /// Artifacts, by id.
    Artifact,
    /// Of the node itself: whether it drains.
    Node,
}

impl Control {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Template => "template/",
            Self::Pool => "pool/",
            Self::Artifact => "artifact/",
            Self::Node => "node/",
        }
    }
}

/// The journal of one hearth.
pub struct Journal {
    database: Database,
    leases: Keyspace,
    control: Keyspace,
    state_uuid: Uid,
    is_new: bool,
    unwell: AtomicBool,
    metrics: JournalMetrics,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("state_uuid", &self.state_uuid).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in `dir`, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when another hearth has it open, when it is of another format, or when it
    /// cannot be read.
    pub fn open(dir: &Path, env: &dyn Env) -> Result<Self> {
        let database = Database::builder(dir).worker_threads(1).open().map_err(|error| {
            let what = match error {
                fjall::Error::Locked => "another hearth runs on this state directory".to_owned(),
                error => format!("the journal in {} cannot be opened: {error}", dir.display()),
            };
            storage(what)
        })?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let meta = keyspace("meta").map_err(storage)?;
        let leases = keyspace("leases").map_err(storage)?;
        let control = keyspace("control").map_err(storage)?;
        let found = meta.get("meta").map_err(storage)?;
        let is_new = found.is_none();
        let meta = match found {
            Some(text) => parse::<Meta>(&text)?,
            None => {
                let fresh = Meta { format: FORMAT, state_uuid: env.uid() };
                meta.insert("meta", encode(&fresh)?).map_err(storage)?;
                database.persist(PersistMode::SyncAll).map_err(storage)?;
                fresh
            }
        };
        if meta.format != FORMAT {
            return Err(storage(format!(
                "the journal is of format {}; this version of hearth reads format {FORMAT}",
                meta.format
            )));
        }
        let (state_uuid, unwell) = (meta.state_uuid, AtomicBool::new(false));
        let metrics = JournalMetrics::new();
        Ok(Self { database, leases, control, state_uuid, is_new, unwell, metrics })
    }

    /// Names this state directory for ever: what carries it is ours.
    pub const fn state_uuid(&self) -> Uid {
        self.state_uuid
    }

    /// It was made by this opening: there can be no VMs of ours.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Asked before a VM is touched: after a write that failed, one that matters to nobody must
    /// succeed first.
    ///
    /// # Errors
    /// `Storage` while nothing can be written.
    pub fn check_well(&self) -> Result<()> {
        if !self.unwell.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.control.insert("trial", "").map_err(storage)?;
        self.unwell.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a lease's record: when it returns the kernel has it. Blocks for microseconds.
    ///
    /// # Errors
    /// `Storage`; whether the record was written is then unknown.
    pub fn write_lease(&self, record: &LeaseRecord) -> Result<()> {
        let begun = tokio::time::Instant::now();
        let text = encode(record)?;
        let written = self.leases.insert(record.uid.as_bytes(), text).map_err(storage);
        self.unwell.store(written.is_err(), Ordering::Relaxed);
        self.metrics.appended(begun.elapsed());
        written
    }

    /// Forgets a lease.
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_lease(&self, uid: Uid) -> Result<()> {
        self.leases.remove(uid.as_bytes()).map_err(storage)
    }

    /// Every lease's record. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when one cannot be read.
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> {
        self.leases.iter().map(|guard| parse(&guard.value().map_err(storage)?)).collect()
    }

    /// Writes what an operator decided, and fsyncs it. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`.
    pub fn write_control<T: Serialize>(&self, kind: Control, id: &str, value: &T) -> Result<()> {
        let key = format!("{}{id}", kind.prefix());
        self.control.insert(key, encode(value)?).map_err(storage)?;
        self.database.persist(PersistMode::SyncAll).map_err(storage)
    }

    /// Forgets what an operator decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_control(&self, kind: Control, id: &str) -> Result<()> {
        self.control.remove(format!("{}{id}", kind.prefix())).map_err(storage)?;
        self.database.persist(PersistMode::SyncAll).map_err(storage)
    }

    /// Everything of one kind that operators decided. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read.
    pub fn control<T: DeserializeOwned>(&self, kind: Control) -> Result<Vec<T>> {
        self.control
            .prefix(kind.prefix())
            .map(|guard| parse(&guard.value().map_err(storage)?))
            .collect()
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(storage)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(storage)
}

fn storage(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Storage { source: source.into() }
}

#[cfg(test)]
pub(crate) mod tests {
    use hearth_providers::env::{SeededEnv, SystemEnv};

    use super::*;

    pub(crate) fn record(byte: u8) -> LeaseRecord {
        let uid = Uid::from_random([byte; 16]);
        LeaseRecord {
            uid,
            state: RecordState::Leased,
            vm_id: VmId::parse("a").unwrap(),
            pool_vm_id: VmId::warm(uid),
            provider: "memory".to_owned(),
            pool: Some(PoolId::parse("default").unwrap()),
            template: Some(TemplateId::parse("default").unwrap()),
            generation: 1,
            tenant: Tenant::anonymous(),
            labels: BTreeMap::new(),
            request_id: Some("r".to_owned()),
            fingerprint: 7,
            fence: 1,
            source: Source::Warm,
            boot_id: "b".to_owned(),
            deadline: Duration::from_millis(1500),
            expire_time: SystemTime::UNIX_EPOCH,
            acquire_time: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_was_written_is_read_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = {
            let journal = Journal::open(dir.path(), &SystemEnv).unwrap();
            assert!(journal.is_new());
            journal.write_lease(&record(1)).unwrap();
            journal.write_lease(&LeaseRecord { state: RecordState::Gone, ..record(1) }).unwrap();
            journal.write_lease(&record(2)).unwrap();
            journal.write_lease(&record(3)).unwrap();
            journal.forget_lease(record(3).uid).unwrap();
            journal.write_control(Control::Pool, "p", &7).unwrap();
            journal.state_uuid()
        };
        let journal = Journal::open(dir.path(), &SeededEnv::new(1)).unwrap();
        assert!(!journal.is_new());
        assert_eq!(journal.state_uuid(), uuid);
        let states: Vec<_> = journal.leases().unwrap().iter().map(|it| it.state).collect();
        assert_eq!(states, [RecordState::Gone, RecordState::Leased]);
        assert_eq!(journal.control::<u32>(Control::Pool).unwrap(), [7]);
        assert!(journal.control::<u32>(Control::Template).unwrap().is_empty());
    }

    #[test]
    fn a_second_hearth_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Journal::open(dir.path(), &SystemEnv).unwrap();
        let second = Journal::open(dir.path(), &SystemEnv).unwrap_err();
        let source = std::error::Error::source(&second).unwrap().to_string();
        assert_eq!(source, "another hearth runs on this state directory");
    }
}
