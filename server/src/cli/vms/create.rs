//! `hearth vms create`: a VM outside of any pool, cold or from a snapshot.

use std::time::Duration;

use clap::Args;
use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1;

use crate::cli::context::{Context, new_request_id};
use crate::cli::error::{Error, Result};
use crate::cli::leases::bare_vm_id;
use crate::cli::output::print_one;
use crate::cli::spec::Spec;
use crate::cli::text::{parse_duration, parse_label};
use crate::cli::view::Vm;

/// Arguments of `hearth vms create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The name that it shall bear; the server picks one when not given.
    name: Option<String>,
    /// The provider to make it; the node's first when not given.
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    #[command(flatten)]
    spec: Spec,
    /// Start from this snapshot, vms/VM/snapshots/SNAPSHOT, in place of a cold boot.
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,
    /// With --from: the uid of the snapshot's VM, when that is gone or its name in use again.
    #[arg(long, value_name = "UID", requires = "from")]
    from_uid: Option<String>,
    /// With --from: leave it stopped.
    #[arg(long, requires = "from")]
    stopped: bool,
    /// How long it is yours.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// A label for the VM; may be given several times.
    #[arg(long = "label", short, value_parser = parse_label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// UUID of this call: the same one again gets the same VM. A fresh one when not given.
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    /// Check the request and make nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Create {
    /// Makes the VM and prints it.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let mut spec = self.spec.to_wire(&context.directory);
        if let Some(snapshot) = &self.from {
            if !self.spec.is_empty() {
                let why = "--from takes the machine from the snapshot: give no other part of it";
                return Err(Error::Usage(why.to_owned()));
            }
            let mut source = snapshot_ref(snapshot, self.from_uid)?;
            source.resume_immediately = !self.stopped;
            spec.restore_from = Some(source);
        }
        let request_id = self.request_id.unwrap_or_else(new_request_id);
        let request = v1::CreateVmRequest {
            vm_id: self.name.as_deref().map(bare_vm_id).unwrap_or_default().to_owned(),
            provider: self.provider.unwrap_or_default(),
            spec: Some(spec),
            ttl: self.ttl.map(duration_to_wire),
            labels: self.labels.into_iter().collect(),
            request_id,
            validate_only: self.dry_run,
        };
        let vm = context.client.vms.create_vm(request).await?.into_inner();
        print_one(context.format, &Vm::from(vm))
    }
}

/// Points at the snapshot of this name, by its VM's uid when that is given.
///
/// # Errors
/// [`Error::Usage`] when it is not `vms/VM/snapshots/SNAPSHOT`.
pub(crate) fn snapshot_ref(name: &str, uid: Option<String>) -> Result<v1::SnapshotRef> {
    let (vm, snapshot) = hearth_proto::names::parse_snapshot(name)
        .map_err(|error| Error::Usage(error.to_string()))?;
    let vm = match uid {
        Some(uid) => v1::snapshot_ref::Vm::Uid(uid),
        None => v1::snapshot_ref::Vm::VmId(vm.to_owned()),
    };
    Ok(v1::SnapshotRef { vm: Some(vm), snapshot_id: snapshot.to_owned(), ..Default::default() })
}
