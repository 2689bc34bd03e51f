//! `hearth operations`, and waiting for one with its progress shown.

use std::time::Duration;

use clap::{Args, Subcommand};
use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning as wire;
use tokio::time::Instant;

use super::context::{Context, PAGE_SIZE};
use super::error::{Error, Result, is_away};
use super::output::{print_list, print_one};
use super::progress::{Progress, Share};
use super::text::{qualify, short_duration};
use super::view::{Operation, metadata};
use super::watch;

/// How long one question about an operation waits for its end: how often its progress is seen.
const STEP: Duration = Duration::from_millis(500);
/// How long a server may not answer, as while it starts anew, before the command gives up.
const MOST_AWAY: Duration = Duration::from_secs(30);
/// Shortest time between two questions, for a server that answers early.
const PACE: Duration = Duration::from_millis(100);

/// `hearth operations`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List operations (the default).
    #[command(visible_alias = "ls")]
    List(List),
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

/// Which operations to list.
#[derive(Args, Debug, Default)]
struct List {
    /// Only those that match, as `done = false`.
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    filter: String,
    /// Go on showing what becomes of them, until interrupted.
    #[arg(long, short)]
    watch: bool,
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
        match self.verb.unwrap_or_else(|| Verb::List(List::default())) {
            Verb::List(List { filter, watch: true }) => {
                let ask = async |context: &mut Context| all(context, filter.clone()).await;
                watch::list(context, "operation", ask).await
            }
            Verb::List(List { filter, watch: false }) => {
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

/// Waits until `operation` is done and shows meanwhile how far it is; also while the server is away for a
/// little, which an operation outlives.
///
/// # Errors
/// The operation's own; [`Error::TimedOut`] when the caller's time is up, or the server is away for long, while the
/// operation goes on.
pub(crate) async fn finish(
    context: &mut Context,
    mut operation: wire::Operation,
) -> Result<wire::Operation> {
    let deadline = Instant::now() + context.wait;
    let mut progress = Progress::begin(context.quiet);
    let goes_on = format!("it goes on: hearth operations wait {}", operation.name);
    context.goes_on = Some(goes_on.clone());
    let mut away_since = None;
    loop {
        let is = metadata(&operation);
        if !is.stage.is_empty() {
            let done = u64::try_from(is.progress_percent).unwrap_or(0);
            let what = format!("{} ({done}%)", is.stage.replace('_', " "));
            progress.show(&is.target, Share { done, of: 100 }, &what);
        }
        if operation.done {
            context.goes_on = None;
        }
        if let Some(wire::operation::Result::Error(error)) = &operation.result {
            return Err(hearth_proto::details::status_from_operation(error).into());
        }
        if operation.done {
            return Ok(operation);
        }
        let asked = Instant::now();
        if asked >= deadline {
            let (name, after) = (&operation.name, short_duration(context.wait));
            return Err(Error::TimedOut(format!("{name} is not done after {after}; {goes_on}")));
        }
        let request = wire::WaitOperationRequest {
            name: operation.name.clone(),
            timeout: Some(duration_to_wire(STEP.min(deadline - asked))),
        };
        match context.client.operations.wait_operation(request).await {
            Ok(answer) => (operation, away_since) = (answer.into_inner(), None),
            Err(status) if is_away(&status) => {
                if *away_since.get_or_insert(asked) + MOST_AWAY <= asked {
                    let (why, after) = (status.message(), short_duration(MOST_AWAY));
                    let why = format!("the server has not answered for {after} ({why}); {goes_on}");
                    return Err(Error::TimedOut(why));
                }
                let what = "the server does not answer, and is asked again";
                progress.show(&operation.name, Share { done: 0, of: 100 }, what);
            }
            Err(status) => return Err(status.into()),
        }
        if !operation.done {
            tokio::time::sleep_until(asked + PACE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hearth_proto::{ClientOptions, Credentials, HearthClient};

    use super::super::output::Format;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_away_is_not_waited_for_until_the_timeout() {
        const HOUR: Duration = Duration::from_secs(3600);
        let options = ClientOptions {
            connect_timeout: HOUR,
            request_timeout: HOUR,
            ..ClientOptions::default()
        };
        let nowhere = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", nowhere.path().join("socket").display());
        let client =
            HearthClient::connect_lazy_as(&address, options, &Credentials::default()).unwrap();
        let (format, directory, goes_on) = (Format::default(), PathBuf::new(), None);
        let (timeout, wait, quiet) = (HOUR, HOUR, true);
        let mut context = Context { client, format, timeout, wait, directory, quiet, goes_on };
        let begun = Instant::now();
        let operation = wire::Operation { name: "operations/o".to_owned(), ..Default::default() };
        let error = finish(&mut context, operation).await.unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error:?}");
        let Error::TimedOut(why) = error else { panic!("{error:?}") };
        assert!(why.contains("has not answered for 30s"), "{why}");
        assert!(why.contains("hearth operations wait operations/o"), "{why}");
        assert!(begun.elapsed() < 2 * MOST_AWAY, "{:?}", begun.elapsed());
    }
}
