//! Connections to guests: bytes both ways, and every way in which one ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_proto::v1;
use hearth_proto::v1::connect_vm_request::{Message as Sent, Open};
use hearth_proto::v1::connect_vm_response::Message as Said;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::{Server, eventually, from, named, reason, server, server_with, ttl, violated};

struct Guest {
    sent: Option<mpsc::Sender<v1::ConnectVmRequest>>,
    said: Streaming<v1::ConnectVmResponse>,
    heard: String,
}

fn open(name: &str) -> Open {
    Open { name: name.to_owned(), ..Default::default() }
}

fn data(text: &str) -> Sent {
    Sent::Data(text.to_owned().into())
}

/// Sends these messages and what comes after them; answers what is said.
async fn begin(
    server: &Server,
    first: impl IntoIterator<Item = Sent>,
) -> Result<(mpsc::Sender<v1::ConnectVmRequest>, Streaming<v1::ConnectVmResponse>), Status> {
    let (sent, unsent) = mpsc::channel(4);
    for message in first {
        sent.try_send(v1::ConnectVmRequest { message: Some(message) }).unwrap();
    }
    let mut vms = server.client.vms.clone();
    let said = vms.connect_vm(ReceiverStream::new(unsent)).await?.into_inner();
    Ok((sent, said))
}

async fn connect_to(server: &Server, open: Open) -> Result<Guest, Status> {
    let (sent, mut said) = begin(server, [Sent::Open(open)]).await?;
    let first = said.message().await?.expect("it says that it is connected");
    let Some(Said::Opened(opened)) = first.message else { panic!("{first:?}") };
    assert_eq!(opened.kind(), v1::endpoint::Kind::Unix);
    assert!(opened.half_closes, "these guests are told of an end");
    Ok(Guest { sent: Some(sent), said, heard: String::new() })
}

async fn connect(server: &Server, name: &str) -> Guest {
    connect_to(server, open(name)).await.unwrap()
}

impl Guest {
    async fn send(&self, text: &str) {
        let message = v1::ConnectVmRequest { message: Some(data(text)) };
        self.sent.as_ref().unwrap().send(message).await.unwrap();
    }

    /// Reads until what was said ends so.
    async fn hear(&mut self, end: &str) {
        while !self.heard.ends_with(end) {
            match self.said.message().await.unwrap().and_then(|it| it.message) {
                Some(Said::Data(data)) => self.heard.push_str(std::str::from_utf8(&data).unwrap()),
                other => panic!("{other:?} after {:?}", self.heard),
            }
        }
    }

    /// How it ends, whatever is said before that.
    async fn end(&mut self) -> Result<(), Status> {
        while self.said.message().await?.is_some() {}
        Ok(())
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_halves_end_one_by_one() {
    let server = server().await;
    let vm = server.acquire(named("mine")).await.unwrap().vm.unwrap();
    let by_uid = Open { uid: vm.uid.clone(), ..open("vms/mine") };
    let mut guest = connect_to(&server, by_uid).await.unwrap();
    guest.send("echo one\necho ").await;
    guest.send("two\n").await;
    guest.hear("echo one\necho two\n").await;
    // A new name is all the same to who is connected.
    let request = v1::RenameVmRequest {
        name: "vms/mine".to_owned(),
        new_vm_id: "other".to_owned(),
        ..Default::default()
    };
    server.client.vms.clone().rename_vm(request).await.unwrap();
    guest.send("echo three\n").await;
    guest.hear("echo three\n").await;
    // The guest hears of the end, answers what it has, and ends, too.
    guest.send("echo last\n").await;
    guest.sent = None;
    guest.hear("echo last\n").await;
    let closed = guest.said.message().await.unwrap().and_then(|it| it.message);
    assert!(matches!(closed, Some(Said::GuestClosed(_))), "{closed:?}");
    assert!(guest.said.message().await.unwrap().is_none());
    // One at a time, and the next one when that has left.
    let mut next = connect(&server, "vms/other").await;
    let refused = connect_to(&server, open("vms/other")).await.map(drop).unwrap_err();
    assert_eq!(reason(&refused, Code::ResourceExhausted), "CAPACITY_EXHAUSTED");
    next.send("echo next\n").await;
    next.hear("echo next\n").await;
    drop(next);
    eventually("its place is free", async || connect_to(&server, open("vms/other")).await.is_ok())
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_the_lease() {
    let server = server().await;
    for ended_by in ["release", "expiry"] {
        let request = v1::AcquireVmRequest { expiration: ttl(2), ..named(ended_by) };
        let vm = server.acquire(request).await.unwrap().vm.unwrap();
        let mut guest = connect(&server, &vm.name).await;
        guest.send("echo here\n").await;
        guest.hear("echo here\n").await;
        if ended_by == "release" {
            server.client.release(&vm).await.unwrap();
        }
        let ended = guest.end().await.unwrap_err();
        assert_eq!(reason(&ended, Code::FailedPrecondition), "LEASE_NOT_HELD", "{ended_by}");
        let refused = connect_to(&server, open(&vm.name)).await.map(drop).unwrap_err();
        assert_eq!(reason(&refused, Code::FailedPrecondition), "LEASE_NOT_HELD", "{ended_by}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_told_from_one_that_hangs_up() {
    let server = server().await;
    server.acquire(named("mine")).await.unwrap();
    let mut guest = connect(&server, "vms/mine").await;
    guest.send("poweroff\n").await;
    guest.hear("ok\n").await;
    let ended = guest.end().await.unwrap_err();
    assert_eq!(reason(&ended, Code::FailedPrecondition), "INVALID_TRANSITION");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_refused_with_the_reason() {
    let server = server().await;
    let vm = server.acquire(named("mine")).await.unwrap().vm.unwrap();
    let warm = server.list("tenant != default").await.remove(0);
    let other_uid = Open { uid: warm.uid.clone(), ..open("vms/mine") };
    let port = Open { port: 7, ..open("vms/mine") };
    let precondition = Code::FailedPrecondition;
    for (open, code, expected) in [
        (open("vms/absent"), Code::NotFound, "VM_NOT_FOUND"),
        (open(&warm.name), precondition, "VM_IN_POOL"),
        (other_uid, precondition, "UID_MISMATCH"),
        (port, Code::Unimplemented, "PROVIDER_UNSUPPORTED"),
    ] {
        let refused = connect_to(&server, open).await.map(drop).unwrap_err();
        assert_eq!(reason(&refused, code), expected);
    }
    let bad = Open { uid: "x".to_owned(), ..open("pools/a") };
    let refused = connect_to(&server, bad).await.map(drop).unwrap_err();
    assert_eq!(violated(&refused), ["open.name", "open.uid"]);
    let unopened = begin(&server, [data("x")]).await.map(drop).unwrap_err();
    assert_eq!(violated(&unopened), ["open"]);
    let twice = [Sent::Open(open("vms/mine")), Sent::Open(open("vms/mine"))];
    let (_sent, mut said) = begin(&server, twice).await.unwrap();
    let refused = loop {
        match said.message().await {
            Ok(message) => assert!(message.is_some(), "it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(violated(&refused), ["message"]);
    let stop = v1::StopVmRequest { name: vm.name, ..Default::default() };
    server.client.vms.clone().stop_vm(stop).await.unwrap();
    let stopped = connect_to(&server, open("vms/mine")).await.map(drop).unwrap_err();
    assert_eq!(reason(&stopped, precondition), "INVALID_TRANSITION");
    server.stop().await;
}

/// Bytes that are sent to a guest that takes none.
const ALL_BYTES: usize = 12 << 20;
/// More than may wait on the way.
const MAX_ON_THE_WAY: usize = 8 << 20;

#[tokio::test]
async fn a_guest_that_takes_nothing_slows_its_caller_and_nothing_is_lost() {
    let server = server().await;
    server.acquire(named("mine")).await.unwrap();
    let mut guest = connect(&server, "vms/mine").await;
    let pause = v1::StopVmRequest { name: "vms/mine".to_owned(), ..Default::default() };
    server.client.vms.clone().stop_vm(pause).await.unwrap();
    let line = format!("echo {}\n", "x".repeat(4000));
    let lines = ALL_BYTES / line.len();
    let (sender, passed) = (guest.sent.take().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&passed);
    let length = line.len();
    let sends = async move {
        for _ in 0..lines {
            let message = v1::ConnectVmRequest { message: Some(data(&line)) };
            sender.send(message).await.unwrap();
            counted.fetch_add(length, Ordering::Relaxed);
        }
    };
    let reads = async {
        // Until it stands still.
        let mut before = 0;
        eventually("the caller is slowed", async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = passed.load(Ordering::Relaxed);
            now > 0 && std::mem::replace(&mut before, now) == now
        })
        .await;
        assert!(passed.load(Ordering::Relaxed) < MAX_ON_THE_WAY, "something took it all");
        let start = v1::StartVmRequest { name: "vms/mine".to_owned(), ..Default::default() };
        server.client.vms.clone().start_vm(start).await.unwrap();
        let mut heard = 0;
        while let Some(message) = guest.said.message().await.unwrap() {
            if let Some(Said::Data(data)) = message.message {
                heard += data.len();
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(sends, reads);
    assert_eq!(heard, lines * length, "every line was answered by itself");
    server.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_idle_ones_end_and_all_end_with_the_server() {
    let server = server_with(|config| {
        config.limits.streams.max_guest_connections = 2;
        config.limits.streams.guest_idle_timeout = Duration::from_millis(300);
    })
    .await;
    server.until_warm("default", 4).await;
    for name in ["a", "b", "c"] {
        server.acquire(named(name)).await.unwrap();
    }
    let mut one = connect(&server, "vms/a").await;
    let two = connect(&server, "vms/b").await;
    let full = connect_to(&server, open("vms/c")).await.map(drop);
    // Unless one of the two was idle for too long already.
    if let Err(refused) = full {
        assert_eq!(reason(&refused, Code::ResourceExhausted), "CAPACITY_EXHAUSTED");
    }
    let idle = one.end().await.unwrap_err();
    assert_eq!(reason(&idle, Code::Aborted), "CONNECTION_IDLE");
    drop((one, two));
    server.stop().await;

    let server = self::server().await;
    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    let mut guest = connect(&server, &vm.name).await;
    let ((), ended) = tokio::join!(server.stop(), guest.end());
    assert_eq!(reason(&ended.unwrap_err(), Code::Unavailable), "NODE_DRAINING");
}
