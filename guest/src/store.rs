//! Small texts kept as files in one directory: on the disk when there is one, else in memory.
//!
//! An answered write is on the disk, so that a copy of the disk made after the answer has it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::line::MAX_LINE_BYTES;

/// A directory of texts. Names are checked by whoever read the request.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// A store in `dir`, which exists.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes `text` all that `file` holds and returns its size in bytes.
    ///
    /// The text goes to a file beside it first: a machine that dies on the way leaves the
    /// old text or the new one. Blocks until the disk has it.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<usize> {
        let draft = self.dir.join(".draft");
        let mut out = File::create(&draft)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, self.dir.join(file))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(text.len())
    }

    /// Returns what `file` holds, without a newline at its end.
    ///
    /// # Errors
    /// What the file system said, or `InvalidData` when the file is not one line that fits.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        // One more than fits shows that it did not.
        let bound = MAX_LINE_BYTES as u64 + 2;
        File::open(self.dir.join(file))?.take(bound).read_to_end(&mut bytes)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_LINE_BYTES);
        text.filter(|text| !text.chars().any(char::is_control))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not one line of text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = format!("hearth-guest-store-{}-{name}", std::process::id());
            let dir = std::env::temp_dir().join(dir);
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_was_written_is_read_and_replaced_whole() {
        let scratch = Scratch::new("replace");
        let store = Store::new(scratch.0.clone());
        assert_eq!(store.write("a", "a longer text").unwrap(), 13);
        assert_eq!(store.write("a", "short").unwrap(), 5);
        assert_eq!(store.read("a").unwrap(), "short");
        assert_eq!(store.write("empty", "").unwrap(), 0);
        assert_eq!(store.read("empty").unwrap(), "");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2, "a draft was left behind");
    }

    #[test]
    fn absent_file_is_not_found() {
        let scratch = Scratch::new("absent");
        let error = Store::new(scratch.0.clone()).read("a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn file_that_is_not_one_line_is_refused() {
        let scratch = Scratch::new("lines");
        let store = Store::new(scratch.0.clone());
        fs::write(scratch.0.join("one"), "one line\n").unwrap();
        assert_eq!(store.read("one").unwrap(), "one line");
        for bytes in [b"two\nlines\n".to_vec(), vec![0xff], vec![b'x'; MAX_LINE_BYTES + 1]] {
            fs::write(scratch.0.join("bad"), &bytes).unwrap();
            assert_eq!(store.read("bad").unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
