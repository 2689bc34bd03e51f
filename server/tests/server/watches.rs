//! Watches over the wire: what `ListVms` and `ListPools` show, and what becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_proto::v1;
use hearth_proto::v1::watch_pools_response::Type as PoolEvent;
use hearth_proto::v1::watch_vms_response::Type as VmEvent;
use tonic::{Code, Status, Streaming};

use crate::harness::{Server, eventually, from, named, reason, server, server_with, violated};

type Vms = Streaming<v1::WatchVmsResponse>;

async fn watch(server: &Server, filter: &str, token: &str) -> Result<Vms, Status> {
    let (filter, resume_token) = (filter.to_owned(), token.to_owned());
    let request = v1::WatchVmsRequest { filter, resume_token };
    server.client.vms.clone().watch_vms(request).await.map(tonic::Response::into_inner)
}

/// The next event that is `wanted` of, heartbeats and others left out.
async fn next(
    vms: &mut Vms,
    wanted: impl Fn(&v1::WatchVmsResponse) -> bool,
) -> v1::WatchVmsResponse {
    let found = async {
        loop {
            let event = vms.message().await.unwrap().expect("the watch goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("it comes")
}

fn is(kind: VmEvent, name: &str) -> impl Fn(&v1::WatchVmsResponse) -> bool {
    move |event| event.r#type() == kind && event.vm.as_ref().is_some_and(|vm| vm.name == name)
}

fn is_synced(event: &v1::WatchVmsResponse) -> bool {
    event.r#type() == VmEvent::Synced
}

async fn change_state(server: &Server, name: &str, start: bool) {
    let (mut vms, name) = (server.client.vms.clone(), name.to_owned());
    if start {
        vms.start_vm(v1::StartVmRequest { name, ..Default::default() }).await.unwrap();
    } else {
        vms.stop_vm(v1::StopVmRequest { name, ..Default::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_tells_the_whole_life_of_a_vm() {
    let server = server().await;
    let mut vms = watch(&server, "", "").await.unwrap();
    let mut warm = Vec::new();
    loop {
        let event = vms.message().await.unwrap().unwrap();
        assert!(!event.resume_token.is_empty());
        match event.r#type() {
            VmEvent::Added => warm.push(event.vm.unwrap()),
            VmEvent::Synced => break,
            other => panic!("{other:?} before everything was told"),
        }
    }
    assert_eq!(warm.len(), 4, "those that wait, as an operator's list has them");
    let vm = server.acquire(named("mine")).await.unwrap().vm.unwrap();
    // To an operator it is a warm VM that changed hands.
    let event = next(&mut vms, is(VmEvent::Changed, "vms/mine")).await;
    let told = event.vm.unwrap();
    assert_eq!((&told.uid, &told.lease), (&vm.uid, &vm.lease));
    assert!(warm.iter().any(|it| it.uid == vm.uid));
    change_state(&server, "vms/mine", false).await;
    let stopped = next(&mut vms, is(VmEvent::Changed, "vms/mine")).await.vm.unwrap();
    assert_eq!(stopped.state(), v1::vm::State::Stopped);
    let request = v1::RenameVmRequest {
        name: "vms/mine".to_owned(),
        new_vm_id: "other".to_owned(),
        ..Default::default()
    };
    server.client.vms.clone().rename_vm(request).await.unwrap();
    let renamed = next(&mut vms, is(VmEvent::Changed, "vms/other")).await.vm.unwrap();
    assert_eq!(renamed.uid, vm.uid);
    let renewed = v1::RenewLeaseRequest {
        name: "vms/other".to_owned(),
        expiration: Some(v1::renew_lease_request::Expiration::Ttl(prost_types::Duration {
            seconds: 7000,
            nanos: 0,
        })),
        ..Default::default()
    };
    let renewed = server.client.vms.clone().renew_lease(renewed).await.unwrap().into_inner();
    let told =
        next(&mut vms, |event| event.vm.as_ref().is_some_and(|vm| vm.lease == renewed.lease));
    assert_eq!(told.await.r#type(), VmEvent::Changed);
    server.client.release(&renamed).await.unwrap();
    let gone = next(&mut vms, is(VmEvent::Deleted, "vms/other")).await.vm.unwrap();
    let state = gone.state();
    assert_eq!((gone.uid, state), (vm.uid, v1::vm::State::Stopped), "as it last was");
    server.stop().await;
}

#[tokio::test]
async fn what_comes_and_goes_at_once_is_told_all_the_same() {
    let server = server().await;
    let mut vms = watch(&server, "tenant = default", "").await.unwrap();
    next(&mut vms, is_synced).await;
    for round in 0..20 {
        let name = format!("brief-{round}");
        let vm = server.acquire(named(&name)).await.unwrap().vm.unwrap();
        server.client.release(&vm).await.unwrap();
    }
    // One VM's changes come in their order; those of several as they were seen.
    let mut told: BTreeMap<String, Vec<(VmEvent, v1::vm::State)>> = BTreeMap::new();
    let are_gone = |told: &BTreeMap<_, Vec<(VmEvent, _)>>| {
        told.values().filter(|all| all.iter().any(|(kind, _)| *kind == VmEvent::Deleted)).count()
    };
    while are_gone(&told) < 20 {
        let event = next(&mut vms, |event| event.vm.is_some()).await;
        let (kind, vm) = (event.r#type(), event.vm.unwrap());
        told.entry(vm.name.clone()).or_default().push((kind, vm.state()));
    }
    let running = v1::vm::State::Running;
    let whole = vec![(VmEvent::Added, running), (VmEvent::Deleted, running)];
    let expected = (0..20).map(|round| (format!("vms/brief-{round}"), whole.clone())).collect();
    assert_eq!(told, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_vm_that_leaves_the_filter_is_gone_and_comes_back() {
    let server = server().await;
    let mut vms = watch(&server, "state = RUNNING AND tenant = default", "").await.unwrap();
    next(&mut vms, is_synced).await;
    server.acquire(named("a")).await.unwrap();
    next(&mut vms, is(VmEvent::Added, "vms/a")).await;
    change_state(&server, "vms/a", false).await;
    let left = next(&mut vms, is(VmEvent::Deleted, "vms/a")).await.vm.unwrap();
    assert_eq!(left.state(), v1::vm::State::Running, "as it last was");
    change_state(&server, "vms/a", true).await;
    next(&mut vms, is(VmEvent::Added, "vms/a")).await;
    let refused = watch(&server, "state = SLEEPING", "").await.unwrap_err();
    assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT");
    assert_eq!(violated(&refused), ["filter"]);
    server.stop().await;
}

#[tokio::test]
async fn a_lost_watch_is_resumed_and_tokens_are_of_one_watch_and_one_life() {
    let server = server().await;
    let filter = "tenant = default";
    let mut vms = watch(&server, filter, "").await.unwrap();
    let token = next(&mut vms, is_synced).await.resume_token;
    drop(vms);
    let vm = server.acquire(named("meanwhile")).await.unwrap().vm.unwrap();
    server.client.release(&vm).await.unwrap();
    let mut vms = watch(&server, filter, &token).await.unwrap();
    let first = vms.message().await.unwrap().unwrap();
    assert!(is(VmEvent::Added, "vms/meanwhile")(&first), "{first:?}");
    next(&mut vms, is(VmEvent::Deleted, "vms/meanwhile")).await;
    for (filter, token) in [("", token.as_str()), (filter, "nonsense"), (filter, &token[2..])] {
        let refused = watch(&server, filter, token).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(violated(&refused), ["resume_token"]);
    }
    drop(vms);
    let server = server.restarted().await;
    let refused = watch(&server, filter, &token).await.unwrap_err();
    assert_eq!(reason(&refused, Code::OutOfRange), "RESUME_TOKEN_EXPIRED");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_of_pools_tells_how_they_stand() {
    let server = server().await;
    let request = v1::WatchPoolsRequest::default();
    let mut pools = server.client.pools.clone().watch_pools(request).await.unwrap().into_inner();
    let mut next = async |kind: PoolEvent, wanted: &dyn Fn(&v1::Pool) -> bool| {
        let found = async {
            loop {
                let event = pools.message().await.unwrap().expect("the watch goes on");
                let is_it = match &event.pool {
                    Some(pool) => wanted(pool),
                    None => kind == PoolEvent::Synced,
                };
                if event.r#type() == kind && is_it {
                    return event.pool.unwrap_or_default();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("it comes")
    };
    let default = |pool: &v1::Pool| pool.name == "pools/default";
    let other = |pool: &v1::Pool| pool.name == "pools/other";
    let shown = next(PoolEvent::Added, &default).await;
    assert_eq!(shown, server.pool("default").await);
    next(PoolEvent::Synced, &|_| false).await;
    server.make_pool("other", 1, |_| ()).await;
    next(PoolEvent::Added, &other).await;
    server.acquire(from("default")).await.unwrap();
    let leased = |pool: &v1::Pool| default(pool) && pool.status.as_ref().unwrap().leased == 1;
    next(PoolEvent::Changed, &leased).await;
    let request = v1::DeletePoolRequest { name: "pools/other".to_owned(), ..Default::default() };
    server.client.pools.clone().delete_pool(request).await.unwrap();
    next(PoolEvent::Deleted, &other).await;
    server.stop().await;
}

#[tokio::test]
async fn watches_are_counted_bounded_and_end_with_the_server() {
    let server = server_with(|config| {
        config.limits.streams.max_watches = 2;
        config.limits.streams.watch_heartbeat_interval = Duration::from_millis(20);
    })
    .await;
    let mut one = watch(&server, "", "").await.unwrap();
    let two = watch(&server, "", "").await.unwrap();
    next(&mut one, |event| event.r#type() == VmEvent::Heartbeat).await;
    let refused = watch(&server, "", "").await.unwrap_err();
    assert_eq!(reason(&refused, Code::ResourceExhausted), "CAPACITY_EXHAUSTED");
    drop(two);
    eventually("there is a place again", async || watch(&server, "", "").await.is_ok()).await;
    let node = server.client.node.clone().get_node(v1::GetNodeRequest::default()).await.unwrap();
    let bounds = node.into_inner().bounds.unwrap();
    assert_eq!(bounds.max_watch_lag, 16_384);
    assert_eq!(bounds.watch_heartbeat_interval.unwrap().nanos, 20_000_000);
    let ended = async {
        loop {
            match one.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    };
    let ((), ended) = tokio::join!(server.stop(), ended);
    assert_eq!(reason(&ended.unwrap_err(), Code::Unavailable), "NODE_DRAINING");
}
