//! Times and durations, between what the wire has and what the program has.
//!
//! The wire's types are pairs of integers that can hold nonsense: a negative length, two billion
//! nanoseconds, the year 400,000. Whatever comes in is checked here and refused by name; nothing is
//! normalised or clamped in silence. What goes out was made by us and always fits, or is cut to the largest
//! value that the wire can say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::{Duration as WireDuration, Timestamp};

/// The longest duration of the wire: 10,000 years, as `google.protobuf.Duration` defines it.
pub const MAX_DURATION: Duration = Duration::from_secs(MAX_DURATION_SECONDS as u64);

const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
const MAX_NANOS: i32 = 999_999_999;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the ends of `google.protobuf.Timestamp`.
const MIN_TIMESTAMP_SECONDS: i64 = -62_135_596_800;
const MAX_TIMESTAMP_SECONDS: i64 = 253_402_300_799;

/// A value of the wire that means nothing, or nothing that is allowed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A duration below zero.
    #[error("the duration is negative")]
    NegativeDuration,
    /// A duration above [`MAX_DURATION`].
    #[error("the duration is longer than {MAX_DURATION_SECONDS} s")]
    DurationTooLong,
    /// Nanoseconds outside 0 to 999,999,999.
    #[error("the nanoseconds are not between 0 and {MAX_NANOS}")]
    NanosOutOfRange,
    /// A time before the year 1 or after the year 9999.
    #[error("the time is not between the years 1 and 9999")]
    TimeOutOfRange,
}

/// Reads a duration that must not be negative. Zero is fine; whoever needs more asks for more.
///
/// # Errors
/// [`ConvertError`] when it is negative, too long, or has nanoseconds out of range.
pub fn duration_from_wire(duration: &WireDuration) -> Result<Duration, ConvertError> {
    let WireDuration { seconds, nanos } = *duration;
    if seconds < 0 || (-MAX_NANOS..0).contains(&nanos) {
        return Err(ConvertError::NegativeDuration);
    }
    let nanos = checked_nanos(nanos)?;
    if seconds > MAX_DURATION_SECONDS || (seconds == MAX_DURATION_SECONDS && nanos > 0) {
        return Err(ConvertError::DurationTooLong);
    }
    Ok(Duration::new(seconds.unsigned_abs(), nanos))
}

/// Writes a duration. One above [`MAX_DURATION`] becomes that.
#[must_use]
pub fn duration_to_wire(duration: Duration) -> WireDuration {
    let duration = duration.min(MAX_DURATION);
    // Both casts are exact: seconds are at most MAX_DURATION_SECONDS, nanoseconds below 10^9.
    WireDuration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

/// Reads a time as seconds since 1970 and nanoseconds, which count forward for earlier times too.
///
/// # Errors
/// [`ConvertError`] when it is outside the years 1 to 9999, or has nanoseconds out of range.
pub fn timestamp_to_parts(time: &Timestamp) -> Result<(i64, u32), ConvertError> {
    let nanos = checked_nanos(time.nanos)?;
    if !(MIN_TIMESTAMP_SECONDS..=MAX_TIMESTAMP_SECONDS).contains(&time.seconds) {
        return Err(ConvertError::TimeOutOfRange);
    }
    Ok((time.seconds, nanos))
}

/// Writes a time given as seconds since 1970 and nanoseconds, which count forward.
///
/// # Errors
/// [`ConvertError`] as for [`timestamp_to_parts`].
pub fn timestamp_from_parts(seconds: i64, nanos: u32) -> Result<Timestamp, ConvertError> {
    let nanos = i32::try_from(nanos).map_err(|_| ConvertError::NanosOutOfRange)?;
    let time = Timestamp { seconds, nanos };
    timestamp_to_parts(&time)?;
    Ok(time)
}

/// Reads a time.
///
/// # Errors
/// [`ConvertError`] as for [`timestamp_to_parts`], and where the platform's clock cannot say that time.
pub fn timestamp_to_system_time(time: &Timestamp) -> Result<SystemTime, ConvertError> {
    let (seconds, nanos) = timestamp_to_parts(time)?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second =
        if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(u64::from(nanos))))
        .ok_or(ConvertError::TimeOutOfRange)
}

/// Writes a time.
///
/// # Errors
/// [`ConvertError::TimeOutOfRange`] outside the years 1 to 9999.
pub fn timestamp_from_system_time(time: SystemTime) -> Result<Timestamp, ConvertError> {
    let signed = |duration: Duration| {
        i64::try_from(duration.as_secs()).map_err(|_| ConvertError::TimeOutOfRange)
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => timestamp_from_parts(signed(after)?, after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let (seconds, nanos) = (-signed(before)?, before.subsec_nanos());
            match nanos {
                0 => timestamp_from_parts(seconds, 0),
                // A part of a second before: the second before that, and what is left counted forward.
                _ => timestamp_from_parts(seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

fn checked_nanos(nanos: i32) -> Result<u32, ConvertError> {
    match u32::try_from(nanos) {
        Ok(valid) if nanos <= MAX_NANOS => Ok(valid),
        _ => Err(ConvertError::NanosOutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(seconds: i64, nanos: i32) -> WireDuration {
        WireDuration { seconds, nanos }
    }

    #[test]
    fn durations_survive_the_wire() {
        let cases = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::new(7, 999_999_999),
            Duration::from_secs(86_400),
            MAX_DURATION,
        ];
        for duration in cases {
            assert_eq!(duration_from_wire(&duration_to_wire(duration)), Ok(duration));
        }
        assert_eq!(duration_to_wire(Duration::MAX), wire(MAX_DURATION_SECONDS, 0));
    }

    #[test]
    fn bad_durations_are_refused_by_what_is_wrong() {
        use ConvertError as E;
        let cases = [
            (wire(-1, 0), E::NegativeDuration),
            (wire(0, -1), E::NegativeDuration),
            (wire(i64::MIN, 0), E::NegativeDuration),
            (wire(-1, 5), E::NegativeDuration),
            (wire(1, -1), E::NegativeDuration),
            (wire(0, 1_000_000_000), E::NanosOutOfRange),
            (wire(0, i32::MAX), E::NanosOutOfRange),
            (wire(0, i32::MIN), E::NanosOutOfRange),
            (wire(MAX_DURATION_SECONDS, 1), E::DurationTooLong),
            (wire(i64::MAX, 0), E::DurationTooLong),
        ];
        for (duration, error) in cases {
            assert_eq!(duration_from_wire(&duration), Err(error), "{duration:?}");
        }
    }

    #[test]
    fn times_survive_the_wire() {
        let cases = [
            (0, 0),
            (-1, 999_999_999),
            (-1, 1),
            (1_800_000_000, 500),
            (MIN_TIMESTAMP_SECONDS, 0),
            (MAX_TIMESTAMP_SECONDS, 999_999_999),
        ];
        for (seconds, nanos) in cases {
            let time = timestamp_from_parts(seconds, nanos).unwrap();
            assert_eq!(timestamp_to_parts(&time), Ok((seconds, nanos)));
            let system = timestamp_to_system_time(&time).unwrap();
            assert_eq!(timestamp_from_system_time(system), Ok(time));
        }
        let before = UNIX_EPOCH - Duration::from_millis(1_500);
        let time = timestamp_from_system_time(before).unwrap();
        assert_eq!((time.seconds, time.nanos), (-2, 500_000_000));
    }

    #[test]
    fn bad_times_are_refused() {
        use ConvertError as E;
        let cases = [
            (Timestamp { seconds: MIN_TIMESTAMP_SECONDS - 1, nanos: 0 }, E::TimeOutOfRange),
            (Timestamp { seconds: MAX_TIMESTAMP_SECONDS + 1, nanos: 0 }, E::TimeOutOfRange),
            (Timestamp { seconds: i64::MIN, nanos: 0 }, E::TimeOutOfRange),
            (Timestamp { seconds: 0, nanos: -1 }, E::NanosOutOfRange),
            (Timestamp { seconds: 0, nanos: 1_000_000_000 }, E::NanosOutOfRange),
        ];
        for (time, error) in cases {
            assert_eq!(timestamp_to_parts(&time), Err(error));
            assert_eq!(timestamp_to_system_time(&time), Err(error));
        }
        assert_eq!(timestamp_from_parts(0, u32::MAX), Err(E::NanosOutOfRange));
        let year_ten_thousand = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(timestamp_from_system_time(year_ten_thousand), Err(E::TimeOutOfRange));
    }
}
