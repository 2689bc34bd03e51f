use std::time::Duration;

use super::super::comparison::tests::comparison;
use super::super::tally::{Source, Tally, Times, Verdict};
use super::*;

/// Twenty seconds of 200 calls, which take so long and a little, and of which some are cold.
fn run(took_us: u64, cold: u64) -> Results {
    let mut tally = Tally::default();
    for second in 0..20_u64 {
        for call in 0..200_u64 {
            let due = Duration::from_secs(second) + Duration::from_millis(call * 5);
            tally.due(due, true);
            let source = if call < cold { Source::Cold } else { Source::Warm };
            let answered = due + Duration::from_micros(took_us + second + call % 7);
            tally.answered(Verdict::Given(source), Times { due, sent: due, answered });
        }
        tally.second_over(0);
    }
    let (stamp, settings) = (Stamp::take(None), Settings::default());
    let report = Report::new(stamp, settings, &tally, Duration::from_secs(20), false);
    Results::Run(Box::new(report))
}

fn judgement(changes: &Changes, name: &str) -> Judgement {
    let row = changes.rows.iter().find(|it| it.name.starts_with(name));
    row.unwrap_or_else(|| panic!("no {name} in\n{changes}")).judgement
}

#[test]
fn a_run_that_takes_longer_is_slower_and_one_like_it_is_the_same() {
    let changes = Changes::between(&run(500, 0), &run(700, 0)).unwrap();
    assert_eq!(judgement(&changes, "p50 of a second"), Judgement::Slower);
    assert_eq!(judgement(&changes, "p99 of a second"), Judgement::Slower);
    assert_eq!(judgement(&changes, "given in a second"), Judgement::Same);
    assert_eq!(judgement(&changes, "WARM p90"), Judgement::Unknown);
    assert!(changes.is_slower() && changes.to_string().contains("SLOWER"));
    let back = Changes::between(&run(700, 0), &run(500, 0)).unwrap();
    assert_eq!(judgement(&back, "p50 of a second"), Judgement::Faster);
    assert!(!back.is_slower());
    let alike = Changes::between(&run(500, 0), &run(502, 0)).unwrap();
    assert_eq!(judgement(&alike, "p50 of a second"), Judgement::Same);
    assert!(!alike.is_slower(), "{alike}");
}

#[test]
fn fewer_hits_are_worse() {
    let changes = Changes::between(&run(500, 0), &run(500, 5)).unwrap();
    assert_eq!(judgement(&changes, "hit ratio"), Judgement::Slower);
}

#[test]
fn ratios_are_judged_by_their_intervals_and_a_higher_rate_is_better() {
    let results = |p50, rate| Results::Comparison(Box::new(comparison(p50, rate)));
    let before = results((1.25, 1.20, 1.30), (0.70, 0.65, 0.75));
    let worse = results((1.40, 1.35, 1.45), (0.80, 0.76, 0.85));
    let changes = Changes::between(&before, &worse).unwrap();
    assert_eq!(judgement(&changes, "p50 from sent"), Judgement::Slower);
    assert_eq!(judgement(&changes, "calls per second"), Judgement::Faster);
    assert_eq!(judgement(&changes, "hit ratio"), Judgement::Same);
    assert!(changes.is_slower());
    let noise = results((1.33, 1.29, 1.40), (0.62, 0.60, 0.66));
    let changes = Changes::between(&before, &noise).unwrap();
    assert!(!changes.is_slower(), "{changes}");
}

#[test]
fn another_machine_or_another_load_is_said() {
    let (before, mut after) = (run(500, 0), run(500, 0));
    assert_eq!(Changes::between(&before, &after).unwrap().warnings, [""; 0]);
    if let Results::Run(report) = &mut after {
        report.stamp.kernel = "Other 1.0".to_owned();
        report.settings.hold_s = 7.0;
        report.settings.target = "elsewhere".to_owned();
    }
    let changes = Changes::between(&before, &after).unwrap();
    assert_eq!(changes.warnings.len(), 2, "{changes}");
    assert!(changes.to_string().contains("NOT ALIKE: kernel"), "{changes}");
}

#[test]
fn results_of_different_commands_are_not_compared() {
    let other = Results::Comparison(Box::new(comparison((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))));
    let error = Changes::between(&run(500, 0), &other).unwrap_err();
    assert!(error.contains("`run`") && error.contains("`compare-floor`"), "{error}");
}
