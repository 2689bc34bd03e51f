//! A lease's record as it lies in the log: a message of [protobuf], whose fields are [`Message`]'s.
//!
//! Each handoff writes one while its caller waits, so it is short, and written from what the record has
//! without anything in between. `prost` reads it. Up to format 1 records were JSON: they are read, too.
//!
//! [protobuf]: https://protobuf.dev/programming-guides/encoding/

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hearth_providers::{Uid, VmId};
use prost::Message as _;

use super::records::{LeaseRecord, RecordState, Source};
use crate::ids::{PoolId, RequestId, TemplateId, Tenant};

/// Why a record cannot be read.
pub(super) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// What a record of JSON begins with, and none of these: it would be the group of field 15.
const JSON: u8 = b'{';

/// The fields, by their tags. One that is unset is not written.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "vec", tag = "1")]
    uid: Vec<u8>,
    #[prost(uint32, tag = "2")]
    state: u32,
    #[prost(string, tag = "3")]
    vm_id: String,
    #[prost(string, tag = "4")]
    pool_vm_id: String,
    #[prost(string, tag = "5")]
    provider: String,
    #[prost(string, optional, tag = "6")]
    pool: Option<String>,
    #[prost(string, optional, tag = "7")]
    template: Option<String>,
    #[prost(int64, tag = "8")]
    generation: i64,
    #[prost(string, tag = "9")]
    tenant: String,
    #[prost(btree_map = "string, string", tag = "10")]
    labels: BTreeMap<String, String>,
    #[prost(string, optional, tag = "11")]
    request_id: Option<String>,
    #[prost(fixed64, tag = "12")]
    fingerprint: u64,
    #[prost(int64, tag = "13")]
    fence: i64,
    #[prost(uint32, tag = "14")]
    source: u32,
    #[prost(string, tag = "15")]
    boot_id: String,
    /// In nanoseconds of boot time.
    #[prost(fixed64, tag = "16")]
    deadline: u64,
    /// In nanoseconds since 1970, which last until 2262; so the next.
    #[prost(sfixed64, tag = "17")]
    expire_time: i64,
    #[prost(sfixed64, tag = "18")]
    acquire_time: i64,
}

/// Appends `record`.
pub(super) fn write(record: &LeaseRecord, to: &mut Vec<u8>) {
    let mut fields = Fields(to);
    fields.bytes(1, record.uid.as_bytes());
    fields.varint(2, number_of_state(record.state).into());
    fields.text(3, record.vm_id.as_str());
    fields.text(4, record.pool_vm_id.as_str());
    fields.text(5, &record.provider);
    record.pool.iter().for_each(|pool| fields.text(6, pool.as_str()));
    record.template.iter().for_each(|template| fields.text(7, template.as_str()));
    fields.varint(8, record.generation.cast_unsigned());
    fields.text(9, record.tenant.as_str());
    record.labels.iter().for_each(|(key, value)| fields.entry(10, key, value));
    record.request_id.iter().for_each(|request_id| fields.text(11, request_id.as_str()));
    fields.fixed(12, record.fingerprint.to_le_bytes());
    fields.varint(13, record.fence.cast_unsigned());
    fields.varint(14, number_of_source(record.source).into());
    fields.text(15, &record.boot_id);
    let deadline = u64::try_from(record.deadline.as_nanos()).unwrap_or(u64::MAX);
    fields.fixed(16, deadline.to_le_bytes());
    fields.fixed(17, since_epoch(record.expire_time).to_le_bytes());
    fields.fixed(18, since_epoch(record.acquire_time).to_le_bytes());
}

/// Reads one of any format.
///
/// # Errors
/// [`Unreadable`], which says why.
pub(super) fn read(bytes: &[u8]) -> Result<LeaseRecord, Unreadable> {
    if bytes.first() == Some(&JSON) {
        return Ok(serde_json::from_slice(bytes)?);
    }
    let it = Message::decode(bytes)?;
    let uid = <[u8; 16]>::try_from(&*it.uid).map_err(|_| "its uid has not 16 bytes")?;
    Ok(LeaseRecord {
        uid: Uid::from_bytes(uid),
        state: of_number(STATES, number_of_state, it.state).ok_or("its state is unknown")?,
        vm_id: VmId::parse(&it.vm_id)?,
        pool_vm_id: VmId::parse(&it.pool_vm_id)?,
        provider: it.provider.into(),
        pool: it.pool.as_deref().map(PoolId::parse).transpose()?,
        template: it.template.as_deref().map(TemplateId::parse).transpose()?,
        generation: it.generation,
        tenant: Tenant::from(it.tenant),
        labels: it.labels,
        request_id: it.request_id.map(RequestId::from),
        fingerprint: it.fingerprint,
        fence: it.fence,
        source: of_number(SOURCES, number_of_source, it.source).ok_or("its source is unknown")?,
        boot_id: it.boot_id.into(),
        deadline: Duration::from_nanos(it.deadline),
        expire_time: of_epoch(it.expire_time),
        acquire_time: of_epoch(it.acquire_time),
    })
}

const STATES: [RecordState; 5] = [
    RecordState::Resuming,
    RecordState::Leased,
    RecordState::Aborted,
    RecordState::Releasing,
    RecordState::Gone,
];
const SOURCES: [Source; 2] = [Source::Warm, Source::Cold];

/// What stands for it in every version; 0 is what a field has that is not there.
const fn number_of_state(state: RecordState) -> u32 {
    match state {
        RecordState::Resuming => 1,
        RecordState::Leased => 2,
        RecordState::Aborted => 3,
        RecordState::Releasing => 4,
        RecordState::Gone => 5,
    }
}

/// As [`number_of_state`].
const fn number_of_source(source: Source) -> u32 {
    match source {
        Source::Warm => 1,
        Source::Cold => 2,
    }
}

fn of_number<T: Copy, const N: usize>(
    all: [T; N],
    number_of: fn(T) -> u32,
    number: u32,
) -> Option<T> {
    all.into_iter().find(|it| number_of(*it) == number)
}

fn since_epoch(time: SystemTime) -> i64 {
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

fn of_epoch(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time =
        if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A message that is being written.
struct Fields<'a>(&'a mut Vec<u8>);

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Len = 2,
}

impl Fields<'_> {
    fn key(&mut self, tag: u8, wire: Wire) {
        self.number(u64::from(tag) << 3 | wire as u64);
    }

    /// A number, seven bits a byte, the lowest first.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn varint(&mut self, tag: u8, number: u64) {
        self.key(tag, Wire::Varint);
        self.number(number);
    }

    fn fixed(&mut self, tag: u8, number: [u8; 8]) {
        self.key(tag, Wire::Fixed64);
        self.0.extend_from_slice(&number);
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.key(tag, Wire::Len);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    /// An entry of a map: a message of key and value.
    fn entry(&mut self, tag: u8, key: &str, value: &str) {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 12);
        let mut fields = Fields(&mut entry);
        fields.text(1, key);
        fields.text(2, value);
        self.bytes(tag, &entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::record;
    use super::*;

    fn written(record: &LeaseRecord) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(record, &mut bytes);
        bytes
    }

    #[test]
    fn every_state_and_source_and_what_is_unset_is_read_as_it_was_written() {
        let mut records: Vec<_> =
            STATES.iter().map(|state| LeaseRecord { state: *state, ..record(1) }).collect();
        let unset = LeaseRecord { pool: None, template: None, request_id: None, ..record(2) };
        records
            .extend(SOURCES.iter().map(|source| LeaseRecord { source: *source, ..unset.clone() }));
        for record in records {
            assert_eq!(read(&written(&record)).unwrap(), record);
            assert_eq!(read(&serde_json::to_vec(&record).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_over_and_a_state_of_one_is_refused() {
        let mut later = written(&record(1));
        Fields(&mut later).text(100, "a field that is not known here");
        assert_eq!(read(&later).unwrap(), record(1));
        Fields(&mut later).varint(2, 6);
        assert_eq!(read(&later).unwrap_err().to_string(), "its state is unknown");
        assert_eq!(read(b"").unwrap_err().to_string(), "its uid has not 16 bytes");
    }

    #[test]
    fn times_beyond_what_can_be_written_end_there() {
        let far = Duration::from_secs(1 << 40);
        let record = LeaseRecord { deadline: far, expire_time: UNIX_EPOCH + far, ..record(1) };
        let read = read(&written(&record)).unwrap();
        assert_eq!(read.deadline, Duration::from_nanos(u64::MAX));
        assert_eq!(read.expire_time, UNIX_EPOCH + Duration::from_nanos(i64::MAX as u64));
    }

    proptest! {
        #[test]
        fn any_text_number_and_time_is_read_as_it_was_written(
            [provider, tenant, request_id, boot_id] in any::<[String; 4]>(),
            labels in any::<BTreeMap<String, String>>(),
            (generation, fence, fingerprint) in any::<(i64, i64, u64)>(),
            (deadline, expire_time, acquire_time) in any::<(u64, i64, i64)>(),
        ) {
            let record = LeaseRecord {
                provider: provider.into(),
                tenant: Tenant::new(&tenant),
                request_id: Some(RequestId::new(&request_id)),
                boot_id: boot_id.into(),
                labels,
                generation,
                fence,
                fingerprint,
                deadline: Duration::from_nanos(deadline),
                expire_time: of_epoch(expire_time),
                acquire_time: of_epoch(acquire_time),
                ..record(3)
            };
            assert_eq!(read(&written(&record)).unwrap(), record);
        }
    }
}
