//! `hearth node`: the server that answers.

use clap::{Args, Subcommand};
use hearth_proto::v1;

use super::context::Context;
use super::error::Result;
use super::output::{Format, print_json, print_one, write_out};
use super::view::Node;

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
    Drain,
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

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let node = &mut context.client.node;
        let answer = match self.verb.unwrap_or(Verb::Get) {
            Verb::Get => node.get_node(v1::GetNodeRequest::default()).await?,
            Verb::Drain => node.drain(v1::DrainRequest::default()).await?,
            Verb::Undrain => node.undrain(v1::UndrainRequest::default()).await?,
            Verb::LogLevel { level } => {
                let request = v1::SetLogLevelRequest { level, ..Default::default() };
                let (now, answer) = (request.level.clone(), node.set_log_level(request).await?);
                let previous_level = answer.into_inner().previous_level;
                return match context.format {
                    Format::Json => {
                        print_json(&serde_json::json!({ "previous_level": previous_level }))
                    }
                    Format::Table | Format::Name => {
                        write_out(format!("logs {now}; it was {previous_level}\n").as_bytes())
                    }
                };
            }
        };
        print_one(context.format, &Node::from(answer.into_inner()))
    }
}
