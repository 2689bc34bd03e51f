//! What the page shows, looked up: lists are cut into pages of [`PAGE`], and searched here, so that a browser
//! never has more of them than it shows.

use std::sync::Arc;

use hearth_pool::error::{Error, Result};
use hearth_pool::manager::{Manager, Phase, VmInfo};
use hearth_providers::{Uid, VmId};
use serde::Serialize;

use super::{Page, Query, view};
use crate::auth::Caller;
use crate::convert;

/// Items of one page.
pub(super) const PAGE: usize = 200;
/// Bytes of the console that are shown.
const CONSOLE_BYTES: usize = 16 * 1024;
/// Bytes of one reading.
const CHUNK_BYTES: usize = 64 * 1024;
/// Readings at most: a guest that writes faster than it is read is not followed.
const MAX_READINGS: usize = 256;

/// A part of a list.
#[derive(Serialize)]
pub(super) struct Part<T> {
    items: Vec<T>,
    /// Asks for the next part; unset for the last.
    next: Option<String>,
    /// How many were found.
    found: usize,
    /// How many there are.
    of: usize,
}

/// A template and its generations, the newest first.
#[derive(Serialize)]
pub(super) struct TemplateItem {
    #[serde(flatten)]
    now: view::Generation,
    generations: Vec<view::Generation>,
}

/// The server.
#[derive(Serialize)]
pub(super) struct NodeItem {
    #[serde(flatten)]
    node: view::Node,
    /// Why no work is taken now.
    not_ready: Option<&'static str>,
    leased_vms: usize,
    remembered_requests: usize,
}

/// The end of a console.
#[derive(Serialize)]
pub(super) struct Console {
    pub(super) text: String,
    /// Where in what the guest wrote it begins, in bytes.
    offset: u64,
}

/// The words of `find` are all in `text`, whatever their case.
fn has_words(words: &[String], text: impl FnOnce() -> String) -> bool {
    words.is_empty() || {
        let text = text().to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    }
}

/// The part of `all`, which is sorted by `place`, that `query` asks for.
fn cut<I, T>(
    all: Vec<I>,
    query: &Query,
    text: impl Fn(&I) -> String,
    place: impl Fn(&I) -> String,
    item: impl Fn(&I) -> T,
) -> Part<T> {
    let words: Vec<_> = query.find.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let of = all.len();
    let found: Vec<_> = all.into_iter().filter(|it| has_words(&words, || text(it))).collect();
    let from = found.partition_point(|it| !query.after.is_empty() && place(it) <= query.after);
    let (last, end) = (found.len(), found.len().min(from + PAGE));
    let next = (end < last).then(|| place(&found[end - 1]));
    let items = found[from..end].iter().map(item).collect();
    Part { items, next, found: last, of }
}

/// A name and what tells it from others of the name, in an order that both are in.
fn vm_place(info: &VmInfo) -> String {
    // A blank comes before whatever a name may go on with.
    format!("{} {}", info.view.vm_id.as_str(), info.view.uid)
}

fn vm_text(info: &VmInfo) -> String {
    let mut text = format!("{} {}", info.view.vm_id.as_str(), info.view.uid);
    let mut add = |more: &str| {
        text.push(' ');
        text.push_str(more);
    };
    add(convert::vm::state_name(info.view.status));
    add(&info.provider.name);
    info.pool.iter().for_each(|pool| add(pool.as_str()));
    info.template.iter().for_each(|(template, _)| add(template.as_str()));
    match &info.lease {
        None => add("warm"),
        Some(lease) => {
            add("leased");
            add(lease.tenant.as_str());
            lease.labels.iter().for_each(|(key, value)| add(&format!("{key}={value}")));
        }
    }
    text
}

/// VMs of everybody, sorted by name.
pub(super) fn vms(manager: &Manager, query: &Query) -> Part<view::Vm> {
    let everything = Caller::operator(hearth_pool::ids::Tenant::anonymous());
    let mut all = manager.vms(None);
    all.sort_by_cached_key(vm_place);
    cut(all, query, vm_text, vm_place, |info| view::Vm::from(convert::vm::vm(info, &everything)))
}

/// One VM.
///
/// # Errors
/// `NotFound`.
pub(super) fn vm(manager: &Manager, query: &Query) -> Result<view::Vm> {
    let everything = Caller::operator(hearth_pool::ids::Tenant::anonymous());
    let info = find(manager, query)?;
    Ok(convert::vm::vm(&info, &everything).into())
}

fn find(manager: &Manager, query: &Query) -> Result<VmInfo> {
    let uid: Option<Uid> = query.uid.parse().ok();
    uid.and_then(|uid| manager.vm_by_uid(uid)).ok_or_else(|| match VmId::parse(&query.uid) {
        Ok(vm_id) => Error::no_vm(&vm_id),
        Err(_) => Error::invalid("uid", "it is no uid"),
    })
}

/// The end of what a leased VM wrote.
///
/// # Errors
/// `NotFound`; those of the provider.
pub(super) async fn console(manager: &Manager, query: &Query) -> Result<(Console, VmId, Uid)> {
    let info = find(manager, query)?;
    let (vm_id, uid) = (info.view.vm_id.clone(), info.view.uid);
    let (mut kept, mut offset) = (Vec::new(), 0);
    for _ in 0..MAX_READINGS {
        let chunk = manager.read_console(&vm_id, Some(uid), None, offset, CHUNK_BYTES).await?;
        offset = chunk.next_offset;
        if chunk.bytes.is_empty() {
            break;
        }
        kept.extend_from_slice(&chunk.bytes);
        kept.drain(..kept.len().saturating_sub(CONSOLE_BYTES));
    }
    let offset = offset.saturating_sub(kept.len() as u64);
    let text = String::from_utf8_lossy(&kept).into_owned();
    Ok((Console { text, offset }, vm_id, uid))
}

/// Pools with why they are as deep as they are, sorted by name.
pub(super) fn pools(page: &Page, query: &Query) -> Part<view::Pool> {
    let (manager, now) = (&page.manager, page.env.now());
    let node_drains = manager.phase() == Phase::Draining;
    let mut all = manager.pools();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let text = |pool: &Arc<hearth_pool::pool::Pool>| {
        format!("{} {}", pool.id.as_str(), pool.template().id.as_str())
    };
    cut(
        all,
        query,
        text,
        |pool| pool.id.to_string(),
        |pool| {
            let explained = convert::explain::explain(pool, node_drains, now);
            view::Pool::of(explained, page.history.hour(pool.id.as_str()))
        },
    )
}

/// Templates, sorted by name.
pub(super) fn templates(manager: &Manager, query: &Query) -> Part<TemplateItem> {
    let mut all = manager.templates();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let generation = |made: &hearth_pool::templates::Template| {
        let provider = manager.provider(&made.provider).ok();
        view::Generation::from(convert::template::to_wire(made, provider.map(Arc::as_ref)))
    };
    cut(
        all,
        query,
        |it| format!("{} {}", it.id, it.provider),
        |it| it.id.to_string(),
        |it| {
            // One that was deleted meanwhile has none.
            let kept = manager.generations(&it.id).unwrap_or_default();
            let generations = kept.iter().take(PAGE).map(|it| generation(it)).collect();
            TemplateItem { now: generation(it), generations }
        },
    )
}

/// The server and what it runs on.
pub(super) fn node(page: &Page) -> NodeItem {
    let bounds = (page.max_message_bytes, &page.streams);
    let node = convert::node::node(&page.manager, page.start_time, bounds);
    let leased = page.manager.pools().iter().map(|pool| pool.status().leased).sum();
    NodeItem {
        node: node.into(),
        not_ready: page.health.not_ready(),
        leased_vms: leased,
        remembered_requests: page.manager.remembered_requests(),
    }
}
