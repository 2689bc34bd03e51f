//! Health, reflection and the admin port.

use hearth_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Server, eventually, server, starting_server};

async fn channel(server: &Server) -> Channel {
    let address = format!("http://{}", server.hearth.grpc_address());
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

async fn health(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = client.check(request).await.map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

#[tokio::test]
async fn before_recovery_is_over_every_call_says_so() {
    let server = starting_server(|_| ()).await;
    let mut client = HealthClient::new(channel(&server).await);
    assert_eq!(health(&mut client, "").await, Ok(ServingStatus::NotServing));
    assert_eq!(server.admin("/readyz").await.0, 503);
    assert_eq!(server.admin("/healthz").await.0, 200, "it lives, and is not to be killed");
    let get = || v1::GetPoolRequest { name: "pools/default".to_owned() };
    let early = server.client.pools.clone().get_pool(get()).await.unwrap_err();
    let details = hearth_proto::StatusDetails::of(&early);
    assert_eq!(
        (early.code(), details.reason.as_deref()),
        (Code::Unavailable, Some("NODE_STARTING"))
    );
    assert!(details.retry_after.is_some());
    let asked = v1::AcquireVmRequest { pool: "pools/default".to_owned(), ..Default::default() };
    let early = server.client.vms.clone().acquire_vm(asked).await.unwrap_err();
    assert_eq!(hearth_proto::StatusDetails::of(&early).allocated, Some(false));
    server.client.node.clone().get_node(v1::GetNodeRequest::default()).await.unwrap();
    server.hearth.begin(false).await.unwrap();
    assert_eq!(health(&mut client, "").await, Ok(ServingStatus::Serving));
    assert_eq!(server.admin("/readyz").await.0, 200);
    server.client.pools.clone().get_pool(get()).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn services_and_pools_are_healthy_while_they_serve() {
    let mut server = server().await;
    let mut client = HealthClient::new(channel(&server).await);
    for service in ["", "hearth.v1.VmService", "google.longrunning.Operations"] {
        assert_eq!(health(&mut client, service).await, Ok(ServingStatus::Serving), "{service:?}");
    }
    assert_eq!(health(&mut client, "pools/nope").await, Err(Code::NotFound));
    eventually("the pool is healthy", async || {
        health(&mut client, "pools/default").await == Ok(ServingStatus::Serving)
    })
    .await;
    let request = v1::DeletePoolRequest { name: "pools/default".to_owned(), ..Default::default() };
    server.client.pools.clone().delete_pool(request).await.unwrap();
    eventually("the pool is forgotten", async || {
        health(&mut client, "pools/default").await == Err(Code::NotFound)
    })
    .await;

    // A watch is told of the end, and does not hold it up.
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.hearth.end(true).await;
    let last = watch.next().await;
    assert!(
        last.is_none_or(|it| it.is_err() || it.unwrap().status() == ServingStatus::NotServing),
        "it does not serve any more"
    );
}

#[tokio::test]
async fn reflection_knows_every_service() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = server().await;
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["hearth.v1.VmService", "hearth.v1.NodeService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|it| it == name), "{name} of {names:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_admin_port_answers_what_it_has_and_nothing_else() {
    let server = server().await;
    assert_eq!(server.admin("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(server.admin("/readyz").await.0, 200);
    assert_eq!(server.admin("/nope").await.0, 404);
    let (status, text) = server.admin("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("hearth_build_info{"));
    server.stop().await;
}
