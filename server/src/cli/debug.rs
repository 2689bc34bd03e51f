//! `hearth debug bundle`: what a bug report needs, in one file, without what is nobody's business.
//!
//! A server that is sick is when it is wanted, so each part stands alone: what cannot be had is there as
//! the reason why, and the rest is collected all the same.

mod host;
mod redact;

use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use hearth_providers::env::{Env as _, SystemEnv};
use serde::Serialize;

use super::context::Context;
use super::error::{Error, Result};
use super::output::{Format, print_json, write_out};
use super::view::Node;
use super::{node, operations, pools, templates, vms};

/// How long a part may take: a server that hangs is a reason to collect, not to wait.
const PART_TIMEOUT: Duration = Duration::from_secs(15);

/// What is in the bundle, for who opens it.
const ABOUT: &str = "\
Collected by `hearth debug bundle`. *.json are the answers of the server, doctor-*.json and host.txt are of the
machine that the command ran on, metrics.txt and server.log are there where they were asked for. A part that could
not be had is there as NAME.error.txt.

Left out: values of labels, boot arguments, what guests are asked and commands, consoles. Names of VMs, pools,
templates and tenants, paths and addresses are in it.
";

/// `hearth debug`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Collect what a bug report needs into a tar file, without secrets; read it before you send it.
    Bundle(Bundle),
}

#[derive(Args, Debug)]
struct Bundle {
    /// The file; it must not be there [default: hearth-debug-TIME.tar].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where the server's metrics are; empty: none are collected.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7071/metrics")]
    metrics: String,
    /// The server's log, of which the last 4 MiB are collected.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let Verb::Bundle(bundle) = self.verb;
        bundle.run(context).await
    }
}

impl Bundle {
    async fn run(self, context: &mut Context) -> Result<()> {
        let since = SystemEnv.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let file = self.file.unwrap_or_else(|| format!("hearth-debug-{since}.tar").into());
        let mut parts = Parts::create(file, since)?;
        parts.add("README.txt", Ok(ABOUT.as_bytes().to_vec()))?;
        parts.add("host.txt", Ok(host::describe().into_bytes()))?;

        let node = part(node::get(context)).await;
        let kinds = host::kinds(node.as_ref().ok());
        parts.add_json("node.json", node)?;
        let pools = part(pools::all(context, String::new())).await;
        let names: Vec<_> = pools.iter().flatten().map(|pool| pool.name.clone()).collect();
        parts.add_json("pools.json", pools)?;
        for name in names {
            let id = name.rsplit('/').next().unwrap_or(&name);
            let explained = part(pools::explanation(context, &name)).await;
            parts.add_json(&format!("pools/{id}.json"), explained)?;
        }
        parts.add_json("templates.json", part(templates::all(context, String::new())).await)?;
        parts.add_json("vms.json", part(vms::all(context, String::new())).await)?;
        parts.add_json("operations.json", part(operations::all(context, String::new())).await)?;

        for kind in kinds {
            let looked = part(host::doctor(kind.clone())).await;
            parts.add(&format!("doctor-{kind}.json"), looked)?;
        }
        if !self.metrics.is_empty() {
            parts.add("metrics.txt", part(host::metrics(&self.metrics)).await)?;
        }
        if let Some(log) = &self.log {
            parts.add("server.log", host::tail(log))?;
        }
        parts.finish(context.format)
    }
}

/// Waits for a part, and no longer than parts may take.
async fn part<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::TimedOut("no answer in time".to_owned());
    tokio::time::timeout(PART_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
}

/// The file, as far as it is written.
struct Parts {
    path: PathBuf,
    tar: tar::Builder<std::fs::File>,
    time: u64,
    missing: Vec<String>,
}

impl Parts {
    fn create(path: PathBuf, time: u64) -> Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
        Ok(Self { path, tar: tar::Builder::new(file), time, missing: Vec::new() })
    }

    fn add(&mut self, name: &str, content: Result<Vec<u8>>) -> Result<()> {
        let (name, content) = match content {
            Ok(content) => (name.to_owned(), content),
            Err(error) => {
                self.missing.push(name.to_owned());
                (format!("{name}.error.txt"), format!("{}\n", error.to_text()).into_bytes())
            }
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let written = self.tar.append_data(&mut header, name, content.as_slice());
        written.map_err(|error| Error::Failed(format!("{}: {error}", self.path.display())))
    }

    fn add_json(&mut self, name: &str, answer: Result<impl Serialize>) -> Result<()> {
        let content = answer.and_then(|answer| {
            let shown = |error| Error::Failed(format!("an answer cannot be shown: {error}"));
            let mut value = serde_json::to_value(answer).map_err(shown)?;
            redact::redact(&mut value);
            serde_json::to_vec_pretty(&value).map_err(shown)
        });
        self.add(name, content)
    }

    fn finish(self, format: Format) -> Result<()> {
        let Self { path, tar, missing, .. } = self;
        let failed = |error| Error::Failed(format!("{}: {error}", path.display()));
        let mut file = tar.into_inner().map_err(failed)?;
        file.flush().and_then(|()| file.sync_all()).map_err(failed)?;
        let shown = path.display().to_string();
        match format {
            Format::Json => print_json(&serde_json::json!({ "file": shown, "missing": missing })),
            Format::Name => write_out(format!("{shown}\n").as_bytes()),
            Format::Table | Format::Wide => {
                let without = match missing.as_slice() {
                    [] => String::new(),
                    missing => format!("; could not be had: {}", missing.join(", ")),
                };
                let read = "read it before you send it: `tar -xOf FILE` prints all of it";
                write_out(format!("collected into {shown}{without}\n{read}\n").as_bytes())
            }
        }
    }
}

/// Of the node's answer, what `doctor` calls its providers' kinds.
fn kinds_of(node: &Node) -> impl Iterator<Item = String> {
    node.providers.iter().map(|provider| provider.kind.replace('_', "-"))
}
