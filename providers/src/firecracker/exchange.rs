//! One request to Firecracker's API socket and its answer.
//!
//! hyper speaks HTTP; what is around it is here, because the server's manners are its own. It
//! never closes a connection, takes ten of them, answers one request at a time for the whole
//! VMM, sends an empty reason phrase, and may end without an answer. So each call gets a
//! connection of its own, which lives no longer than the call, and all of it has one deadline.
//!
//! The contract blocks, so there is no runtime: the one future of a call is polled by the thread
//! that waits for it, which sleeps in `poll(2)` on the one descriptor that can wake it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Method, Request, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::env::Deadline;
use crate::local::socket;

/// The longest answer that we take: a whole configuration has some ten KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nobody listens: the socket is not there yet, or the process has ended.
    #[error("nobody listens")]
    NotListening(#[source] io::Error),
    /// The time is up; what the server does with the request is unknown.
    #[error("no answer in time")]
    TimedOut,
    /// The connection ended, or what came is no HTTP.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends one request to the socket `name` in `dir`, and waits for the whole answer.
///
/// # Errors
/// [`NoAnswer`]; past `timeout` the connection is closed.
pub(super) fn exchange(
    dir: &Path,
    name: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Answer, NoAnswer> {
    let deadline = Deadline::after(timeout);
    let stream = socket::connect(dir, name, timeout).map_err(|error| match error.kind() {
        _ if socket::is_timeout(&error) => NoAnswer::TimedOut,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NoAnswer::NotListening(error),
        _ => NoAnswer::Broken(error.into()),
    })?;
    over(stream, method, path, body, deadline)
}

/// Sends one request over `stream`, and waits for the whole answer.
///
/// # Errors
/// As for [`exchange`].
pub(super) fn over(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Vec<u8>,
    deadline: Deadline,
) -> Result<Answer, NoAnswer> {
    stream.set_nonblocking(true).map_err(|error| NoAnswer::Broken(error.into()))?;
    let descriptor = stream.try_clone().map_err(|error| NoAnswer::Broken(error.into()))?;
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| NoAnswer::Broken(error.into()))?;
    let signals = Arc::new(Signals::default());
    let socket = Socket { stream, signals: Arc::clone(&signals) };
    let call = pin!(async {
        let (mut sender, connection) = http1::handshake(socket).await?;
        let mut connection = pin!(connection);
        let mut answer = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Answer { status: head.status, body })
        });
        std::future::poll_fn(|context| {
            let driven = connection.as_mut().poll(context);
            match (answer.as_mut().poll(context), driven) {
                (Poll::Ready(answered), _) => Poll::Ready(answered),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
                (Poll::Pending, Poll::Ready(Ok(()))) => {
                    Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
                }
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    });
    match block_on(call, &descriptor, &signals, deadline) {
        None => Err(NoAnswer::TimedOut),
        Some(answered) => answered.map_err(NoAnswer::Broken),
    }
}

type Answered = Result<Answer, Box<dyn std::error::Error + Send + Sync>>;

/// What the waiting thread is told by what it polls.
#[derive(Default)]
struct Signals {
    /// One future within the call has something for another.
    woken: AtomicBool,
    /// The last write found no room.
    write_waits: AtomicBool,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
    }
}

/// Polls `call` until it is ready; `None` past the deadline.
fn block_on(
    mut call: Pin<&mut impl Future<Output = Answered>>,
    descriptor: &UnixStream,
    signals: &Arc<Signals>,
    deadline: Deadline,
) -> Option<Answered> {
    let waker = Waker::from(Arc::clone(signals));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(answered) = call.as_mut().poll(&mut context) {
            return Some(answered);
        }
        if signals.woken.swap(false, Ordering::Acquire) {
            continue;
        }
        let left = deadline.left()?;
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, signals.write_waits.load(Ordering::Relaxed));
        // Whatever it answers, the call is polled again and the deadline looked at.
        let _ = poll(&mut [PollFd::new(descriptor, wanted)], Some(&timeout));
    }
}

/// The connection as hyper wants it: what is not there now is pending.
struct Socket {
    stream: UnixStream,
    signals: Arc<Signals>,
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let room = bytes.len().min(into.remaining());
        let read = ready(|| (&self.stream).read(&mut bytes[..room]));
        read.map_ok(|count| into.put_slice(&bytes[..count]))
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready(|| (&self.stream).write(bytes));
        self.signals.write_waits.store(written.is_pending(), Ordering::Relaxed);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn ready<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}
