//! One caller, who does everything that callers do.

use std::sync::Arc;
use std::time::Duration;

use hearth_proto::v1::pool::Overflow;
use hearth_proto::v1::{
    AcquireVmRequest, CreatePoolRequest, GetVmRequest, Pool, ReleaseVmRequest, RenewLeaseRequest,
    Sizing, Vm, acquire_vm_request, renew_lease_request, sizing,
};
use hearth_proto::{HearthClient, StatusDetails};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::hearth::{Answer, Hearth, Outcome};

/// How long a call may take before the soak fails. Never a claim of speed.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so many cycles a caller connects anew.
const CYCLES_A_CONNECTION: usize = 100;

/// Makes the pool that is always empty, beside the default one.
pub(crate) async fn make_pools(hearth: &Hearth) -> Outcome {
    let sizing = Some(Sizing { mode: Some(sizing::Mode::Fixed(sizing::Fixed { depth: 0 })) });
    let template = "templates/default".to_owned();
    let pool = Pool { template, sizing, ..Pool::default() };
    let request =
        CreatePoolRequest { pool_id: "empty".to_owned(), pool: Some(pool), ..Default::default() };
    hearth.client.pools.clone().create_pool(request).await?;
    Ok(())
}

pub(crate) struct Caller {
    hearth: Arc<Hearth>,
    client: HearthClient,
    random: StdRng,
}

impl Caller {
    pub(crate) fn new(hearth: Arc<Hearth>, seed: u64) -> Self {
        let client = hearth.client.clone();
        Self { hearth, client, random: StdRng::seed_from_u64(seed) }
    }

    pub(crate) async fn run(&mut self, cycles: usize) -> Outcome {
        for cycle in 0..cycles {
            if cycle % CYCLES_A_CONNECTION == 0 {
                self.client = self.hearth.connect().await?;
            }
            self.cycle().await?;
        }
        Ok(())
    }

    async fn cycle(&mut self) -> Outcome {
        match self.random.random_range(0..20) {
            0..=9 => self.plain().await,
            10..=12 => self.replayed().await,
            13..=14 => self.renewed().await,
            15..=16 => self.refused().await,
            17 => self.dedicated().await,
            _ => self.left().await,
        }
    }

    async fn plain(&mut self) -> Outcome {
        let vm = self.acquire(from("default")).await?;
        self.release(&vm, String::new()).await
    }

    /// Every call is made twice, under one id.
    async fn replayed(&mut self) -> Outcome {
        let request = AcquireVmRequest { request_id: self.uuid(), ..from("default") };
        let first = self.acquire(request.clone()).await?;
        let again = self.acquire(request).await?;
        if first.uid != again.uid {
            return Err("a replay has another VM".into());
        }
        let request_id = self.uuid();
        self.release(&first, request_id.clone()).await?;
        self.release(&first, request_id).await
    }

    async fn renewed(&mut self) -> Outcome {
        let vm_id = format!("named-{}", &self.uuid()[..13]);
        let vm = self.acquire(AcquireVmRequest { vm_id, ..from("default") }).await?;
        for _ in 0..3 {
            let ttl =
                renew_lease_request::Expiration::Ttl(seconds(self.random.random_range(300..3000)));
            let request = RenewLeaseRequest {
                name: vm.name.clone(),
                uid: vm.uid.clone(),
                expiration: Some(ttl),
                request_id: self.uuid(),
                ..Default::default()
            };
            self.client.vms.renew_lease(request).await?;
        }
        self.client.vms.get_vm(GetVmRequest { name: vm.name.clone() }).await?;
        self.release(&vm, String::new()).await
    }

    async fn refused(&mut self) -> Outcome {
        let refused = [
            AcquireVmRequest { overflow: Overflow::WarmOnly.into(), ..from("empty") },
            AcquireVmRequest { request_id: self.uuid(), ..from("there-is-none") },
            AcquireVmRequest { vm_id: "warm-1".to_owned(), ..from("default") },
            AcquireVmRequest { vm_id: "NO ID".to_owned(), ..from("default") },
        ];
        for request in refused {
            let Err(status) = self.client.acquire(request.clone(), PATIENCE).await else {
                return Err(format!("was not refused: {request:?}").into());
            };
            if StatusDetails::of(&status).reason.is_none() {
                return Err(format!("refused without a reason: {status:?}").into());
            }
        }
        self.plain().await
    }

    async fn dedicated(&mut self) -> Outcome {
        let overflow = Overflow::ColdOnly.into();
        let vm = self.acquire(AcquireVmRequest { overflow, ..from("empty") }).await?;
        self.release(&vm, String::new()).await
    }

    /// Gone before the answer, or just after it: what nobody can claim is released at once, and
    /// the rest when its short lease ends.
    async fn left(&mut self) -> Outcome {
        let request_id = if self.random.random_bool(0.3) { self.uuid() } else { String::new() };
        let expiration = Some(acquire_vm_request::Expiration::Ttl(seconds(1)));
        let request = AcquireVmRequest { expiration, request_id, ..from("default") };
        let patience = Duration::from_micros(self.random.random_range(0..2000));
        let acquire = self.client.acquire(request, PATIENCE);
        match tokio::time::timeout(patience, acquire).await {
            Ok(answer) => self.release(&vm_of(answer?)?, String::new()).await,
            Err(_) => Ok(()),
        }
    }

    async fn acquire(&self, request: AcquireVmRequest) -> Answer<Vm> {
        vm_of(self.client.acquire(request, PATIENCE).await?)
    }

    async fn release(&mut self, vm: &Vm, request_id: String) -> Outcome {
        let (name, uid) = (vm.name.clone(), vm.uid.clone());
        self.client.vms.release_vm(ReleaseVmRequest { name, uid, request_id }).await?;
        Ok(())
    }

    fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.random.random()).into_uuid().to_string()
    }
}

fn from(pool: &str) -> AcquireVmRequest {
    AcquireVmRequest { pool: format!("pools/{pool}"), ..Default::default() }
}

fn vm_of(answer: hearth_proto::v1::AcquireVmResponse) -> Answer<Vm> {
    Ok(answer.vm.ok_or("an answer without a VM")?)
}

const fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}
