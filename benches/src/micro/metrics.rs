//! What an acquire records, into a recorder as the server has it.

use std::sync::OnceLock;
use std::time::Duration;

use hearth_pool::error::Error;
use hearth_pool::journal::Source;
use hearth_pool::metrics::{self, HISTOGRAM_BOUNDS_SECONDS, PoolMetrics, Timing};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{AT_ONCE, Fixture, Meter, Repeat, Result};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static INSTALLING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Installs the recorder of this process, once; without one nothing is recorded, and it costs nothing.
pub(super) fn install() -> Result<()> {
    let _installing = INSTALLING.lock();
    if RECORDER.get().is_none() {
        let builder = PrometheusBuilder::new().set_buckets(&HISTOGRAM_BOUNDS_SECONDS)?;
        let _ = RECORDER.set(builder.install_recorder()?);
        metrics::describe();
    }
    Ok(())
}

/// Folds observations into their histograms, as the server does from time to time.
pub(super) fn fold() {
    if let Some(recorder) = RECORDER.get() {
        recorder.run_upkeep();
    }
}

/// An operation whose observations are folded after each block, unmeasured.
struct Folding<F>(Repeat<F>);

impl<F: FnMut()> Fixture for Folding<F> {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let done = self.0.block(most.min(AT_ONCE), meter);
        fold();
        done
    }
}

/// An acquire has succeeded; the pools take turns.
pub(super) fn acquired(pools: usize) -> Result<Box<dyn Fixture>> {
    let pools = known(pools)?;
    let micros = Duration::from_micros;
    let timing =
        Timing { select: micros(2), commit: micros(9), total: micros(14), ..Timing::default() };
    let mut turns = (0..pools.len()).cycle();
    let operation = move || {
        let pool = turns.next().map(|it| &pools[it]);
        pool.into_iter().for_each(|pool| pool.acquired(Source::Warm, &timing));
    };
    Ok(Box::new(Folding(Repeat(operation))))
}

/// An acquire has failed.
pub(super) fn acquire_failed() -> Result<Box<dyn Fixture>> {
    let pool = known(1)?.remove(0);
    let operation = move || pool.acquire_failed(&Error::Draining, Duration::from_micros(5));
    Ok(Box::new(Folding(Repeat(operation))))
}

fn known(pools: usize) -> Result<Vec<PoolMetrics>> {
    install()?;
    let pool = |it| PoolMetrics::new(&format!("pool-{it}"), "default", "memory");
    Ok((0..pools).map(pool).collect())
}
