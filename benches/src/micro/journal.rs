//! One lease's record, written to the journal.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hearth_pool::env::{Env as _, SeededEnv, SystemEnv};
use hearth_pool::ids::{PoolId, TemplateId, Tenant};
use hearth_pool::journal::{Journal, LeaseRecord, RecordState, Source};
use hearth_providers::VmId;
use tempfile::TempDir;

use super::{AT_ONCE, Fixture, Meter, Result, metrics};

/// A journal, and what is written to it.
pub(super) struct Append {
    journal: Journal,
    record: LeaseRecord,
    env: SeededEnv,
    _dir: TempDir,
}

impl Append {
    pub(super) fn new() -> Result<Self> {
        metrics::install()?;
        let (dir, env) = (super::node::temporary()?, SeededEnv::new(1));
        let uid = env.uid();
        let record = LeaseRecord {
            uid,
            state: RecordState::Leased,
            vm_id: VmId::parse("bench-000000001")?,
            pool_vm_id: VmId::warm(uid),
            provider: "memory".into(),
            pool: Some(PoolId::parse("default")?),
            template: Some(TemplateId::parse("default")?),
            generation: 1,
            tenant: Tenant::anonymous(),
            labels: BTreeMap::from([("job".to_owned(), "nightly".to_owned())]),
            request_id: Some(env.uid().to_string().into()),
            fingerprint: 0x1234_5678_9abc_def0,
            fence: 1_000_000,
            source: Source::Warm,
            boot_id: env.boot_id().into(),
            deadline: Duration::from_nanos(123_456_789_012_345),
            expire_time: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_300_123_456_789),
            acquire_time: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        };
        let journal = Journal::open(&dir.path().join("journal"), &SystemEnv)?;
        Ok(Self { journal, record, env, _dir: dir })
    }
}

impl Fixture for Append {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let Self { journal, record, env, .. } = self;
        let fresh = |_| LeaseRecord { uid: env.uid(), ..record.clone() };
        let records: Vec<_> = (0..most.min(AT_ONCE)).map(fresh).collect();
        let mut written = Ok(());
        meter.measure(&mut || written = records.iter().try_for_each(|it| journal.write_lease(it)));
        written?;
        // It does not grow with the number of operations.
        records.iter().try_for_each(|it| journal.forget_lease(it.uid))?;
        journal.tend()?;
        Ok(records.len())
    }
}
