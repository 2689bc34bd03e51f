//! The attacks, and those by hand-made frames.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::join_all;
use hearth_proto::Transport;
use http::Request;
use hyper::body::{Body as HttpBody, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, MAX_PAYLOAD, PATIENCE, PING, PREFACE,
    RST_STREAM, SETTINGS, Wire, call, connect, frame, header,
};
use crate::target::{MALLORY, Site};
use crate::{Answer, forged, handshakes};

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// On the server that speaks TLS.
    pub(crate) over_tls: bool,
    pub(crate) run: fn(&Site) -> Answer<String>,
}

const LIST: &str = "hearth.v1.VmService/ListVms";
const ACQUIRE: &str = "hearth.v1.VmService/AcquireVm";

pub(crate) fn all() -> Vec<Attack> {
    let plain = |name, run| Attack { name, over_tls: false, run };
    let tls = |name, run| Attack { name, over_tls: true, run };
    vec![
        plain("half_open", half_open),
        plain("garbage_before_the_preface", garbage),
        plain("ten_thousand_idle_connections", idle),
        plain("oversized_headers", oversized_headers),
        plain("headers_without_end", headers_without_end),
        plain("rapid_reset", rapid_reset),
        plain("a_hundred_thousand_streams", streams),
        plain("a_hundred_thousand_streams_of_strangers", streams_of_strangers),
        plain("large_requests_that_never_end", large_requests),
        plain("jwt_without_signature", forged::without_signature),
        plain("jwt_key_confusion", forged::confused_keys),
        plain("jwt_replay_after_expiry", forged::replayed),
        tls("half_open_handshakes", handshakes::half_open),
        tls("garbage_before_the_handshake", handshakes::garbage),
        tls("tls_downgrade", handshakes::downgrade),
        tls("expired_and_foreign_certificates", handshakes::certificates),
    ]
}

/// Runs an attack on threads of its own.
pub(crate) fn on_threads<T>(work: impl Future<Output = Answer<T>>) -> Answer<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work)
}

/// Sends `bytes` on each of `count` connections, and waits until the server has closed all.
pub(crate) async fn until_all_closed(to: SocketAddr, count: usize, bytes: &[u8]) -> Answer<String> {
    let one = async |number: usize| -> Answer<()> {
        let mut stream = connect(to, 2 + u8::try_from(number % 4)?).await?;
        // It may be closed before all is said.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        // A reset is an end, too.
        read.map(drop).map_err(|_| "a connection is not closed".into())
    };
    let ended: Answer<Vec<()>> = join_all((0..count).map(one)).await.into_iter().collect();
    ended.map(|ended| format!("{} connections, all closed", ended.len()))
}

fn half_open(site: &Site) -> Answer<String> {
    on_threads(async {
        let silent = until_all_closed(site.plain.address, 500, b"").await?;
        until_all_closed(site.plain.address, 500, &PREFACE[..10]).await?;
        Ok(format!("twice {silent}"))
    })
}

fn garbage(site: &Site) -> Answer<String> {
    on_threads(async {
        let to = site.plain.address;
        let noise: Vec<u8> =
            (0..4096_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let wrong = [PREFACE, &frame(DATA, 0, 1, &noise[..1000])].concat();
        let huge = [PREFACE, &[0xff; 64]].concat();
        for bytes in [&noise, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &wrong, &huge] {
            until_all_closed(to, 250, bytes).await?;
        }
        Ok("1000 connections of four kinds, all closed".to_owned())
    })
}

fn idle(site: &Site) -> Answer<String> {
    on_threads(async {
        let to = site.plain.address;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let count = limit.map_or(10_000, |limit| usize::try_from(limit / 2).unwrap_or(10_000));
        let count = count.min(10_000);
        let (mut held, mut refused) = (Vec::new(), 0);
        for batch in (0..count).collect::<Vec<_>>().chunks(200) {
            let greeted = batch.iter().map(|number| async move {
                let mut wire = Wire::greet(to, 2 + u8::try_from(number % 3)?).await.ok();
                // Who is let in is greeted back.
                let is_in = match &mut wire {
                    Some(wire) => wire.until(|came| came.count(SETTINGS) > 0).await?,
                    None => false,
                };
                Answer::Ok(wire.filter(|_| is_in))
            });
            for greeted in join_all(greeted).await {
                match greeted? {
                    Some(wire) => held.push(wire),
                    None => refused += 1,
                }
            }
        }
        let most = held.len();
        let ended = join_all(held.iter_mut().map(Wire::until_closed)).await;
        ended.into_iter().collect::<Answer<Vec<()>>>()?;
        if count == 10_000 && refused == 0 {
            return Err("all of them were let in".into());
        }
        Ok(format!("{count} connections: {refused} not let in, {most} closed when idle"))
    })
}

fn oversized_headers(site: &Site) -> Answer<String> {
    on_threads(async {
        let (mut answered, mut closed) = (0, 0);
        for _ in 0..32 {
            let mut wire = Wire::greet(site.plain.address, 2).await?;
            let mut block = call(LIST, Some(MALLORY));
            header(&mut block, "x-long", &vec![b'a'; 1 << 20]);
            let pieces: Vec<_> = block.chunks(MAX_PAYLOAD).collect();
            let mut bytes = frame(HEADERS, 1, 1, pieces[0]);
            for (place, piece) in pieces.iter().enumerate().skip(1) {
                let flags = if place + 1 == pieces.len() { END_HEADERS } else { 0 };
                bytes.extend(frame(CONTINUATION, flags, 1, piece));
            }
            let _ = wire.send(&bytes).await;
            let is_refused = |came: &crate::frames::Came| {
                came.count(HEADERS) + came.count(RST_STREAM) + came.count(GOAWAY) > 0
            };
            match wire.until(is_refused).await? {
                true => answered += 1,
                false => closed += 1,
            }
        }
        Ok(format!("32 requests of 1 MiB of headers: {answered} refused, {closed} cut off"))
    })
}

fn headers_without_end(site: &Site) -> Answer<String> {
    on_threads(async {
        let mut swallowed = 0;
        for _ in 0..16 {
            let mut wire = Wire::greet(site.plain.address, 2).await?;
            let mut sent = wire.send(&frame(HEADERS, 0, 1, &call(LIST, Some(MALLORY)))).await;
            let mut piece = Vec::new();
            header(&mut piece, "x-more", &vec![b'a'; MAX_PAYLOAD - 64]);
            let piece = frame(CONTINUATION, 0, 1, &piece);
            // 64 MiB, if it lets us.
            for _ in 0..4096 {
                if sent.is_err() {
                    break;
                }
                sent = wire.send(&piece).await;
                swallowed += piece.len();
            }
            wire.until_closed().await?;
        }
        Ok(format!("16 connections, all closed after {} KiB each", swallowed / 16 / 1024))
    })
}

fn rapid_reset(site: &Site) -> Answer<String> {
    on_threads(async {
        let (block, mut resets, mut closed) = (call(LIST, Some(MALLORY)), 0, 0);
        // Half from one address, half from others: who misbehaved is known by it.
        for number in 0..20_u8 {
            let from = if number % 2 == 0 { 20 } else { 20 + number };
            let Ok(mut wire) = Wire::greet(site.plain.address, from).await else {
                closed += 1;
                continue;
            };
            for number in 0..5000_u32 {
                let stream = 2 * number + 1;
                let mut bytes = frame(HEADERS, END_HEADERS | 1, stream, &block);
                bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                if wire.send(&bytes).await.is_err() {
                    break;
                }
                resets += 1;
            }
            // Whoever is still heard is answered.
            let _ = wire.send(&frame(PING, 0, 0, &[0; 8])).await;
            closed += usize::from(!wire.until(|came| came.count(PING) > 0).await?);
        }
        match closed > 0 {
            true => Ok(format!("{resets} resets sent, {closed} of 20 connections cut off")),
            false => Err("nobody was cut off".into()),
        }
    })
}

fn streams(site: &Site) -> Answer<String> {
    on_threads(async {
        let block = call(ACQUIRE, Some(MALLORY));
        let each = 4000;
        let one = async |place: u8| -> Answer<Option<usize>> {
            let Ok(mut wire) = Wire::greet(site.plain.address, 50 + place % 5).await else {
                return Ok(None);
            };
            for number in 0..each {
                let stream = u32::try_from(2 * number + 1)?;
                // A request whose message never comes.
                if wire.send(&frame(HEADERS, END_HEADERS, stream, &block)).await.is_err() {
                    return Ok(None);
                }
            }
            let over = |came: &crate::frames::Came| came.count(HEADERS).max(came.count(RST_STREAM));
            let is_answered = wire.until(|came| over(came) >= each).await?;
            Ok(is_answered.then_some(each))
        };
        // Each stream ends, by an answer or with its connection.
        let ended: Answer<Vec<_>> = join_all((0..25_u8).map(one)).await.into_iter().collect();
        let ended = ended?;
        let answered: usize = ended.iter().flatten().sum();
        let cut = ended.iter().filter(|it| it.is_none()).count();
        Ok(format!(
            "100000 streams without a message: {answered} refused one by one, {cut} of 25 connections cut off"
        ))
    })
}

fn streams_of_strangers(site: &Site) -> Answer<String> {
    on_threads(async {
        let (block, mut sent, mut closed) = (call(ACQUIRE, Some("stranger")), 0, 0);
        for place in 0..25_u8 {
            let Ok(mut wire) = Wire::greet(site.plain.address, 60 + place % 5).await else {
                closed += 1;
                continue;
            };
            for number in 0..4000_u32 {
                let bytes = frame(HEADERS, END_HEADERS, 2 * number + 1, &block);
                if wire.send(&bytes).await.is_err() {
                    break;
                }
                sent += 1;
            }
            wire.until_closed().await?;
            closed += 1;
        }
        Ok(format!("{sent} streams of 100000 got out, {closed} of 25 connections cut off"))
    })
}

/// All of a message but its last byte.
struct Almost {
    left: usize,
    is_begun: bool,
}

impl HttpBody for Almost {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            let length = u32::try_from(self.left + 1).unwrap_or(0).to_be_bytes();
            let prefix = [0, length[0], length[1], length[2], length[3]];
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&prefix)))));
        }
        let piece = self.left.min(64 * 1024);
        self.left -= piece;
        match piece {
            // The last byte never comes, and who dropped it is told by the transport.
            0 => Poll::Pending,
            piece => Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; piece]))))),
        }
    }
}

fn large_requests(site: &Site) -> Answer<String> {
    on_threads(async {
        let address = format!("http://{}", site.plain.address);
        // `None` of who is cut off, as whoever is too slow to say his first words is.
        let one = async |_| -> Answer<Option<Code>> {
            let Ok(channel) = Channel::from_shared(address.clone())?.connect().await else {
                return Ok(None);
            };
            let mut transport = Transport::bearing(channel, MALLORY);
            let body = Body::new(Almost { left: (4 << 20) - 1, is_begun: false });
            let request = Request::post(format!("{address}/{ACQUIRE}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)?;
            let called = async { transport.ready().await?.call(request).await };
            let Ok(answer) = tokio::time::timeout(PATIENCE, called).await? else {
                return Ok(None);
            };
            let status = Status::from_header_map(answer.headers());
            Ok(Some(status.ok_or("it was not refused")?.code()))
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut made = 0;
        loop {
            let codes: Answer<Vec<_>> = join_all((0..128).map(one)).await.into_iter().collect();
            let codes = codes?;
            made += codes.len();
            let count = |code| codes.iter().filter(|it| **it == code).count();
            let (shed, slow) =
                (count(Some(Code::Unavailable)), count(Some(Code::DeadlineExceeded)));
            let cut = count(None);
            if shed + slow + cut < codes.len() {
                return Err(format!("they were answered otherwise: {codes:?}").into());
            }
            if shed > 0 {
                return Ok(format!(
                    "{made} requests of 4 MiB; of the last 128 {shed} shed, {slow} too slow, {cut} cut off"
                ));
            }
            // They came too slowly to be in the server's memory at the same time.
            if tokio::time::Instant::now() > deadline {
                return Err(format!("nothing was shed: {codes:?}").into());
            }
        }
    })
}
