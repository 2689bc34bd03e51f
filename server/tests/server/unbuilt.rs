//! What is not built says so: every method is asked, so that a new one cannot be forgotten.

use std::collections::BTreeSet;

use hearth_proto::{FILE_DESCRIPTOR_SET, v1};
use prost::Message as _;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::harness::{from, reason, server};

const UNBUILT: [&str; 3] =
    ["hearth.v1.VmService/ExecVm", "hearth.v1.VmService/Nonsense", "hearth.v1.NoService/Nonsense"];

fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = BTreeSet::new();
    for file in set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            methods.extend(service.method.iter().map(|it| format!("{name}/{}", it.name())));
        }
    }
    methods
}

#[tokio::test]
async fn every_method_answers_and_every_refusal_has_a_reason() {
    let server = server().await;
    let address = format!("http://{}", server.hearth.grpc_address());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut refused = BTreeSet::new();
    let unbuilt = UNBUILT.map(str::to_owned);
    for method in methods().into_iter().chain(unbuilt.clone()) {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/{method}")).unwrap();
        // An empty message is one of every type; what is answered is not looked into.
        let codec = ProstCodec::<(), ()>::default();
        // One that goes on is left after its first message.
        let answer = match grpc.server_streaming(tonic::Request::new(()), path, codec).await {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        if let Err(status) = answer {
            let details = hearth_proto::StatusDetails::of(&status);
            assert!(details.reason.is_some(), "{method}: {status:?}");
            if status.code() == Code::Unimplemented {
                assert_eq!(details.reason.as_deref(), Some("METHOD_UNIMPLEMENTED"), "{method}");
                refused.insert(method);
            }
        }
    }
    assert_eq!(refused, BTreeSet::from(unbuilt));
    server.stop().await;
}

#[tokio::test]
async fn what_a_request_asks_for_and_is_not_built_is_not_ignored() {
    let server = server().await;
    let request =
        v1::AcquireVmRequest { identity: Some(v1::Identity::default()), ..from("default") };
    let refused = server.acquire(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::Unimplemented), "METHOD_UNIMPLEMENTED");
    assert_eq!(hearth_proto::StatusDetails::of(&refused).allocated, Some(false));
    server.stop().await;
}
