//! One connection, as the server reads and writes it, and when it is closed: before its first words
//! are over in time, when it has been without a call for long, when it is older than it may be, when
//! its certificate was checked with other authorities than now, or when its calls are worth
//! nothing.
//!
//! A connection on which much comes is read in turns ([`super::turn`]), so that a flood on one is no
//! silence on the others. Answers are gathered: while other calls of the connection are under way, or have come and
//! are still to be looked at, what is to be written waits until whatever else can run has run once, and goes out with
//! what these have to say by then.
//!
//! All that is looked at on a clock while nothing is there to be read; what is read costs a comparison.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::heads::Heads;
use super::peer::Peer;
use super::seats::Seat;
use super::turn::Turns;
use crate::config::Grpc;
use crate::tls::Tls;

/// The first words of a client: HTTP/2's preface, and the head of its settings.
const FIRST_WORDS: usize = 24 + 9;
/// The longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// What bytes come by.
#[derive(Debug)]
pub(super) enum Line {
    Plain(TcpStream),
    Local(UnixStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    first_words: Duration,
    max_idle: Duration,
    max_age: Duration,
}

impl Patience {
    pub(super) const fn of(settings: &Grpc) -> Self {
        let grace = settings.max_connection_age_grace;
        Self {
            first_words: settings.handshake_timeout,
            max_idle: settings.max_idle,
            max_age: settings.max_connection_age.saturating_add(grace),
        }
    }

    fn next_look(&self) -> Duration {
        (self.max_idle.min(self.max_age) / 4).clamp(Duration::from_millis(10), LONGEST_LOOK)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    line: Line,
    peer: Arc<Peer>,
    tls: Option<Arc<Tls>>,
    patience: Patience,
    began: Instant,
    /// Of its first words, those that have not come.
    missing: usize,
    turns: Turns,
    heads: Heads,
    /// What is to be written has waited for the answers of others.
    has_gathered: bool,
    look: Pin<Box<Sleep>>,
    /// How many calls had been begun at a look, and when that was first seen.
    quiet: (u64, Instant),
    seat: Seat,
}

impl Conversation {
    pub(super) fn new(
        line: Line,
        peer: Arc<Peer>,
        tls: Option<Arc<Tls>>,
        patience: Patience,
        seat: Seat,
    ) -> Self {
        let began = Instant::now();
        let look = Box::pin(tokio::time::sleep(patience.first_words));
        let quiet = (0, began);
        let missing = FIRST_WORDS;
        let (turns, heads, has_gathered) = (Turns::new(), Heads::default(), false);
        Self {
            line,
            peer,
            tls,
            patience,
            began,
            missing,
            turns,
            heads,
            has_gathered,
            look,
            quiet,
            seat,
        }
    }

    /// Why it is closed now, if it is.
    fn verdict(&mut self, now: Instant) -> Option<&'static str> {
        let begun = self.peer.begun();
        let is_quiet = self.peer.calls() == 0;
        if !is_quiet || self.quiet.0 != begun {
            self.quiet = (begun, now);
        }
        let authorities = self.tls.as_ref().map_or(0, |tls| tls.authorities());
        match () {
            () if self.missing > 0 => Some("its first words did not come in time"),
            () if now - self.began >= self.patience.max_age => Some("it is too old"),
            () if now - self.quiet.1 >= self.patience.max_idle => Some("it was idle"),
            () if is_quiet && authorities != self.peer.authorities => {
                Some("its certificate was checked with other authorities")
            }
            () => None,
        }
    }

    /// Whether what is to be written waits for others once more: a task that wakes itself runs after all that
    /// could run before it.
    fn gathers(&mut self, cx: &Context<'_>) -> bool {
        let are_others = self.peer.calls() > 0 || self.heads.count() > self.peer.made();
        let gathers = !self.has_gathered && are_others;
        if gathers {
            self.has_gathered = true;
            cx.waker().wake_by_ref();
        }
        gathers
    }

    fn close(&self, why: &'static str) -> io::Error {
        tracing::debug!(peer = %self.peer.address, why, "a connection is closed");
        io::Error::new(io::ErrorKind::TimedOut, why)
    }
}

impl Connected for Conversation {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

macro_rules! on_line {
    ($this:expr, $stream:ident => $call:expr) => {
        match &mut $this.get_mut().line {
            Line::Plain($stream) => $call,
            Line::Local($stream) => $call,
            Line::Encrypted($stream) => $call,
        }
    };
}

impl AsyncRead for Conversation {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { turns, peer, seat, .. } = &mut *self;
        let left = ready!(turns.poll_left(cx, peer, seat.pace()));
        if self.peer.is_expelled() {
            return Poll::Ready(Err(self.close("its calls are worth nothing")));
        }
        let before = buffer.filled().len();
        let polled = if left < buffer.remaining() {
            let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(left));
            let polled =
                on_line!(self.as_mut(), stream => Pin::new(stream).poll_read(cx, &mut piece));
            let read = piece.filled().len();
            buffer.advance(read);
            polled
        } else {
            on_line!(self.as_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
        };
        if polled.is_ready() {
            self.heads.note(&buffer.filled()[before..]);
            let read = buffer.filled().len() - before;
            if read == 0 {
                // An end, or an error: what is still under way is dropped now.
                self.peer.has_gone();
            }
            self.missing = self.missing.saturating_sub(read);
            self.turns.took(read);
            return polled;
        }
        self.turns.is_over();
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(why) = self.verdict(now) {
                return Poll::Ready(Err(self.close(why)));
            }
            let next = now + self.patience.next_look();
            self.look.as_mut().reset(next);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gathers(cx) {
            return Poll::Pending;
        }
        on_line!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    // Not by slices: for them HTTP/2 would write each answer of some hundred bytes by itself.

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_gathered = false;
        on_line!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_line!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use hearth_pool::bucket::Rate;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::body::Body;
    use tonic::service::Routes;

    use super::super::peer::Address;
    use super::super::seats::Seats;
    use super::super::turn::SMALL;
    use super::*;

    const PATIENCE: Patience = Patience {
        first_words: Duration::from_secs(10),
        max_idle: Duration::from_secs(60),
        max_age: Duration::from_secs(600),
    };

    struct Both {
        conversation: Conversation,
        peer: Arc<Peer>,
        client: UnixStream,
        began: Instant,
    }

    async fn both(says: &[u8]) -> Both {
        let (mut client, server) = UnixStream::pair().unwrap();
        let seats = Seats::new(1, 1, Rate { per_second: 1.0, burst: 5 });
        let address = Address::User(1);
        let seat = seats.take(address).unwrap();
        let peer = Peer::new(address, Vec::new(), 0, Arc::clone(&seat.conduct));
        let (line, of) = (Line::Local(server), Arc::clone(&peer));
        let conversation = Conversation::new(line, of, None, PATIENCE, seat);
        client.write_all(says).await.unwrap();
        Both { conversation, peer, client, began: Instant::now() }
    }

    impl Both {
        /// Reads until it is closed; answers why, and how long that took.
        async fn until_closed(&mut self) -> (String, Duration) {
            let mut bytes = [0; 64];
            loop {
                match self.conversation.read(&mut bytes).await {
                    Ok(0) => return ("the client".to_owned(), self.began.elapsed()),
                    Ok(_) => {}
                    Err(error) => return (error.to_string(), self.began.elapsed()),
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn first_words_have_to_come_in_time() {
        for says in [&[0; 0][..], &[1; FIRST_WORDS - 1]] {
            let (why, after) = both(says).await.until_closed().await;
            assert!(why.contains("first words"), "{why}");
            assert_eq!(after.as_secs(), 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_is_closed_and_who_calls_is_not() {
        let mut idle = both(&[1; FIRST_WORDS]).await;
        let (why, after) = idle.until_closed().await;
        assert!(why.contains("idle") && (60..80).contains(&after.as_secs()), "{why} {after:?}");
        // One call that lasts, until it is too old.
        let mut busy = both(&[1; FIRST_WORDS]).await;
        busy.peer.has_begun();
        let (why, after) = busy.until_closed().await;
        assert!(why.contains("old") && (600..620).contains(&after.as_secs()), "{why} {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whose_calls_are_worth_nothing_is_not_heard() {
        let mut both = both(&[1; FIRST_WORDS]).await;
        (0..6).for_each(|_| both.peer.has_wasted());
        let (why, after) = both.until_closed().await;
        assert!(why.contains("worth nothing") && after.is_zero(), "{why} {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_with_many_calls_is_not_taken_for_one_that_floods() {
        let mut both = both(&[1; FIRST_WORDS]).await;
        let peer = Arc::clone(&both.peer);
        (0..64).for_each(|_| peer.has_begun());
        drop(both.client);
        let mut bytes = [0; 64];
        while both.conversation.read(&mut bytes).await.unwrap() > 0 {}
        let leave = |count| {
            (0..count).for_each(|_| {
                peer.has_left();
                peer.has_ended();
            })
        };
        leave(64);
        assert!(!peer.is_expelled(), "four of them count, of five");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_others_once_and_only_while_there_are_any() {
        let mut both = both(&[1; FIRST_WORDS]).await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut write = |conversation: &mut Conversation| {
            Pin::new(conversation).poll_write(&mut context, b"answer").map(|it| it.unwrap())
        };
        assert_eq!(write(&mut both.conversation), Poll::Ready(6), "it is the only one");
        both.peer.has_begun();
        assert_eq!(write(&mut both.conversation), Poll::Pending);
        assert_eq!(write(&mut both.conversation), Poll::Ready(6));
        assert_eq!(write(&mut both.conversation), Poll::Ready(6), "the same batch");
        both.conversation.flush().await.unwrap();
        assert_eq!(write(&mut both.conversation), Poll::Pending, "the next one");
        // Whoever waits is woken.
        both.conversation.flush().await.unwrap();
        both.conversation.write_all(b"answer").await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_waits_for_a_call_that_has_come_and_was_not_looked_at_yet() {
        let said = calls(2);
        let mut both = both(&said).await;
        both.conversation.read_exact(&mut vec![0; said.len()]).await.unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        for waits in [true, true, false] {
            let wrote = Pin::new(&mut both.conversation).poll_write(&mut context, b"answer");
            assert_eq!(wrote.is_pending(), waits);
            both.conversation.flush().await.unwrap();
            both.peer.has_called();
        }
    }

    /// The headers of `count` calls, which end with them, and what comes before them on a connection.
    fn calls(count: u32) -> Vec<u8> {
        // POST, http and / of the static table, an authority, and a content type by its name there.
        let block = [&[0x83, 0x86, 0x84, 0x01, 1, b'x', 0x0f, 0x10, 16][..], b"application/grpc"];
        let block = block.concat();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for number in 0..count {
            bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 0x5]);
            bytes.extend((2 * number + 1).to_be_bytes());
            bytes.extend(&block);
        }
        bytes
    }

    #[tokio::test]
    async fn a_flood_begins_few_calls_before_others_have_their_turn() {
        const CALLS: u32 = 1000;
        let each = calls(2).len() - calls(1).len();
        let Both { conversation, client, .. } = both(&calls(CALLS)).await;
        let begun = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&begun);
        let count = tower::util::MapRequestLayer::new(move |request: http::Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                peer.has_called();
            }
            request
        });
        let incoming = tokio_stream::once(Ok::<_, io::Error>(conversation));
        let mut server = tonic::transport::Server::builder().layer(count);
        let serving = server.add_routes(Routes::default()).serve_with_incoming(incoming);
        let mut turns = Vec::new();
        let others = async {
            while begun.load(Ordering::Relaxed) < CALLS {
                let before = begun.load(Ordering::Relaxed);
                tokio::task::yield_now().await;
                turns.push(begun.load(Ordering::Relaxed) - before);
            }
            drop(client);
        };
        let ((), served) = futures_util::future::join(others, serving).await;
        served.unwrap();
        let most = u32::try_from(SMALL / each).unwrap() + 1;
        assert!(turns.iter().all(|it| *it <= most), "{most} in one turn: {turns:?}");
    }
}
