//! A start on a journal whose records say anything, and what is shown of those that were taken.

use hearth_pool::fuzzing::fill;

use super::{service, world};

/// The `pieces` of `bytes` are records. A start takes them up or refuses to; what it has taken up it can
/// show, and give back.
pub(crate) fn run(bytes: &[u8]) {
    world::run(
        2,
        |dir, env| fill(dir, env, bytes),
        async |world| {
            if world.begin().await.is_err() {
                return;
            }
            service::show_all(world).await;
            service::release_all(world).await;
            world.end().await;
        },
    );
}
