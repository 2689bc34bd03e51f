//! Of an acquire's answer, as much as is needed to go on with the VM. All else is passed over unread: the generator shares
//! its processors with what it measures, and the floor's answer is one block of bytes that nobody looks into.

use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::{AcquireVmRequest, ReleaseVmRequest};
use hearth_proto::{MessageCodec, Transport};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

const PATH: &str = "/hearth.v1.VmService/AcquireVm";

/// `AcquireVmResponse`, as far as that.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Given {
    #[prost(message, optional, tag = "1")]
    pub(super) vm: Option<Named>,
    #[prost(enumeration = "Source", tag = "2")]
    pub(super) source: i32,
    #[prost(bool, tag = "3")]
    pub(super) replayed: bool,
}

/// `Vm`, as far as that.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    /// Its resource name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Which of those that had the name.
    #[prost(string, tag = "2")]
    pub uid: String,
}

impl Named {
    /// What gives it back.
    pub(super) fn release(self) -> ReleaseVmRequest {
        ReleaseVmRequest { name: self.name, uid: self.uid, request_id: String::new() }
    }
}

/// Acquires a VM.
///
/// # Errors
/// The server's status, or the transport's.
pub(super) async fn acquire(
    transport: &Transport,
    request: Request<AcquireVmRequest>,
) -> Result<Given, Status> {
    let mut grpc = tonic::client::Grpc::new(transport.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = MessageCodec::<AcquireVmRequest, Given>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(PATH), codec).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use hearth_proto::v1::{AcquireVmResponse, Timing, Vm};
    use prost::Message as _;

    use super::*;

    #[test]
    fn of_a_whole_answer_it_reads_what_it_has_fields_for() {
        let (name, uid) = ("vms/a".to_owned(), "u".to_owned());
        let tenant = "t".to_owned();
        let whole = AcquireVmResponse {
            vm: Some(Vm { name: name.clone(), uid: uid.clone(), tenant, ..Default::default() }),
            source: Source::Cold.into(),
            replayed: true,
            timing: Some(Timing::default()),
        };
        let given = Given::decode(&*whole.encode_to_vec()).unwrap();
        assert_eq!((given.source(), given.replayed), (Source::Cold, true));
        assert_eq!(given.vm, Some(Named { name, uid }));
        assert_eq!(Given::decode(&[][..]).unwrap().source(), Source::Unspecified);
    }
}
