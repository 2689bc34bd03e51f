//! Panics, also those of tasks that nobody waits for: heard by a hook, on the thread that runs them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics are kept, and shown by nobody else.
pub(crate) fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        // Nobody can be told of one that comes while its thread ends.
        let _ = HEARD.try_with(|heard| heard.borrow_mut().push(panic.to_string()));
    }));
}

/// Runs what must not panic.
///
/// # Errors
/// The panics of it.
pub(crate) fn none(run: impl FnOnce()) -> Result<(), String> {
    HEARD.take();
    let ended = catch_unwind(AssertUnwindSafe(run));
    let heard = HEARD.take();
    match ended.is_ok() && heard.is_empty() {
        true => Ok(()),
        false => Err(heard.join("; ")),
    }
}
