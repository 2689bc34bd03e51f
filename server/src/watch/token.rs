//! Where a watch stands, as its reader keeps it: opaque, and of one watch only.
//!
//! It says which watch it is of (kind, filter, and whose), the epoch of the feed, the number of the last
//! change told, and, before SYNCED, the last key listed.

use std::fmt::Write as _;

use hearth_pool::requests::Fingerprint;

/// The longest token, in bytes: longer than any key makes it.
const MAX_BYTES: usize = 512;
/// Hexadecimal digits of each of the numbers at its beginning.
const DIGITS: usize = 16;

/// Where a watch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Of the feed.
    pub(crate) epoch: u64,
    /// The last change told.
    pub(crate) sequence: u64,
    /// Everything up to this key was listed; unset: everything was.
    pub(crate) listed: Option<String>,
}

/// Which watch: of this kind, with this filter, by whoever sees what `scope` may.
pub(crate) fn list_id(kind: &str, filter: &str, scope: Option<&str>) -> u64 {
    Fingerprint::default().part(&kind).part(&filter).part(&scope).finish()
}

impl Token {
    /// As its reader gets it, for the watch `list`.
    pub(crate) fn encode(&self, list: u64) -> String {
        let mut text = format!("{list:016x}{:016x}{:016x}", self.epoch, self.sequence);
        for byte in self.listed.iter().flat_map(|key| key.bytes()) {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// What `text` says, if it is a token of the watch `list`.
    pub(crate) fn decode(list: u64, text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || text.len() > MAX_BYTES || !text.len().is_multiple_of(2) {
            return None;
        }
        let number = |at: usize| {
            let digits = text.get(at * DIGITS..(at + 1) * DIGITS)?;
            u64::from_str_radix(digits, 16).ok()
        };
        if number(0)? != list {
            return None;
        }
        let (epoch, sequence) = (number(1)?, number(2)?);
        let key = &text[3 * DIGITS..];
        let bytes = (0..key.len()).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16));
        let key = String::from_utf8(bytes.collect::<Result<_, _>>().ok()?).ok()?;
        Some(Self { epoch, sequence, listed: (!key.is_empty()).then_some(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_made_of_and_to_no_other_watch() {
        for listed in [None, Some("0f8fad5b-d9cb".to_owned()), Some("é/@".to_owned())] {
            let token = Token { epoch: u64::MAX, sequence: 7, listed };
            let text = token.encode(3);
            assert_eq!(Token::decode(3, &text), Some(token));
            assert_eq!(Token::decode(4, &text), None);
        }
        assert_ne!(list_id("vms", "", None), list_id("vms", "", Some("t")));
        assert_ne!(list_id("vms", "", None), list_id("pools", "", None));
    }

    #[test]
    fn nonsense_is_no_token() {
        let good = Token { epoch: 1, sequence: 2, listed: None }.encode(3);
        let long = "0".repeat(100_000);
        let bad = ["", "x", "é", &good[..47], &good[..46], &good[2..], &long, &good.to_uppercase()];
        for text in bad.into_iter().filter(|text| **text != *good) {
            assert_eq!(Token::decode(3, text), None, "{text}");
        }
        assert_eq!(Token::decode(3, &format!("{good}ff")), None, "its key is no text");
    }
}
