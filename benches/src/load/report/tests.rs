use super::super::tally::{Source, Times, Verdict};
use super::*;

fn tally() -> Tally {
    let mut tally = Tally::default();
    for call in 0..1000_u64 {
        let due = Duration::from_millis(call);
        tally.due(due, call != 7);
        let verdict = match call {
            7 => continue,
            8 => Verdict::Refused("POOL_EMPTY".to_owned()),
            _ => Verdict::Given(Source::Warm),
        };
        let answered = due + Duration::from_millis(1);
        tally.answered(verdict, Times { due, sent: due, answered });
    }
    tally.second_over(0);
    tally
}

fn report(planned: Duration, is_cut: bool) -> Report {
    let settings = Settings { target: "pools/a".to_owned(), ..Settings::default() };
    let mut report = Report::new(Stamp::take(None), settings, &tally(), planned, is_cut);
    report.pool_before = Some(Depth { warm: 4, target: 4, ..Depth::default() });
    report
}

#[test]
fn a_table_says_what_was_offered_and_what_was_achieved() {
    let text = report(Duration::from_secs(1), false).to_string();
    for part in [
        "offered      1000.0/s: 1000 calls, 1 not sent",
        "achieved      998.0/s: 998 given, 1 refused",
        "hit ratio    99.900 %",
        "pool before: 4 warm of 4, 0 leased",
        "POOL_EMPTY                       1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let warm = text.lines().find(|it| it.starts_with("WARM ")).unwrap();
    let columns: Vec<_> = warm.split_whitespace().collect();
    assert_eq!(columns.len(), 8, "{warm}");
    assert_eq!((columns[1], columns[5], columns[6]), ("998", "-", "-"), "{warm}");
}

#[test]
fn a_run_that_was_cut_is_judged_by_the_time_that_it_had() {
    let cut = report(Duration::from_secs(10), true);
    assert!((cut.offered_per_s - 1001.0).abs() < 0.1, "{}", cut.offered_per_s);
    let whole = report(Duration::from_secs(10), false);
    assert!((whole.offered_per_s - 100.0).abs() < 0.1, "{}", whole.offered_per_s);
}

#[test]
fn a_closed_loop_is_judged_by_what_it_took_and_is_late_for_nothing() {
    let mut tally = tally();
    tally.renewed(Ok(()), Duration::from_millis(2));
    tally.asked(Ok(()), Duration::from_millis(3));
    tally.asked(Err("LEASE_NOT_HELD".to_owned()), Duration::from_millis(3));
    tally.renewed(Err("LEASE_NOT_HELD".to_owned()), Duration::from_millis(2));
    let settings = Settings { in_flight: Some(4), ..Settings::default() };
    let planned = Duration::from_secs(3600);
    let report = Report::new(Stamp::take(None), settings, &tally, planned, false);
    assert!((report.achieved_per_s - 998.0).abs() < 0.1, "{}", report.achieved_per_s);
    let text = report.to_string();
    assert!(!text.contains("sent late by") && !text.contains("from sent"), "{text}");
    assert!(text.contains("no answer of the guest, LEASE_NOT_HELD: 1"), "{text}");
    assert!(text.lines().any(|it| it.starts_with("guest's first answer ")), "{text}");
    assert!(text.contains("not renewed, LEASE_NOT_HELD: 1"), "{text}");
    assert!(text.lines().any(|it| it.starts_with("renew ")), "{text}");
}

#[test]
fn json_has_all_of_it() {
    let json = serde_json::to_value(report(Duration::from_secs(1), false)).unwrap();
    assert_eq!(json["by_source"]["WARM"]["from_due"]["count"], 998);
    assert_eq!(json["by_reason"]["POOL_EMPTY"]["from_sent"]["count"], 1);
    assert_eq!(json["by_source"]["WARM"]["from_due"]["p99_9_us"], serde_json::Value::Null);
    assert_eq!(json["seconds"][0]["warm"], 998);
    assert!(json["stamp"]["kernel"].is_string());
    let points = json["by_source"]["WARM"]["from_due"]["distribution"].as_array().unwrap();
    assert!(points.len() > 1 && points.last().unwrap()["quantile"] == 1.0);
    let read: Report = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), json);
}

#[test]
fn progress_is_one_line() {
    let tally = tally();
    let line = progress(&tally.seconds[0]);
    assert!(line.contains("1000 due, 1 not sent, 998 given (998 warm)"), "{line}");
    assert_eq!(line.lines().count(), 1);
}
