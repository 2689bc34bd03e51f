//! What operators tell a pool beside its settings: demand that is coming, and that it is to be empty.
//!
//! Both are journaled with the pool and outlive hearth; neither changes its etag.

use std::sync::Arc;
use std::time::Duration;

use crate::cold::FULL_FOR;
use crate::error::{Error, Result};
use crate::ids::PoolId;
use crate::manager::Manager;
use crate::pool::{MAX_DEPTH, Pool, PoolConfig, Prewarm};

/// For how long demand can be announced.
pub const MAX_PREWARM_TTL: Duration = Duration::from_secs(24 * 3600);
/// How many announcements a pool holds at once.
pub const MAX_PREWARMS: usize = 64;

impl Manager {
    /// Keeps `count` VMs more than the pool needs by itself, for `ttl`. Answers at once; the same
    /// `request_id` (empty: none) is the same announcement as long as it lasts.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`; `CapacityExhausted` when so many could never be; `Storage`.
    pub async fn prewarm_pool(
        self: &Arc<Self>,
        id: &PoolId,
        count: usize,
        ttl: Duration,
        request_id: &str,
    ) -> Result<Prewarm> {
        let _turn = self.turn_to_change().await?;
        let pool = self.pool(id)?;
        let now = self.env.now();
        let mut config = pool.config().as_ref().clone();
        let is_known = |it: &&Prewarm| !request_id.is_empty() && it.request_id == request_id;
        if let Some(known) = config.prewarms(now).find(is_known) {
            return Ok(known.clone());
        }
        if count == 0 {
            return Err(Error::invalid("count", "it must be at least 1"));
        }
        if ttl.is_zero() || ttl > MAX_PREWARM_TTL {
            return Err(Error::invalid("ttl", "it must be positive and at most 24 hours"));
        }
        if !pool.provider.runtime.capabilities().rename {
            let why = "this provider cannot rename: its pools have depth 0";
            return Err(Error::invalid("name", why));
        }
        config.prewarms.retain(|it| it.expire_time > now);
        let announced: usize = config.prewarms.iter().map(|it| it.count).sum();
        let exhausted = |what: String| Error::CapacityExhausted { what, retry_after: FULL_FOR };
        if config.prewarms.len() >= MAX_PREWARMS {
            return Err(exhausted(format!("{MAX_PREWARMS} announcements for one pool")));
        }
        if count > MAX_DEPTH || announced + count + config.sizing.most() > MAX_DEPTH {
            return Err(exhausted(format!("a pool keeps at most {MAX_DEPTH} warm VMs")));
        }
        if !self.shared.shares.could_hold(pool.cost(), announced + count) {
            return Err(exhausted("it is more than is left of the node's budget".to_owned()));
        }
        let (id, request_id) = (self.env.uid().to_string(), request_id.to_owned());
        let prewarm = Prewarm { id, count, expire_time: now + ttl, request_id };
        config.prewarms.push(prewarm.clone());
        self.write_pool(&config).await?;
        pool.set_config(config);
        self.shared.changes.pool(&pool);
        Ok(prewarm)
    }

    /// Takes an announcement back; one that has ended, or never was, is fine.
    ///
    /// # Errors
    /// `NotFound` for the pool; `Storage`.
    pub async fn cancel_prewarm(
        self: &Arc<Self>,
        id: &PoolId,
        prewarm_id: &str,
    ) -> Result<Arc<Pool>> {
        self.tell_pool(id, |config| config.prewarms.retain(|it| it.id != prewarm_id)).await
    }

    /// Keeps a pool empty and takes no acquires for it, or ends that. Leases go on; who stands in
    /// line is told.
    ///
    /// # Errors
    /// `NotFound`; `Storage`.
    pub async fn drain_pool(self: &Arc<Self>, id: &PoolId, drains: bool) -> Result<Arc<Pool>> {
        let pool = self.tell_pool(id, |config| config.drains = drains).await?;
        if drains {
            pool.dismiss_waiters(|| Error::PoolDraining { pool: pool.id.to_string() });
        }
        Ok(pool)
    }

    async fn tell_pool(
        &self,
        id: &PoolId,
        tell: impl FnOnce(&mut PoolConfig),
    ) -> Result<Arc<Pool>> {
        let _turn = self.turn_to_change().await?;
        let pool = self.pool(id)?;
        let former = pool.config();
        let mut config = former.as_ref().clone();
        tell(&mut config);
        if config != *former {
            self.write_pool(&config).await?;
            pool.set_config(config);
            self.shared.changes.pool(&pool);
        }
        Ok(pool)
    }
}
