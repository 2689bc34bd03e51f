//! `hearth snapshots`: what was captured of VMs. `hearth vms snapshot` captures.

use clap::{Args, Subcommand};
use hearth_proto::v1;

use super::context::{Context, PAGE_SIZE};
use super::error::Result;
use super::output::{print_as, print_list, print_one};
use super::text::qualify;
use super::view::Snapshot;
use super::watch;

/// `hearth snapshots`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List a VM's snapshots.
    #[command(visible_alias = "ls")]
    List {
        /// The VM.
        vm: String,
        /// Go on showing what becomes of them, until interrupted.
        #[arg(long, short)]
        watch: bool,
    },
    /// Show one snapshot.
    Get {
        /// vms/VM/snapshots/SNAPSHOT
        name: String,
    },
    /// Delete a snapshot that nothing needs.
    #[command(visible_alias = "rm")]
    Delete {
        /// vms/VM/snapshots/SNAPSHOT
        name: String,
    },
}

/// All snapshots of a VM.
async fn all(context: &mut Context, vm: &str) -> Result<Vec<Snapshot>> {
    let mut request = v1::ListSnapshotsRequest {
        parent: qualify("vms", vm),
        page_size: PAGE_SIZE,
        ..v1::ListSnapshotsRequest::default()
    };
    let mut all = Vec::new();
    loop {
        let page = context.client.vms.list_snapshots(request.clone()).await?.into_inner();
        all.extend(page.snapshots.into_iter().map(Snapshot::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let vms = &mut context.client.vms;
        match self.verb {
            Verb::List { vm, watch: true } => {
                let ask = async |context: &mut Context| all(context, &vm).await;
                watch::list(context, "snapshot", ask).await
            }
            Verb::List { vm, watch: false } => {
                print_list(context.format, "snapshots", &all(context, &vm).await?)
            }
            Verb::Get { name } => {
                let answer = vms.get_snapshot(v1::GetSnapshotRequest { name }).await?;
                print_one(context.format, &Snapshot::from(answer.into_inner()))
            }
            Verb::Delete { name } => {
                let request = v1::DeleteSnapshotRequest { name, ..Default::default() };
                let name = request.name.clone();
                vms.delete_snapshot(request).await?;
                let gone: Snapshot = v1::Snapshot { name, ..Default::default() }.into();
                print_as(context.format, &gone, &format!("deleted {}\n", gone.name))
            }
        }
    }
}
