//! What this process asks of the host for itself, before it has anything to lose.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many file descriptors as it may have, and leaves no core behind: secrets and guests' memory
/// would be in it. What it starts inherits both.
pub(crate) fn prepare() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Some systems name a maximum that they do not give; what there was is kept then.
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the number of open files stays as it is");
    }
    let maximum = getrlimit(Resource::Core).maximum;
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        tracing::warn!(%error, "a crash may leave a core with secrets in it");
    }
}
