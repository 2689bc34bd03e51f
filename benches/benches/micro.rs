//! Times of the microbenchmarks, by criterion: `make microbench`, or with a part of a name
//! `cargo bench --package hearth-benches --bench micro -- ledger`.
//!
//! Times of one machine at one hour: what has become slower is told by `scripts/instructions`, and
//! what must not grow with a node's size by `scale`.

use std::time::Duration;

use criterion::Criterion;
use hearth_benches::micro::{Case, Stopwatch, cases, run};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for case in cases::all() {
        time(&mut criterion, &case);
    }
    criterion.final_summary();
}

/// Sets the case up when its turn comes, which it does only where it is asked for.
fn time(criterion: &mut Criterion, case: &Case) {
    let mut fixture = None;
    criterion.bench_function(&case.name, |bencher| {
        let fixture = fixture.get_or_insert_with(|| {
            (case.set_up)().unwrap_or_else(|error| panic!("{}: {error}", case.name))
        });
        bencher.iter_custom(|count| {
            let mut stopwatch = Stopwatch::default();
            let ran = run(fixture.as_mut(), count as usize, &mut stopwatch);
            ran.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            stopwatch.total
        });
    });
}
