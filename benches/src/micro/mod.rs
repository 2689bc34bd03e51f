//! Microbenchmarks: single steps of the product, each with a name, a way to set up and an operation.
//!
//! One list of them, [`cases::all`], serves two programs. `benches/micro.rs` has criterion time them; the
//! program `instructions` runs one under callgrind, which counts what [`Meter::measure`] encloses: a
//! figure that neither the noise of a machine nor its clock touches, so that a growth of few percent
//! can fail a build.
//!
//! Everything here runs on one thread, and goes through what the crates make public.

pub mod cases;
mod export;
mod journal;
mod ledger;
mod metrics;
pub mod node;
mod parts;
mod refill;
pub mod scale;
mod sizing;
mod wire;

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

pub use cases::Case;

/// What a set-up, or a run, answers.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What measures operations: by the clock, or by counting.
pub trait Meter {
    /// Runs `operations`, and measures them.
    fn measure(&mut self, operations: &mut dyn FnMut());
}

/// A case that has been set up.
pub trait Fixture {
    /// Has `meter` measure at least one operation and at most `most`, which is at least 1; answers how
    /// many. What they used up is made good again, unmeasured. May block.
    ///
    /// # Errors
    /// An operation has failed: there is no figure then.
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize>;
}

/// Has `meter` measure `count` operations.
///
/// # Errors
/// The first one of the fixture.
pub fn run(fixture: &mut dyn Fixture, count: usize, meter: &mut dyn Meter) -> Result<()> {
    let mut left = count;
    while left > 0 {
        left -= fixture.block(left, meter)?.min(left);
    }
    Ok(())
}

/// Measures by the clock.
#[derive(Debug, Default)]
pub struct Stopwatch {
    /// What has been measured so far.
    pub total: Duration,
}

impl Meter for Stopwatch {
    fn measure(&mut self, operations: &mut dyn FnMut()) {
        let begun = Instant::now();
        operations();
        self.total += begun.elapsed();
    }
}

/// Measures nothing: what it runs only warms up.
#[derive(Debug)]
pub struct Unmeasured;

impl Meter for Unmeasured {
    fn measure(&mut self, operations: &mut dyn FnMut()) {
        operations();
    }
}

/// How many operations that use nothing up are measured together: reading the clock costs as much as
/// the quickest of them.
const AT_ONCE: usize = 256;

/// An operation that uses nothing up.
struct Repeat<F>(F);

impl<F: FnMut()> Fixture for Repeat<F> {
    fn block(&mut self, most: usize, meter: &mut dyn Meter) -> Result<usize> {
        let count = most.min(AT_ONCE);
        let operation = &mut self.0;
        meter.measure(&mut || (0..count).for_each(|_| operation()));
        Ok(count)
    }
}

/// A fixture of an operation that uses nothing up.
fn repeat(operation: impl FnMut() + 'static) -> Box<dyn Fixture> {
    Box::new(Repeat(operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_measures_exactly_as_many_as_it_was_told() {
        let done = std::rc::Rc::new(std::cell::Cell::new(0));
        let counter = std::rc::Rc::clone(&done);
        let mut fixture = repeat(move || counter.set(counter.get() + 1));
        run(fixture.as_mut(), 3 * AT_ONCE + 1, &mut Unmeasured).unwrap();
        assert_eq!(done.get(), 3 * AT_ONCE + 1);
    }

    #[test]
    fn every_case_that_is_counted_runs() {
        for case in cases::all().iter().filter(|case| case.is_counted) {
            let mut fixture =
                (case.set_up)().unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let ran = run(fixture.as_mut(), 3, &mut Stopwatch::default());
            ran.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = cases::all().into_iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
