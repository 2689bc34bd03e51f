use std::time::Duration;

use super::super::comparison::tests::comparison;
use super::super::hearth::Depth;
use super::super::report::Settings;
use super::super::results::Steps;
use super::super::stamp::Stamp;
use super::super::tally::{Source, Tally, Times, Verdict};
use super::*;

fn run() -> Results {
    let mut tally = Tally::default();
    for call in 0..1000_u32 {
        let due = Duration::from_millis(call.into());
        tally.due(due, true);
        let source = if call % 100 == 0 { Source::Cold } else { Source::Warm };
        let answered = due + Duration::from_micros(200 + u64::from(call));
        tally.answered(Verdict::Given(source), Times { due, sent: due, answered });
        if call % 250 == 249 {
            tally.second_over(0);
        }
    }
    let settings = Settings { target: "pools/<a>".to_owned(), ..Settings::default() };
    let planned = Duration::from_secs(4);
    let mut report = Report::new(Stamp::take(None), settings, &tally, planned, false);
    report.pool_before = Some(Depth::default());
    Results::Run(Box::new(report))
}

/// Every tag is closed, and there is nothing that is no number.
fn is_sound(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    let leaves = svg.lines().filter(|it| it.starts_with("<line") || it.starts_with("<polyline"));
    assert!(leaves.clone().all(|it| it.ends_with("/>")) && leaves.count() > 10);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_run_has_a_curve_for_each_source_and_its_rates() {
    let svg = draw(&run());
    is_sound(&svg);
    assert_eq!(svg.matches("<polyline").count(), 2 + 3);
    for part in [">WARM<", ">COLD<", ">offered<", ">warm<", ">99 %<", ">1ms<", "pools/&lt;a&gt;"] {
        assert!(svg.contains(part), "{part} is not in\n{svg}");
    }
    assert!(svg.contains("prefers-color-scheme:dark"));
}

#[test]
fn a_comparison_has_the_floor_and_the_ratios_with_their_intervals() {
    let results = Results::Comparison(Box::new(comparison((1.25, 1.2, 1.3), (0.7, 0.6, 0.8))));
    let svg = draw(&results);
    is_sound(&svg);
    for part in [">floor<", ">p50<", ">per second<", ">latency from sent, hearth / floor<"] {
        assert!(svg.contains(part), "{part} is not in\n{svg}");
    }
}

#[test]
fn rates_have_their_quantiles_and_nothing_at_all_is_a_picture_too() {
    let step = |rate| Step::of(rate, Duration::from_secs(1), &Tally::default());
    for steps in [vec![step(100.0), step(200.0)], Vec::new()] {
        let (stamp, settings) = (Stamp::take(None), Settings::default());
        is_sound(&draw(&Results::Steps(Box::new(Steps { stamp, settings, steps }))));
    }
    let (stamp, tally) = (Stamp::take(None), Tally::default());
    let empty = Report::new(stamp, Settings::default(), &tally, Duration::ZERO, false);
    is_sound(&draw(&Results::Run(Box::new(empty))));
}
