//! Runs a case of the microbenchmarks for callgrind to count: see `scripts/instructions`.
//!
//! `instructions list` prints the names of the cases, `instructions run CASE` runs one and prints how
//! many operations it enclosed. What is counted lies between entering and leaving
//! [`counted_operations`], on its thread: set-up does not count, nor does what goes on beside.
//!
//! Environment: `HEARTH_PLANT`, a case that is made slower on purpose, to show that it would be found.

use std::hint::black_box;
use std::process::ExitCode;

use hearth_benches::micro::{Meter, Result, Unmeasured, cases, run};

/// How many operations are counted: hashes and uids are others in each run, and vary what few cost.
const OPERATIONS: usize = 1_000;
/// How many come before that, so that what is only made once is there.
const WARM_UP: usize = 200;
/// How often the planted loop goes round, for each call that is counted.
const PLANTED_ROUNDS: usize = 200_000;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            let counted = cases::all().into_iter().filter(|case| case.is_counted);
            counted.for_each(|case| println!("{}", case.name));
        }
        ["run", name] => {
            let case = cases::all().into_iter().find(|case| case.name == name);
            let case = case.ok_or_else(|| format!("there is no case {name}"))?;
            let mut fixture = (case.set_up)()?;
            run(fixture.as_mut(), WARM_UP, &mut Unmeasured)?;
            let is_planted = std::env::var("HEARTH_PLANT").is_ok_and(|planted| planted == name);
            run(fixture.as_mut(), OPERATIONS, &mut Counted { is_planted })?;
            println!("{OPERATIONS}");
        }
        _ => {
            eprintln!("usage: instructions list | instructions run CASE");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Has callgrind count.
struct Counted {
    is_planted: bool,
}

impl Meter for Counted {
    fn measure(&mut self, operations: &mut dyn FnMut()) {
        counted_operations(operations, self.is_planted);
    }
}

/// What is counted. Callgrind knows it by its name.
#[inline(never)]
fn counted_operations(operations: &mut dyn FnMut(), is_planted: bool) {
    operations();
    if is_planted {
        (0..PLANTED_ROUNDS).for_each(|round| _ = black_box(round));
    }
}
