//! The `hearth.v1` API: protocol definitions, generated code, descriptors and a thin client.
//!
//! The `.proto` files under `hearth/v1` are the contract, and their comments its documentation; begin with
//! `vm_service.proto`. Everything in [`v1`] and [`google`] is generated from them at build time.
//!
//! Beside the generated code there is what both ends of the wire need and neither should write twice:
//! [`names`] parses and formats resource names, [`convert`] checks times and durations, [`details`] reads
//! what an error says, [`client`] connects. None of it makes decisions.
//!
//! Invariants: messages that hold secrets never print them (`redact.rs`); equal messages encode to equal
//! bytes, since maps are ordered.

pub mod client;
mod codec;
pub mod convert;
pub mod details;
mod leased;
pub mod names;
mod reason;
mod redact;
pub mod retry;
mod trace;
pub mod transport;

pub use client::{ClientOptions, HearthClient};
pub use codec::MessageCodec;
pub use details::StatusDetails;
pub use hearth::v1;
pub use leased::LeasedVm;
pub use reason::{ApiError, Reason};
pub use trace::TraceContext;
pub use transport::{Credentials, Transport};

/// The encoded `google.protobuf.FileDescriptorSet` of this API and all that it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hearth.bin"));

/// Generated code, by package.
pub mod hearth {
    /// Package `hearth.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("hearth.v1");
    }
}

/// The parts of Google's public API definitions that this one builds on.
pub mod google {
    /// Package `google.longrunning`: operations that take longer than a call should.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr, rustdoc::all)]
    pub mod longrunning {
        tonic::include_proto!("google.longrunning");
    }

    /// Package `google.rpc`: the status of a failed call and its details. The types are those of
    /// `tonic-types`, which also has the richer view of them.
    pub mod rpc {
        pub use tonic_types::pb::*;
    }
}
