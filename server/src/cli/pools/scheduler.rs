//! What a pool reckons with, what an acquire would get, and what is announced to it.

use std::time::Duration;

use clap::Args;
use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_providers::env::{Env as _, SystemEnv};

use crate::cli::context::{Context, new_request_id};
use crate::cli::error::Result;
use crate::cli::leases::{Overflow, bare_vm_id};
use crate::cli::output::print_as;
use crate::cli::text::{id_of, parse_duration, qualify, until};
use crate::cli::view;

/// Arguments of `hearth pools resolve`.
#[derive(Args, Debug)]
pub(super) struct Resolve {
    /// The pool.
    pool: String,
    /// The name that the VM should bear.
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
    /// How long it should be yours.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    /// What should be done when nothing is warm; as the pool says when not given.
    #[arg(long, value_enum, value_name = "POLICY")]
    overflow: Option<Overflow>,
}

/// Arguments of `hearth pools prewarm`.
#[derive(Args, Debug)]
pub(super) struct Prewarm {
    /// The pool.
    pool: String,
    /// VMs beyond those that the pool keeps by itself.
    #[arg(long, short = 'n', value_name = "N")]
    count: i32,
    /// For how long.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Duration,
    /// UUID of this announcement: the same one again is the same announcement. A fresh one when
    /// not given.
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
}

/// Prints why a pool is as deep as it is.
pub(super) async fn explain(context: &mut Context, pool: &str) -> Result<()> {
    let explanation = explanation(context, pool).await?;
    print_as(context.format, &explanation, &explanation.to_text(SystemEnv.now()))
}

/// Why a pool is as deep as it is.
pub(crate) async fn explanation(context: &mut Context, pool: &str) -> Result<view::Explanation> {
    let request = v1::ExplainPoolRequest { name: qualify("pools", pool) };
    Ok(context.client.pools.explain_pool(request).await?.into_inner().into())
}

impl Resolve {
    /// Prints what such an acquire would get.
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let acquire = v1::AcquireVmRequest {
            vm_id: self.name.as_deref().map(bare_vm_id).unwrap_or_default().to_owned(),
            expiration: self.ttl.map(|ttl| Expiration::Ttl(duration_to_wire(ttl))),
            overflow: self.overflow.map_or(0, Overflow::to_wire),
            ..Default::default()
        };
        let name = qualify("pools", &self.pool);
        let request = v1::ResolvePoolRequest { name, request: Some(acquire) };
        let answer = context.client.pools.resolve_pool(request).await?.into_inner();
        let resolution = view::Resolution::from(answer);
        print_as(context.format, &resolution, &resolution.to_text())
    }
}

impl Prewarm {
    /// Announces demand and prints under which id.
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let request = v1::PrewarmPoolRequest {
            name: qualify("pools", &self.pool),
            count: self.count,
            ttl: Some(duration_to_wire(self.ttl)),
            request_id: self.request_id.unwrap_or_else(new_request_id),
        };
        let answer = context.client.pools.prewarm_pool(request).await?.into_inner();
        let prewarm = view::Prewarm::from(answer);
        let left = until(prewarm.expire_time.as_ref().map(|time| &time.0), SystemEnv.now());
        let text = format!(
            "announced {} more VMs of {}, for {left}\nhearth pools cancel-prewarm {} {}\n",
            prewarm.count,
            prewarm.pool,
            id_of(&prewarm.pool),
            prewarm.prewarm_id
        );
        print_as(context.format, &prewarm, &text)
    }
}

/// Takes an announcement back.
pub(super) async fn cancel(
    context: &mut Context,
    pool: &str,
    prewarm_id: String,
) -> Result<v1::Pool> {
    let name = qualify("pools", pool);
    let request = v1::CancelPrewarmRequest { name, prewarm_id, ..Default::default() };
    Ok(context.client.pools.cancel_prewarm(request).await?.into_inner())
}

/// Keeps a pool empty, or ends that.
pub(super) async fn drain(context: &mut Context, pool: &str, undo: bool) -> Result<v1::Pool> {
    let name = qualify("pools", pool);
    let request = v1::DrainPoolRequest { name, undo, ..Default::default() };
    Ok(context.client.pools.drain_pool(request).await?.into_inner())
}
