//! `hearth operations`, and waiting for one with its progress shown.

use std::time::Duration;

use clap::{Args, Subcommand};
use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning as wire;
use tokio::time::Instant;

use super::context::{Context, PAGE_SIZE};
use super::error::{Error, Result};
use super::output::{note, print_list, print_one};
use super::text::{qualify, short_duration};
use super::view::{Operation, metadata};

/// How long one question about an operation waits for its end: how often its progress is seen.
const STEP: Duration = Duration::from_millis(500);
/// Shortest time between two questions, for a server that answers early.
const PACE: Duration = Duration::from_millis(100);

/// `hearth operations`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List operations.
    List {
        /// Only those that match, as `done = false`.
        #[arg(long, default_value = "")]
        filter: String,
    },
    /// Show one operation.
    Get {
        /// The operation.
        name: String,
    },
    /// Wait until an operation is done; fails when it failed.
    Wait {
        /// The operation.
        name: String,
    },
}

/// All operations that match.
pub(crate) async fn all(context: &mut Context, filter: String) -> Result<Vec<Operation>> {
    let mut request = wire::ListOperationsRequest {
        name: "operations".to_owned(),
        filter,
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        let page = context.client.operations.list_operations(request.clone()).await?.into_inner();
        all.extend(page.operations.into_iter().map(Operation::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        match self.verb {
            Verb::List { filter } => {
                print_list(context.format, "operations", &all(context, filter).await?)
            }
            Verb::Get { name } => {
                let request = wire::GetOperationRequest { name: qualify("operations", &name) };
                let answer = context.client.operations.get_operation(request).await?;
                print_one(context.format, &Operation::from(answer.into_inner()))
            }
            Verb::Wait { name } => {
                let request = wire::GetOperationRequest { name: qualify("operations", &name) };
                let answer = context.client.operations.get_operation(request).await?.into_inner();
                let done = finish(context, answer).await?;
                print_one(context.format, &Operation::from(done))
            }
        }
    }
}

/// Waits until `operation` is done and says on standard error what it does meanwhile.
///
/// # Errors
/// The operation's own; [`Error::TimedOut`] when the caller's time is up, while the operation goes on.
pub(crate) async fn finish(
    context: &mut Context,
    mut operation: wire::Operation,
) -> Result<wire::Operation> {
    let deadline = Instant::now() + context.wait;
    let mut told = (String::new(), -1);
    loop {
        let progress = metadata(&operation);
        let now = (progress.stage, progress.progress_percent);
        if now != told && !now.0.is_empty() {
            note(&format!("{}: {} ({}%)", progress.target, now.0, now.1));
            told = now;
        }
        if let Some(wire::operation::Result::Error(error)) = &operation.result {
            return Err(hearth_proto::details::status_from_operation(error).into());
        }
        if operation.done {
            return Ok(operation);
        }
        let asked = Instant::now();
        if asked >= deadline {
            return Err(Error::TimedOut(format!(
                "{name} is not done after {}; it goes on: hearth operations wait {name}",
                short_duration(context.wait),
                name = operation.name,
            )));
        }
        let request = wire::WaitOperationRequest {
            name: operation.name.clone(),
            timeout: Some(duration_to_wire(STEP.min(deadline - asked))),
        };
        operation = context.client.operations.wait_operation(request).await?.into_inner();
        if !operation.done {
            tokio::time::sleep_until(asked + PACE).await;
        }
    }
}
