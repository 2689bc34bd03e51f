//! A thin client: one connection, a stub a service, and the few calls that everybody writes.
//!
//! Stubs, and [`HearthClient::acquire`], do not retry and make up no ids: a caller that wants a call to be safe to
//! retry gives it a `request_id`. [`HearthClient::retrying`] makes any call as the [retry policy](crate::retry)
//! says, and [`HearthClient::lease`] keeps what it acquires. All stubs share one HTTP/2 connection, which reconnects by itself; cloning is cheap and
//! clones share it too.

use std::time::Duration;

use prost::{Message, Name};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Response, Status};

use crate::convert::duration_to_wire;
use crate::details::status_from_operation;
use crate::google::longrunning::operations_client::OperationsClient;
use crate::google::longrunning::{Operation, WaitOperationRequest, operation};
use crate::leased::LeasedVm;
use crate::reason::ApiError;
use crate::retry;
use crate::transport::{Credentials, Transport};
use crate::v1::artifact_service_client::ArtifactServiceClient;
use crate::v1::node_service_client::NodeServiceClient;
use crate::v1::pool_service_client::PoolServiceClient;
use crate::v1::template_service_client::TemplateServiceClient;
use crate::v1::vm_service_client::VmServiceClient;
use crate::v1::{AcquireVmRequest, AcquireVmResponse, ReleaseVmRequest, Vm};

/// Largest answer that is accepted, in bytes: a full page of VMs with full labels.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// Longest single wait for an operation; a longer one is made of several, so that a server that went away
/// is noticed.
const WAIT_SLICE: Duration = Duration::from_secs(30);

/// Allowance for the network beyond [`WAIT_SLICE`].
const WAIT_GRACE: Duration = Duration::from_secs(5);

/// Shortest time between two questions about an operation. `WaitOperation` may answer early.
const WAIT_PACE: Duration = Duration::from_millis(50);

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    /// Longest time to establish a connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// Longest time until a call answers, or a stream begins; a deadline of the call's own can only be
    /// shorter. Default: 2 minutes.
    pub request_timeout: Duration,
    /// How often to ask an unresponsive connection, idle or not, whether it lives. Default: 30 s.
    pub keep_alive_interval: Duration,
    /// How long to wait for that answer before the connection counts as dead. Default: 10 s.
    pub keep_alive_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(120),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
        }
    }
}

/// A connection to one hearth, with a stub for each of its services.
#[derive(Debug, Clone)]
pub struct HearthClient {
    /// Acquire, use and give back VMs.
    pub vms: VmServiceClient<Transport>,
    /// Manage pools.
    pub pools: PoolServiceClient<Transport>,
    /// Manage templates.
    pub templates: TemplateServiceClient<Transport>,
    /// Manage artifacts.
    pub artifacts: ArtifactServiceClient<Transport>,
    /// Look after the server.
    pub node: NodeServiceClient<Transport>,
    /// Follow operations.
    pub operations: OperationsClient<Transport>,
}

impl HearthClient {
    /// Connects to `address` with the default options.
    ///
    /// `address` is `host:port`, an `http://` or `https://` URI, or `unix:/path` for a Unix socket.
    ///
    /// # Errors
    /// When the address is malformed, or no connection comes about within the connect timeout.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, ClientOptions::default()).await
    }

    /// Connects to `address`, as [`HearthClient::connect`] does, with these options.
    ///
    /// # Errors
    /// As for [`HearthClient::connect`].
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Self, Error> {
        Self::connect_as(address, options, &Credentials::default()).await
    }

    /// Connects to `address` as whom `credentials` say. An address that says neither `http://` nor
    /// `https://` is encrypted if they have authorities.
    ///
    /// # Errors
    /// As for [`HearthClient::connect`]; when the credentials are none.
    pub async fn connect_as(
        address: &str,
        options: ClientOptions,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let channel = secured(address, options, credentials)?.connect().await?;
        Ok(Self::over(transport(channel, credentials)))
    }

    /// Like [`HearthClient::connect_with`], but connects at the first call. Must run within a tokio runtime.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn connect_lazy(address: &str, options: ClientOptions) -> Result<Self, Error> {
        Self::connect_lazy_as(address, options, &Credentials::default())
    }

    /// Like [`HearthClient::connect_as`], but connects at the first call. Must run within a tokio runtime.
    ///
    /// # Errors
    /// When the address is malformed, or the credentials are none.
    pub fn connect_lazy_as(
        address: &str,
        options: ClientOptions,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let channel = secured(address, options, credentials)?.connect_lazy();
        Ok(Self::over(transport(channel, credentials)))
    }

    /// Stubs over a channel that the caller made.
    #[must_use]
    pub fn from_channel(channel: Channel) -> Self {
        Self::over(channel.into())
    }

    /// Stubs over a transport that the caller made.
    #[must_use]
    pub fn over(transport: Transport) -> Self {
        macro_rules! stub {
            ($client:ident) => {
                $client::new(transport.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
            };
        }
        Self {
            vms: stub!(VmServiceClient),
            pools: stub!(PoolServiceClient),
            templates: stub!(TemplateServiceClient),
            artifacts: stub!(ArtifactServiceClient),
            node: stub!(NodeServiceClient),
            operations: stub!(OperationsClient),
        }
    }

    /// Acquires a VM within `deadline`. The server knows the deadline, and refuses early when it cannot
    /// meet it.
    ///
    /// # Errors
    /// The server's status; [`StatusDetails::of`](crate::StatusDetails::of) reads it.
    ///
    /// # Cancel safety
    /// A dropped future may leave a VM allocated. A retry with the same `request_id` or `vm_id` finds it;
    /// one that had neither is released by the server.
    pub async fn acquire(
        &self,
        request: AcquireVmRequest,
        deadline: Duration,
    ) -> Result<AcquireVmResponse, Status> {
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        Ok(self.vms.clone().acquire_vm(request).await?.into_inner())
    }

    /// Acquires a VM by `deadline`, trying again as the retry policy says, and renews its lease in the
    /// background until it is dropped. A request without a `request_id` gets one. Must run within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// As for [`Self::acquire`].
    pub async fn lease(
        &self,
        request: AcquireVmRequest,
        deadline: Duration,
    ) -> Result<LeasedVm, ApiError> {
        LeasedVm::acquire(self, request, deadline).await
    }

    /// Makes a call by `deadline`, trying again as the retry policy of `method` says. One that changes
    /// something is to carry a `request_id`.
    ///
    /// ```no_run
    /// # async fn example(client: hearth_proto::HearthClient) -> Result<(), hearth_proto::ApiError> {
    /// let request = hearth_proto::v1::GetVmRequest { name: "vms/mine".to_owned() };
    /// let vm = client.retrying("hearth.v1.VmService/GetVm", request, std::time::Duration::from_secs(10), |it| {
    ///     let mut vms = client.vms.clone();
    ///     async move { vms.get_vm(it).await }
    /// });
    /// println!("{}", vm.await?.uid);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// As for a single call.
    pub async fn retrying<Q: Clone, A, F>(
        &self,
        method: &str,
        request: Q,
        deadline: Duration,
        call: impl FnMut(Request<Q>) -> F,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        retry::call(method, request, deadline, call).await
    }

    /// Gives `vm` back, and no other VM that may bear its name by now. A second call is OK.
    ///
    /// # Errors
    /// The server's status.
    pub async fn release(&self, vm: &Vm) -> Result<(), Status> {
        let request = ReleaseVmRequest {
            name: vm.name.clone(),
            uid: vm.uid.clone(),
            request_id: String::new(),
        };
        self.vms.clone().release_vm(request).await?;
        Ok(())
    }

    /// Waits until an operation is done, at most for `limit`, and returns it, whether it succeeded or not.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when it is not done by then; the operation goes on. Else the server's status.
    pub async fn wait_operation(&self, name: &str, limit: Duration) -> Result<Operation, Status> {
        let deadline = Instant::now() + limit;
        let mut operations = self.operations.clone();
        loop {
            let asked = Instant::now();
            let slice = deadline.saturating_duration_since(asked).min(WAIT_SLICE);
            let mut request = Request::new(WaitOperationRequest {
                name: name.to_owned(),
                timeout: Some(duration_to_wire(slice)),
            });
            request.set_timeout(slice + WAIT_GRACE);
            let operation = operations.wait_operation(request).await?.into_inner();
            if operation.done {
                return Ok(operation);
            }
            let next = asked + WAIT_PACE;
            if next >= deadline || Instant::now() >= deadline {
                return Err(Status::deadline_exceeded(format!("{name} is not done yet")));
            }
            tokio::time::sleep_until(next).await;
        }
    }
}

/// The resource that a finished operation made.
///
/// # Errors
/// The operation's own error, with its details; INTERNAL when it is not done or its answer is not an `M`.
pub fn operation_response<M: Message + Name + Default>(operation: &Operation) -> Result<M, Status> {
    match &operation.result {
        Some(operation::Result::Response(any)) => any.to_msg().map_err(|error| {
            Status::internal(format!("{} answers {}: {error}", operation.name, any.type_url))
        }),
        Some(operation::Result::Error(error)) => Err(status_from_operation(error)),
        None => Err(Status::internal(format!("{} has no result", operation.name))),
    }
}

fn transport(channel: Channel, credentials: &Credentials) -> Transport {
    match &credentials.token {
        Some(token) => Transport::bearing(channel, token),
        None => channel.into(),
    }
}

fn secured(
    address: &str,
    options: ClientOptions,
    credentials: &Credentials,
) -> Result<Endpoint, Error> {
    let tls = credentials.tls();
    let endpoint = endpoint(address, options, tls.is_some())?;
    match tls.filter(|_| endpoint.uri().scheme_str() == Some("https")) {
        Some(tls) => endpoint.tls_config(tls),
        None => Ok(endpoint),
    }
}

fn endpoint(address: &str, options: ClientOptions, encrypted: bool) -> Result<Endpoint, Error> {
    let has_scheme = address.starts_with("unix:") || address.contains("://");
    let scheme = if encrypted { "https" } else { "http" };
    let uri = if has_scheme { address.to_owned() } else { format!("{scheme}://{address}") };
    let endpoint = Endpoint::from_shared(uri)?
        .tcp_nodelay(true)
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true);
    Ok(endpoint)
}
