//! What an acquire records, into a recorder as the server has it.

use std::time::Duration;

use hearth_pool::error::Error;
use hearth_pool::journal::Source;
use hearth_pool::metrics::recorder::Recorder;
use hearth_pool::metrics::{self, PoolMetrics, Timing};

use super::{Fixture, Result, repeat};

/// Installs the recorder of this process, once; without one nothing is recorded, and it costs nothing.
pub(super) fn install() -> Result<&'static Recorder> {
    let recorder = Recorder::of_the_process().ok_or("there is another recorder")?;
    metrics::describe();
    Ok(recorder)
}

/// A scrape of what so many pools are measured by.
pub(super) fn scrape(pools: usize) -> Result<Box<dyn Fixture>> {
    let (recorder, pools) = (install()?, known(pools)?);
    let operation = move || {
        let mut text = String::new();
        recorder.scrape().write(&mut text);
        assert!(text.len() > pools.len());
    };
    Ok(repeat(operation))
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
    Ok(repeat(operation))
}

/// An acquire has failed.
pub(super) fn acquire_failed() -> Result<Box<dyn Fixture>> {
    let pool = known(1)?.remove(0);
    let operation = move || pool.acquire_failed(&Error::Draining, Duration::from_micros(5));
    Ok(repeat(operation))
}

fn known(pools: usize) -> Result<Vec<PoolMetrics>> {
    install()?;
    let pool = |it| PoolMetrics::new(&format!("pool-{it}"), "default", "memory");
    Ok((0..pools).map(pool).collect())
}
