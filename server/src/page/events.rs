//! What becomes of VMs, as server-sent events: a watch that begins with now.
//!
//! A stream is pulled, as every watch is: a reader that stands still costs nothing until the feed has
//! forgotten its place, and is cut off then. It ends by itself after a while; the page goes on with the
//! token of the last event it got.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hearth_proto::v1;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::view::Vm;
use crate::admin::Body;
use crate::status::Refusal;
use crate::watch::{Event, Hub, View, VmSource, Watching, list_id};

/// How long one stream lasts; less than a connection may.
const STREAM_FOR: Duration = Duration::from_secs(50);
/// The longest silence.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One event.
#[derive(Serialize)]
struct Said {
    kind: &'static str,
    vm: Vm,
}

/// The events after `resume_token`, or from now on when it is empty; `place` is held for as long.
///
/// # Errors
/// Those of a watch.
pub(super) async fn stream(
    hub: &Arc<Hub<VmSource>>,
    resume_token: &str,
    place: OwnedSemaphorePermit,
) -> Result<Body, Refusal> {
    let view = || {
        let list = list_id("vms", "", None);
        View { list, sees: Box::new(|_: &v1::Vm| true), heartbeat: HEARTBEAT }
    };
    let watching = match resume_token {
        // What there is is in the list.
        "" => Watching::begin_now(hub, view()).await?,
        token => Watching::begin(hub, view(), token).await?,
    };
    let until = Instant::now() + STREAM_FOR;
    let frames = stream::unfold((watching, place), move |(mut watching, place)| async move {
        let next = tokio::time::timeout_at(until, watching.next()).await;
        let text = match next {
            Ok(Ok(Some((Event::Synced, token)))) => {
                format!("id: {token}\nevent: live\ndata: {{}}\n\n")
            }
            Ok(Ok(Some((Event::Heartbeat, token)))) => {
                format!("id: {token}\nevent: heartbeat\ndata: {{}}\n\n")
            }
            Ok(Ok(Some((Event::Added(vm), token)))) => said("added", &vm, &token),
            Ok(Ok(Some((Event::Changed(vm), token)))) => said("changed", &vm, &token),
            Ok(Ok(Some((Event::Deleted(vm), token)))) => said("deleted", &vm, &token),
            // It asks again with the token it has, and is told if that is too old.
            Ok(Ok(None) | Err(_)) | Err(_) => return None,
        };
        Some((frame(text), (watching, place)))
    });
    Ok(StreamBody::new(frames).boxed_unsync())
}

fn frame(text: String) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(text)))
}

fn said(kind: &'static str, vm: &v1::Vm, token: &str) -> String {
    let vm = Vm::from(vm.clone());
    let mut text = format!("id: {token}\nevent: vm\ndata: ");
    // JSON has no line break of its own, and what is plain data can be written.
    let data = serde_json::to_string(&Said { kind, vm }).unwrap_or_default();
    let _ = writeln!(text, "{data}\n");
    text
}
