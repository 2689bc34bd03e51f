//! Tenants at a steady pace, until they are told to stop.

use std::time::Duration;

use hearth_proto::HearthClient;
use hearth_proto::v1::{self, AcquireVmRequest, ReleaseVmRequest};
use tokio::task::JoinSet;

/// What tenants do.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Acquires at once...
    pub(crate) at_once: usize,
    /// ...so often.
    pub(crate) every: Duration,
    /// Of which the first asks for a restore of its own.
    pub(crate) with_dedicated: bool,
    /// They never release, and their leases are so short.
    pub(crate) forgets: Option<Duration>,
}

impl Pace {
    /// Two acquires at once, five times a second, given back at once.
    pub(crate) const STEADY: Self = Self {
        at_once: 2,
        every: Duration::from_millis(200),
        with_dedicated: false,
        forgets: None,
    };
}

/// Tenants at `pace`; dropped, they stop.
pub(crate) struct Load {
    runtime: tokio::runtime::Runtime,
}

impl Load {
    /// Has tenants come to the hearth at `address`.
    pub(crate) fn start(address: String, pace: Pace) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // It ends with its runtime.
        drop(runtime.spawn(come(address, pace)));
        Self { runtime }
    }

    /// Has them stop, whatever they wait for.
    pub(crate) fn stop(self) {
        self.runtime.shutdown_background();
    }
}

async fn come(address: String, pace: Pace) {
    let options = hearth_proto::ClientOptions::default();
    let Ok(client) = HearthClient::connect_lazy(&address, options) else { return };
    let mut ticks = tokio::time::interval(pace.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut calls = JoinSet::new();
    loop {
        ticks.tick().await;
        while calls.try_join_next().is_some() {}
        // Those that wait for long are few.
        for number in 0..pace.at_once.min(200_usize.saturating_sub(calls.len())) {
            calls.spawn(call(client.clone(), pace, number));
        }
    }
}

/// One tenant: what becomes of it is for the metrics to say.
async fn call(client: HearthClient, pace: Pace, number: usize) {
    let overflow = match number {
        0 if pace.with_dedicated => v1::pool::Overflow::ColdOnly,
        _ => v1::pool::Overflow::WarmElseCold,
    };
    let ttl = pace.forgets.unwrap_or(Duration::from_secs(60));
    let expiration = v1::acquire_vm_request::Expiration::Ttl(prost_types::Duration {
        seconds: ttl.as_secs() as i64,
        nanos: ttl.subsec_nanos() as i32,
    });
    let request = AcquireVmRequest {
        pool: "pools/default".to_owned(),
        overflow: overflow.into(),
        expiration: Some(expiration),
        ..Default::default()
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(5));
    // One try: a client that retries would hide what it was told.
    let Ok(got) = client.vms.clone().acquire_vm(request).await else { return };
    let name = got.into_inner().vm.unwrap_or_default().name;
    if pace.forgets.is_none() {
        let release = ReleaseVmRequest { name, ..Default::default() };
        let _ = client.vms.clone().release_vm(release).await;
    }
}
