//! What the runs of some seeds say together, and whether one policy dominates another.

use super::simulate::Run;

/// Student's t for 95 %, two-sided, by degrees of freedom from 1; beyond, the normal's.
const T: [f64; 15] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131,
];

/// One policy on one trace: a run for each seed, the same seeds for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    runs: Vec<Run>,
}

/// Whether one is better than another in both respects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dominance {
    /// Not in both.
    None,
    /// In both, but no more than the seeds differ anyway.
    ByChance,
    /// In both, each by more than chance (pairs of the same seed, 95 %).
    Certain,
}

impl Outcome {
    /// Of one run for each seed. Of one run alone the interval is not known, and said to be 0.
    pub fn of(runs: Vec<Run>) -> Self {
        Self { runs }
    }

    /// The claims that missed.
    pub fn misses(&self) -> u64 {
        self.runs.iter().map(|it| it.misses).sum()
    }

    /// The part of the claims that missed, and half the width of its 95 % interval over seeds.
    pub fn miss_ratio(&self) -> (f64, f64) {
        mean(self.runs.iter().map(miss_ratio))
    }

    /// The upper end of the miss ratio's interval.
    pub fn upper(&self) -> f64 {
        let (ratio, reach) = self.miss_ratio();
        ratio + reach
    }

    /// The VMs that waited, on average over time and seeds.
    pub fn idle(&self) -> f64 {
        mean(self.runs.iter().map(|it| it.idle)).0
    }

    /// Whether this one has fewer misses and fewer idle VMs than `other`.
    pub fn dominates(&self, other: &Self) -> Dominance {
        let pairs = || self.runs.iter().zip(&other.runs);
        let fewer = [
            mean(pairs().map(|(ours, theirs)| miss_ratio(theirs) - miss_ratio(ours))),
            mean(pairs().map(|(ours, theirs)| theirs.idle - ours.idle)),
        ];
        if fewer.iter().any(|it| it.0 <= 0.0) {
            Dominance::None
        } else if fewer.iter().any(|it| it.0 <= it.1) {
            Dominance::ByChance
        } else {
            Dominance::Certain
        }
    }
}

fn miss_ratio(run: &Run) -> f64 {
    run.misses as f64 / run.claims.max(1) as f64
}

/// The mean and half the width of its 95 % interval.
fn mean(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|it| (it - mean) * (it - mean)).sum();
    let reach = match values.len() {
        0 | 1 => 0.0,
        many => T.get(many - 2).unwrap_or(&1.96) * (squares / (count - 1.0) / count).sqrt(),
    };
    (mean, reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(runs: &[(u64, f64)]) -> Outcome {
        let run = |&(misses, idle)| Run { claims: 1000, misses, idle };
        Outcome::of(runs.iter().map(run).collect())
    }

    #[test]
    fn the_interval_is_that_of_the_mean_over_seeds() {
        let (ratio, reach) = outcome(&[(9, 1.0), (10, 1.0), (11, 1.0)]).miss_ratio();
        assert!((ratio - 0.01).abs() < 1e-12);
        assert!((reach - 4.303 * 0.001 / 3_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn dominance_takes_both_and_more_than_chance() {
        let ours = outcome(&[(10, 5.0), (12, 5.0), (11, 5.1)]);
        assert_eq!(outcome(&[(5, 6.0), (6, 6.0), (5, 6.1)]).dominates(&ours), Dominance::None);
        assert_eq!(outcome(&[(5, 4.0), (6, 4.1), (5, 4.0)]).dominates(&ours), Dominance::Certain);
        assert_eq!(
            outcome(&[(1, 4.0), (19, 4.1), (10, 4.0)]).dominates(&ours),
            Dominance::ByChance
        );
        assert_eq!(ours.dominates(&ours), Dominance::None);
    }
}
