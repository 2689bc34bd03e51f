//! Demand that the warm VMs do not meet, on real ones.

use std::collections::HashSet;

use hearth_proto::v1::ExplainPoolRequest;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;

use crate::hearth::{Host, Outcome, request};
use crate::running::cases;

const DEPTH: usize = 8;
const BURST: usize = 32;

cases! {
    true a_burst_of_32_on_a_pool_of_8_is_served_without_a_vm_too_many,
}

async fn a_burst_of_32_on_a_pool_of_8_is_served_without_a_vm_too_many() -> Outcome {
    let host = Host::configured("qemu", DEPTH, |_| Ok(String::new()))?;
    let hearth = host.start().await?;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..BURST {
        let mut vms = hearth.client.vms.clone();
        calls.spawn(async move { vms.acquire_vm(request(&format!("burst-{number}"))).await });
    }
    let (mut warm, mut uids, mut most) = (0, HashSet::new(), 0);
    while !calls.is_empty() {
        let joined = tokio::select! {
            joined = calls.join_next() => joined,
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => None,
        };
        // Those that tenants have, and the pool's own: never one more.
        most = most.max(host.vmm_pids().len());
        let Some(joined) = joined else { continue };
        let got = joined??.into_inner();
        warm += usize::from(got.source() == Source::Warm);
        let vm = got.vm.ok_or("no vm")?;
        assert_eq!(vm.state(), State::Running);
        assert!(uids.insert(vm.uid), "given out twice");
    }
    assert_eq!(uids.len(), BURST);
    hearth
        .until("the pool is full again", async || {
            hearth.warm_vms().await.is_ok_and(|warm| warm.len() == DEPTH)
        })
        .await?;
    assert_eq!(host.vmm_pids().len(), BURST + DEPTH);
    assert!(most <= BURST + DEPTH, "{most} at once");
    let explain = ExplainPoolRequest { name: "pools/default".to_owned() };
    let explained = hearth.client.pools.clone().explain_pool(explain).await?.into_inner();
    println!("{warm} warm, {} cold, at most {most} VMs; {}", BURST - warm, explained.summary);
    assert_eq!(warm, DEPTH);
    assert_eq!(explained.observed_claims, BURST as i64);
    Ok(())
}
