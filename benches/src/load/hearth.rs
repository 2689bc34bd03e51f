//! A hearth as a target: acquire, hold, release.
//!
//! Each acquire has a `request_id` of its own, as a caller has who means to retry: without one the
//! server would be spared the work of remembering it. Names are the server's to pick.

use std::sync::Arc;
use std::time::Duration;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_proto::v1::acquire_vm_response::Source as WireSource;
use hearth_proto::v1::renew_lease_request::Expiration as RenewedExpiration;
use hearth_proto::v1::{
    AcquireVmRequest, GetNodeRequest, GetPoolRequest, Node, RenewLeaseRequest, pool,
};
use hearth_proto::{HearthClient, StatusDetails, Transport};
use hearth_providers::env::{Env as _, SystemEnv};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::drive::{Answer, Target};
use super::given::{self, Given, Named};
use super::guest::Question;
use super::tally::{Source, Verdict};

/// How often to look what a pool does.
const LOOK: Duration = Duration::from_millis(20);

/// What is asked of a hearth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Id of the pool.
    pub pool: String,
    /// Length of each lease.
    pub ttl: Duration,
    /// Whether to be refused when nothing is warm; else the pool's policy decides.
    pub warm_only: bool,
    /// How long a call may take.
    pub deadline: Duration,
    /// What each guest is asked; nothing, when absent.
    pub question: Option<Question>,
}

/// Bytes of the encoded messages of one acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of the request.
    pub request_bytes: usize,
    /// Of the answer.
    pub response_bytes: usize,
}

/// How many VMs a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Depth {
    pub warm: i32,
    pub target: i32,
    pub restoring: i32,
    pub leased: i32,
}

/// A pool of a hearth, as a target.
#[derive(Clone, Debug)]
pub struct HearthTarget {
    clients: Arc<[(Transport, HearthClient)]>,
    request: AcquireVmRequest,
    deadline: Duration,
    question: Option<Question>,
}

impl HearthTarget {
    /// Calls over `transports` in turn; there must be one.
    pub fn new(transports: Vec<Transport>, wish: &Wish) -> Self {
        let overflow =
            if wish.warm_only { pool::Overflow::WarmOnly } else { pool::Overflow::Unspecified };
        let id = wish.pool.strip_prefix("pools/").unwrap_or(&wish.pool);
        let request = AcquireVmRequest {
            pool: format!("pools/{id}"),
            overflow: overflow.into(),
            expiration: Some(Expiration::Ttl(duration_to_wire(wish.ttl))),
            ..Default::default()
        };
        let over = |transport: Transport| (transport.clone(), HearthClient::over(transport));
        let clients = transports.into_iter().map(over).collect();
        Self { clients, request, deadline: wish.deadline, question: wish.question.clone() }
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// The server's status.
    pub async fn node(&self) -> Result<Node, Status> {
        let mut request = Request::new(GetNodeRequest::default());
        request.set_timeout(self.deadline);
        Ok(self.client(0).node.clone().get_node(request).await?.into_inner())
    }

    /// How many VMs the pool has now.
    ///
    /// # Errors
    /// The server's status.
    pub async fn depth(&self) -> Result<Depth, Status> {
        let name = self.request.pool.clone();
        let mut request = Request::new(GetPoolRequest { name });
        request.set_timeout(self.deadline);
        let pool = self.client(0).pools.clone().get_pool(request).await?.into_inner();
        let status = pool.status.unwrap_or_default();
        let (warm, target, restoring) = (status.warm, status.target, status.restoring);
        Ok(Depth { warm, target, restoring, leased: status.leased })
    }

    /// Waits until the server serves and the pool is as full as it wants to be, at most for `limit` each; answers
    /// how full it is then.
    ///
    /// # Errors
    /// The server's status; UNAVAILABLE when it does not begin to serve.
    pub async fn fill(&self, limit: Duration) -> Result<Depth, Status> {
        self.serving(limit).await?;
        self.until(limit, |depth| depth.warm >= depth.target).await
    }

    /// A server that was just started listens before it serves.
    async fn serving(&self, limit: Duration) -> Result<(), Status> {
        let end = Instant::now() + limit;
        let mut health = HealthClient::new(self.connection(0).0.clone());
        loop {
            let mut request = Request::new(HealthCheckRequest::default());
            request.set_timeout(self.deadline);
            let answer = health.check(request).await?.into_inner();
            if answer.status() == ServingStatus::Serving {
                return Ok(());
            }
            if Instant::now() >= end {
                let why = format!(
                    "it does not serve after {limit:?}: see its log, and whether it drains"
                );
                return Err(Status::unavailable(why));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the pool is full, restores nothing, and has as many leases as at `before` or
    /// fewer: what is released has then been destroyed, too. At most for `limit`.
    ///
    /// # Errors
    /// The server's status; DEADLINE_EXCEEDED when it does not come to rest, as when others use it.
    pub async fn rest(&self, limit: Duration, before: Depth) -> Result<(), Status> {
        let rests = |depth: &Depth| {
            let is_full = depth.warm >= depth.target && depth.restoring == 0;
            is_full && depth.leased <= before.leased
        };
        let depth = self.until(limit, rests).await?;
        rests(&depth).then_some(()).ok_or_else(|| {
            Status::deadline_exceeded(format!("the pool does not come to rest: {depth:?}"))
        })
    }

    async fn until(
        &self,
        limit: Duration,
        is_reached: impl Fn(&Depth) -> bool,
    ) -> Result<Depth, Status> {
        let end = Instant::now() + limit;
        loop {
            let depth = self.depth().await?;
            if is_reached(&depth) || Instant::now() >= end {
                return Ok(depth);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Acquires one VM and gives it back, to see how large the messages are.
    ///
    /// # Errors
    /// The server's status.
    pub async fn sizes(&self) -> Result<Sizes, Status> {
        let request = self.request();
        let request_bytes = request.encoded_len();
        let response = self.client(0).acquire(request, self.deadline).await?;
        let response_bytes = response.encoded_len();
        if let Some(vm) = response.vm {
            self.client(0).release(&vm).await?;
        }
        Ok(Sizes { request_bytes, response_bytes })
    }

    fn request(&self) -> AcquireVmRequest {
        AcquireVmRequest { request_id: SystemEnv.uid().to_string(), ..self.request.clone() }
    }

    fn client(&self, number: u64) -> &HearthClient {
        &self.connection(number).1
    }

    fn connection(&self, number: u64) -> &(Transport, HearthClient) {
        &self.clients[number as usize % self.clients.len()]
    }
}

impl Target for HearthTarget {
    /// The VM, and whose connection it came by.
    type Held = (u64, Named);

    async fn call(&self, number: u64) -> Answer<Self::Held> {
        let mut request = Request::new(self.request());
        request.set_timeout(self.deadline);
        match given::acquire(&self.connection(number).0, request).await {
            Ok(response) => answer(number, response),
            Err(status) => {
                let verdict = Verdict::Refused(reason_of(&status));
                Answer { verdict, held: None, replayed: false }
            }
        }
    }

    async fn give_back(&self, (number, vm): Self::Held) -> Result<(), String> {
        let mut vms = self.client(number).vms.clone();
        match tokio::time::timeout(self.deadline, vms.release_vm(vm.release())).await {
            Ok(released) => released.map(drop).map_err(|status| reason_of(&status)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    fn asks(&self) -> bool {
        self.question.is_some()
    }

    async fn ask(&self, number: u64, (_, vm): &Self::Held) -> Option<Result<(), String>> {
        let question = self.question.as_ref()?;
        Some(question.put(self.client(number), vm, number, self.deadline).await)
    }

    async fn renew(&self, (number, vm): &Self::Held) -> Result<(), String> {
        let ttl = match &self.request.expiration {
            Some(Expiration::Ttl(ttl)) => Some(RenewedExpiration::Ttl(*ttl)),
            _ => None,
        };
        let mut request = Request::new(RenewLeaseRequest {
            name: vm.name.clone(),
            uid: vm.uid.clone(),
            expiration: ttl,
            allow_shorten: false,
            request_id: SystemEnv.uid().to_string(),
        });
        request.set_timeout(self.deadline);
        let renewed = self.client(*number).vms.clone().renew_lease(request).await;
        renewed.map(drop).map_err(|status| reason_of(&status))
    }
}

fn answer(number: u64, response: Given) -> Answer<(u64, Named)> {
    let verdict = match (response.source(), &response.vm) {
        (_, None) => Verdict::Refused("an answer without a VM".to_owned()),
        (WireSource::Warm, _) => Verdict::Given(Source::Warm),
        (WireSource::Cold, _) => Verdict::Given(Source::Cold),
        (WireSource::Unspecified, _) => Verdict::Refused("a VM of no source".to_owned()),
    };
    let replayed = response.replayed;
    Answer { verdict, held: response.vm.map(|vm| (number, vm)), replayed }
}

/// Why a call failed: the reason in its `ErrorInfo`, else its code.
pub fn reason_of(status: &Status) -> String {
    let reason = StatusDetails::of(status).reason;
    reason.unwrap_or_else(|| format!("code {:?}", status.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_by_its_source_and_is_given_back_whatever_it_is() {
        let of = |source: WireSource, vm| {
            let response = Given { vm, source: source.into(), ..Default::default() };
            let answer = answer(7, response);
            (answer.verdict, answer.held.is_some())
        };
        let vm = || Some(Named::default());
        assert_eq!(of(WireSource::Warm, vm()), (Verdict::Given(Source::Warm), true));
        assert_eq!(of(WireSource::Cold, vm()), (Verdict::Given(Source::Cold), true));
        assert!(matches!(of(WireSource::Unspecified, vm()), (Verdict::Refused(_), true)));
        assert!(matches!(of(WireSource::Warm, None), (Verdict::Refused(_), false)));
    }

    #[test]
    fn a_failure_without_a_reason_counts_by_its_code() {
        assert_eq!(reason_of(&Status::unavailable("")), "code Unavailable");
    }

    #[tokio::test]
    async fn each_request_has_an_id_of_its_own_and_they_are_of_one_size() {
        let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:1");
        let wish = Wish {
            pool: "pools/a".to_owned(),
            ttl: Duration::from_secs(60),
            warm_only: true,
            deadline: Duration::from_secs(1),
            question: None,
        };
        let target = HearthTarget::new(vec![endpoint.connect_lazy().into()], &wish);
        let (one, other) = (target.request(), target.request());
        assert_eq!((one.pool.as_str(), one.overflow()), ("pools/a", pool::Overflow::WarmOnly));
        assert_ne!(one.request_id, other.request_id);
        assert_eq!(one.request_id.len(), 36);
        assert_eq!(one.encoded_len(), other.encoded_len());
    }
}
