//! State files: magic, the format's version in text, the state, a checksum.
//!
//! The state begins with the format once more. A release with another format has another
//! structure, and cannot decode the file; a file of which only the header's version differs can
//! be decoded and is refused for that.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bodies_of_devices::Config;
use super::checksum::crc64;

const MAGIC: u64 = 0x0710_1984_8664_0000;
/// A byte of the encoding, the magic, the version's length.
const VERSION_OFFSET: usize = 10;
const CHECKSUM_BYTES: usize = 8;

/// What a state file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedState {
    format: String,
    /// The snapshot, as its memory names it.
    pub(super) snapshot: String,
    pub(super) config: Config,
}

impl SavedState {
    pub(super) fn new(format: &str, snapshot: String, config: Config) -> Self {
        Self { format: format.to_owned(), snapshot, config }
    }

    /// Writes it, over what is there.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let state = serde_json::to_vec(self).expect("states are JSON");
        let mut bytes = vec![0];
        bytes.extend(MAGIC.to_le_bytes());
        bytes.push(u8::try_from(self.format.len()).expect("versions are short"));
        bytes.extend(self.format.as_bytes());
        bytes.extend((state.len() as u64).to_le_bytes());
        bytes.extend(state);
        bytes.extend(crc64(&bytes).to_le_bytes());
        std::fs::write(path, bytes)
            .map_err(|error| format!("Cannot perform open on the snapshot backing file: {error}"))
    }

    /// Reads the state of a file of this `format`.
    pub(super) fn read(path: &Path, format: &str) -> Result<Self, String> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| format!("Failed to open snapshot file: {error}"))?;
        let failed = |reason: String| format!("Failed to load snapshot state from file: {reason}");
        let decoded = decode(&bytes, format).map_err(|unread| failed(unread.display()))?;
        let magic = decoded.magic;
        if magic != MAGIC {
            return Err(failed(format!("Magic value does not match arch: {magic}")));
        }
        let version = &decoded.version;
        if version != format {
            return Err(failed(format!("Invalid data version: {version}")));
        }
        if crc64(&bytes) != 0 {
            return Err(failed("CRC64 validation failed".to_owned()));
        }
        // A state that the checksum vouches for was written by this fake.
        serde_json::from_slice(decoded.state).map_err(|error| failed(error.to_string()))
    }
}

/// Why a file is none that this release can read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unread {
    TooShort,
    Undecodable,
}

impl Unread {
    pub(super) fn display(self) -> String {
        match self {
            Self::TooShort => "IO Error: File too short to contain CRC".to_owned(),
            Self::Undecodable => {
                "An error occurred during bitcode serialization: bitcode error".to_owned()
            }
        }
    }
}

/// The version in a file's header, read without a look at the checksum.
pub(super) fn version(bytes: &[u8], format: &str) -> Result<String, Unread> {
    decode(bytes, format).map(|decoded| decoded.version)
}

struct Decoded<'a> {
    magic: u64,
    version: String,
    state: &'a [u8],
}

fn decode<'a>(bytes: &'a [u8], format: &str) -> Result<Decoded<'a>, Unread> {
    let Some(end) = bytes.len().checked_sub(CHECKSUM_BYTES) else { return Err(Unread::TooShort) };
    parts(&bytes[..end], format).ok_or(Unread::Undecodable)
}

fn parts<'a>(bytes: &'a [u8], format: &str) -> Option<Decoded<'a>> {
    let magic = u64::from_le_bytes(bytes.get(1..9)?.try_into().ok()?);
    let text_end = VERSION_OFFSET + usize::from(*bytes.get(VERSION_OFFSET - 1)?);
    let version = std::str::from_utf8(bytes.get(VERSION_OFFSET..text_end)?).ok()?.to_owned();
    let length = u64::from_le_bytes(bytes.get(text_end..text_end + 8)?.try_into().ok()?);
    let state = &bytes[text_end + 8..];
    let begin = format!("{{\"format\":\"{format}\",");
    let fits = state.len() as u64 == length && state.starts_with(begin.as_bytes());
    fits.then_some(Decoded { magic, version, state })
}
