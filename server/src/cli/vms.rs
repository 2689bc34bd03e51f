//! `hearth vms`: seeing VMs and using the ones that are one's own.

mod create;
mod describe;

use std::io::IsTerminal as _;

use clap::{Args, Subcommand, ValueEnum};
use hearth_proto::v1;

use super::ask::ask;
use super::context::{Context, PAGE_SIZE};
use super::error::Result;
use super::leases::bare_vm_id;
use super::output::{Format, print_as, print_json, print_list, print_one, write_out};
use super::text::{parse_label, printable, qualify};
use super::view::{Snapshot, Vm};
use super::watch;

pub(crate) use create::snapshot_ref;

/// `hearth vms`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List VMs, warm ones included (the default).
    #[command(visible_alias = "ls")]
    List(List),
    /// Tell of VMs as they come, change and go, a line for each event, until interrupted.
    Watch {
        /// Only those that match, as `state = RUNNING AND labels.team = "a b"`.
        #[arg(long, value_name = "EXPRESSION", default_value = "")]
        filter: String,
    },
    /// Show one VM.
    Get {
        /// The VM.
        name: String,
    },
    /// Show all that is known of one VM: its process, how it failed, how to reach it.
    Describe {
        /// The VM.
        name: String,
    },
    /// Make a VM of its own, outside of any pool. It has a lease like any other.
    Create(Box<create::Create>),
    /// Start a VM that was created or stopped.
    Start(Target),
    /// Stop a VM. Whether its memory is kept is the provider's: see `hearth node -o json`.
    Stop(Target),
    /// Give a VM another name.
    Rename {
        #[command(flatten)]
        target: Target,
        /// The name that it shall bear.
        new_name: String,
    },
    /// Destroy a VM.
    #[command(visible_alias = "rm")]
    Destroy(Target),
    /// Capture a VM's disks and, where the provider can, its memory.
    Snapshot(TakeSnapshot),
    /// Print what a VM wrote on its console.
    Console(Console),
    /// Ask a VM's agent one line and print the line it answers.
    Ask {
        /// The VM.
        name: String,
        /// The question, such as: ping
        line: String,
    },
}

/// A VM of the caller's.
#[derive(Args, Debug)]
struct Target {
    /// The VM.
    name: String,
    /// The uid that it must have, so that a later holder of the name is not hit.
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
}

impl Target {
    fn name(&self) -> String {
        qualify("vms", &self.name)
    }

    fn uid(&self) -> String {
        self.uid.clone().unwrap_or_default()
    }
}

/// Which VMs to list.
#[derive(Args, Debug, Default)]
struct List {
    /// Only those that match, as `state = RUNNING AND labels.team = "a b"`.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Only those of this pool.
    #[arg(long, short, value_name = "POOL")]
    pool: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those with this label; may be given several times.
    #[arg(long = "label", short, value_parser = parse_label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Go on showing what becomes of them, until interrupted.
    #[arg(long, short)]
    watch: bool,
}

/// What to capture.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SnapshotType {
    /// Memory and disks.
    Full,
    /// Memory that changed since the last snapshot, and disks.
    Diff,
    /// Disks alone.
    Disk,
}

/// Arguments of `hearth vms snapshot`.
#[derive(Args, Debug)]
struct TakeSnapshot {
    #[command(flatten)]
    target: Target,
    /// The snapshot's name among the VM's; the server picks one when not given.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What to capture; as much as the provider can when not given.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<SnapshotType>,
    /// Let the VM be stopped for it where the provider cannot do without.
    #[arg(long)]
    allow_stop: bool,
}

/// Arguments of `hearth console`, and of `hearth vms console`.
#[derive(Args, Debug)]
pub(crate) struct Console {
    #[command(flatten)]
    target: Target,
    /// Go on with what is written from now on, until the VM ends.
    #[arg(long, short)]
    follow: bool,
    /// Only this many bytes before the end.
    #[arg(long, value_name = "BYTES")]
    tail_bytes: Option<i64>,
    /// Pass control characters on to the terminal too.
    #[arg(long)]
    raw: bool,
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let format = context.format;
        let vms = &mut context.client.vms;
        let vm = match self.verb.unwrap_or_else(|| Verb::List(List::default())) {
            Verb::List(list) => return list.run(context).await,
            Verb::Watch { filter } => return watch::events::<Vm>(context, &filter).await,
            Verb::Create(create) => return create.run(context).await,
            Verb::Snapshot(snapshot) => return snapshot.run(context).await,
            Verb::Console(console) => return console.run(context).await,
            Verb::Get { name } => get(context, &name).await?,
            Verb::Describe { name } => {
                let vm = Vm::from(get(context, &name).await?);
                return print_as(format, &vm, &describe::text(&vm));
            }
            Verb::Ask { name, line } => {
                let answer = ask(context, &name, &line).await?;
                return match format {
                    Format::Json => print_json(&serde_json::json!({ "answer": answer })),
                    Format::Table | Format::Wide | Format::Name => {
                        write_out(format!("{}\n", printable(&answer)).as_bytes())
                    }
                };
            }
            Verb::Start(target) => {
                let (name, uid) = (target.name(), target.uid());
                let request = v1::StartVmRequest { name, uid, ..Default::default() };
                vms.start_vm(request).await?.into_inner()
            }
            Verb::Stop(target) => {
                let (name, uid) = (target.name(), target.uid());
                let request = v1::StopVmRequest { name, uid, ..Default::default() };
                vms.stop_vm(request).await?.into_inner()
            }
            Verb::Rename { target, new_name } => {
                let (name, uid) = (target.name(), target.uid());
                let new_vm_id = bare_vm_id(&new_name).to_owned();
                let request = v1::RenameVmRequest { name, uid, new_vm_id, ..Default::default() };
                vms.rename_vm(request).await?.into_inner()
            }
            Verb::Destroy(target) => {
                let (name, uid) = (target.name(), target.uid());
                let request = v1::DestroyVmRequest { name, uid, ..Default::default() };
                vms.destroy_vm(request).await?.into_inner()
            }
        };
        print_one(format, &Vm::from(vm))
    }
}

impl List {
    async fn run(self, context: &mut Context) -> Result<()> {
        let mut terms: Vec<String> = self.filter.into_iter().collect();
        terms.extend(self.pool.map(|pool| format!("pool = {}", quote(&qualify("pools", &pool)))));
        terms.extend(self.state.map(|state| format!("state = {}", state.to_uppercase())));
        let labels = self.labels.into_iter();
        terms.extend(labels.map(|(key, value)| format!("labels.{key} = {}", quote(&value))));
        let filter = terms.join(" AND ");
        if self.watch {
            return watch::follow::<Vm>(context, &filter).await;
        }
        let vms = all(context, filter).await?;
        print_list(context.format, "vms", &vms)
    }
}

/// All VMs that match.
pub(crate) async fn all(context: &mut Context, filter: String) -> Result<Vec<Vm>> {
    let mut request = v1::ListVmsRequest { page_size: PAGE_SIZE, filter, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = context.client.vms.list_vms(request.clone()).await?.into_inner();
        all.extend(page.vms.into_iter().map(Vm::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

impl TakeSnapshot {
    async fn run(self, context: &mut Context) -> Result<()> {
        use v1::snapshot_vm_request::Type;
        let kind = match self.kind {
            None => Type::Unspecified,
            Some(SnapshotType::Full) => Type::Full,
            Some(SnapshotType::Diff) => Type::Diff,
            Some(SnapshotType::Disk) => Type::Disk,
        };
        let request = v1::SnapshotVmRequest {
            name: self.target.name(),
            uid: self.target.uid(),
            snapshot_id: self.id.unwrap_or_default(),
            r#type: kind.into(),
            allow_stop: self.allow_stop,
            request_id: String::new(),
        };
        let snapshot = context.client.vms.snapshot_vm(request).await?.into_inner();
        print_one(context.format, &Snapshot::from(snapshot))
    }
}

impl Console {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let request = v1::ReadConsoleRequest {
            name: self.target.name(),
            uid: self.target.uid(),
            tail_bytes: self.tail_bytes.unwrap_or(0),
            follow: self.follow,
        };
        let shows_all = self.raw || !std::io::stdout().is_terminal();
        let mut pieces = context.client.vms.read_console(request).await?.into_inner();
        while let Some(piece) = pieces.message().await? {
            match shows_all {
                true => write_out(&piece.data)?,
                false => write_out(printable(&String::from_utf8_lossy(&piece.data)).as_bytes())?,
            }
        }
        Ok(())
    }
}

async fn get(context: &mut Context, name: &str) -> Result<v1::Vm> {
    let request = v1::GetVmRequest { name: qualify("vms", name) };
    Ok(context.client.vms.get_vm(request).await?.into_inner())
}

/// A value as filters want it.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
