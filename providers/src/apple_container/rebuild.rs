//! Turning an export into what an image can be built from.
//!
//! An export has the files alone. So the `Dockerfile` says again what the container had from its
//! image and its making: environment, working directory, user, command and labels, but for those
//! that mark the container as ours: whoever makes something of the image does not inherit them.

use std::fmt::Write as _;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path};

use rustix::fs::OFlags;

use super::listing::Process;
use crate::beneath;
use crate::error::Result;
use crate::files::io_error;

/// The disk.
pub(super) const ROOTFS: &str = "rootfs.tar";
/// What the image is built by.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// The most that the extensions of one entry's header may hold, all together.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// What an extension takes beside what it holds: that of no bytes costs something, too.
const HEADER_BYTES: u64 = 512;

/// Writes both files into `into`, and removes `export`.
pub(super) fn write(export: &Path, into: &Path, process: &Process) -> Result<()> {
    let cut = || {
        cut_down(beneath::open(export, OFlags::RDONLY)?, beneath::create_new(&into.join(ROOTFS))?)?;
        std::fs::remove_file(export)
    };
    let cut = cut();
    cut.map_err(|error| io_error("cut down a container's export".to_owned(), error))?;
    beneath::create_new(&into.join(DOCKERFILE))
        .and_then(|mut file| file.write_all(dockerfile(process).as_bytes()))
        .map_err(|error| io_error("write a Dockerfile".to_owned(), error))
}

/// Copies an archive without what is in `/tmp` and `/var/tmp`. Entries are copied as they are
/// found, with the extensions that come before them.
pub(super) fn cut_down(export: impl Read, into: impl Write) -> io::Result<()> {
    let mut archive = tar::Archive::new(BufReader::new(export));
    let mut kept = tar::Builder::new(BufWriter::new(into));
    let mut extensions: Vec<(tar::Header, Vec<u8>)> = Vec::new();
    let mut room = MAX_EXTENSION_BYTES;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let extends = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extends {
            let mut bytes = Vec::new();
            let header = entry.header().clone();
            (&mut entry).take(room + 1).read_to_end(&mut bytes)?;
            let left = room.checked_sub(HEADER_BYTES + bytes.len() as u64);
            room = left.ok_or_else(|| io::Error::other("an entry's header is too large"))?;
            extensions.push((header, bytes));
            continue;
        }
        room = MAX_EXTENSION_BYTES;
        let left_out = is_temporary(&entry.path()?);
        for (header, bytes) in extensions.drain(..).filter(|_| !left_out) {
            kept.append(&header, bytes.as_slice())?;
        }
        if !left_out {
            let header = entry.header().clone();
            kept.append(&header, &mut entry)?;
        }
    }
    kept.into_inner()?.flush()
}

/// It is in one of the directories for temporary files, which are themselves kept.
fn is_temporary(path: &Path) -> bool {
    let names: Vec<_> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match names.as_slice() {
        ["tmp", rest @ ..] | ["var", "tmp", rest @ ..] => !rest.is_empty(),
        _ => false,
    }
}

pub(super) fn dockerfile(process: &Process) -> String {
    let mut text = format!("FROM scratch\nADD {ROOTFS} /\n");
    for variable in &process.environment {
        if let Some((key, value)) = variable.split_once('=').filter(|_| is_one_line(variable)) {
            let _ = writeln!(text, "ENV {key}={}", quoted(value));
        }
    }
    if !process.working_directory.is_empty() && is_one_line(&process.working_directory) {
        let _ = writeln!(text, "WORKDIR {}", quoted(&process.working_directory));
    }
    if let Some(user) = process.user().filter(|user| is_one_line(user)) {
        let _ = writeln!(text, "USER {user}");
    }
    let words = |words: &[String]| serde_json::Value::from(words.to_vec()).to_string();
    if !process.executable.is_empty() {
        let _ = writeln!(text, "ENTRYPOINT {}", words(std::slice::from_ref(&process.executable)));
    }
    let _ = writeln!(text, "CMD {}", words(&process.arguments));
    for (key, value) in &process.labels {
        if !key.starts_with("dev.hearth.") && is_one_line(key) && is_one_line(value) {
            let _ = writeln!(text, "LABEL {}={}", quoted(key), quoted(value));
        }
    }
    text
}

/// What has more lines than one would be instructions of its own.
fn is_one_line(text: &str) -> bool {
    !text.contains(['\n', '\r', '\0'])
}

/// In quotes within which nothing is replaced.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_what_is_in_directories_for_temporary_files_is_temporary() {
        for path in ["tmp/a", "./tmp/a/b", "/var/tmp/x"] {
            assert!(is_temporary(Path::new(path)), "{path}");
        }
        for path in ["tmp", "var/tmp/", "etc/tmp/a", "tmpfile", "var/tmpx/a", "."] {
            assert!(!is_temporary(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn long_names_survive_and_temporary_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (export, rootfs) = (dir.path().join("export"), dir.path().join("rootfs"));
        let long = format!("srv/{}", "long/".repeat(40));
        let mut builder = tar::Builder::new(File::create(&export).unwrap());
        let temporary = format!("tmp/{}", "long/".repeat(40));
        for path in [long.as_str(), "tmp/", temporary.as_str(), "etc/name"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(4);
            header.set_mode(0o640);
            builder.append_data(&mut header, path, b"data".as_slice()).unwrap();
        }
        builder.into_inner().unwrap();
        cut_down(File::open(&export).unwrap(), File::create(&rootfs).unwrap()).unwrap();
        let mut kept = tar::Archive::new(File::open(&rootfs).unwrap());
        let kept = kept.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            assert_eq!((entry.size(), entry.header().mode().unwrap()), (4, 0o640));
            entry.path().unwrap().to_string_lossy().into_owned()
        });
        assert_eq!(kept.collect::<Vec<_>>(), [long, "tmp/".to_owned(), "etc/name".to_owned()]);
    }

    /// An archive of `count` extensions of `bytes` each, and the entry that they are of.
    fn extended(count: usize, bytes: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("a").unwrap();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        };
        for _ in 0..count {
            add(tar::EntryType::XGlobalHeader, &vec![b'x'; bytes]);
        }
        add(tar::EntryType::Regular, b"data");
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_extensions_of_one_header_are_bounded_together() {
        let cut = |count, bytes| cut_down(extended(count, bytes).as_slice(), io::sink());
        let most = usize::try_from(MAX_EXTENSION_BYTES / HEADER_BYTES).unwrap();
        assert!(cut(1, 1 << 19).is_ok() && cut(most, 0).is_ok());
        for (count, bytes) in [(1, 1 << 20), (2, 1 << 19), (most + 1, 0)] {
            assert!(cut(count, bytes).is_err(), "{count} of {bytes} bytes");
        }
        // Each entry has as much room as the first.
        let mut twice = extended(1, 1 << 19);
        twice.truncate(twice.len() - 1024);
        twice.extend(extended(1, 1 << 19));
        cut_down(twice.as_slice(), io::sink()).unwrap();
    }

    #[test]
    fn values_cannot_become_instructions() {
        let process = Process {
            executable: "/bin/sh".to_owned(),
            arguments: vec!["-c".to_owned(), "echo \"$A\"".to_owned()],
            environment: vec!["A=x\" $B".to_owned(), "C=1\nRUN evil".to_owned()],
            working_directory: "/a b".to_owned(),
            labels: [("dev.hearth.state", "s"), ("k", "v")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Process::default()
        };
        let wanted = "FROM scratch\nADD rootfs.tar /\nENV A=\"x\\\" \\$B\"\nWORKDIR \"/a b\"\n\
            ENTRYPOINT [\"/bin/sh\"]\nCMD [\"-c\",\"echo \\\"$A\\\"\"]\nLABEL \"k\"=\"v\"\n";
        assert_eq!(dockerfile(&process), wanted);
    }
}
