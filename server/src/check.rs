//! Reads the fields of requests. Everything that is wrong is collected, so that a caller mends
//! its request once; nothing is done before [`Fields::done`] has said that nothing is wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use hearth_pool::error::{Error, Result, Violation};
use hearth_pool::ids::{ArtifactId, PoolId, RequestId, TemplateId};
use hearth_proto::convert::{duration_from_wire, timestamp_to_system_time};
use hearth_proto::names::{self, Collection};
use hearth_providers::{SnapshotId, Uid, VmId};
use prost_types::{Duration as WireDuration, Timestamp};

/// The most labels of one VM.
pub(crate) const MAX_LABELS: usize = 64;
/// The longest key of a label, in bytes.
pub(crate) const MAX_LABEL_KEY_BYTES: usize = 63;
/// The longest value of a label, in bytes.
pub(crate) const MAX_LABEL_VALUE_BYTES: usize = 256;
/// The most violations that one answer lists.
const MAX_VIOLATIONS: usize = 64;

/// What is wrong with the fields of one request.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Notes that a field is wrong.
    pub(crate) fn wrong(&mut self, field: impl Into<String>, description: impl Display) {
        if self.violations.len() < MAX_VIOLATIONS {
            let (field, description) = (field.into(), description.to_string());
            self.violations.push(Violation { field, description });
        }
    }

    /// Nothing is wrong.
    ///
    /// # Errors
    /// `InvalidArgument` with everything that is.
    pub(crate) fn done(&mut self) -> Result<()> {
        match self.violations.is_empty() {
            true => Ok(()),
            false => Err(Error::InvalidArgument(std::mem::take(&mut self.violations))),
        }
    }

    /// As [`Self::done`], and answers a field that had to be there.
    ///
    /// # Errors
    /// As for [`Self::done`].
    pub(crate) fn required<T>(&mut self, value: Option<T>) -> Result<T> {
        self.done()?;
        value.ok_or_else(|| Error::Internal("a field is missing that was checked".to_owned()))
    }

    fn keep<T, E: Display>(&mut self, field: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.wrong(field, error)).ok()
    }

    fn name<T, E: Display>(
        &mut self,
        field: &str,
        collection: Collection,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let id = self.keep(field, collection.id(name))?;
        self.keep(field, parse(id))
    }

    /// `vms/{vm}`.
    pub(crate) fn vm(&mut self, field: &str, name: &str) -> Option<VmId> {
        self.name(field, names::VMS, name, VmId::parse)
    }

    /// `pools/{pool}`.
    pub(crate) fn pool(&mut self, field: &str, name: &str) -> Option<PoolId> {
        self.name(field, names::POOLS, name, PoolId::parse)
    }

    /// `templates/{template}`.
    pub(crate) fn template(&mut self, field: &str, name: &str) -> Option<TemplateId> {
        self.name(field, names::TEMPLATES, name, TemplateId::parse)
    }

    /// `artifacts/{artifact}`.
    pub(crate) fn artifact(&mut self, field: &str, name: &str) -> Option<ArtifactId> {
        self.name(field, names::ARTIFACTS, name, ArtifactId::parse)
    }

    /// `templates/{template}`, or `templates/{template}@{generation}`.
    pub(crate) fn generation(
        &mut self,
        field: &str,
        name: &str,
    ) -> Option<(TemplateId, Option<i64>)> {
        let (id, generation) = self.keep(field, names::parse_template(name))?;
        Some((self.keep(field, TemplateId::parse(id))?, generation))
    }

    /// `vms/{vm}/snapshots/{snapshot}`.
    pub(crate) fn snapshot(&mut self, field: &str, name: &str) -> Option<(VmId, SnapshotId)> {
        let (vm, snapshot) = self.keep(field, names::parse_snapshot(name))?;
        let vm = self.keep(field, VmId::parse(vm));
        Some((vm?, self.keep(field, SnapshotId::parse(snapshot))?))
    }

    /// `operations/{operation}`.
    pub(crate) fn operation(&mut self, field: &str, name: &str) -> Option<String> {
        self.keep(field, names::OPERATIONS.id(name)).map(str::to_owned)
    }

    /// A bare id that must be there.
    pub(crate) fn id<T, E: Display>(
        &mut self,
        field: &str,
        id: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.keep(field, names::check_id(id))?;
        self.keep(field, parse(id))
    }

    /// An id for a VM; empty: the server picks one.
    pub(crate) fn new_vm_id(&mut self, field: &str, id: &str) -> Option<VmId> {
        if id.is_empty() {
            return None;
        }
        let vm_id = self.id(field, id, VmId::parse)?;
        if vm_id.is_pools_own() {
            self.wrong(field, "ids that begin with \"warm-\" are the pools' own");
        }
        Some(vm_id)
    }

    /// A uid; empty: any.
    pub(crate) fn uid(&mut self, field: &str, uid: &str) -> Option<Uid> {
        if uid.is_empty() {
            return None;
        }
        self.keep(field, uid.parse())
    }

    /// A request id, in its one spelling; empty: none.
    pub(crate) fn request_id(&mut self, request_id: &str) -> Option<RequestId> {
        if request_id.is_empty() {
            return None;
        }
        match uuid::Uuid::parse_str(request_id) {
            Ok(uuid) => {
                let mut text = uuid::Uuid::encode_buffer();
                Some(RequestId::new(uuid.hyphenated().encode_lower(&mut text)))
            }
            Err(_) => {
                self.wrong("request_id", "it must be a UUID");
                None
            }
        }
    }

    /// A duration that must be positive; unset: none.
    pub(crate) fn duration(
        &mut self,
        field: &str,
        duration: Option<WireDuration>,
    ) -> Option<Duration> {
        let duration = self.keep(field, duration_from_wire(&duration?))?;
        if duration.is_zero() {
            self.wrong(field, "it must be longer than nothing");
        }
        Some(duration)
    }

    /// A time that must be in the future.
    pub(crate) fn until(
        &mut self,
        field: &str,
        time: &Timestamp,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let time = self.keep(field, timestamp_to_system_time(time))?;
        if time <= now {
            self.wrong(field, "it is not in the future");
        }
        Some(time)
    }

    /// A number that must not be negative.
    pub(crate) fn count(&mut self, field: &str, count: i32) -> usize {
        usize::try_from(count).unwrap_or_else(|_| {
            self.wrong(field, "it is negative");
            0
        })
    }

    /// A value of an enum.
    pub(crate) fn one_of<E: TryFrom<i32>>(&mut self, field: &str, value: i32) -> Option<E> {
        let known = E::try_from(value).ok();
        if known.is_none() {
            self.wrong(field, format_args!("{value} is not a value of this enum"));
        }
        known
    }

    /// Labels of a VM.
    pub(crate) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.wrong("labels", format_args!("there are more than {MAX_LABELS}"));
            return;
        }
        for (key, value) in labels {
            let shown: String = key.chars().take(MAX_LABEL_KEY_BYTES).collect();
            let field = || format!("labels.{shown}");
            if key.is_empty() || key.len() > MAX_LABEL_KEY_BYTES {
                self.wrong(field(), format_args!("a key has 1 to {MAX_LABEL_KEY_BYTES} bytes"));
            }
            if value.len() > MAX_LABEL_VALUE_BYTES {
                let most = format_args!("a value has at most {MAX_LABEL_VALUE_BYTES} bytes");
                self.wrong(field(), most);
            }
            if key.contains(char::is_control) || value.contains(char::is_control) {
                self.wrong(field(), "it has control characters");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let mut fields = Fields::default();
        fields.pool("pool", "pools/../x");
        fields.new_vm_id("vm_id", "warm-1");
        fields.request_id("not-a-uuid");
        fields.uid("uid", "x");
        fields.duration("ttl", Some(WireDuration { seconds: -1, nanos: 0 }));
        fields.duration("max_ttl", Some(WireDuration { seconds: 0, nanos: 0 }));
        fields.count("page_size", -1);
        let Error::InvalidArgument(violations) = fields.done().unwrap_err() else { panic!() };
        let named: Vec<_> = violations.iter().map(|it| it.field.as_str()).collect();
        let expected = ["pool", "vm_id", "request_id", "uid", "ttl", "max_ttl", "page_size"];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_request_id_has_one_spelling() {
        let mut fields = Fields::default();
        let lower = fields.request_id("0f8fad5b-d9cb-469f-a165-70867728950e");
        assert_eq!(fields.request_id("{0F8FAD5B-D9CB-469F-A165-70867728950E}"), lower);
        assert_eq!(fields.request_id("0F8FAD5BD9CB469FA16570867728950E"), lower);
        assert!(lower.is_some() && fields.done().is_ok());
        assert_eq!(fields.request_id(""), None);
    }

    #[test]
    fn labels_are_bounded() {
        let wrong = |labels: &[(String, String)]| {
            let mut fields = Fields::default();
            fields.labels(&labels.iter().cloned().collect());
            fields.done().is_err()
        };
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert!(!wrong(&[label(&"k".repeat(63), &"v".repeat(256))]));
        assert!(wrong(&[label(&"k".repeat(64), "")]));
        assert!(wrong(&[label("k", &"v".repeat(257))]));
        assert!(wrong(&[label("", "v")]));
        assert!(wrong(&[label("k", "a\nb")]));
        let many: Vec<_> = (0..65).map(|number| label(&number.to_string(), "")).collect();
        assert!(wrong(&many) && !wrong(&many[1..]));
    }

    #[test]
    fn a_past_time_is_refused() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let mut fields = Fields::default();
        let until = |fields: &mut Fields, seconds| {
            fields.until("expire_time", &Timestamp { seconds, nanos: 0 }, now)
        };
        assert_eq!(until(&mut fields, 107), Some(now + Duration::from_secs(7)));
        assert!(fields.done().is_ok());
        for past in [100, 99, -5, i64::MAX] {
            until(&mut fields, past);
            assert!(fields.done().is_err(), "{past}");
        }
    }
}
