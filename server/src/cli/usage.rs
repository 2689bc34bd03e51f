//! `hearth usage`: what VMs and snapshots take on disk.

use clap::Args;
use hearth_proto::v1;

use super::context::Context;
use super::error::Result;
use super::output::print_list;
use super::view::Usage;

/// `hearth usage`.
#[derive(Args, Debug)]
pub(crate) struct Command {}

impl Command {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let request = v1::GetNodeRequest { with_usage: true };
        let node = context.client.node.get_node(request).await?.into_inner();
        let used: Vec<_> = node.usage.into_iter().map(Usage::from).collect();
        print_list(context.format, "usage", &used)
    }
}
