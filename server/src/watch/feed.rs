//! What is known of one kind of resource, and its last changes in order. No clock and no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The bytes of the changes that are kept, as they are on the wire; the oldest go first.
const MAX_BYTES: usize = 32 << 20;

/// Something that can be watched.
pub(crate) trait Resource:
    prost::Message + Clone + PartialEq + Send + Sync + 'static
{
    /// Tells it from all others, for ever: not its name, which may be used again.
    fn key(&self) -> String;

    /// Nothing that is worth telling is different.
    fn is_like(&self, other: &Self) -> bool {
        self == other
    }

    /// Whoever knows this one knows what `passing` was about.
    fn covers(&self, passing: &Self) -> bool;
}

/// What became of a resource.
#[derive(Debug)]
pub(crate) struct Change<R> {
    /// The number of the change, from 1.
    pub(crate) sequence: u64,
    pub(crate) key: String,
    /// Unset: it was not there.
    pub(crate) before: Option<Arc<R>>,
    /// Unset: it is gone.
    pub(crate) after: Option<Arc<R>>,
    bytes: usize,
}

/// What was seen of a resource.
#[derive(Debug)]
pub(crate) enum Sighting<R> {
    /// It is so now.
    Is(R),
    /// It was so, and is gone or about to be found gone.
    Was(R),
    /// The one of this key is not there.
    Gone(String),
}

/// A place in the feed that it no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld;

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed<R> {
    epoch: u64,
    last: u64,
    known: BTreeMap<String, Arc<R>>,
    changes: VecDeque<Arc<Change<R>>>,
    bytes: usize,
    max_changes: usize,
}

impl<R: Resource> Feed<R> {
    /// A feed that begins with what is there and keeps `max_changes`; `epoch` tells it from others.
    pub(crate) fn open(epoch: u64, max_changes: usize, all: Vec<R>) -> Self {
        let known = all.into_iter().map(|it| (it.key(), Arc::new(it))).collect();
        Self { epoch, last: 0, known, changes: VecDeque::new(), bytes: 0, max_changes }
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the last change; 0 before the first.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// What is there, of keys beyond `after`, by key.
    pub(crate) fn known_after(&self, after: Option<&str>) -> Vec<Arc<R>> {
        let is_beyond = |key: &&String| after.is_none_or(|after| key.as_str() > after);
        self.known.iter().filter(|(key, _)| is_beyond(key)).map(|(_, it)| Arc::clone(it)).collect()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }

    /// At most `most` changes after the one of this number.
    ///
    /// # Errors
    /// [`TooOld`] when one of them is no longer kept, or none ever had the number.
    pub(crate) fn after(&self, sequence: u64, most: usize) -> Result<Vec<Arc<Change<R>>>, TooOld> {
        let behind = self.last.checked_sub(sequence).ok_or(TooOld)?;
        let kept = self.changes.len();
        let behind = usize::try_from(behind).map_err(|_| TooOld)?;
        let skipped = kept.checked_sub(behind).ok_or(TooOld)?;
        Ok(self.changes.iter().skip(skipped).take(most).cloned().collect())
    }

    /// Notes what was seen, where that is news.
    pub(crate) fn see(&mut self, sighting: Sighting<R>) {
        match sighting {
            Sighting::Is(now) => {
                let key = now.key();
                if self.known.get(&key).is_none_or(|known| !known.is_like(&now)) {
                    self.change(key, Some(Arc::new(now)));
                }
            }
            Sighting::Was(then) => {
                let key = then.key();
                if self.known.get(&key).is_none_or(|known| !known.covers(&then)) {
                    self.change(key, Some(Arc::new(then)));
                }
            }
            Sighting::Gone(key) => {
                if self.known.contains_key(&key) {
                    self.change(key, None);
                }
            }
        }
    }

    fn change(&mut self, key: String, after: Option<Arc<R>>) {
        let before = match &after {
            Some(after) => self.known.insert(key.clone(), Arc::clone(after)),
            None => self.known.remove(&key),
        };
        self.last += 1;
        let bytes = after.as_ref().map_or(0, |after| after.encoded_len());
        self.bytes += bytes;
        let change = Change { sequence: self.last, key, before, after, bytes };
        self.changes.push_back(Arc::new(change));
        while self.changes.len() > self.max_changes || self.bytes > MAX_BYTES {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_proto::v1;

    use super::*;

    fn vm(uid: &str, name: &str) -> v1::Vm {
        v1::Vm { uid: uid.to_owned(), name: name.to_owned(), ..Default::default() }
    }

    fn leased(uid: &str, name: &str) -> v1::Vm {
        v1::Vm { lease: Some(v1::Lease::default()), ..vm(uid, name) }
    }

    fn told(feed: &Feed<v1::Vm>, after: u64) -> Vec<(String, Option<String>, Option<String>)> {
        let name = |vm: &Option<Arc<v1::Vm>>| vm.as_ref().map(|vm| vm.name.clone());
        let changes = feed.after(after, usize::MAX).unwrap();
        changes.iter().map(|it| (it.key.clone(), name(&it.before), name(&it.after))).collect()
    }

    #[test]
    fn only_news_is_a_change() {
        let mut feed = Feed::open(1, 10, vec![vm("a", "one")]);
        feed.see(Sighting::Is(vm("a", "one")));
        feed.see(Sighting::Gone("b".to_owned()));
        assert_eq!(feed.last(), 0);
        feed.see(Sighting::Is(vm("a", "two")));
        feed.see(Sighting::Gone("a".to_owned()));
        let (one, two) = (Some("one".to_owned()), Some("two".to_owned()));
        let expected = [("a".to_owned(), one, two.clone()), ("a".to_owned(), two, None)];
        assert_eq!(told(&feed, 0), expected);
    }

    #[test]
    fn what_came_and_went_between_two_looks_is_told() {
        let mut feed = Feed::open(1, 10, vec![vm("a", "warm-a")]);
        feed.see(Sighting::Was(leased("a", "mine")));
        feed.see(Sighting::Gone("a".to_owned()));
        assert_eq!(feed.last(), 2);
        // One whose holder is known already is not gone back to.
        feed.see(Sighting::Is(leased("b", "renamed")));
        feed.see(Sighting::Was(leased("b", "mine")));
        assert_eq!(feed.last(), 3);
    }

    #[test]
    fn old_changes_go_and_are_known_to_be_gone() {
        let mut feed = Feed::open(1, 3, Vec::new());
        (0..5).for_each(|number| feed.see(Sighting::Is(vm("a", &format!("n{number}")))));
        assert_eq!(feed.last(), 5);
        assert!(feed.after(1, 9).is_err() && feed.after(6, 9).is_err());
        assert_eq!(feed.after(2, 9).unwrap().len(), 3);
        assert_eq!(feed.after(2, 2).unwrap().last().unwrap().sequence, 4);
        assert_eq!(feed.after(5, 9).unwrap().len(), 0);
    }

    #[test]
    fn large_changes_are_bounded_by_their_bytes() {
        let mut feed = Feed::open(1, usize::MAX, Vec::new());
        let large = "x".repeat(1 << 20);
        (0..100).for_each(|number| feed.see(Sighting::Is(vm(&number.to_string(), &large))));
        assert!(feed.bytes <= MAX_BYTES && feed.changes.len() < 32);
        (0..100).for_each(|number| feed.see(Sighting::Gone(number.to_string())));
        assert!(feed.after(100, usize::MAX).is_ok(), "an end has no bytes");
    }
}
