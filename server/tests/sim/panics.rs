//! Panics of the service's tasks, which nobody waits for: heard by a hook, on the thread that runs
//! their seed.

use std::cell::RefCell;

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics are kept, and shown as ever.
pub(crate) fn listen() {
    let shows = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        shows(panic);
        // Nobody can be told of one that comes while its thread ends.
        let _ = HEARD.try_with(|heard| heard.borrow_mut().push(panic.to_string()));
    }));
}

/// Those of this thread since this was asked last.
pub(crate) fn heard() -> Vec<String> {
    HEARD.with(RefCell::take)
}
