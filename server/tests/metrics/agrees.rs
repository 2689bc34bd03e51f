//! What the histogram shows, held against an HdrHistogram of the same acquires.

use hdrhistogram::Histogram;

use crate::value;

const NAME: &str = "hearth_acquire_duration_seconds";
/// Three digits are kept: what lies nearer to a bound than this may be on either side.
const NEAR: f64 = 1e-3;

/// The histogram of warm acquires in `text` agrees with `seen`, which has the same ones in nanoseconds.
pub(crate) fn check(text: &str, seen: &Histogram<u64>) {
    let labels = ["pool=\"default\"", "source=\"warm\""];
    assert_eq!(value(text, &format!("{NAME}_count"), &labels), Some(seen.len() as f64));
    let mut bounds = Vec::new();
    let bucket = format!("{NAME}_bucket{{");
    for line in text.lines().filter(|it| it.starts_with(&bucket)) {
        let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        if labels.iter().all(|it| line.contains(it)) && bound != "+Inf" {
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            bounds.push((bound.parse::<f64>().unwrap(), count));
        }
    }
    assert_eq!(bounds.len(), 20);
    let at_most = |seconds: f64| seen.count_between(0, (seconds * 1e9) as u64);
    for (bound, count) in &bounds {
        let (least, most) = (at_most(bound * (1.0 - NEAR)), at_most(bound * (1.0 + NEAR)));
        assert!(
            (least..=most).contains(count),
            "{count} of up to {bound} s, not {least} to {most}"
        );
    }
    // And so a quantile read from the buckets is off by at most the width of its bucket.
    for quantile in [0.5, 0.9, 0.99] {
        let exact = seen.value_at_quantile(quantile) as f64 / 1e9;
        let rank = (quantile * seen.len() as f64).ceil() as u64;
        let at = bounds.iter().position(|it| it.1 >= rank).unwrap();
        let from = if at == 0 { 0.0 } else { bounds[at - 1].0 };
        let holds = (from * (1.0 - NEAR)..=bounds[at].0 * (1.0 + NEAR)).contains(&exact);
        assert!(holds, "{quantile}: {exact} s is not between {from} and {} s", bounds[at].0);
    }
}
