//! Operations on the wire.

use hearth_pool::operations::{Operation, Outcome, Target};
use hearth_proto::google::longrunning;
use hearth_proto::{names, v1};
use prost_types::Any;

use super::time;
use crate::status;

/// An operation; what came of it is `made`, as it stands now.
pub(crate) fn to_wire(
    operation: &Operation,
    made: impl FnOnce() -> Option<Any>,
) -> longrunning::Operation {
    use longrunning::operation::Result as Ended;
    let metadata = v1::OperationMetadata {
        verb: operation.verb.clone().into_owned(),
        target: match &operation.target {
            Target::Template(id) => names::TEMPLATES.name(id.as_str()),
            Target::Artifact(id) => names::ARTIFACTS.name(id.as_str()),
        },
        stage: operation.stage.replace(' ', "_"),
        progress_percent: i32::try_from(operation.percent).unwrap_or(100),
        create_time: time(operation.create_time),
        update_time: time(operation.update_time),
    };
    let result = operation.outcome.as_ref().map(|outcome| match outcome {
        // It may have been deleted since.
        Outcome::Done => Ended::Response(made().unwrap_or_default()),
        Outcome::Failed(error) => Ended::Error(status::of_operation(error)),
    });
    longrunning::Operation {
        name: names::OPERATIONS.name(&operation.id),
        metadata: Some(any(&metadata)),
        done: result.is_some(),
        result,
    }
}

/// An operation that was only to be checked: done, with what would be made.
pub(crate) fn checked(template: &v1::Template) -> longrunning::Operation {
    longrunning::Operation {
        name: String::new(),
        metadata: None,
        done: true,
        result: Some(longrunning::operation::Result::Response(any(template))),
    }
}

/// A message, with its type.
pub(crate) fn any<M: prost::Message + prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
