//! A long-running operation, as it is shown.

use std::time::SystemTime;

use hearth_proto::client::operation_response;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::{StatusDetails, google, v1};
use serde::Serialize;

use super::{Template, Time};
use crate::cli::error::code_name;
use crate::cli::output::{Show, Tone};
use crate::cli::text::{id_of, since};

/// An operation. What it made is given for those that make templates.
#[derive(Debug, Serialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) done: bool,
    pub(crate) verb: String,
    pub(crate) target: String,
    pub(crate) stage: String,
    pub(crate) progress_percent: i32,
    pub(crate) create_time: Option<Time>,
    pub(crate) update_time: Option<Time>,
    pub(crate) error: Option<OperationError>,
    pub(crate) template: Option<Template>,
}

/// How an operation failed.
#[derive(Debug, Serialize)]
pub(crate) struct OperationError {
    pub(crate) code: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) message: String,
}

impl From<google::longrunning::Operation> for Operation {
    fn from(operation: google::longrunning::Operation) -> Self {
        let metadata = metadata(&operation);
        let error = match &operation.result {
            Some(Ended::Error(error)) => {
                let status = hearth_proto::details::status_from_operation(error);
                Some(OperationError {
                    code: code_name(status.code()),
                    reason: StatusDetails::of(&status).reason,
                    message: status.message().to_owned(),
                })
            }
            Some(Ended::Response(_)) | None => None,
        };
        let template = operation_response::<v1::Template>(&operation).ok().map(Template::from);
        Self {
            name: operation.name,
            done: operation.done,
            verb: metadata.verb,
            target: metadata.target,
            stage: metadata.stage,
            progress_percent: metadata.progress_percent,
            create_time: metadata.create_time.map(Time),
            update_time: metadata.update_time.map(Time),
            error,
            template,
        }
    }
}

/// What an operation says about itself; nothing when it is of a kind that this client does not know.
pub(crate) fn metadata(operation: &google::longrunning::Operation) -> v1::OperationMetadata {
    let metadata = operation.metadata.as_ref();
    metadata.and_then(|any| any.to_msg().ok()).unwrap_or_default()
}

impl Show for Operation {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "VERB", "TARGET", "DONE", "STAGE", "PROGRESS", "AGE", "ERROR"];

    fn name(&self) -> &str {
        &self.name
    }

    fn row(&self, now: SystemTime) -> Vec<String> {
        vec![
            id_of(&self.name).to_owned(),
            self.verb.clone(),
            self.target.clone(),
            if self.done { "yes" } else { "no" }.to_owned(),
            self.stage.clone(),
            format!("{}%", self.progress_percent),
            since(self.create_time.as_ref().map(|time| &time.0), now),
            self.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        ]
    }

    fn tone(&self, heading: &str) -> Tone {
        match (heading, &self.error) {
            ("DONE" | "ERROR", Some(_)) => Tone::Bad,
            ("DONE", None) if self.done => Tone::Good,
            _ => Tone::Plain,
        }
    }

    fn line(&self) -> String {
        let Self { name, verb, target, .. } = self;
        let how = match &self.error {
            Some(error) => format!("failed: {}", error.message),
            None if self.done => "done".to_owned(),
            None => format!("{} {}%", self.stage, self.progress_percent),
        };
        format!("{name} {verb} {target} {how}")
    }
}
