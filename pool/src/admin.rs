//! What operators decide: pools and templates, changed one at a time, journaled, then seen.

use std::sync::Arc;

use hearth_providers::Capabilities;
use hearth_providers::capabilities::StopKeeps;

use crate::error::{Error, Kind, Result};
use crate::ids::{PoolId, TemplateId};
use crate::jobs::Class;
use crate::journal::Control;
use crate::manager::{Manager, UNTIL_KNOWN};
use crate::pool::{MAX_DEPTH, Pool, PoolConfig, Sizing, WarmState};
use crate::templates::Template;

impl Manager {
    /// Makes a pool and begins to fill it. Of one only to be validated nothing is made.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for its template; `InvalidArgument`; `Storage`.
    pub async fn create_pool(
        self: &Arc<Self>,
        mut config: PoolConfig,
        validate_only: bool,
    ) -> Result<Option<Arc<Pool>>> {
        let _turn = self.turn_to_change().await?;
        if self.pool(&config.id).is_ok() {
            return Err(Error::AlreadyExists { kind: Kind::Pool, name: config.id.to_string() });
        }
        self.check_pool(&config)?;
        if validate_only {
            return Ok(None);
        }
        config.create_time = self.env.now();
        self.stamp(&mut config);
        self.write_pool(&config).await?;
        self.open_pool(config).map(Some)
    }

    /// Replaces a pool's configuration; what is warm and still fits is kept.
    ///
    /// # Errors
    /// `NotFound`; `EtagMismatch` unless `etag` is empty; `InvalidArgument`; `Storage`.
    pub async fn update_pool(
        self: &Arc<Self>,
        id: &PoolId,
        etag: &str,
        validate_only: bool,
        change: impl FnOnce(&mut PoolConfig) -> Result<()>,
    ) -> Result<Arc<Pool>> {
        let _turn = self.turn_to_change().await?;
        let pool = self.pool(id)?;
        let former = pool.config();
        check_etag(Kind::Pool, id.as_str(), etag, &former.etag)?;
        let mut config = former.as_ref().clone();
        change(&mut config)?;
        self.check_pool(&config)?;
        if validate_only {
            return Ok(pool);
        }
        self.stamp(&mut config);
        self.write_pool(&config).await?;
        let template = self.template(&config.template)?;
        // What the waiting VMs are, not how many.
        let is_remade = former.warm_state != config.warm_state || former.warm_up != config.warm_up;
        let is_of_another = former.template != template.id;
        pool.set_config(config);
        if is_remade {
            pool.replace_all(template);
        } else if is_of_another {
            pool.set_template(template);
        }
        self.shared.changes.pool(&pool);
        Ok(pool)
    }

    /// Deletes a pool: its warm VMs are destroyed. One that tenants have VMs of is deleted with
    /// `force` only, and they keep them.
    ///
    /// # Errors
    /// `NotFound`; `EtagMismatch`; `InUse`; `Storage`.
    pub async fn delete_pool(self: &Arc<Self>, id: &PoolId, etag: &str, force: bool) -> Result<()> {
        let _turn = self.turn_to_change().await?;
        let pool = self.pool(id)?;
        check_etag(Kind::Pool, id.as_str(), etag, &pool.config().etag)?;
        let leased = pool.status().leased;
        if leased > 0 && !force {
            let by = format!("{leased} VMs that tenants have");
            return Err(Error::InUse { kind: Kind::Pool, name: id.to_string(), by });
        }
        self.forget(Control::Pool, id.as_str()).await?;
        self.pools.write().remove(id);
        pool.close();
        self.shared.changes.pool(&pool);
        Ok(())
    }

    /// Deletes a template that no pool uses, with all its generations.
    ///
    /// # Errors
    /// `NotFound`; `EtagMismatch`; `InUse`; `Storage`.
    pub async fn delete_template(self: &Arc<Self>, id: &TemplateId, etag: &str) -> Result<()> {
        let _turn = self.turn_to_change().await?;
        let history = self.history(id)?;
        check_etag(Kind::Template, id.as_str(), etag, &history.written().etag)?;
        let in_use = |by: String| Error::InUse { kind: Kind::Template, name: id.to_string(), by };
        if let Some(pool) = self.pools_of(id).first() {
            return Err(in_use(format!("pool {}", pool.id)));
        }
        if history.is_building() {
            return Err(in_use("a build under way".to_owned()));
        }
        self.forget(Control::Template, id.as_str()).await?;
        self.templates.write().remove(id);
        self.histories.write().remove(id);
        self.let_go(&history.written().provider, history.pins()).await;
        Ok(())
    }

    /// Takes up a pool: from here on it fills.
    fn open_pool(self: &Arc<Self>, config: PoolConfig) -> Result<Arc<Pool>> {
        let pool = self.make_pool(config)?;
        self.drive(&pool);
        self.shared.changes.pool_made(&pool);
        Ok(pool)
    }

    /// Takes up a pool that is not driven yet.
    pub(crate) fn make_pool(&self, config: PoolConfig) -> Result<Arc<Pool>> {
        let template = self.template(&config.template)?;
        let provider = Arc::clone(self.provider(&template.provider)?);
        let (reaper, env) = (self.reaper.clone(), Arc::clone(&self.env));
        let shared = self.shared.clone();
        let pool = Pool::new(config, template, provider, &self.limits, shared, reaper, env);
        self.pools.write().insert(pool.id.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    fn check_pool(&self, config: &PoolConfig) -> Result<()> {
        let template = self.template(&config.template)?;
        let capabilities = self.provider(&template.provider)?.runtime.capabilities();
        let refuse = |field: &str, why: &str| Err(Error::invalid(field, why));
        let field = match config.sizing {
            Sizing::Fixed { .. } => "sizing.fixed.depth",
            Sizing::Promised { miss_ratio, min, max } => {
                if !(miss_ratio > 0.0 && miss_ratio < 1.0) {
                    let why = "it must be above 0 and below 1";
                    return refuse("sizing.promised.miss_ratio", why);
                }
                if max == 0 || max < min {
                    return refuse("sizing.promised.max", "it must be at least 1, and min");
                }
                "sizing.promised.max"
            }
        };
        if config.sizing.most() > MAX_DEPTH {
            return refuse(field, "more than 100000 warm VMs");
        }
        if config.sizing.most() > 0 && !capabilities.rename {
            return refuse(field, "this provider cannot rename: its pools have depth 0");
        }
        let floors = self.shared.tenants.floors(&config.id).total();
        if floors > config.sizing.most() {
            let why = format!("{floors} warm VMs are kept for tenants: it must be at least that");
            return refuse(field, &why);
        }
        if !config.warm_up.is_empty() && !capabilities.guest_channel {
            return refuse("refill_warm_up", "this provider has no guest channel");
        }
        if config.warm_state == WarmState::Paused && capabilities.stop_keeps != StopKeeps::Memory {
            return refuse("warm_state", "this provider cannot pause");
        }
        if config.warm_state == WarmState::Paused && hangs_when_paused(&template, &capabilities) {
            return refuse("warm_state", PAUSE_HANGS);
        }
        if config.max_parallel_restores == 0 {
            return refuse("max_parallel_restores", "it must be positive");
        }
        if config.default_ttl.is_zero() || config.default_ttl > config.max_ttl {
            return refuse("default_ttl", "it must be positive and at most max_ttl");
        }
        if config.max_ttl > crate::release::MAX_TTL * 30 {
            return refuse("max_ttl", "it must be at most 30 days");
        }
        Ok(())
    }

    /// Refuses a new generation of a template that its pools could not keep as they do.
    pub(crate) fn check_generation(&self, template: &Template) -> Result<()> {
        let capabilities = self.provider(&template.provider)?.runtime.capabilities();
        let pauses = |pool: &Arc<Pool>| {
            let config = pool.config();
            config.template == template.id && config.warm_state == WarmState::Paused
        };
        if hangs_when_paused(template, &capabilities) && self.pools.read().values().any(pauses) {
            return Err(Error::invalid("spec.vsock_cid", PAUSE_HANGS));
        }
        Ok(())
    }

    fn stamp(&self, config: &mut PoolConfig) {
        config.update_time = self.env.now();
        config.etag = self.env.uid().to_string();
    }

    pub(crate) async fn write_pool(&self, config: &PoolConfig) -> Result<()> {
        let (journal, config) = (Arc::clone(&self.journal), config.clone());
        let call = move || Ok(journal.write_control(Control::Pool, config.id.as_str(), &config));
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await?
    }

    async fn forget(&self, kind: Control, id: &str) -> Result<()> {
        let (journal, id) = (Arc::clone(&self.journal), id.to_owned());
        let call = move || Ok(journal.forget_control(kind, &id));
        self.jobs.run(Class::Journal, "journal", UNTIL_KNOWN, call, drop).await?
    }
}

const PAUSE_HANGS: &str = "on this version of the provider a pause would hang the guest's vsock \
                            for good: keep the pool's VMs running, use a template without a \
                            vsock, or another version";

fn hangs_when_paused(template: &Template, capabilities: &Capabilities) -> bool {
    template.spec.vsock_cid.is_some() && !capabilities.pause_keeps_channels
}

/// Refuses a change of what its caller has not seen.
pub(crate) fn check_etag(kind: Kind, name: &str, given: &str, actual: &str) -> Result<()> {
    match given.is_empty() || given == actual {
        true => Ok(()),
        false => Err(Error::EtagMismatch { kind, name: name.to_owned() }),
    }
}
