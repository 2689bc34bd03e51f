//! `hearth vms watch`, `hearth pools watch`: what is there, and then what becomes of it, a line for each event.
//!
//! A stream that breaks is gone on with where it stood; where the server cannot, it begins afresh, and says so.

use std::time::Duration;

use hearth_proto::v1;
use serde::Serialize;
use tonic::{Code, Status, Streaming};

use super::context::Context;
use super::error::{Error, Result};
use super::output::{Format, Show, note, write_out};
use super::text::printable;
use super::view::{Pool, Vm, value_name};

/// How long to wait before a stream that broke is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// One event, as it is shown.
#[derive(Serialize)]
struct Event<T> {
    r#type: String,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct OfVm {
    vm: Vm,
}

#[derive(Serialize)]
struct OfPool {
    pool: Pool,
}

/// Tells of VMs until it is interrupted.
pub(crate) async fn vms(context: &mut Context, filter: &str) -> Result<()> {
    let mut token = String::new();
    loop {
        let request =
            v1::WatchVmsRequest { filter: filter.to_owned(), resume_token: token.clone() };
        let ended = match context.client.vms.watch_vms(request).await {
            Ok(begun) => {
                let mut events: Streaming<v1::WatchVmsResponse> = begun.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(event)) => {
                            token = event.resume_token;
                            let Some(vm) = event.vm else { continue };
                            let kind = value_name(
                                event.r#type,
                                v1::watch_vms_response::Type::as_str_name,
                                "TYPE_",
                            );
                            let vm = Vm::from(vm);
                            let pool = if vm.pool.is_empty() { "-" } else { &vm.pool };
                            let line = format!("{} {} {pool}", vm.name(), vm.state);
                            print(context.format, &kind, &line, OfVm { vm })?;
                        }
                        Ok(None) => break Status::unavailable("the stream has ended"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        go_on(ended, &mut token).await?;
    }
}

/// Tells of pools until it is interrupted.
pub(crate) async fn pools(context: &mut Context, filter: &str) -> Result<()> {
    let mut token = String::new();
    loop {
        let request =
            v1::WatchPoolsRequest { filter: filter.to_owned(), resume_token: token.clone() };
        let ended = match context.client.pools.watch_pools(request).await {
            Ok(begun) => {
                let mut events: Streaming<v1::WatchPoolsResponse> = begun.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(event)) => {
                            token = event.resume_token;
                            let Some(pool) = event.pool else { continue };
                            let kind = value_name(
                                event.r#type,
                                v1::watch_pools_response::Type::as_str_name,
                                "TYPE_",
                            );
                            let pool = Pool::from(pool);
                            let it = &pool.status;
                            let line = format!(
                                "{} warm {} of {}, restoring {}, leased {}",
                                pool.name(),
                                it.warm,
                                it.target,
                                it.restoring,
                                it.leased
                            );
                            print(context.format, &kind, &line, OfPool { pool })?;
                        }
                        Ok(None) => break Status::unavailable("the stream has ended"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        go_on(ended, &mut token).await?;
    }
}

fn print<T: Serialize>(format: Format, kind: &str, line: &str, of: T) -> Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string(&Event { r#type: kind.to_owned(), of })
            .map_err(|error| Error::Failed(format!("an event cannot be shown: {error}")))?,
        Format::Table | Format::Name => format!("{kind:<8} {}", printable(line)),
    };
    write_out(format!("{text}\n").as_bytes())
}

/// Whether a watch that ended so is begun again; the token says where.
async fn go_on(ended: Status, token: &mut String) -> Result<()> {
    let details = hearth_proto::StatusDetails::of(&ended);
    match details.reason.as_deref() {
        Some("RESUME_TOKEN_EXPIRED" | "WATCH_TOO_SLOW") => {
            note("what happened meanwhile is not known: it begins afresh");
            token.clear();
            Ok(())
        }
        _ if ended.code() == Code::Unavailable => {
            tokio::time::sleep(details.retry_after.unwrap_or(PAUSE)).await;
            Ok(())
        }
        _ => Err(ended.into()),
    }
}
