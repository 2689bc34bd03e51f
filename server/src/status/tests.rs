use std::time::Duration;

use hearth_proto::StatusDetails;
use hearth_providers::VmId;
use hearth_providers::model::VmStatus;
use hearth_providers::transition::Verb;

use super::*;

fn status(error: Error) -> Status {
    Refusal::from(error).into_status(CallId::next())
}

fn vm_id() -> VmId {
    VmId::parse("a").unwrap()
}

#[test]
fn every_code_has_the_details_that_belong_to_it() {
    let retry_after = Duration::from_millis(30);
    let pool = || "p".to_owned();
    let unavailable = || VmRuntimeError::unavailable("it hangs", "cause");
    let errors = [
        Error::invalid("pool", "it is wrong"),
        Error::no_vm("a"),
        Error::NotFound { kind: Kind::Provider, name: "x".to_owned() },
        Error::AlreadyExists { kind: Kind::Pool, name: pool() },
        Error::InUse { kind: Kind::Template, name: "t".to_owned(), by: "pool p".to_owned() },
        Error::PoolEmpty { pool: pool(), retry_after },
        Error::ColdPathSaturated { pool: pool(), retry_after },
        Error::DeadlineTooShort { pool: pool(), retry_after },
        Error::QuotaExceeded { tenant: "t".to_owned(), max_vms: 3 },
        Error::RateLimited { tenant: "t".to_owned(), retry_after },
        Error::CapacityExhausted { what: "memory".to_owned(), retry_after },
        Error::PoolDraining { pool: pool() },
        Error::Draining,
        Error::Starting,
        Error::TemplateNotReady {
            template: "t".to_owned(),
            reason: "it is being built".to_owned(),
            retry_after: Some(retry_after),
        },
        Error::RequestIdReused { request_id: "r".to_owned() },
        Error::RequestLogFull,
        Error::LeaseExpired { vm: "a".to_owned() },
        Error::VmInPool { vm: "a".to_owned() },
        Error::EtagMismatch { kind: Kind::Pool, name: pool() },
        Error::RestoreFailed { pool: pool(), retry_after, source: unavailable() },
        Error::HandoverFailed { pool: pool(), source: unavailable() },
        Error::Storage { source: "disk full".into() },
        Error::Unimplemented { what: "identity" },
        Error::Internal("a mistake".to_owned()),
        VmRuntimeError::StopRequired { vm_id: vm_id() }.into(),
        VmRuntimeError::Unsupported { what: "rename".to_owned() }.into(),
        VmRuntimeError::Exhausted { what: "disk".to_owned(), retry_after: None }.into(),
        VmRuntimeError::Timeout { what: "it".to_owned(), after: retry_after }.into(),
        unavailable().into(),
        VmRuntimeError::backend("it broke", "cause").into(),
    ];
    for error in errors {
        let name = format!("{error:?}");
        let status = status(error);
        let details = status.get_error_details();
        assert!(StatusDetails::of(&status).reason.is_some(), "{name}");
        assert!(details.request_info().is_some(), "{name}");
        let retries = details.retry_info().is_some();
        match status.code() {
            Code::InvalidArgument => assert!(details.bad_request().is_some(), "{name}"),
            Code::NotFound | Code::AlreadyExists | Code::Aborted => {
                assert!(details.resource_info().is_some(), "{name}");
            }
            Code::FailedPrecondition => {
                assert!(details.precondition_failure().is_some(), "{name}");
            }
            Code::ResourceExhausted => {
                assert!(retries || details.quota_failure().is_some(), "{name}");
            }
            Code::DeadlineExceeded | Code::Unavailable => assert!(retries, "{name}"),
            Code::Unimplemented | Code::Internal => {}
            other => panic!("{name} became {other:?}"),
        }
    }
}

#[test]
fn reasons_are_the_contracts() {
    let reason = |error| StatusDetails::of(&status(error)).reason.unwrap();
    assert_eq!(reason(Error::no_vm("a")), "VM_NOT_FOUND");
    let snapshot = || hearth_providers::SnapshotId::parse("s").unwrap();
    let found = VmRuntimeError::SnapshotNotFound {
        vm: "a".to_owned(),
        snapshot_id: snapshot(),
        reason: "gone".to_owned(),
    };
    assert_eq!(reason(found.into()), "SNAPSHOT_NOT_FOUND");
    let exists = VmRuntimeError::SnapshotAlreadyExists { vm_id: vm_id(), snapshot_id: snapshot() };
    assert_eq!(reason(exists.into()), "SNAPSHOT_ALREADY_EXISTS");
    let (status, verb) = (VmStatus::Failed, Verb::Start);
    let invalid = VmRuntimeError::InvalidTransition { vm_id: vm_id(), status, verb };
    assert_eq!(reason(invalid.into()), "INVALID_TRANSITION");
    let in_use = Error::InUse { kind: Kind::Pool, name: "p".to_owned(), by: "x".to_owned() };
    assert_eq!(reason(in_use), "POOL_IN_USE");
}

#[test]
fn what_is_counted_has_the_reason_that_the_call_had() {
    let (retry_after, pool) = (Duration::ZERO, || "p".to_owned());
    let missed = [
        Error::PoolEmpty { pool: pool(), retry_after },
        Error::ColdPathSaturated { pool: pool(), retry_after },
        Error::DeadlineTooShort { pool: pool(), retry_after },
        Error::QuotaExceeded { tenant: "t".to_owned(), max_vms: 3 },
        Error::RateLimited { tenant: "t".to_owned(), retry_after },
        Error::CapacityExhausted { what: String::new(), retry_after },
        Error::RestoreFailed {
            pool: pool(),
            retry_after,
            source: VmRuntimeError::unavailable("it hangs", "cause"),
        },
        Error::TemplateNotReady { template: pool(), reason: String::new(), retry_after: None },
        Error::NotFound { kind: Kind::Pool, name: pool() },
        Error::PoolDraining { pool: pool() },
        Error::Draining,
        Error::Starting,
        Error::Storage { source: "disk full".into() },
    ];
    for error in missed {
        let told = reason(&error, CallId::next());
        assert_eq!(reason_of_counted(error.reason()), told);
    }
}

#[test]
fn an_acquire_says_twice_whether_it_left_something() {
    for allocated in [true, false] {
        let error = Error::Draining;
        let status = Refusal::Acquire { error, allocated }.into_status(CallId::next());
        assert_eq!(StatusDetails::of(&status).allocated, Some(allocated));
        assert_eq!(status.metadata().get(ALLOCATED).unwrap(), &allocated.to_string());
    }
}

#[test]
fn paths_of_ours_stay_here() {
    let error = VmRuntimeError::backend("read /var/lib/hearth/x (\"/tmp/y\")", "denied");
    let message = status(error.into()).message().to_owned();
    assert!(!message.contains("/var") && !message.contains("/tmp"), "{message}");
    let internal = status(Error::Internal("/var/lib/hearth is odd".to_owned()));
    assert!(!internal.message().contains("/var"));
}

#[test]
fn an_operations_error_reads_like_a_calls() {
    let error = of_operation(&Error::invalid("spec.kernel", "it is not there"));
    let status = hearth_proto::details::status_from_operation(&error);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(StatusDetails::of(&status).reason.as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations.len(), 1);
}
