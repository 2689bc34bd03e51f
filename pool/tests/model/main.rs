//! The hand-written atomics of this crate, each compiled a second time from its own source against
//! the atomics of a model checker, in every order that the memory model allows.

#![expect(clippy::unwrap_used, reason = "a test ends at what fails")]

// `crate::sync`, in the modules below, is the checker's.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
}

#[path = "../../src/phase.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is the crate's own source")]
mod phase;

use loom::sync::{Arc, Mutex};
use loom::thread;

use self::phase::{Phase, PhaseCell, PhaseEvent};

/// A line as the pools have it: who is in it, under a lock.
#[derive(Default)]
struct Line(Mutex<Vec<u8>>);

impl Line {
    fn join(&self) {
        self.0.lock().unwrap().push(1);
    }

    /// How many were told that there will be nothing.
    fn dismiss(&self) -> usize {
        self.0.lock().unwrap().drain(..).count()
    }
}

fn serving() -> Arc<PhaseCell> {
    let phase = PhaseCell::default();
    phase.advance(PhaseEvent::Recovered { drains: false });
    Arc::new(phase)
}

#[test]
fn nobody_waits_in_a_line_that_was_dismissed() {
    loom::model(|| {
        let (phase, line) = (serving(), Arc::new(Line(Mutex::new(Vec::new()))));
        let (its_phase, its_line) = (Arc::clone(&phase), Arc::clone(&line));
        let caller = thread::spawn(move || {
            its_line.join();
            // True: it waits to be served or told.
            its_phase.get() == Phase::Serving
        });
        phase.advance(PhaseEvent::Drained);
        let told = line.dismiss();
        let waits = caller.join().unwrap();
        assert!(!waits || told == 1, "it waits, and nobody tells it");
    });
}

#[test]
fn an_end_is_for_ever_whatever_operators_do_at_the_same_time() {
    loom::model(|| {
        let phase = serving();
        let others = [PhaseEvent::Drained, PhaseEvent::Undrained].map(|event| {
            let phase = Arc::clone(&phase);
            thread::spawn(move || phase.advance(event))
        });
        phase.advance(PhaseEvent::Ended);
        assert_eq!(phase.get(), Phase::Ending);
        others.into_iter().for_each(|other| drop(other.join()));
        assert_eq!(phase.get(), Phase::Ending);
    });
}

#[test]
fn nothing_but_recovery_ends_the_start() {
    loom::model(|| {
        let phase = Arc::new(PhaseCell::default());
        let others = [PhaseEvent::Drained, PhaseEvent::Undrained].map(|event| {
            let phase = Arc::clone(&phase);
            thread::spawn(move || phase.advance(event))
        });
        let seen = others.map(|other| other.join().unwrap());
        assert_eq!(seen, [Phase::Starting; 2]);
        assert_eq!(phase.advance(PhaseEvent::Recovered { drains: true }), Phase::Draining);
    });
}
