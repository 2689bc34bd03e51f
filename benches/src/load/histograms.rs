//! Histograms in the text format of Prometheus, and what came to them between two readings.

use std::collections::BTreeMap;

/// Histograms by what they are: their name and labels, as the text has them but without `le`.
pub type Histograms = BTreeMap<String, Histogram>;

/// Counts of what took no longer than some bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By bound in seconds, in order: how many took no longer. The last bound is infinite.
    pub buckets: Vec<(f64, f64)>,
    /// All of the times together, in seconds.
    pub sum: f64,
    /// How many there are.
    pub count: f64,
}

/// All histograms of `text` whose names `is_wanted`. What is no histogram, or cannot be read, is
/// not there: others may be.
pub fn parse(text: &str, is_wanted: impl Fn(&str) -> bool) -> Histograms {
    let mut histograms = Histograms::new();
    for line in text.lines().filter(|it| !it.starts_with('#')) {
        let Some((name, labels, value)) = sample(line) else { continue };
        let parts = ["_bucket", "_sum", "_count"];
        let part = parts.iter().find_map(|part| Some((name.strip_suffix(part)?, *part)));
        let Some((base, part)) = part.filter(|(base, _)| is_wanted(base)) else { continue };
        let (bound, others): (Vec<_>, Vec<_>) = labels.iter().partition(|(key, _)| *key == "le");
        let others: Vec<_> = others.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let key = format!("{base} {}", others.join(" "));
        let histogram = histograms.entry(key.trim_end().to_owned()).or_default();
        match (part, bound.first()) {
            ("_bucket", Some((_, bound))) => {
                // Prometheus writes an infinite one as `+Inf`, which is a number here, too.
                let bound = bound.parse().ok().filter(|it: &f64| !it.is_nan());
                histogram.buckets.extend(bound.map(|bound| (bound, value)));
            }
            ("_sum", _) => histogram.sum = value,
            ("_count", _) => histogram.count = value,
            _ => {}
        }
    }
    for histogram in histograms.values_mut() {
        histogram.buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    histograms
}

impl Histogram {
    /// What came to `self` since `before`; all of it if the server was started in between.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.count < before.count || self.buckets.len() != before.buckets.len() {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&before.buckets);
        Self {
            buckets: pairs.map(|(now, then)| (now.0, now.1 - then.1)).collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    /// The time in seconds that the part `quantile` did not exceed, as if the times of a bucket lay
    /// evenly in it. `None` without any, or when it is longer than the last bound.
    pub fn at(&self, quantile: f64) -> Option<f64> {
        // What took no time at all did not take half of the first bucket.
        if self.count > 0.0 && self.sum <= 0.0 {
            return Some(0.0);
        }
        let rank = self.count * quantile;
        let index = self.buckets.iter().position(|(_, count)| *count >= rank)?;
        let (bound, count) = self.buckets[index];
        let (from, below) = index.checked_sub(1).map_or((0.0, 0.0), |index| self.buckets[index]);
        let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
        (self.count > 0.0 && bound.is_finite()).then_some(from + (bound - from) * part)
    }

    /// The mean in seconds; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Keys and values.
type Labels<'a> = Vec<(&'a str, String)>;

/// Name, labels and value of a line; a time stamp behind the value is let be.
fn sample(line: &str) -> Option<(&str, Labels<'_>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.trim(), value));
            rest = after.trim_start_matches([',', ' ']);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// A label's value up to its closing quote, and what is behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP hearth_stage_seconds Time of each stage
# TYPE hearth_stage_seconds histogram
hearth_stage_seconds_bucket{stage="commit",le="0.001"} 10
hearth_stage_seconds_bucket{stage="commit",le="0.01"} 90
hearth_stage_seconds_bucket{stage="commit",le="+Inf"} 100
hearth_stage_seconds_sum{stage="commit"} 0.5
hearth_stage_seconds_count{stage="commit"} 100
hearth_plain_seconds_bucket{le="1"} 4 1700000000
hearth_plain_seconds_bucket{le="+Inf"} 4 1700000000
hearth_plain_seconds_sum 2
hearth_plain_seconds_count 4
hearth_warm_vms{pool="a"} 4
other_seconds_count{of="a\"}, b\\",le_not="1"} 7
broken{
"#;

    #[test]
    fn histograms_are_read_with_their_labels() {
        let histograms = parse(TEXT, |name| name.starts_with("hearth_"));
        let names: Vec<_> = histograms.keys().map(String::as_str).collect();
        assert_eq!(names, ["hearth_plain_seconds", "hearth_stage_seconds stage=commit"]);
        let commit = &histograms["hearth_stage_seconds stage=commit"];
        assert_eq!(commit.buckets, [(0.001, 10.0), (0.01, 90.0), (f64::INFINITY, 100.0)]);
        assert_eq!((commit.sum, commit.count), (0.5, 100.0));
        let all = parse(TEXT, |_| true);
        assert!(all.keys().any(|it| it == r#"other_seconds of=a"}, b\ le_not=1"#), "{all:?}");
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_or_is_unknown() {
        let commit = &parse(TEXT, |_| true)["hearth_stage_seconds stage=commit"];
        assert!((commit.at(0.5).unwrap() - 0.0055).abs() < 1e-9, "{:?}", commit.at(0.5));
        assert!((commit.at(0.05).unwrap() - 0.0005).abs() < 1e-9);
        assert_eq!(commit.at(0.99), None, "it is longer than the last bound");
        assert_eq!(commit.mean(), Some(0.005));
        let idle = Histogram { sum: 0.0, ..commit.clone() };
        assert_eq!(idle.at(0.5), Some(0.0));
        assert_eq!((Histogram::default().at(0.5), Histogram::default().mean()), (None, None));
    }

    #[test]
    fn what_came_between_two_readings_is_counted_and_a_new_start_is_from_zero() {
        let before = &parse(TEXT, |_| true)["hearth_stage_seconds stage=commit"];
        let mut after = before.clone();
        after.buckets.iter_mut().for_each(|it| it.1 += 5.0);
        (after.sum, after.count) = (0.6, 105.0);
        let between = after.since(before);
        assert_eq!(between.buckets, [(0.001, 5.0), (0.01, 5.0), (f64::INFINITY, 5.0)]);
        assert!((between.mean().unwrap() - 0.02).abs() < 1e-9);
        assert_eq!(before.since(&after), *before);
    }
}
