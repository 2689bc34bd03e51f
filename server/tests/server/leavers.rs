//! Clients that leave at any stage: nothing is lost, and nothing leaks.

use std::time::Duration;

use hearth_proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{eventually, from, server, ttl};

const ROUNDS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_cost_nothing() {
    let server = server().await;
    server.make_pool("empty", 0, |_| ()).await;
    server.make_pool("paused", 2, |pool| pool.set_warm_state(v1::pool::WarmState::Paused)).await;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut claims = Vec::new();
    for round in 0..ROUNDS {
        let pool = ["default", "empty", "paused"][round % 3];
        let overflow = match random.random_range(0..4) {
            0 => v1::pool::Overflow::ColdOnly,
            1 => v1::pool::Overflow::Wait,
            _ => v1::pool::Overflow::Unspecified,
        };
        let (vm_id, request_id) = match random.random_range(0..3) {
            0 => (format!("vm-{round}"), String::new()),
            1 => (String::new(), format!("00000000-0000-4000-8000-{round:012}")),
            _ => (String::new(), String::new()),
        };
        // Short, for those that were answered after their client had left.
        let request = v1::AcquireVmRequest {
            vm_id,
            request_id,
            overflow: overflow.into(),
            expiration: ttl(2),
            ..from(pool)
        };
        if overflow == v1::pool::Overflow::Wait && pool == "empty" {
            // Nothing is restored for it: it ends by its deadline, or with what another left.
            let _ = server.client.acquire(request, Duration::from_millis(5)).await;
            continue;
        }
        let patience = Duration::from_micros(random.random_range(0..3000));
        let acquire = server.client.acquire(request.clone(), Duration::from_secs(30));
        let answered = tokio::time::timeout(patience, acquire).await;
        if answered.is_err() && !request.request_id.is_empty() && claims.len() < 20 {
            claims.push(request);
        }
    }
    // Whoever retries by its request id within the lease gets one VM, and the same again.
    for request in claims {
        let Ok(first) = server.acquire(request.clone()).await else { continue };
        let Ok(again) = server.acquire(request).await else { continue };
        assert_eq!(first.vm.unwrap().uid, again.vm.unwrap().uid);
    }
    eventually("only warm VMs are left", async || {
        let mut warm = 0;
        for pool in ["default", "empty", "paused"] {
            let status = server.status(pool).await;
            if status.leased + status.restoring + status.waiting > 0 {
                return false;
            }
            warm += status.warm;
        }
        warm == 6 && server.list("").await.len() == 6
    })
    .await;
    // The pools work on, and no name was lost.
    for round in 0..ROUNDS {
        let request = v1::AcquireVmRequest { vm_id: format!("vm-{round}"), ..from("default") };
        let vm = server.acquire(request).await.unwrap().vm.unwrap();
        server.client.release(&vm).await.unwrap();
    }
    server.stop().await;
}
