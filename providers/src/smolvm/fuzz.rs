//! Ways in for a search for input that is not borne: see [`crate::fuzzing`].

/// What the tool says of its machines.
pub(crate) fn listing(bytes: &[u8]) {
    let _ = super::listing::parse(bytes);
}
