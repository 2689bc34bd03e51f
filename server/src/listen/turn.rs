//! Whose turn it is: of a connection on which much comes a piece is read, and the next one when
//! everything else has had its turn.
//!
//! It is not enough to say after a piece that nothing is there and to wake the connection's task: what
//! speaks HTTP/2 reads again, in the same poll, after each call that it begins, and a task that wakes
//! itself runs before what comes from elsewhere. So a turn that is over stays over until the
//! scheduler says that what was ready has run, and that sockets and clock have been looked at.
//!
//! Pieces are small where they are many calls. Where calls were worth nothing they come by the
//! [`Pace`], which is one for all such connections of a server: however many there are, together they
//! get no more of it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::peer::Peer;

/// Bytes of a turn after one with few calls.
const LARGE: usize = 8 * 1024;
/// Bytes of a first turn, and of one after many calls.
pub(super) const SMALL: usize = 1024;
/// Bytes of a turn after one with calls that were worth nothing.
const LEAST: usize = 512;
/// More calls of one turn than this are many.
const FEW: u64 = 4;
/// Between two turns of those whose calls were worth nothing.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest that one of these waits for its turn.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// When those are read whose calls were worth nothing.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// The time of the next turn, for one that asks at `now`.
    fn next(&self, now: Instant) -> Instant {
        let mut next = self.0.lock();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some((turn + PAUSE).min(now + LONGEST_REST));
        turn
    }
}

/// The turns of one connection.
#[derive(Debug)]
pub(super) struct Turns {
    /// Bytes that were read in this one.
    read: usize,
    /// Bytes that may be.
    most: usize,
    /// One has ended, and the next has not begun.
    is_between: bool,
    /// Calls that had been made when the last one began, and those of them that were worth nothing.
    calls: (u64, u64),
    bell: Arc<Bell>,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Turns {
    /// Those of one that has not been read.
    pub(super) fn new() -> Self {
        let bell = Arc::default();
        Self { read: 0, most: SMALL, is_between: false, calls: (0, 0), bell, rest: None }
    }

    /// How many bytes of `peer` may be read now, at least one; pending while it is the others' turn.
    pub(super) fn poll_left(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        pace: &Pace,
    ) -> Poll<usize> {
        ready!(self.bell.poll_rung(cx));
        if std::mem::take(&mut self.is_between) {
            self.begin(peer, pace);
        }
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        if self.read < self.most {
            return Poll::Ready(self.most - self.read);
        }
        self.is_between = true;
        self.bell.ask(cx);
        Poll::Pending
    }

    /// Begins one, now that the calls of the last have been seen.
    fn begin(&mut self, peer: &Peer, pace: &Pace) {
        let calls = (peer.made(), peer.wasted());
        let (made, wasted) = (calls.0 - self.calls.0, calls.1 - self.calls.1);
        (self.calls, self.read) = (calls, 0);
        self.most = match () {
            () if wasted > 0 => LEAST,
            () if made > FEW => SMALL,
            () => LARGE,
        };
        if wasted > 0 {
            let turn = pace.next(Instant::now());
            self.rest = Some(Box::pin(tokio::time::sleep_until(turn)));
        }
    }

    /// So much was read.
    pub(super) const fn took(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// Nothing more was there: what comes next is as if of a new one.
    pub(super) const fn is_over(&mut self) {
        self.read = 0;
    }
}

/// Rung by the scheduler when the others have had their turn.
#[derive(Debug, Default)]
struct Bell {
    is_awaited: AtomicBool,
    reader: AtomicWaker,
}

impl Bell {
    /// Asks to be rung, which wakes whoever polls.
    fn ask(self: &Arc<Self>, cx: &Context<'_>) {
        self.reader.register(cx.waker());
        self.is_awaited.store(true, Ordering::Release);
        let waker = Waker::from(Arc::clone(self));
        // Who yields is woken when all that was ready has run; it is not polled again.
        let yielded = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        debug_assert!(yielded.is_pending(), "it yields at first");
    }

    /// Ready when it was rung since it was asked to.
    fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_awaited.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.reader.register(cx.waker());
        match self.is_awaited.load(Ordering::Acquire) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_awaited.store(false, Ordering::Release);
        self.reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hearth_pool::bucket::Rate;
    use hearth_pool::tasks::TaskGroup;

    use super::super::conduct::Conduct;
    use super::super::peer::Address;
    use super::*;

    fn peer() -> Arc<Peer> {
        let conduct = Conduct::new(Rate { per_second: 1.0, burst: 1_000_000 });
        Peer::new(Address::User(1), Vec::new(), 0, Arc::new(conduct))
    }

    /// Reads all of a turn; answers how many bytes it had, once it was its turn.
    async fn turn(turns: &mut Turns, peer: &Peer, pace: &Pace) -> usize {
        let had = poll_fn(|cx| turns.poll_left(cx, peer, pace)).await;
        turns.took(had);
        let again = poll_fn(|cx| Poll::Ready(turns.poll_left(cx, peer, pace))).await;
        assert!(again.is_pending(), "it is over");
        had
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_smaller_after_calls_and_least_after_wasted_ones() {
        let (mut turns, peer, pace) = (Turns::new(), peer(), Pace::default());
        let begun = Instant::now();
        assert_eq!(turn(&mut turns, &peer, &pace).await, SMALL);
        for (calls, wasted, next) in [
            (0, 0, LARGE),
            (FEW, 0, LARGE),
            (FEW + 1, 0, SMALL),
            (0, 0, LARGE),
            (1, 1, LEAST),
            (1, 0, LARGE),
        ] {
            (0..calls).for_each(|_| peer.has_called());
            (0..wasted).for_each(|_| peer.has_wasted());
            assert_eq!(turn(&mut turns, &peer, &pace).await, next, "{calls} {wasted}");
        }
        assert_eq!(Instant::now(), begun, "one of them waits for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_over_until_all_that_was_ready_has_run() {
        let (mut turns, peer, pace) = (Turns::new(), peer(), Pace::default());
        turn(&mut turns, &peer, &pace).await;
        let (has_run, ran) = (Arc::new(AtomicBool::new(false)), TaskGroup::new());
        let others = Arc::clone(&has_run);
        let mut rounds = 0;
        // It is ready again at once, nine times.
        ran.spawn(poll_fn(move |cx| {
            rounds += 1;
            if rounds < 10 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            others.store(true, Ordering::Relaxed);
            Poll::Ready(())
        }));
        assert_eq!(turn(&mut turns, &peer, &pace).await, LARGE);
        assert!(has_run.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_waste_calls_share_one_pace() {
        let pace = Pace::default();
        let begun = Instant::now();
        let one = async |_| {
            let (mut turns, peer) = (Turns::new(), peer());
            for _ in 0..10 {
                peer.has_wasted();
                turn(&mut turns, &peer, &pace).await;
            }
        };
        futures_util::future::join_all((0..5).map(one)).await;
        // The first turn of each is before anything is known of it, and the first by the pace at once.
        assert_eq!(begun.elapsed(), PAUSE * (5 * 9 - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_for_long() {
        let (pace, now) = (Pace::default(), Instant::now());
        let turns: Vec<_> = (0..1000).map(|_| pace.next(now) - now).collect();
        assert!(turns.is_sorted() && turns.iter().all(|it| *it <= LONGEST_REST), "{turns:?}");
    }
}
