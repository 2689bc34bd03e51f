//! Texts of the command line, in and out: durations, times, labels, names, paths.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hearth_proto::convert::{duration_from_wire, timestamp_to_system_time};
use prost_types::Timestamp;

/// Reads `90s`, `5m`, `1h 30m`. For clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 1h30m"))
}

/// Reads `key=value`. For clap.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// The resource name of `text`, which may be the name or the id alone. Whether the id is one is
/// for the server to judge.
pub(crate) fn qualify(collection: &str, text: &str) -> String {
    match text.strip_prefix(collection).is_some_and(|rest| rest.starts_with('/')) {
        true => text.to_owned(),
        false => format!("{collection}/{text}"),
    }
}

/// The id in a resource name, for columns that say what they hold.
pub(crate) fn id_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, id)| id)
}

/// `path` as the server has to see it: absolute. A relative one is meant from `base`.
pub(crate) fn absolute(base: &Path, path: &Path) -> PathBuf {
    let joined = base.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

/// A duration for people, in one or two units: `412ms`, `12s`, `3m12s`, `4h5m`, `3d4h`.
pub(crate) fn short_duration(duration: Duration) -> String {
    let two = |large: u64, small: u64, units: [&str; 2]| match small {
        0 => format!("{large}{}", units[0]),
        _ => format!("{large}{}{small}{}", units[0], units[1]),
    };
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.as_millis() > 0 => format!("{}ms", duration.as_millis()),
        0 if !duration.is_zero() => format!("{}us", duration.as_micros()),
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, seconds % 60, ["m", "s"]),
        3600..86_400 => two(seconds / 3600, seconds % 3600 / 60, ["h", "m"]),
        _ => two(seconds / 86_400, seconds % 86_400 / 3600, ["d", "h"]),
    }
}

/// A duration of the wire for people; `-` when it is unset or nonsense.
pub(crate) fn wire_duration(duration: Option<&prost_types::Duration>) -> String {
    duration
        .and_then(|duration| duration_from_wire(duration).ok())
        .map_or_else(|| "-".to_owned(), short_duration)
}

/// A duration of the wire in milliseconds with three places, for latencies.
pub(crate) fn wire_milliseconds(duration: &prost_types::Duration) -> String {
    duration_from_wire(duration).map_or_else(
        |error| error.to_string(),
        |duration| format!("{:.3} ms", duration.as_secs_f64() * 1e3),
    )
}

/// How long ago `time` was; `-` when it is unset.
pub(crate) fn since(time: Option<&Timestamp>, now: SystemTime) -> String {
    let time = time.and_then(|time| timestamp_to_system_time(time).ok());
    time.map_or_else(
        || "-".to_owned(),
        |time| short_duration(now.duration_since(time).unwrap_or_default()),
    )
}

/// How long it is until `time`; `-` when it is unset.
pub(crate) fn until(time: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(time) = time.and_then(|time| timestamp_to_system_time(time).ok()) else {
        return "-".to_owned();
    };
    time.duration_since(now).map_or_else(|_| "expired".to_owned(), short_duration)
}

/// `text` or, when there is none, a dash.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A label set on one line.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    let each: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_dash(&each.join(","))
}

/// Text of a guest or a server with everything but line ends and tabs that a terminal acts upon
/// made visible.
pub(crate) fn printable(text: &str) -> String {
    let show = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        '\r' => String::new(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(7), "7us"),
            (Duration::from_millis(412), "412ms"),
            (Duration::from_secs(59), "59s"),
            (Duration::from_secs(60), "1m"),
            (Duration::from_secs(192), "3m12s"),
            (Duration::from_secs(14_700), "4h5m"),
            (Duration::from_secs(273_600), "3d4h"),
        ];
        for (duration, text) in cases {
            assert_eq!(short_duration(duration), text);
        }
    }

    #[test]
    fn names_and_ids_both_name_a_resource() {
        assert_eq!(qualify("vms", "a"), "vms/a");
        assert_eq!(qualify("vms", "vms/a"), "vms/a");
        assert_eq!(qualify("vms", "vms"), "vms/vms");
        assert_eq!(qualify("vms", "../a"), "vms/../a");
        assert_eq!(id_of("vms/a"), "a");
    }

    #[test]
    fn labels_have_a_key() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_label("a").is_err() && parse_label("=b").is_err());
    }

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\r\nb\tc"), "a\\u{1b}[2J\nb\tc");
    }

    #[test]
    fn paths_are_meant_from_their_base() {
        assert_eq!(absolute(Path::new("/b"), Path::new("k")), Path::new("/b/k"));
        assert_eq!(absolute(Path::new("/b"), Path::new("/k")), Path::new("/k"));
    }
}
