//! HTTP/2 by hand, for clients that do as they like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::Answer;

/// How long anything may take to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;
/// The longest payload of a frame that everybody takes.
pub(crate) const MAX_PAYLOAD: usize = 16 * 1024;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A text of HPACK, as it is.
fn text(into: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        short @ 0..127 => into.push(u8::try_from(short).unwrap_or(0)),
        long => {
            into.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                into.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
                rest /= 128;
            }
            into.push(u8::try_from(rest).unwrap_or(0));
        }
    }
    into.extend(text);
}

/// A header of a name of one's own.
pub(crate) fn header(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    into.push(0);
    text(into, name.as_bytes());
    text(into, value);
}

/// The headers of a call of `method`, as whoever has `token`.
pub(crate) fn call(method: &str, token: Option<&str>) -> Vec<u8> {
    // POST and http, of the static table; then the path and the authority by their names there.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, format!("/{method}").as_bytes());
    block.push(0x01);
    text(&mut block, b"localhost");
    header(&mut block, "content-type", b"application/grpc");
    header(&mut block, "te", b"trailers");
    if let Some(token) = token {
        header(&mut block, "authorization", format!("Bearer {token}").as_bytes());
    }
    block
}

/// What has come back, by type of frame.
#[derive(Debug, Default)]
pub(crate) struct Came([AtomicUsize; 16]);

impl Came {
    pub(crate) fn count(&self, kind: u8) -> usize {
        self.0.get(usize::from(kind)).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// A connection on which everything that comes is read and counted.
pub(crate) struct Wire {
    out: OwnedWriteHalf,
    pub(crate) came: Arc<Came>,
    /// Changes with each frame; closed when the connection is.
    news: watch::Receiver<usize>,
}

/// A connection from 127.0.0.`last`.
pub(crate) async fn connect(to: SocketAddr, last: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
    socket.connect(to).await
}

impl Wire {
    /// Connects from 127.0.0.`last`, and says nothing yet.
    pub(crate) async fn open(to: SocketAddr, last: u8) -> std::io::Result<Self> {
        let (mut read, out) = connect(to, last).await?.into_split();
        let (tell, news) = watch::channel(0);
        let came = Arc::new(Came::default());
        let counted = Arc::clone(&came);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's own runtime")]
        tokio::spawn(async move {
            let mut head = [0; 9];
            while read.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                if let Some(count) = counted.0.get(usize::from(head[3])) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                tell.send_modify(|frames| *frames += 1);
            }
        });
        Ok(Self { out, came, news })
    }

    /// The same, and says who HTTP/2 begins.
    pub(crate) async fn greet(to: SocketAddr, last: u8) -> std::io::Result<Self> {
        let mut wire = Self::open(to, last).await?;
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        Ok(wire)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes).await
    }

    /// Waits until `holds` of what came, or until the server has closed it; says whether it holds.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Came) -> bool) -> Answer<bool> {
        let wait = async {
            while !holds(&self.came) {
                if self.news.changed().await.is_err() {
                    return holds(&self.came);
                }
            }
            true
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.map_err(|_| format!("neither an answer nor an end: {:?}", self.came).into())
    }

    /// Waits until the server has closed it.
    pub(crate) async fn until_closed(&mut self) -> Answer<()> {
        match self.until(|_| false).await? {
            false => Ok(()),
            true => Err("nothing was waited for".into()),
        }
    }
}
