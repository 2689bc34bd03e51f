//! A VM that stays one's own for as long as it is held.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::HearthClient;
use crate::convert::{duration_to_wire, timestamp_to_system_time};
use crate::reason::ApiError;
use crate::retry;
use crate::trace::TraceContext;
use crate::v1::renew_lease_request::Expiration;
use crate::v1::{AcquireVmRequest, AcquireVmResponse, ReleaseVmRequest, RenewLeaseRequest, Vm};

/// A lease is renewed when this part of it has gone.
const RENEWED_AFTER: u32 = 3;
/// The shortest time between two renewals.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// How long one renewal, with its retries, and a release may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A VM whose lease is renewed in the background.
///
/// Dropped, it is renewed no more, and its lease runs out; [`Self::release`] ends it at once.
#[derive(Debug)]
pub struct LeasedVm {
    client: HearthClient,
    acquired: AcquireVmResponse,
    lost: watch::Receiver<Option<ApiError>>,
    // Ends with this.
    renewing: JoinSet<()>,
}

impl LeasedVm {
    /// Acquires a VM by `deadline`, trying again as the retry policy says, and renews its lease from then on.
    pub(crate) async fn acquire(
        client: &HearthClient,
        mut request: AcquireVmRequest,
        deadline: Duration,
    ) -> Result<Self, ApiError> {
        if request.request_id.is_empty() {
            request.request_id = new_request_id();
        }
        let vms = &client.vms;
        let call = |request| {
            let mut vms = vms.clone();
            async move { vms.acquire_vm(request).await }
        };
        let method = "hearth.v1.VmService/AcquireVm";
        let acquired = retry::call(method, request, deadline, call).await?;
        let vm = acquired.vm.clone().unwrap_or_default();
        let (tell, lost) = watch::channel(None);
        let mut renewing = JoinSet::new();
        if let Some(ttl) = ttl_of(&vm) {
            let renewal = renew(client.clone(), vm.clone(), ttl, tell);
            match TraceContext::current() {
                Some(context) => renewing.spawn(context.scope(renewal)),
                None => renewing.spawn(renewal),
            };
        }
        Ok(Self { client: client.clone(), acquired, lost, renewing })
    }

    /// What the acquire answered.
    #[must_use]
    pub const fn acquired(&self) -> &AcquireVmResponse {
        &self.acquired
    }

    /// The VM, as it was acquired; `None` when the acquire was only to be checked.
    #[must_use]
    pub const fn vm(&self) -> Option<&Vm> {
        self.acquired.vm.as_ref()
    }

    /// Whether its lease is renewed, as far as is known.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lost.borrow().is_none()
    }

    /// Waits until the lease is lost: somebody released the VM, or no renewal came through in time. Answers why.
    ///
    /// # Cancel safety
    /// A dropped future changes nothing.
    pub async fn lost(&self) -> ApiError {
        let mut lost = self.lost.clone();
        // Its sender is there until it has told.
        match lost.wait_for(Option::is_some).await.map(|it| it.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Gives it back, now.
    ///
    /// # Errors
    /// The server's; the lease then runs out by itself.
    pub async fn release(mut self) -> Result<(), ApiError> {
        self.renewing.shutdown().await;
        let Some(Vm { name, uid, .. }) = self.acquired.vm.take() else { return Ok(()) };
        let request = ReleaseVmRequest { name, uid, request_id: new_request_id() };
        let call = |request| {
            let mut vms = self.client.vms.clone();
            async move { vms.release_vm(request).await }
        };
        retry::call("hearth.v1.VmService/ReleaseVm", request, PATIENCE, call).await
    }
}

/// How long its lease was when it was granted.
fn ttl_of(vm: &Vm) -> Option<Duration> {
    let ends = timestamp_to_system_time(&vm.lease.as_ref()?.expire_time?).ok()?;
    let begins = timestamp_to_system_time(&vm.acquire_time?).ok()?;
    ends.duration_since(begins).ok().filter(|ttl| !ttl.is_zero())
}

async fn renew(client: HearthClient, vm: Vm, ttl: Duration, lost: watch::Sender<Option<ApiError>>) {
    // The lease may be older: a retry finds what was acquired before.
    let mut ends = Instant::now() + ttl;
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        let request = RenewLeaseRequest {
            name: vm.name.clone(),
            uid: vm.uid.clone(),
            expiration: Some(Expiration::Ttl(duration_to_wire(ttl))),
            ..Default::default()
        };
        let begun = Instant::now();
        let left = ends.saturating_duration_since(begun).min(PATIENCE);
        let call = |request| {
            let mut vms = client.vms.clone();
            async move { vms.renew_lease(request).await }
        };
        match retry::call("hearth.v1.VmService/RenewLease", request, left, call).await {
            Ok(_) => {
                ends = begun + ttl;
                pause = (ttl / RENEWED_AFTER).max(MIN_PAUSE);
            }
            // What is not over yet may come through again.
            Err(error) if is_passing(&error) && Instant::now() < ends => pause = MIN_PAUSE,
            Err(error) => {
                lost.send_replace(Some(error));
                return;
            }
        }
    }
}

/// Whether an error says nothing of the lease.
fn is_passing(error: &ApiError) -> bool {
    use tonic::Code;
    matches!(
        error.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled
    )
}

/// A UUID of version 4.
fn new_request_id() -> String {
    let bits = u128::from(retry::random_bits()) << 64 | u128::from(retry::random_bits());
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_of_version_four_and_differ() {
        let (one, two) = (new_request_id(), new_request_id());
        assert_ne!(one, two);
        for id in [one, two] {
            let bytes = id.as_bytes();
            assert_eq!((id.len(), bytes[14]), (36, b'4'), "{id}");
            assert!(matches!(bytes[19], b'8' | b'9' | b'a' | b'b'), "{id}");
            assert!([8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-'), "{id}");
        }
    }
}
