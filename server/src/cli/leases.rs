//! `hearth acquire`, `release`, `renew`: taking VMs, giving them back, keeping them longer.

use std::time::Duration;

use clap::{Args, ValueEnum};
use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::{LeasedVm, v1};
use hearth_providers::env::{Env as _, SystemEnv};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::context::{Context, new_request_id};
use super::error::{Error, Result};
use super::output::{Format, Show, facts, note, print_as, print_json, print_one, write_out};
use super::text::{parse_duration, parse_label, qualify, until, wire_milliseconds};
use super::view::{Span, Vm, value_name};

/// What to do when nothing is warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Overflow {
    /// Wait, and let a restore be added for this caller.
    WarmElseCold,
    /// Wait for the pool's own refill.
    Wait,
    /// Fail at once.
    WarmOnly,
    /// Take no warm VM; restore one for this caller.
    ColdOnly,
}

impl Overflow {
    pub(crate) fn to_wire(self) -> i32 {
        use v1::pool::Overflow as Wire;
        let wire = match self {
            Self::WarmElseCold => Wire::WarmElseCold,
            Self::Wait => Wire::Wait,
            Self::WarmOnly => Wire::WarmOnly,
            Self::ColdOnly => Wire::ColdOnly,
        };
        wire.into()
    }
}

/// Arguments of `hearth acquire`.
#[derive(Args, Debug)]
pub(crate) struct Acquire {
    /// The pool to take it from.
    #[arg(long, short, default_value = "default", value_name = "POOL")]
    pool: String,
    /// The name that it shall bear; the server picks one when not given.
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
    /// How long it is yours; as the pool says when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// UUID of this acquire: the same one again gets the same VM. A fresh one when not given.
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    /// What to do when nothing is warm; as the pool says when not given.
    #[arg(long, value_enum, value_name = "POLICY")]
    overflow: Option<Overflow>,
    /// A label for the VM; may be given several times.
    #[arg(long = "label", short, value_parser = parse_label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Check the request and take nothing.
    #[arg(long)]
    dry_run: bool,
    /// Keep it: renew its lease until this command is interrupted, and release it then. Tries again when the
    /// server says that it helps.
    #[arg(long, conflicts_with = "dry_run")]
    hold: bool,
}

/// An acquired VM, as it is shown.
#[derive(Debug, Serialize)]
struct Acquired {
    vm: Vm,
    source: String,
    replayed: bool,
    request_id: String,
    timing: Timing,
}

/// Time that an acquire spent in each stage.
#[derive(Debug, Default, Serialize)]
struct Timing {
    queue: Option<Span>,
    select: Option<Span>,
    commit: Option<Span>,
    resume: Option<Span>,
    identity: Option<Span>,
    restore: Option<Span>,
    total: Option<Span>,
}

impl From<v1::Timing> for Timing {
    fn from(timing: v1::Timing) -> Self {
        Self {
            queue: timing.queue.map(Span),
            select: timing.select.map(Span),
            commit: timing.commit.map(Span),
            resume: timing.resume.map(Span),
            identity: timing.identity.map(Span),
            restore: timing.restore.map(Span),
            total: timing.total.map(Span),
        }
    }
}

impl Acquire {
    /// Whether it keeps the VM, and gives it back when it is interrupted.
    pub(crate) const fn holds(&self) -> bool {
        self.hold
    }

    /// Acquires a VM and prints it.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let request_id = self.request_id.unwrap_or_else(new_request_id);
        let request = v1::AcquireVmRequest {
            pool: qualify("pools", &self.pool),
            vm_id: self.name.as_deref().map(bare_vm_id).unwrap_or_default().to_owned(),
            request_id: request_id.clone(),
            expiration: self.ttl.map(|ttl| Expiration::Ttl(duration_to_wire(ttl))),
            overflow: self.overflow.map_or(0, Overflow::to_wire),
            labels: self.labels.into_iter().collect(),
            validate_only: self.dry_run,
            ..v1::AcquireVmRequest::default()
        };
        context.goes_on = Some(format!(
            "a VM may have been taken: with --request-id {request_id} a second try gets it"
        ));
        let (answer, held) = match self.hold {
            false => (context.client.acquire(request, context.timeout).await, None),
            true => match context.client.lease(request, context.timeout).await {
                Ok(held) => (Ok(held.acquired().clone()), Some(held)),
                Err(error) => (Err(error.status), None),
            },
        };
        context.goes_on = None;
        let answer = answer.map_err(|status| {
            let nothing_taken = hearth_proto::StatusDetails::of(&status).allocated == Some(false);
            let error = Error::from(status);
            match nothing_taken || error.exit_code() == 2 {
                true => error,
                false => error.with_hint(format!(
                    "with --request-id {request_id} a second try gets the same VM, never another"
                )),
            }
        })?;
        let Some(vm) = answer.vm else {
            return match context.format {
                Format::Json => print_json(&serde_json::json!({ "valid": true })),
                Format::Name => Ok(()),
                Format::Table | Format::Wide => {
                    write_out(b"the request is valid; nothing was acquired\n")
                }
            };
        };
        let acquired = Acquired {
            vm: vm.into(),
            source: value_name(answer.source, Source::as_str_name, "SOURCE_"),
            replayed: answer.replayed,
            request_id,
            timing: answer.timing.unwrap_or_default().into(),
        };
        match context.format {
            Format::Json => print_json(&acquired)?,
            Format::Name => print_one(Format::Name, &acquired.vm)?,
            Format::Table | Format::Wide => write_out(acquired.to_text().as_bytes())?,
        }
        match held {
            Some(held) => hold(held).await,
            None => Ok(()),
        }
    }
}

/// Keeps a VM until this command is told to end, or the lease is lost.
async fn hold(held: LeasedVm) -> Result<()> {
    let cannot = |error| Error::Failed(format!("signals cannot be waited for: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    note("its lease is renewed until this is interrupted");
    tokio::select! {
        lost = held.lost() => return Err(Error::from(lost.status)),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    held.release().await.map_err(|error| Error::from(error.status))
}

impl Acquired {
    fn to_text(&self) -> String {
        let expires = self.vm.lease.as_ref().and_then(|lease| lease.expire_time.as_ref());
        let process = self.vm.process.as_ref().map(|process| {
            let since = process.start_time.as_ref().map(|time| format!(", since {}", time.0));
            format!("{}{} ({})", process.pid, since.unwrap_or_default(), process.executable)
        });
        let replayed = if self.replayed { ", answered before" } else { "" };
        let mut pairs = vec![
            ("name", self.vm.name().to_owned()),
            ("uid", self.vm.uid.clone()),
            ("source", format!("{}{replayed}", self.source)),
            ("took", self.timing.to_text()),
            ("expires in", until(expires.map(|time| &time.0), SystemEnv.now())),
            ("process", process.unwrap_or_default()),
        ];
        for endpoint in &self.vm.endpoints {
            pairs.push(("endpoint", format!("{} {}", endpoint.kind, endpoint.address)));
        }
        facts(&pairs)
    }
}

impl Timing {
    fn to_text(&self) -> String {
        let stages = [
            ("queue", &self.queue),
            ("select", &self.select),
            ("commit", &self.commit),
            ("resume", &self.resume),
            ("identity", &self.identity),
            ("restore", &self.restore),
        ];
        let stages = stages.into_iter().filter_map(|(stage, span)| {
            span.as_ref().map(|span| format!("{stage} {}", wire_milliseconds(&span.0)))
        });
        let stages: Vec<_> = stages.collect();
        let total = self.total.as_ref().map(|span| wire_milliseconds(&span.0));
        match (total, stages.is_empty()) {
            (Some(total), false) => format!("{total} in the server ({})", stages.join(", ")),
            (Some(total), true) => format!("{total} in the server"),
            (None, _) => String::new(),
        }
    }
}

/// Arguments of `hearth release`.
#[derive(Args, Debug)]
pub(crate) struct Release {
    /// The VMs to give back.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The uid that the VM must have; with one name only.
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
}

impl Release {
    /// Releases every VM, also when one of them cannot be.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        if self.uid.is_some() && self.names.len() > 1 {
            return Err(Error::Usage("--uid goes with one name".to_owned()));
        }
        let mut released = Vec::new();
        let mut failed = None;
        for name in &self.names {
            let name = qualify("vms", name);
            let request = v1::ReleaseVmRequest {
                name: name.clone(),
                uid: self.uid.clone().unwrap_or_default(),
                request_id: String::new(),
            };
            match context.client.vms.release_vm(request).await {
                Ok(_) => released.push(name),
                Err(status) => {
                    // The last one ends the command; those before it are told here.
                    if let Some(former) = failed.replace(Error::from(status).with_hint(name)) {
                        former.report(context.format);
                    }
                }
            }
        }
        let each = |prefix: &str| {
            released.iter().map(|name| format!("{prefix}{name}\n")).collect::<String>()
        };
        match context.format {
            Format::Json => print_json(&serde_json::json!({ "released": released }))?,
            Format::Name => write_out(each("").as_bytes())?,
            Format::Table | Format::Wide => write_out(each("released ").as_bytes())?,
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Arguments of `hearth renew`.
#[derive(Args, Debug)]
pub(crate) struct Renew {
    /// The VM.
    name: String,
    /// How long it shall be yours from now on; as the pool says when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// Let the lease end earlier than it would. Without it such a call changes nothing.
    #[arg(long)]
    allow_shorten: bool,
    /// The uid that the VM must have.
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
}

impl Renew {
    /// Renews a lease and prints when it ends.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        use v1::renew_lease_request::Expiration;
        let request = v1::RenewLeaseRequest {
            name: qualify("vms", &self.name),
            uid: self.uid.unwrap_or_default(),
            expiration: self.ttl.map(|ttl| Expiration::Ttl(duration_to_wire(ttl))),
            allow_shorten: self.allow_shorten,
            request_id: String::new(),
        };
        let vm: Vm = context.client.vms.renew_lease(request).await?.into_inner().into();
        let expires = vm.lease.as_ref().and_then(|lease| lease.expire_time.as_ref());
        let left = until(expires.map(|time| &time.0), SystemEnv.now());
        let at = expires.map(|time| format!(" ({})", time.0)).unwrap_or_default();
        let text = format!("{} expires in {left}{at}\n", vm.name);
        print_as(context.format, &vm, &text)
    }
}

/// The id that a new VM shall bear, which the user may have written as a name.
pub(crate) fn bare_vm_id(text: &str) -> &str {
    text.strip_prefix("vms/").unwrap_or(text)
}
