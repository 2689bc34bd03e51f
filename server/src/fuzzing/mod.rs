//! Ways in for a search for input that hearth cannot bear: what any caller, file or backend could say.
//! See `fuzz/` and decision 31.
//!
//! A [`Target`] takes any bytes and panics when something is wrong with us. Here are those that need what
//! is private; `tests/fuzz` has those that drive a whole service, and runs all of them on what searches
//! have found. Nothing of it is reached by a server.

mod parsers;

use std::sync::{Arc, LazyLock};

use hearth_pool::config::Limits;
use hearth_pool::manager::Manager;
use hearth_providers::VmSpec;
pub use hearth_providers::fuzzing::Target;

use crate::auth::rules::RULES;
use crate::config::Config;

/// Those of this crate.
const TARGETS: &[Target] = &[
    Target { name: "names", run: parsers::names },
    Target { name: "config", run: parsers::config },
    Target { name: "auth", run: parsers::auth },
];

/// All of this crate and of those below.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    let below = hearth_providers::fuzzing::TARGETS.iter().chain(hearth_pool::fuzzing::TARGETS);
    TARGETS.iter().chain(below)
}

/// The paths of our methods.
pub static METHODS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let ours =
        |path: &&str| path.starts_with("/hearth.v1.") || path.starts_with("/google.longrunning.");
    RULES.iter().map(|(path, _)| *path).filter(ours).collect()
});

/// A reason of the one table, with a code that it goes with.
pub fn is_known_reason(reason: &str, code: tonic::Code) -> bool {
    crate::status::is_known_reason(reason, code)
}

/// The bounds that a configuration gives the pools.
pub fn limits(config: &Config) -> Limits {
    config.limits.to_pool()
}

/// Makes the default template and pool, as a start does.
///
/// # Errors
/// As of a start.
pub async fn furnish(manager: &Arc<Manager>, config: &Config) -> hearth_pool::error::Result<()> {
    crate::furnish::furnish(manager, config, VmSpec::default()).await
}
