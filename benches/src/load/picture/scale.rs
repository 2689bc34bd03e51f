//! Where a value is on an axis, and which values are marked there.

use std::time::Duration;

/// A scale. Places are from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scale {
    /// Even, from 0 to this; marked at each multiple of a round step.
    Linear {
        /// The largest value.
        high: f64,
        /// Between two marks.
        step: f64,
    },
    /// Times in microseconds, by the logarithm, from one power of ten to another.
    Log {
        /// The lower exponent.
        low: i32,
        /// The upper one.
        high: i32,
    },
    /// Quantiles by how many nines they have, up to so many; see [`nines`].
    Nines(f64),
    /// Words at equal distances, by their index.
    Names(Vec<String>),
}

/// 0.9 is 1, 0.99 is 2, 0.999 is 3; `None` for 1, which has no end of them.
pub(super) fn nines(quantile: f64) -> Option<f64> {
    (quantile < 1.0).then(|| -(1.0 - quantile).log10())
}

/// Microseconds, for people.
fn time(micros: f64) -> String {
    format!("{:?}", Duration::from_secs_f64(micros / 1e6))
}

impl Scale {
    /// One that has all of these, which are above 0.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .fold((f64::INFINITY, 0.0_f64), |(least, most), it| (least.min(it), most.max(it)));
        if least > most || least <= 0.0 {
            return Self::Log { low: 0, high: 1 };
        }
        let low = least.log10().floor() as i32;
        Self::Log { low, high: (most.log10().ceil() as i32).max(low + 1) }
    }

    /// One from 0 that has `most`, with four to ten marks.
    pub(super) fn from_zero(most: f64) -> Self {
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        let power = 10.0_f64.powf(most.log10().floor());
        let steps = [0.1, 0.2, 0.5, 1.0];
        let step = steps.iter().map(|it| it * power).find(|it| most / it <= 8.0);
        let step = step.unwrap_or(2.0 * power);
        Self::Linear { high: (most / step).ceil() * step, step }
    }

    /// Where `value` is.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { high, .. } => value / high,
            Self::Log { low, high } => {
                let low = f64::from(*low);
                (value.max(f64::MIN_POSITIVE).log10() - low) / (f64::from(*high) - low)
            }
            Self::Nines(most) => value / most,
            Self::Names(names) => (value + 0.5) / names.len().max(1) as f64,
        };
        place.clamp(0.0, 1.0)
    }

    /// What is marked, and where.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { high, step } => {
                let count = (high / step).round() as u32;
                let value = |number: u32| f64::from(number) * step;
                let digits = (-step.log10().floor()).max(0.0) as usize;
                let mark = |it| (self.place(value(it)), format!("{:.digits$}", value(it)));
                (0..=count).map(mark).collect()
            }
            Self::Log { low, high } => {
                let value = |exponent| 10.0_f64.powi(exponent);
                (*low..=*high).map(|it| (self.place(value(it)), time(value(it)))).collect()
            }
            Self::Nines(most) => {
                let name = |nines: u32| match nines {
                    0 => "0 %".to_owned(),
                    1 => "90 %".to_owned(),
                    2 => "99 %".to_owned(),
                    more => format!("99.{} %", "9".repeat(more as usize - 2)),
                };
                (0..=most.floor() as u32).map(|it| (self.place(f64::from(it)), name(it))).collect()
            }
            Self::Names(names) => {
                let mark =
                    |(index, name): (usize, &String)| (self.place(index as f64), name.clone());
                names.iter().enumerate().map(mark).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.marks().into_iter().map(|it| it.1).collect()
    }

    #[test]
    fn a_linear_scale_has_round_marks_and_room_for_all() {
        assert_eq!(labels(&Scale::from_zero(7.0)), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(
            labels(&Scale::from_zero(1.3)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4"]
        );
        assert_eq!(labels(&Scale::from_zero(950.0)).last().unwrap(), "1000");
        for most in [0.003, 0.99, 1.0, 43.0, 81_234.0] {
            let scale = Scale::from_zero(most);
            let count = scale.marks().len();
            assert!(scale.place(most) > 0.6 && (4..=11).contains(&count), "{most}: {count}");
        }
        assert_eq!(Scale::from_zero(0.0), Scale::from_zero(1.0));
    }

    #[test]
    fn a_logarithmic_scale_goes_from_a_power_of_ten_to_another() {
        let scale = Scale::log([250.0, 12_000.0].into_iter());
        assert_eq!(labels(&scale), ["100µs", "1ms", "10ms", "100ms"]);
        assert!((scale.place(1000.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(labels(&Scale::log([].into_iter())).len(), 2);
    }

    #[test]
    fn quantiles_are_placed_by_their_nines() {
        assert!((nines(0.999).unwrap() - 3.0).abs() < 1e-9 && nines(1.0).is_none());
        assert_eq!(labels(&Scale::Nines(4.2)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn names_are_at_equal_distances() {
        let marks = Scale::Names(vec!["p50".to_owned(), "p90".to_owned()]).marks();
        assert_eq!(marks, [(0.25, "p50".to_owned()), (0.75, "p90".to_owned())]);
    }
}
