//! Which requests were made before, so that a retry gets the same answer and never a second VM.
//!
//! Keyed by tenant, method and request id. A request under way is joined by its duplicates; one
//! that failed is forgotten; one that succeeded is remembered while its lease lives and for a
//! time afterwards. Bounded: the oldest of the ended ones go first.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use hearth_providers::Uid;
use hearth_providers::map::SharedIdMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ids::{RequestId, Tenant};
use crate::lease::Lease;
use crate::mutants::{self, Mutant};

/// For how long the request of an ended lease is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// The methods whose requests are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `AcquireVm`
    Acquire,
    /// `CreateVm`
    Create,
}

/// What names a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Who asks.
    pub tenant: Tenant,
    /// For what.
    pub method: Method,
    /// The caller's name for it.
    pub request_id: RequestId,
}

/// Every request remembered.
#[derive(Debug)]
pub struct RequestLog {
    known: SharedIdMap<RequestKey, Known>,
    /// How many these are: to count them is to lock all of them.
    len: AtomicUsize,
    ended: Mutex<Ended>,
    capacity: usize,
}

/// Leases that have ended, whose records are kept for the sake of their requests.
#[derive(Debug, Default)]
struct Ended {
    oldest_first: VecDeque<EndedLease>,
    /// Those whose request had to make room: their records may go.
    forgotten: Vec<Uid>,
}

#[derive(Debug)]
struct EndedLease {
    at: Duration,
    request: Option<RequestKey>,
    uid: Uid,
}

#[derive(Debug)]
enum Known {
    /// Whoever joins it makes `end`, which ends with this entry.
    UnderWay {
        fingerprint: u64,
        end: Option<watch::Sender<()>>,
    },
    Done {
        fingerprint: u64,
        lease: Arc<Lease>,
    },
}

/// What is known of a request that comes in.
#[derive(Debug)]
pub enum Begin {
    /// Nothing: it is the caller's to do.
    New(Pending),
    /// It is under way: wait for its end, then look again.
    UnderWay(watch::Receiver<()>),
    /// It led to this lease.
    Done(Arc<Lease>),
    /// Its id was used for another request.
    Reused,
    /// No more can be remembered.
    Full,
}

/// A request under way. Dropped, it is forgotten and its duplicates look again.
#[derive(Debug)]
pub struct Pending {
    log: Arc<RequestLog>,
    key: RequestKey,
    fingerprint: u64,
    done: bool,
}

impl RequestLog {
    /// A log of at most `capacity` requests.
    pub fn new(capacity: usize) -> Arc<Self> {
        let (known, len) = (SharedIdMap::default(), AtomicUsize::new(0));
        Arc::new(Self { known, len, ended: Mutex::default(), capacity })
    }

    /// Looks a request up and, when it is new, begins it.
    pub fn begin(self: &Arc<Self>, key: RequestKey, fingerprint: u64) -> Begin {
        let full = self.len() >= self.capacity && !self.forget_oldest();
        match self.known.entry(key) {
            Entry::Occupied(mut known) => match known.get_mut() {
                Known::UnderWay { fingerprint: other, .. }
                | Known::Done { fingerprint: other, .. }
                    if *other != fingerprint =>
                {
                    Begin::Reused
                }
                Known::UnderWay { end, .. } => {
                    Begin::UnderWay(end.get_or_insert_with(|| watch::channel(()).0).subscribe())
                }
                Known::Done { lease, .. } => Begin::Done(Arc::clone(lease)),
            },
            Entry::Vacant(_) if full => Begin::Full,
            Entry::Vacant(vacant) => {
                let key = vacant.key().clone();
                vacant.insert(Known::UnderWay { fingerprint, end: None });
                self.len.fetch_add(1, Ordering::Relaxed);
                Begin::New(Pending { log: Arc::clone(self), key, fingerprint, done: false })
            }
        }
    }

    /// Takes up what a restart found.
    pub fn adopt(&self, key: RequestKey, fingerprint: u64, lease: Arc<Lease>) {
        if self.known.insert(key, Known::Done { fingerprint, lease }).is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets one; answers whether it was known.
    fn forget(&self, key: &RequestKey) -> bool {
        let is_known = self.known.remove(key).is_some();
        self.len.fetch_sub(usize::from(is_known), Ordering::Relaxed);
        is_known
    }

    /// The lease of `uid`, made by `request`, has ended at `now`.
    pub fn ended(&self, request: Option<RequestKey>, uid: Uid, now: Duration) {
        self.ended.lock().oldest_first.push_back(EndedLease { at: now, request, uid });
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many can be.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets those that ended long before `now`, and the oldest beyond the capacity, whether a
    /// request made them or not; answers whose records may go.
    pub fn forget_old(&self, now: Duration) -> Vec<Uid> {
        let mut ended = self.ended.lock();
        let mut forgotten = std::mem::take(&mut ended.forgotten);
        while ended.oldest_first.front().is_some_and(|oldest| {
            oldest.at + REMEMBERED_FOR <= now
                || self.len() > self.capacity
                || ended.oldest_first.len() > self.capacity
        }) && let Some(oldest) = ended.oldest_first.pop_front()
        {
            if let Some(key) = &oldest.request {
                self.forget(key);
            }
            forgotten.push(oldest.uid);
        }
        forgotten
    }

    fn forget_oldest(&self) -> bool {
        let mut ended = self.ended.lock();
        while let Some(oldest) = ended.oldest_first.pop_front() {
            // Its record goes at the next look; a restart before would take it up again.
            ended.forgotten.push(oldest.uid);
            if oldest.request.is_some_and(|key| self.forget(&key)) {
                return true;
            }
        }
        false
    }
}

impl Pending {
    /// It led to `lease`.
    pub fn done(mut self, lease: &Arc<Lease>) {
        if mutants::is(Mutant::ForgottenReplay) {
            return;
        }
        self.done = true;
        let (fingerprint, lease) = (self.fingerprint, Arc::clone(lease));
        if let Some(mut known) = self.log.known.get_mut(&self.key) {
            *known = Known::Done { fingerprint, lease };
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            self.log.forget(&self.key);
        }
    }
}

/// Hashes what a request asks for: FNV-1a, 64 bits, the same in every version of hearth.
#[derive(Debug)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds a part, as its `Debug` shows it.
    #[must_use]
    pub fn part(mut self, part: &dyn std::fmt::Debug) -> Self {
        // A hash takes any text.
        let _ = write!(self, "{part:?}");
        self.end()
    }

    /// Adds the parts of a text that is known already, as [`Self::part`] would what shows it.
    #[must_use]
    pub fn text<const N: usize>(mut self, parts: [&str; N]) -> Self {
        parts.iter().for_each(|part| self.add_all(part));
        self.end()
    }

    /// Adds a map of texts, as [`Self::part`] would.
    #[must_use]
    pub fn map(mut self, map: &BTreeMap<String, String>) -> Self {
        let is_shown = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if !map.iter().flat_map(|(key, value)| key.bytes().chain(value.bytes())).all(is_shown) {
            return self.part(map);
        }
        let mut before = r#"{""#;
        for (key, value) in map {
            for part in [before, key, r#"": ""#, value] {
                self.add_all(part);
            }
            before = r#"", ""#;
        }
        self.text([if map.is_empty() { "{}" } else { r#""}"# }])
    }

    /// Adds a part that is most often the same: `usual` is what shows it when it `is_usual`.
    #[must_use]
    pub fn usually(self, is_usual: bool, usual: &str, part: &dyn std::fmt::Debug) -> Self {
        if is_usual { self.text([usual]) } else { self.part(part) }
    }

    /// A separator that no text contains keeps ("a", "b") from ("ab", "").
    const fn end(mut self) -> Self {
        self.add(0xff);
        self
    }

    /// The hash.
    pub const fn finish(self) -> u64 {
        self.0
    }

    fn add_all(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.add(byte));
    }

    const fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
    }
}

impl std::fmt::Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.add_all(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(request_id: &str) -> RequestKey {
        let (tenant, request_id) = (Tenant::anonymous(), RequestId::new(request_id));
        RequestKey { tenant, method: Method::Acquire, request_id }
    }

    #[tokio::test]
    async fn a_failed_request_is_forgotten_and_its_duplicate_looks_again() {
        let log = RequestLog::new(10);
        let Begin::New(pending) = log.begin(key("a"), 1) else { panic!("it is new") };
        let Begin::UnderWay(mut ends) = log.begin(key("a"), 1) else { panic!("it is under way") };
        assert!(matches!(log.begin(key("a"), 2), Begin::Reused));
        drop(pending);
        assert!(ends.changed().await.is_err());
        assert!(matches!(log.begin(key("a"), 2), Begin::New(_)));
    }

    #[test]
    fn the_log_is_bounded() {
        let log = RequestLog::new(1);
        let Begin::New(_pending) = log.begin(key("a"), 1) else { panic!("it is new") };
        assert!(matches!(log.begin(key("b"), 1), Begin::Full));
    }

    #[test]
    fn ended_leases_are_bounded_with_and_without_a_request() {
        let log = RequestLog::new(2);
        let uid = |byte| Uid::from_random([byte; 16]);
        for byte in 1..=5 {
            log.ended(None, uid(byte), Duration::ZERO);
        }
        assert_eq!(log.forget_old(Duration::ZERO), [uid(1), uid(2), uid(3)]);
        assert!(log.forget_old(Duration::ZERO).is_empty());
        assert_eq!(log.forget_old(REMEMBERED_FOR), [uid(4), uid(5)]);
    }

    #[test]
    fn a_text_is_hashed_as_the_part_that_shows_it() {
        let part = |part: &dyn std::fmt::Debug| Fingerprint::default().part(part).finish();
        let id = hearth_providers::VmId::parse("a-1").unwrap();
        assert_eq!(Fingerprint::default().text(["Some(", "a-1", ")"]).finish(), part(&Some(&id)));
        assert_eq!(Fingerprint::default().text(["a-1"]).finish(), part(&id));
        let usually =
            |is_usual| Fingerprint::default().usually(is_usual, "None", &None::<Duration>);
        assert_eq!(usually(true).finish(), part(&None::<Duration>));
        assert_eq!(usually(false).finish(), part(&None::<Duration>));
    }

    #[test]
    fn a_map_is_hashed_as_the_part_that_shows_it() {
        for texts in [&[][..], &["a"], &["a", "b c", "~"], &["a", "\""], &["\\", "ä"], &["\n"]] {
            let map: BTreeMap<_, _> =
                texts.iter().map(|text| (format!("k{text}"), (*text).to_owned())).collect();
            let of = Fingerprint::default;
            assert_eq!(of().map(&map).finish(), of().part(&map).finish(), "{map:?}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |a: &str, b: &str| Fingerprint::default().part(&a).part(&b).finish();
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("ab", ""));
    }
}
