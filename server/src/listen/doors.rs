//! The doors: what is accepted on the port and on the Unix socket, each for itself, until it is a
//! connection that can be served.
//!
//! A door never waits for who came in: without a seat a connection is dropped at once, and a handshake
//! is a task of its own, of which few run at a time and none for long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, Line, Patience};
use super::peer::{Address, Peer};
use super::seats::{Full, Seat, Seats};
use crate::config::Grpc;
use crate::metrics;
use crate::tls::{self, Tls};

/// Connections that wait until the server takes them.
const MAX_READY: usize = 64;
/// How long to wait when no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What comes in, for the server to take.
pub(super) type Incoming = mpsc::Receiver<io::Result<Conversation>>;

#[derive(Clone)]
struct Hall {
    tls: Option<Arc<Tls>>,
    seats: Arc<Seats>,
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
    patience: Patience,
    ready: mpsc::Sender<io::Result<Conversation>>,
    tasks: TaskGroup,
    closing: CancellationToken,
}

/// Where connections come in.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) port: TcpListener,
    pub(crate) socket: Option<UnixListener>,
}

/// Opens the doors until `closing`.
pub(super) fn open(
    doors: Doors,
    tls: Option<Arc<Tls>>,
    settings: &Grpc,
    tasks: &TaskGroup,
    closing: &CancellationToken,
) -> Incoming {
    let (ready, incoming) = mpsc::channel(MAX_READY);
    let hall = Hall {
        tls,
        seats: Seats::new(
            settings.max_connections,
            settings.max_connections_per_peer,
            settings.wasted_rate,
        ),
        handshakes: Arc::new(Semaphore::new(settings.max_handshakes)),
        handshake_timeout: settings.handshake_timeout,
        patience: Patience::of(settings),
        ready,
        tasks: tasks.clone(),
        closing: closing.clone(),
    };
    let Doors { port, socket } = doors;
    if let Some(socket) = socket {
        let hall = hall.clone();
        tasks.spawn(async move {
            while let Some((stream, _)) = hall.next(|| socket.accept()).await {
                hall.greet_local(stream).await;
            }
        });
    }
    tasks.spawn(async move {
        while let Some((stream, from)) = hall.next(|| port.accept()).await {
            hall.greet(stream, Address::Ip(from.ip().to_canonical())).await;
        }
    });
    incoming
}

impl Hall {
    /// The next who comes in; `None` when the doors close.
    async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        loop {
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = self.closing.cancelled() => return None,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    // Without file descriptors the next one would fail at once, too.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn seat(&self, address: Address) -> Option<Seat> {
        let reason = match self.seats.take(address) {
            Ok(seat) => return Some(seat),
            Err(Full::Total) => "total",
            Err(Full::Peer) => "peer",
            Err(Full::Conduct) => "conduct",
        };
        metrics::connection_refused(reason);
        tracing::debug!(%address, reason, "there is no seat for a connection");
        None
    }

    async fn greet(&self, stream: TcpStream, address: Address) {
        let Some(seat) = self.seat(address) else { return };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection delays small answers");
        }
        let Some(tls) = self.tls.clone() else {
            let peer = Peer::new(address, Vec::new(), 0, Arc::clone(&seat.conduct));
            return self.admit(Line::Plain(stream), peer, None, seat).await;
        };
        let hall = self.clone();
        self.tasks.spawn(async move {
            let shaken = tokio::time::timeout(hall.handshake_timeout, async {
                // It is never closed.
                let _place = hall.handshakes.acquire().await.ok();
                let authorities = tls.authorities();
                Ok::<_, io::Error>((tls.acceptor().accept(stream).await?, authorities))
            });
            let shaken = tokio::select! {
                shaken = shaken => shaken,
                () = hall.closing.cancelled() => return,
            };
            let (stream, authorities) = match shaken {
                Ok(Ok(shaken)) => shaken,
                Ok(Err(error)) => {
                    metrics::connection_refused("handshake");
                    return tracing::debug!(%address, %error, "a handshake has failed");
                }
                Err(_) => {
                    metrics::connection_refused("handshake");
                    return tracing::debug!(%address, "a handshake took too long");
                }
            };
            let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
            let names = shown.map(tls::names_of).unwrap_or_default();
            let peer = Peer::new(address, names, authorities, Arc::clone(&seat.conduct));
            hall.admit(Line::Encrypted(Box::new(stream)), peer, Some(tls), seat).await;
        });
    }

    async fn greet_local(&self, stream: UnixStream) {
        let uid = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(error) => return tracing::warn!(%error, "the user of a connection is not known"),
        };
        let address = Address::User(uid);
        let Some(seat) = self.seat(address) else { return };
        let peer = Peer::new(address, Vec::new(), 0, Arc::clone(&seat.conduct));
        self.admit(Line::Local(stream), peer, None, seat).await;
    }

    async fn admit(&self, line: Line, peer: Arc<Peer>, tls: Option<Arc<Tls>>, seat: Seat) {
        let conversation = Conversation::new(line, peer, tls, self.patience, seat);
        tokio::select! {
            // A server that has ended takes no more.
            sent = self.ready.send(Ok(conversation)) => drop(sent),
            () = self.closing.cancelled() => {}
        }
    }
}
