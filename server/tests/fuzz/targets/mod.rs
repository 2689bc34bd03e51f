//! Every target of the searches: those that drive a whole service, and those of the crates. `fuzz/` has
//! this file in it, too.

mod recovery;
pub(crate) mod service;
#[allow(dead_code, reason = "searches need no seeds")]
pub(crate) mod world;

#[allow(unused_imports, reason = "searches need no seeds")]
pub(crate) use self::service::calls;
use hearth_server::fuzzing::Target;

/// Those that drive a whole service.
const SERVICES: &[Target] = &[
    Target { name: "service", run: service::run },
    Target { name: "recovery", run: recovery::run },
];

/// All that there are.
pub(crate) fn all() -> impl Iterator<Item = &'static Target> {
    SERVICES.iter().chain(hearth_server::fuzzing::targets())
}
