//! An acquire whose spans are made and exported, and one whose spans are not: what tracing costs is between them.
//!
//! Spans are made by the server's own code, and wait in its queue; sending them is done elsewhere, and no part of a
//! call. Both have a log, at `info`. The subscriber is the thread's for as long as a block runs.

use tracing::{Dispatch, dispatcher, level_filters::LevelFilter};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::node::{Names, Node, Size};
use super::{Fixture, Meter, Result};

#[path = "../../../server/src/telemetry/queue.rs"]
mod queue;
#[path = "../../../server/src/telemetry/spans.rs"]
mod spans;

/// More than a block makes.
const MAX_QUEUED: usize = 1 << 16;
/// Of an acquire of a warm VM: itself, the selection, the journal and the rename.
const SPANS: usize = 4;

/// A node whose acquires are seen by a subscriber.
pub(super) struct Seen {
    node: Node,
    dispatch: Dispatch,
    /// Where spans wait, if they are made.
    queued: Option<queue::Queued>,
}

impl Seen {
    /// Starts the node; spans are exported or not. Blocks.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(super) fn start(size: Size, is_exported: bool) -> Result<Self> {
        let node = Node::start(size, Names::OnDisk)?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let log = tracing_subscriber::registry().with(lines.with_filter(LevelFilter::INFO));
        let (dispatch, queued) = match is_exported {
            false => (Dispatch::new(log), None),
            true => {
                let (spans, queued) = spans::spans(1.0, MAX_QUEUED);
                (Dispatch::new(log.with(spans.layer())), Some(queued))
            }
        };
        Ok(Self { node, dispatch, queued })
    }
}

impl Fixture for Seen {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let count = {
            let _seen = dispatcher::set_default(&self.dispatch);
            self.node.block(most, meter)?
        };
        let Some(queued) = &mut self.queued else { return Ok(count) };
        let made = std::iter::from_fn(|| queued.spans.try_recv().ok()).count();
        match queued.take_dropped() {
            0 if made >= count * SPANS => Ok(count),
            dropped => Err(format!("{made} spans of {count}, and {dropped} dropped").into()),
        }
    }
}

impl Drop for Seen {
    /// What comes after it in this process is not to be looked at any more.
    fn drop(&mut self) {
        self.dispatch = Dispatch::none();
        tracing::callsite::rebuild_interest_cache();
    }
}
