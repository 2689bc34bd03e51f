//! Pools, with how they stand.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::changes::PoolNote;
use hearth_pool::manager::{Manager, Phase};
use hearth_pool::pool::Pool;
use hearth_proto::{names, v1};
use hearth_providers::env::Env;

use super::feed::{Resource, Sighting};
use super::hub::Source;
use crate::convert;

/// How often all are looked at: how a pool stands changes with every acquire, and is noted nowhere.
const LOOK: Duration = Duration::from_millis(200);

/// Where pools are looked at.
pub(crate) struct PoolSource {
    pub(crate) manager: Arc<Manager>,
    pub(crate) env: Arc<dyn Env>,
}

impl Resource for v1::Pool {
    /// One that was deleted and made again is another.
    fn key(&self) -> String {
        let made = self.create_time.unwrap_or_default();
        format!("{}@{}.{:09}", self.name, made.seconds, made.nanos)
    }

    /// When a breaker tries again is reckoned from now, and so moves a little from look to look.
    fn is_like(&self, other: &Self) -> bool {
        let untimed = |pool: &Self| {
            let mut pool = pool.clone();
            let breaker = pool.status.as_mut().and_then(|status| status.breaker.as_mut());
            breaker.into_iter().for_each(|breaker| breaker.retry_time = None);
            pool
        };
        self == other || untimed(self) == untimed(other)
    }

    fn covers(&self, _: &Self) -> bool {
        true
    }
}

impl PoolSource {
    fn show(&self, pool: &Pool) -> v1::Pool {
        let is_draining = self.manager.phase() == Phase::Draining;
        convert::pool::to_wire(pool, is_draining, self.env.now())
    }

    fn sighting(&self, note: PoolNote) -> Sighting<v1::Pool> {
        let (PoolNote::Made(pool) | PoolNote::Changed(pool)) = &note;
        let shown = self.show(pool);
        match (self.is_there(pool), note) {
            (true, _) => Sighting::Is(shown),
            // Its deletion is noted, too.
            (false, PoolNote::Made(_)) => Sighting::Was(shown),
            (false, PoolNote::Changed(_)) => Sighting::Gone(shown.key()),
        }
    }

    fn is_there(&self, pool: &Arc<Pool>) -> bool {
        self.manager.pool(&pool.id).is_ok_and(|found| Arc::ptr_eq(&found, pool))
    }
}

impl Source for PoolSource {
    type Item = v1::Pool;

    const LOOK: Duration = LOOK;

    fn begin(&self) {
        self.manager.changes().pools.begin();
    }

    fn end(&self) {
        self.manager.changes().pools.end();
    }

    async fn noted(&self) {
        self.manager.changes().pools.noted().await;
    }

    fn take_noted(&self) -> (Vec<Sighting<v1::Pool>>, bool) {
        let taken = self.manager.changes().pools.take();
        (taken.notes.into_iter().map(|note| self.sighting(note)).collect(), taken.has_lost)
    }

    fn all(&self) -> Vec<v1::Pool> {
        self.manager.pools().iter().map(|pool| self.show(pool)).collect()
    }

    fn one(&self, key: &str) -> Option<v1::Pool> {
        let (name, _) = key.split_once('@')?;
        let id = names::POOLS.id(name).ok()?;
        let pool = self.manager.pool(&hearth_pool::ids::PoolId::parse(id).ok()?).ok()?;
        Some(self.show(&pool)).filter(|shown| shown.key() == key)
    }
}
