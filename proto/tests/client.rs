//! The client over a real connection, against small servers that live as long as the test.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_proto::client::operation_response;
use hearth_proto::google::longrunning::operations_server::{Operations, OperationsServer};
use hearth_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest, operation,
};
use hearth_proto::google::rpc;
use hearth_proto::v1::{Artifact, OperationMetadata, Template};
use hearth_proto::{ClientOptions, HearthClient};
use prost_types::Any;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

/// Says "not yet" a number of times, at once, as `WaitOperation` may; then that it is done.
struct SlowOperations {
    not_yet: usize,
    asked: AtomicUsize,
    result: operation::Result,
}

#[tonic::async_trait]
impl Operations for SlowOperations {
    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let name = request.into_inner().name;
        let done = self.asked.fetch_add(1, Ordering::Relaxed) >= self.not_yet;
        let metadata = OperationMetadata { verb: "FreezeVm".into(), ..Default::default() };
        Ok(Response::new(Operation {
            name,
            metadata: Any::from_msg(&metadata).ok(),
            done,
            result: done.then(|| self.result.clone()),
        }))
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_operation(
        &self,
        _: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_operation(
        &self,
        _: Request<DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_operation(
        &self,
        _: Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves `operations` on a port of its own and waits on it with a client.
async fn wait(operations: SlowOperations, limit: Duration) -> Result<Operation, Status> {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = incoming.local_addr().expect("a bound socket").to_string();
    let server = Server::builder()
        .add_service(OperationsServer::new(operations))
        .serve_with_incoming(incoming);
    let client = async {
        let client = HearthClient::connect(&address).await.expect("a connection");
        client.wait_operation("operations/o", limit).await
    };
    tokio::select! {
        result = server => panic!("the server ended: {result:?}"),
        result = client => result,
    }
}

fn answers(not_yet: usize, result: operation::Result) -> SlowOperations {
    SlowOperations { not_yet, asked: AtomicUsize::new(0), result }
}

fn artifact() -> Artifact {
    Artifact { name: "artifacts/a".into(), size_bytes: 7, ..Default::default() }
}

#[tokio::test]
async fn waits_until_the_operation_is_done() {
    let response = Any::from_msg(&artifact()).unwrap();
    assert_eq!(response.type_url, "type.googleapis.com/hearth.v1.Artifact");
    let server = answers(2, operation::Result::Response(response));
    let operation = wait(server, Duration::from_secs(60)).await.unwrap();
    assert_eq!(operation_response::<Artifact>(&operation).unwrap(), artifact());
    let wrong = operation_response::<Template>(&operation).unwrap_err();
    assert_eq!(wrong.code(), Code::Internal);
    let metadata: OperationMetadata = operation.metadata.unwrap().to_msg().unwrap();
    assert_eq!(metadata.verb, "FreezeVm");
}

#[tokio::test]
async fn a_failed_operation_fails_like_a_call() {
    let error = rpc::Status {
        code: Code::FailedPrecondition as i32,
        message: "must be stopped".into(),
        details: vec![],
    };
    let server = answers(0, operation::Result::Error(error));
    let operation = wait(server, Duration::from_secs(60)).await.unwrap();
    let status = operation_response::<Artifact>(&operation).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "must be stopped"));
}

#[tokio::test]
async fn gives_up_on_an_operation_at_the_limit() {
    let server = answers(usize::MAX, operation::Result::Response(Any::default()));
    let status = wait(server, Duration::from_millis(120)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn addresses_may_leave_the_scheme_out_or_be_unix_sockets() {
    let options = ClientOptions::default();
    for good in ["127.0.0.1:7070", "[::1]:7070", "localhost:1", "http://h:1", "unix:/run/h.sock"] {
        assert!(HearthClient::connect_lazy(good, options).is_ok(), "{good}");
    }
    for bad in ["", "a b", "http://"] {
        assert!(HearthClient::connect_lazy(bad, options).is_err(), "{bad:?}");
    }
}
