//! Whether this server takes work: as `grpc.health.v1.Health` for each service and each pool,
//! and as `/readyz`. Level-triggered: it looks at everything each time and never at why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_pool::manager::{Manager, Phase};
use hearth_pool::pool::Pool;
use hearth_pool::tasks::TaskGroup;
use hearth_proto::names;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::grpc::SERVICES;

/// How long a change may go unnoticed.
const PERIOD: Duration = Duration::from_millis(100);

/// Tells whether work is taken.
#[derive(Debug)]
pub(crate) struct Health {
    manager: Arc<Manager>,
    reporter: HealthReporter,
    is_furnished: Arc<AtomicBool>,
    shown: tokio::sync::Mutex<BTreeMap<String, ServingStatus>>,
}

impl Health {
    /// Of a server that does not take work yet.
    pub(crate) async fn new(manager: Arc<Manager>, reporter: HealthReporter) -> Arc<Self> {
        let health = Arc::new(Self {
            manager,
            reporter,
            is_furnished: Arc::default(),
            shown: tokio::sync::Mutex::default(),
        });
        health.show().await;
        health
    }

    /// Recovery is over, and the default template and pool are there.
    pub(crate) async fn furnished(&self) {
        self.is_furnished.store(true, Ordering::Release);
        self.show().await;
    }

    /// Is set when recovery is over, and never again.
    pub(crate) fn is_furnished(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_furnished)
    }

    /// Why no work is taken now; `None` when it is.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        match (self.manager.phase(), self.is_furnished.load(Ordering::Acquire)) {
            (Phase::Draining, _) => Some("draining"),
            (Phase::Ending, _) => Some("ending"),
            (Phase::Starting, _) | (Phase::Serving, false) => Some("starting"),
            (Phase::Serving, true) => None,
        }
    }

    /// Follows, until `tasks` stops.
    pub(crate) fn follow(self: &Arc<Self>, tasks: &TaskGroup) {
        let (health, stopping) = (Arc::clone(self), tasks.stopping().clone());
        tasks.spawn(async move {
            while !stopping.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    () = stopping.cancelled() => {}
                }
                health.show().await;
            }
        });
    }

    /// Ends every watch: an open stream would hold the server's end up.
    pub(crate) async fn end_watches(&self) {
        let mut reporter = self.reporter.clone();
        for name in std::mem::take(&mut *self.shown.lock().await).into_keys() {
            reporter.clear_service_status(&name).await;
        }
    }

    /// Says how it stands, as far as that has changed.
    pub(crate) async fn show(&self) {
        let mut shown = self.shown.lock().await;
        let statuses = self.statuses();
        let mut reporter = self.reporter.clone();
        for gone in shown.keys().filter(|name| !statuses.contains_key(*name)) {
            reporter.clear_service_status(gone).await;
        }
        for (name, status) in &statuses {
            if shown.get(name) != Some(status) {
                reporter.set_service_status(name, *status).await;
            }
        }
        *shown = statuses;
    }

    fn statuses(&self) -> BTreeMap<String, ServingStatus> {
        let is_ready = self.not_ready().is_none();
        let status = |serves| match serves {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        let services = std::iter::once("").chain(SERVICES);
        let services = services.map(|name| (name.to_owned(), status(is_ready)));
        let pools = self.manager.pools().into_iter().map(|pool| {
            (names::POOLS.name(pool.id.as_str()), status(is_ready && can_serve(&pool)))
        });
        services.chain(pools).collect()
    }
}

/// An acquire would get a VM: it is not drained, and one is warm or could be restored.
fn can_serve(pool: &Pool) -> bool {
    let state = pool.status();
    let could_restore = pool.template().not_ready().is_none() && !state.breaker_open;
    !state.draining && (state.warm > 0 || could_restore)
}
