//! `hearth freeze`, `hearth resume`, `hearth artifacts`: VMs that are kept, and begun again.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hearth_proto::StatusDetails;
use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::v1;
use hearth_proto::v1::resume_vm_request::Source;
use prost::Message as _;

mod export;

use super::context::{Context, PAGE_SIZE, new_request_id};
use super::error::{Error, Result};
use super::operations;
use super::output::{print_as, print_list, print_one, write_out};
use super::text::{parse_duration, parse_label, qualify};
use super::view::{Artifact, Vm};
use super::watch;

/// Arguments of `hearth freeze`.
#[derive(Args, Debug)]
pub(crate) struct Freeze {
    /// The VM.
    vm: String,
    /// What to call the artifact; the server picks a name when not given.
    #[arg(long, value_name = "ARTIFACT")]
    artifact: Option<String>,
    /// How long to keep it; as the server says when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// Stop the VM without asking, where its provider cannot do without.
    #[arg(long, short)]
    yes: bool,
}

/// Arguments of `hearth resume`.
#[derive(Args, Debug)]
pub(crate) struct Resume {
    /// An artifact, or a VM that was frozen: its latest artifact. An artifact of that name is
    /// taken first; vms/NAME means the VM.
    from: String,
    /// The name of the new VM; as the frozen one was called, if that is free, when not given.
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
    /// How long it is yours; as the server says when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// A label for it; can be given several times.
    #[arg(long = "label", value_parser = parse_label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
}

/// `hearth artifacts`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List artifacts (the default).
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one artifact.
    Get {
        /// The artifact.
        artifact: String,
    },
    /// Write an artifact's data to a file, to take it elsewhere.
    Export {
        /// The artifact.
        artifact: String,
        /// The file, which must not be there yet; `-` is standard output. ARTIFACT.tar when not
        /// given.
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Delete artifacts that no VM runs from.
    #[command(visible_alias = "rm")]
    Delete {
        /// The artifacts.
        #[arg(required = true)]
        artifacts: Vec<String>,
    },
}

/// Which artifacts to list.
#[derive(Args, Debug, Default)]
struct List {
    /// Only those that match, as `vm = "vms/NAME"`.
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    filter: String,
    /// Go on showing what becomes of them, until interrupted.
    #[arg(long, short)]
    watch: bool,
}

impl Freeze {
    /// Freezes, and asks before it stops a VM.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let request = |allow_stop| v1::FreezeVmRequest {
            name: qualify("vms", &self.vm),
            artifact_id: self.artifact.clone().unwrap_or_default(),
            allow_stop,
            ttl: self.ttl.map(duration_to_wire),
            request_id: new_request_id(),
            ..v1::FreezeVmRequest::default()
        };
        let frozen = match freeze(context, request(self.yes)).await {
            Err(error) if is_stop_required(&error) => {
                if !io::stdin().is_terminal() {
                    return Err(error.with_hint("--yes stops it"));
                }
                if !asked_to_stop(&self.vm).await? {
                    return write_out(b"cancelled\n");
                }
                freeze(context, request(true)).await?
            }
            frozen => frozen?,
        };
        let artifact = Artifact::from(frozen);
        let text = format!("frozen {} into {}\n{}\n", self.vm, artifact.name, artifact.resume_hint);
        print_as(context.format, &artifact, &text)
    }
}

async fn freeze(context: &mut Context, request: v1::FreezeVmRequest) -> Result<v1::Artifact> {
    let begun = context.client.vms.freeze_vm(request).await?.into_inner();
    let done = operations::finish(context, begun).await?;
    let Some(Ended::Response(made)) = done.result else {
        return Err(Error::Failed("the server does not say what it made".to_owned()));
    };
    v1::Artifact::decode(made.value.as_slice())
        .map_err(|error| Error::Failed(format!("the server's answer cannot be read: {error}")))
}

fn is_stop_required(error: &Error) -> bool {
    let Error::Server { status, .. } = error else { return false };
    StatusDetails::of(status).reason.as_deref() == Some("STOP_REQUIRED")
}

/// Asks on the terminal. A thread of its own reads the answer, so that an interrupt is heard meanwhile.
async fn asked_to_stop(vm: &str) -> Result<bool> {
    let failed = |error: io::Error| Error::Failed(format!("cannot ask: {error}"));
    let mut stderr = io::stderr();
    write!(stderr, "{vm} must be stopped to be frozen. Stop it? [y/N] ")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let (said, answer) = tokio::sync::oneshot::channel();
    let read = move || {
        let mut line = String::new();
        // Who asked may have been interrupted.
        let _ = said.send(io::stdin().read_line(&mut line).map(|_| line));
    };
    std::thread::Builder::new().name("answer".to_owned()).spawn(read).map_err(failed)?;
    let gone = |_| Error::Failed("cannot ask: nobody reads the answer".to_owned());
    let line = answer.await.map_err(gone)?.map_err(failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

impl Resume {
    /// Resumes, and says what from.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let source = match self.from.split_once('/') {
            Some(("vms", _)) => Source::Name(self.from.clone()),
            Some(_) => Source::Artifact(self.from.clone()),
            None => {
                let name = qualify("artifacts", &self.from);
                let request = v1::GetArtifactRequest { name: name.clone() };
                match context.client.artifacts.get_artifact(request).await.map_err(Error::from) {
                    Ok(_) => Source::Artifact(name),
                    Err(error) if error.is_not_found() => Source::Name(qualify("vms", &self.from)),
                    Err(error) => return Err(error),
                }
            }
        };
        let request = v1::ResumeVmRequest {
            source: Some(source),
            vm_id: self.name.unwrap_or_default(),
            ttl: self.ttl.map(duration_to_wire),
            labels: self.labels.into_iter().collect(),
            request_id: new_request_id(),
            ..v1::ResumeVmRequest::default()
        };
        let vm = context.client.vms.resume_vm(request).await?.into_inner();
        let from = match vm.origin() {
            v1::vm::Origin::Template => {
                format!("anew from {}: the artifact's data is gone", vm.template)
            }
            _ => "from the artifact".to_owned(),
        };
        let vm = Vm::from(vm);
        print_as(context.format, &vm, &format!("resumed {} {from}\n", vm.name))
    }
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        match self.verb.unwrap_or_else(|| Verb::List(List::default())) {
            Verb::List(List { filter, watch: true }) => {
                let ask = async |context: &mut Context| all(context, filter.clone()).await;
                watch::list(context, "artifact", ask).await
            }
            Verb::List(List { filter, watch: false }) => {
                print_list(context.format, "artifacts", &all(context, filter).await?)
            }
            Verb::Get { artifact } => {
                let name = qualify("artifacts", &artifact);
                let request = v1::GetArtifactRequest { name };
                let answer = context.client.artifacts.get_artifact(request).await?;
                print_one(context.format, &Artifact::from(answer.into_inner()))
            }
            Verb::Export { artifact, file } => {
                export::run(context, &qualify("artifacts", &artifact), file).await
            }
            Verb::Delete { artifacts } => {
                for artifact in artifacts {
                    let name = qualify("artifacts", &artifact);
                    let request = v1::DeleteArtifactRequest {
                        name: name.clone(),
                        request_id: new_request_id(),
                        ..v1::DeleteArtifactRequest::default()
                    };
                    context.client.artifacts.delete_artifact(request).await?;
                    let gone: Artifact = v1::Artifact { name, ..Default::default() }.into();
                    print_as(context.format, &gone, &format!("deleted {}\n", gone.name))?;
                }
                Ok(())
            }
        }
    }
}

/// All artifacts that match.
async fn all(context: &mut Context, filter: String) -> Result<Vec<Artifact>> {
    let mut request =
        v1::ListArtifactsRequest { page_size: PAGE_SIZE, filter, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = context.client.artifacts.list_artifacts(request.clone()).await?.into_inner();
        all.extend(page.artifacts.into_iter().map(Artifact::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}
