//! Typed ids: a value of one of these types has been checked, once, where it came in.
//!
//! Names reach file systems, sockets and engines, so the grammar is the intersection of what
//! all of them take: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, as for a DNS label.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest id, in bytes: that of a DNS label.
pub const MAX_ID_LEN: usize = 63;

/// Names of this prefix belong to the pools: a tenant's VM never carries one.
pub const POOL_PREFIX: &str = "warm-";

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} is not an id: {reason}")]
pub struct InvalidId {
    /// The text refused, cut to a printable length.
    pub id: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

/// Checks a text against the grammar of ids.
///
/// # Errors
/// [`InvalidId`] with the rule that it breaks.
pub fn check_id(text: &str) -> Result<(), InvalidId> {
    let bytes = text.as_bytes();
    let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let reason = match (bytes.first(), bytes.last()) {
        (None, _) | (_, None) => "it is empty",
        _ if bytes.len() > MAX_ID_LEN => "it has more than 63 characters",
        _ if !bytes.iter().all(|byte| fits(byte) || *byte == b'-') => {
            "only a-z, 0-9 and '-' are allowed"
        }
        (Some(first), Some(last)) if !fits(first) || !fits(last) => {
            "it must begin and end with a letter or a digit"
        }
        _ => return Ok(()),
    };
    Err(InvalidId { id: text.chars().take(MAX_ID_LEN + 1).collect(), reason })
}

/// Defines a type of checked ids.
#[macro_export]
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl $name {
            /// Checks `text` against the grammar of ids.
            ///
            /// # Errors
            /// [`$crate::id::InvalidId`] with the rule that `text` breaks.
            pub fn parse(text: &str) -> Result<Self, $crate::id::InvalidId> {
                $crate::id::check_id(text).map(|()| Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;
            fn from_str(text: &str) -> Result<Self, $crate::id::InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::id::InvalidId;
            fn try_from(text: String) -> Result<Self, $crate::id::InvalidId> {
                Self::parse(&text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// The name of a VM. It can change, and be used again after the VM's end.
    VmId
}

id_type! {
    /// The name of a snapshot among those of one VM.
    SnapshotId
}

impl VmId {
    /// True for names that only pools give: see [`POOL_PREFIX`].
    pub fn is_pools_own(&self) -> bool {
        self.0.starts_with(POOL_PREFIX)
    }

    /// The name that a pool gives to the VM that it asks for as `uid`.
    pub fn warm(uid: Uid) -> Self {
        Self(format!("{POOL_PREFIX}{uid}").into())
    }
}

/// What identifies an instance or a snapshot for ever: never changes, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(uuid::Uuid);

impl Uid {
    /// A uid of these 128 random bits, shaped as a version 4 UUID.
    pub const fn from_random(bits: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bits).into_uuid())
    }

    /// A uid of this time, in milliseconds since the epoch, and these random bits, shaped as a version
    /// 7 UUID (RFC 9562): it sorts after those of earlier milliseconds.
    pub const fn from_time(unix_millis: u64, bits: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, bits).into_uuid())
    }

    /// The uid that has these bytes: those that [`Self::as_bytes`] answered.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the UUID.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for Uid {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        uuid::Uuid::parse_str(text).map(Self).map_err(|_| InvalidId {
            id: text.chars().take(MAX_ID_LEN + 1).collect(),
            reason: "a uid is a UUID",
        })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dns_labels() {
        for good in ["a", "0", "a-b", "x9", &"a".repeat(63)] {
            assert!(VmId::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a\0b", "ä", "a.b", " a", &long] {
            assert!(VmId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_rule_and_stays_short() {
        let refused = VmId::parse(&"A".repeat(5_000_000)).unwrap_err();
        assert_eq!(refused.reason, "it has more than 63 characters");
        assert_eq!(refused.id.len(), 64);
    }

    #[test]
    fn uids_of_a_time_sort_by_it() {
        let (of_one, of_next) = (Uid::from_time(1, &[0xff; 10]), Uid::from_time(2, &[0; 10]));
        assert!(of_one < of_next && of_one.to_string() < of_next.to_string());
        assert_ne!(of_one, Uid::from_time(1, &[0xfe; 10]));
        assert_eq!(of_one.to_string().parse(), Ok(of_one));
    }

    #[test]
    fn a_warm_name_is_an_id_and_the_pools_own() {
        let name = VmId::warm(Uid::from_random([7; 16]));
        assert_eq!(VmId::parse(name.as_str()), Ok(name.clone()));
        assert!(name.is_pools_own());
    }
}
