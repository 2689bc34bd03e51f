//! `hearth node`: the server that answers.

use std::time::Duration;

use clap::{Args, Subcommand};
use hearth_proto::v1;
use tokio::time::Instant;
use tonic::Response;

use super::context::Context;
use super::error::{Error, Result};
use super::output::{Format, print_json, print_one, write_out};
use super::progress::{Progress, Share};
use super::text::short_duration;
use super::view::Node;

/// How often a node that drains is looked at.
const PACE: Duration = Duration::from_millis(250);

/// `hearth node`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Show providers, capacity and bounds (the default).
    Get,
    /// Take no more acquires and empty the pools; leases stay.
    Drain {
        /// Wait until no VM is left: warm ones go at once, others when they are released or their leases end.
        #[arg(long)]
        wait: bool,
    },
    /// Fill the pools and take acquires again.
    Undrain,
    /// Change what the server logs, until it restarts.
    LogLevel {
        /// error, warn, info, debug or trace, or by target: info,hearth_pool=debug
        level: String,
    },
}

/// What the server says of itself.
pub(crate) async fn get(context: &mut Context) -> Result<Node> {
    let node = context.client.node.get_node(v1::GetNodeRequest::default()).await?;
    Ok(node.into_inner().into())
}

/// Waits until the node has no VM left.
///
/// # Errors
/// [`Error::TimedOut`] with how many are left; the server's.
async fn until_empty(context: &mut Context) -> Result<Response<v1::Node>> {
    let deadline = Instant::now() + context.wait;
    let mut progress = Progress::begin(context.quiet);
    let mut most = 0;
    loop {
        let asked = Instant::now();
        let node = context.client.node.get_node(v1::GetNodeRequest::default()).await?;
        let left = node.get_ref().capacity.unwrap_or_default().live_vms;
        if left == 0 {
            return Ok(node);
        }
        most = most.max(left);
        let what = format!("{left} VMs left; whose: hearth vms list");
        if asked + PACE >= deadline {
            let after = short_duration(context.wait);
            return Err(Error::TimedOut(format!("after {after} the node has {what}")));
        }
        let count = |count: i32| u64::try_from(count).unwrap_or(0);
        let share = Share { done: count(most - left), of: count(most) };
        progress.show("draining", share, &what);
        tokio::time::sleep_until(asked + PACE).await;
    }
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let node = &mut context.client.node;
        let answer = match self.verb.unwrap_or(Verb::Get) {
            Verb::Get => node.get_node(v1::GetNodeRequest::default()).await?,
            Verb::Drain { wait } => {
                let drained = node.drain(v1::DrainRequest::default()).await?;
                if wait { until_empty(context).await? } else { drained }
            }
            Verb::Undrain => node.undrain(v1::UndrainRequest::default()).await?,
            Verb::LogLevel { level } => {
                let request = v1::SetLogLevelRequest { level, ..Default::default() };
                let (now, answer) = (request.level.clone(), node.set_log_level(request).await?);
                let previous_level = answer.into_inner().previous_level;
                return match context.format {
                    Format::Json => {
                        print_json(&serde_json::json!({ "previous_level": previous_level }))
                    }
                    Format::Table | Format::Wide | Format::Name => {
                        write_out(format!("logs {now}; it was {previous_level}\n").as_bytes())
                    }
                };
            }
        };
        print_one(context.format, &Node::from(answer.into_inner()))
    }
}
