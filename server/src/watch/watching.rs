//! One watch: reads the feed from a place of its own, and says what its caller may see of it.
//!
//! It is pulled: what its reader has not taken is not made yet. A reader that stands still costs
//! nothing, until the feed has forgotten its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::error::Error;
use tokio::time::Instant;

use super::feed::{Change, TooOld};
use super::hub::{Hub, Source, Subscriber};
use super::token::Token;
use crate::status::Refusal;

/// Changes that are read from the feed at once.
const BATCH: usize = 64;

/// What a reader is told.
#[derive(Clone, Debug)]
pub(crate) enum Event<R> {
    /// It is there.
    Added(Arc<R>),
    /// It changed.
    Changed(Arc<R>),
    /// It is gone, and was so.
    Deleted(Arc<R>),
    /// What was there has been told.
    Synced,
    /// Nothing happened.
    Heartbeat,
}

/// What a caller sees.
pub(crate) struct View<R> {
    /// Names the watch in its tokens.
    pub(crate) list: u64,
    /// Whether it sees this.
    pub(crate) sees: Box<dyn Fn(&R) -> bool + Send + Sync>,
    /// The longest silence.
    pub(crate) heartbeat: Duration,
}

/// See the module.
pub(crate) struct Watching<S: Source> {
    subscriber: Subscriber<S>,
    view: View<S::Item>,
    epoch: u64,
    /// The last change told, or seen to be nothing for this caller.
    sequence: u64,
    part: Part<S::Item>,
    ready: VecDeque<(Event<S::Item>, Token)>,
    silent_since: Instant,
}

/// What is being told.
enum Part<R> {
    /// What became, until the change `until`, of what was listed up to the key `listed`; then the rest.
    Listed { until: u64, listed: String, rest: VecDeque<Arc<R>> },
    /// What there is.
    Listing(VecDeque<Arc<R>>),
    /// What becomes of it.
    Live,
}

impl<S: Source> Watching<S> {
    /// A watch from the beginning, or from where `resume_token` says.
    ///
    /// # Errors
    /// `InvalidArgument` for a token of another watch; `RESUME_TOKEN_EXPIRED`; `Draining` while the server
    /// ends.
    pub(crate) async fn begin(
        hub: &Arc<Hub<S>>,
        view: View<S::Item>,
        resume_token: &str,
    ) -> Result<Self, Refusal> {
        let token = match resume_token {
            "" => None,
            text => Some(Token::decode(view.list, text).ok_or_else(|| {
                let why = "it is not a token of this watch, or the filter has changed";
                Error::invalid("resume_token", why)
            })?),
        };
        let subscriber = hub.subscribe().await.ok_or(Error::Draining)?;
        let read = hub.read(|feed| -> Result<_, TooOld> {
            let (epoch, last) = (feed.epoch(), feed.last());
            let Some(token) = token else {
                return Ok((epoch, last, Part::Listing(feed.known_after(None).into())));
            };
            if token.epoch != epoch {
                return Err(TooOld);
            }
            feed.after(token.sequence, 0)?;
            let part = match token.listed {
                None => Part::Live,
                Some(listed) => {
                    let rest = feed.known_after(Some(&listed)).into();
                    Part::Listed { until: last, listed, rest }
                }
            };
            Ok((epoch, token.sequence, part))
        });
        let (epoch, sequence, part) =
            read.ok_or(Error::Draining)?.map_err(|TooOld| Refusal::ResumeTokenExpired)?;
        let (ready, silent_since) = (VecDeque::new(), Instant::now());
        Ok(Self { subscriber, view, epoch, sequence, part, ready, silent_since })
    }

    /// A watch that tells nothing of what there is: it begins with [`Event::Synced`].
    ///
    /// # Errors
    /// `Draining` while the server ends.
    pub(crate) async fn begin_now(hub: &Arc<Hub<S>>, view: View<S::Item>) -> Result<Self, Refusal> {
        let subscriber = hub.subscribe().await.ok_or(Error::Draining)?;
        let now = hub.read(|feed| (feed.epoch(), feed.last()));
        let (epoch, sequence) = now.ok_or(Error::Draining)?;
        let (ready, silent_since) = (VecDeque::new(), Instant::now());
        let part = Part::Live;
        let mut watching = Self { subscriber, view, epoch, sequence, part, ready, silent_since };
        let token = watching.token(None);
        watching.ready.push_back((Event::Synced, token));
        Ok(watching)
    }

    /// What comes next, and the token that goes on after it. `None`: the server ends.
    ///
    /// # Errors
    /// `WATCH_TOO_SLOW`; nothing comes after that.
    pub(crate) async fn next(&mut self) -> Result<Option<(Event<S::Item>, String)>, Refusal> {
        loop {
            if let Some((event, token)) = self.ready.pop_front() {
                self.silent_since = Instant::now();
                return Ok(Some((event, token.encode(self.view.list))));
            }
            if self.refill()? {
                continue;
            }
            let silence = self.silent_since + self.view.heartbeat;
            let hub = Arc::clone(self.subscriber.hub());
            tokio::select! {
                biased;
                () = hub.ending().cancelled() => return Ok(None),
                () = self.subscriber.changed() => {}
                () = tokio::time::sleep_until(silence) => {
                    let token = self.token(None);
                    self.ready.push_back((Event::Heartbeat, token));
                }
            }
        }
    }

    /// Reads on; false when there is nothing to read now.
    fn refill(&mut self) -> Result<bool, Refusal> {
        match std::mem::replace(&mut self.part, Part::Live) {
            Part::Live => self.follow(u64::MAX, None),
            Part::Listed { until, listed, rest } if self.sequence >= until => {
                // The next token says that, too.
                self.sequence = until;
                drop(listed);
                self.part = Part::Listing(rest);
                Ok(true)
            }
            Part::Listed { until, listed, rest } => {
                let followed = self.follow(until, Some(&listed));
                self.part = Part::Listed { until, listed, rest };
                followed
            }
            Part::Listing(mut rest) => {
                let mut events = VecDeque::new();
                while events.len() < BATCH
                    && let Some(item) = rest.pop_front()
                {
                    if (self.view.sees)(&item) {
                        let token = self.token(Some(super::Resource::key(&*item)));
                        events.push_back((Event::Added(item), token));
                    }
                }
                self.ready = events;
                match rest.is_empty() {
                    true => self.ready.push_back((Event::Synced, self.token(None))),
                    false => self.part = Part::Listing(rest),
                }
                Ok(true)
            }
        }
    }

    /// Reads the changes up to `until`, of keys up to `listed`.
    fn follow(&mut self, until: u64, listed: Option<&str>) -> Result<bool, Refusal> {
        let hub = self.subscriber.hub();
        let read = hub.read(|feed| (feed.epoch(), feed.after(self.sequence, BATCH)));
        let changes = match read {
            Some((epoch, Ok(changes))) if epoch == self.epoch => changes,
            // Its feed is gone with the server.
            None => return Ok(false),
            Some(_) => return Err(Refusal::WatchTooSlow),
        };
        let mut has_read = false;
        for change in changes.iter().filter(|change| change.sequence <= until) {
            has_read = true;
            self.sequence = change.sequence;
            if listed.is_some_and(|listed| change.key.as_str() > listed) {
                continue;
            }
            if let Some(event) = self.event(change) {
                let token = self.token(listed.map(str::to_owned));
                self.ready.push_back((event, token));
            }
        }
        Ok(has_read)
    }

    /// What a change is to this caller.
    fn event(&self, change: &Change<S::Item>) -> Option<Event<S::Item>> {
        let seen = |item: &Option<Arc<S::Item>>| {
            item.as_ref().filter(|item| (self.view.sees)(item)).cloned()
        };
        match (seen(&change.before), seen(&change.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(Event::Added(after)),
            (Some(_), Some(after)) => Some(Event::Changed(after)),
            (Some(before), None) => Some(Event::Deleted(before)),
        }
    }

    const fn token(&self, listed: Option<String>) -> Token {
        Token { epoch: self.epoch, sequence: self.sequence, listed }
    }
}
