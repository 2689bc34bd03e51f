//! Whether a program runs where nothing else is: in a root directory of its own.
//!
//! A program that is linked dynamically names its loader in a segment of its own; a static one,
//! position-independent or not, has none. Read are ELF files of 64 bits, little-endian, which is
//! what Firecracker runs on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What a program needs beside itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Linkage {
    /// Nothing.
    Static,
    /// This loader, and what that loads.
    Interpreted(String),
    /// It cannot be told, because it ...
    Unknown(String),
}

const HEADER_BYTES: usize = 64;
/// The class of 64 bits, and little-endian.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// The kind of segment that names the loader.
const INTERPRETER: u32 = 3;
/// Neither table nor name is longer in any program there is.
const MAX_SEGMENTS: u16 = 1024;
const MAX_NAME_BYTES: u64 = 4096;

/// What `program` needs. Reads its first blocks.
pub(super) fn linkage(program: &Path) -> Linkage {
    let read = File::open(program).and_then(|file| interpreter(&file));
    match read {
        Ok(Some(Some(loader))) => Linkage::Interpreted(loader),
        Ok(Some(None)) => Linkage::Static,
        Ok(None) => Linkage::Unknown("is no ELF program of 64 bits".to_owned()),
        Err(error) => Linkage::Unknown(format!("cannot be read: {error}")),
    }
}

/// The loader that an ELF file names, if any; `None` for another file.
fn interpreter(file: &File) -> std::io::Result<Option<Option<String>>> {
    let mut header = [0; HEADER_BYTES];
    // What is shorter than a header is no program.
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(MAGIC) {
        return Ok(None);
    }
    let (table, size, count) =
        (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count.min(MAX_SEGMENTS.into()) {
        let mut segment = [0; 56];
        file.read_exact_at(&mut segment, table.saturating_add(index * size))?;
        if number(&segment[..4]) == u64::from(INTERPRETER) {
            let (offset, length) = (number(&segment[8..16]), number(&segment[32..40]));
            let mut name = vec![0; usize::try_from(length.min(MAX_NAME_BYTES)).unwrap_or(0)];
            file.read_exact_at(&mut name, offset)?;
            let name = String::from_utf8_lossy(&name);
            return Ok(Some(Some(name.trim_end_matches('\0').to_owned())));
        }
    }
    Ok(Some(None))
}

/// Up to eight bytes, the lowest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with these segments: their kind, and the text that they hold.
    fn program(segments: &[(u32, &str)]) -> tempfile::NamedTempFile {
        let count = u16::try_from(segments.len()).unwrap();
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEADER_BYTES, 0);
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&count.to_le_bytes());
        let mut text_at = 64 + 56 * u64::from(count);
        for (kind, text) in segments {
            let mut segment = [0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&text_at.to_le_bytes());
            segment[32..40].copy_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend(segment);
            text_at += text.len() as u64;
        }
        segments.iter().for_each(|(_, text)| bytes.extend(text.as_bytes()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_loader_is_found_and_none_is_static() {
        let dynamic = program(&[(1, "code"), (INTERPRETER, "/lib/ld.so\0"), (2, "more")]);
        assert_eq!(linkage(dynamic.path()), Linkage::Interpreted("/lib/ld.so".to_owned()));
        assert_eq!(linkage(program(&[(1, "code"), (2, "dynamic")]).path()), Linkage::Static);
        assert_eq!(linkage(program(&[]).path()), Linkage::Static);
    }

    #[test]
    fn what_is_no_program_is_said_to_be_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        for path in [file.path(), Path::new("/no/such/file")] {
            assert!(matches!(linkage(path), Linkage::Unknown(_)), "{path:?}");
        }
        let cut = program(&[(1, "code")]);
        cut.as_file().set_len(HEADER_BYTES as u64 + 8).unwrap();
        assert!(matches!(linkage(cut.path()), Linkage::Unknown(_)));
    }
}
