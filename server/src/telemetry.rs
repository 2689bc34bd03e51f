//! The log: to standard error, for people on a terminal and as JSON elsewhere, at levels that
//! can be changed while hearth runs; and spans, to a collector, where one is configured.

mod export;
mod headers;
mod lines;
mod queue;
mod spans;

use std::io::IsTerminal as _;
use std::num::NonZeroU128;
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use hearth_proto::TraceContext;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

pub use export::{Export, Exporting};
use lines::Marked;

use crate::config::Config;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people on a terminal, as JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What the store of version 0.1 has to say while its journal is taken over is news only when something is
/// wrong.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// The levels of the log, which can be changed.
#[derive(Clone)]
pub struct Levels {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    current: Arc<Mutex<String>>,
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Levels").field(&*self.current.lock()).finish()
    }
}

impl Levels {
    /// Levels that nothing is logged by: for a server within a program that logs by itself.
    pub fn detached() -> Self {
        Self { handle: None, current: Arc::new(Mutex::new("info".to_owned())) }
    }

    /// Sets them: a level, or levels by target as `info,hearth_pool=debug`. Answers what was set
    /// before.
    ///
    /// # Errors
    /// What is wrong with `levels`; nothing has changed then.
    pub fn set(&self, levels: &str) -> Result<String, String> {
        let filter = parse(levels)?;
        let mut current = self.current.lock();
        if let Some(handle) = &self.handle {
            handle.reload(filter).map_err(|error| error.to_string())?;
        }
        Ok(std::mem::replace(&mut *current, levels.to_owned()))
    }
}

/// Begins to log, at `RUST_LOG` or else at the configured levels, and to make spans where they are to be
/// exported; the export itself is to be begun. Blocks on the disk for a moment.
///
/// # Errors
/// What is wrong with the levels or the export, or that something logs already.
pub fn init(config: &Config) -> Result<(Levels, Option<Export>), String> {
    let levels = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log_level.clone());
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match config.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    // As the commands have it.
    let has_colours = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    let (filter, handle) = reload::Layer::new(parse(&levels)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format = tracing_subscriber::fmt::format();
    let lines = match is_json {
        true => {
            let format = Marked { format: format.json().flatten_event(true), is_json };
            lines.json().event_format(format).boxed()
        }
        false => {
            let format = format.with_ansi(has_colours).with_target(false);
            lines.with_ansi(has_colours).event_format(Marked { format, is_json }).boxed()
        }
    };
    // The level is of the lines alone.
    let logs = tracing_subscriber::registry().with(lines.with_filter(filter));
    let (begun, export) = match export::prepare(&config.telemetry)? {
        Some((spans, export)) => (logs.with(spans.layer()).try_init(), Some(export)),
        None => (logs.try_init(), None),
    };
    begun.map_err(|error| error.to_string())?;
    Ok((Levels { handle: Some(handle), current: Arc::new(Mutex::new(levels)) }, export))
}

/// Makes the span of a call a part of what its caller says that it is; answers which trace that is, if it is
/// of any.
pub(crate) fn join(span: &Span, caller: Option<&TraceContext>) -> Option<NonZeroU128> {
    let said = caller.and_then(|it| NonZeroU128::new(it.trace_id()));
    match span.is_disabled() {
        true => said,
        false => export::join(span, caller).or(said),
    }
}

/// Whether `levels` can be set.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(levels: &str) -> Result<(), String> {
    parse(levels).map(drop)
}

/// The filter takes any word for a target; here each part has to have a level.
fn parse(levels: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in levels.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.contains(&level.to_lowercase().as_str()) {
            return Err(format!("{part:?} has none of the levels {}", LEVELS.join(", ")));
        }
    }
    // Whoever names one of these gets it: a later directive for a target replaces an earlier one.
    let levels = format!("{QUIET},{levels}");
    EnvFilter::builder().parse(levels).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked_before_they_are_set() {
        let levels = Levels::detached();
        assert_eq!(levels.set("debug").as_deref(), Ok("info"));
        assert_eq!(levels.set("warn,hearth_pool=trace").as_deref(), Ok("debug"));
        for wrong in ["", "loud", "info,hearth_pool", "hearth_pool=loud", "info,,warn"] {
            assert!(levels.set(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(levels.set("INFO").as_deref(), Ok("warn,hearth_pool=trace"));
    }
}
