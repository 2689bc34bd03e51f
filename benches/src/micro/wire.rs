//! What a call's messages take to be read and written.

use std::collections::BTreeMap;
use std::hint::black_box;

use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::{AcquireVmRequest, AcquireVmResponse, Lease, Timing, Vm, pool, vm};
use prost::Message as _;
use prost_types::{Duration, Timestamp};

use super::{Fixture, repeat};

const REQUEST_ID: &str = "6a1f2c34-5b6d-4e7f-8a9b-0c1d2e3f4a5b";

/// A request with the fields that most have.
pub(super) fn decode_request() -> Box<dyn Fixture> {
    let request = AcquireVmRequest {
        pool: "pools/default".to_owned(),
        vm_id: "bench-000000001".to_owned(),
        request_id: REQUEST_ID.to_owned(),
        expiration: Some(Expiration::Ttl(Duration { seconds: 300, nanos: 0 })),
        overflow: pool::Overflow::WarmOnly.into(),
        labels: labels(),
        ..AcquireVmRequest::default()
    };
    let bytes = request.encode_to_vec();
    repeat(move || {
        let decoded = AcquireVmRequest::decode(black_box(&bytes[..]));
        assert!(black_box(decoded).is_ok(), "it was encoded here");
    })
}

/// An answer with a VM, its lease and its timing.
pub(super) fn encode_response() -> Box<dyn Fixture> {
    let time = |seconds| Some(Timestamp { seconds, nanos: 123_456_789 });
    let took = |nanos| Some(Duration { seconds: 0, nanos });
    let vm = Vm {
        name: "vms/bench-000000001".to_owned(),
        uid: "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned(),
        state: vm::State::Running.into(),
        tenant: "default".to_owned(),
        lease: Some(Lease {
            expire_time: time(1_700_000_300),
            request_id: REQUEST_ID.to_owned(),
            fence: 1_000_000,
        }),
        provider: "memory".to_owned(),
        pool: "pools/default".to_owned(),
        template: "templates/default".to_owned(),
        template_generation: 1,
        labels: labels(),
        create_time: time(1_700_000_000),
        acquire_time: time(1_700_000_000),
        origin: vm::Origin::Template.into(),
        ..Vm::default()
    };
    let timing = Timing {
        select: took(2_000),
        commit: took(9_000),
        total: took(14_000),
        ..Timing::default()
    };
    let response = AcquireVmResponse {
        vm: Some(vm),
        source: Source::Warm.into(),
        replayed: false,
        timing: Some(timing),
    };
    let mut bytes = Vec::with_capacity(response.encoded_len());
    repeat(move || {
        bytes.clear();
        let encoded = black_box(&response).encode(&mut bytes);
        assert!(encoded.is_ok(), "a vector has room");
        black_box(&bytes);
    })
}

fn labels() -> BTreeMap<String, String> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BTreeMap::from([label("job", "nightly"), label("owner", "ci"), label("attempt", "1")])
}
