//! Cuts a stream of bytes into request lines.
//!
//! The other side may be anyone: a line is bounded, garbage is cut like anything else, and
//! after a line that was too long the next newline is where sense begins again.

/// Longest request line in bytes, its newline not counted.
pub(crate) const MAX_LINE_BYTES: usize = 4096;

/// One thing that was found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A whole line without its newline, and without a carriage return before that.
    Line(Vec<u8>),
    /// A line has grown past [`MAX_LINE_BYTES`]. Said once; the rest of it is dropped.
    TooLong,
}

/// Collects bytes until they are a line.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    pending: Vec<u8>,
    skipping: bool,
}

impl LineCutter {
    /// Takes `bytes` and returns the lines that they completed, in order.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for &byte in bytes {
            match (byte, self.skipping) {
                (b'\n', true) => self.skipping = false,
                (b'\n', false) => {
                    let mut line = std::mem::take(&mut self.pending);
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                    cuts.push(Cut::Line(line));
                }
                (_, true) => {}
                (_, false) if self.pending.len() == MAX_LINE_BYTES => {
                    self.pending.clear();
                    self.skipping = true;
                    cuts.push(Cut::TooLong);
                }
                (_, false) => self.pending.push(byte),
            }
        }
        cuts
    }

    /// Forgets a line that was begun: its sender has gone, the next one starts afresh.
    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.skipping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Cut {
        Cut::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_fell() {
        let mut cutter = LineCutter::default();
        assert_eq!(cutter.push(b"pi"), []);
        assert_eq!(cutter.push(b"ng\necho a\r\n\nec"), [line("ping"), line("echo a"), line("")]);
        assert_eq!(cutter.push(b"ho b\n"), [line("echo b")]);
    }

    #[test]
    fn longest_line_passes_and_one_byte_more_does_not() {
        let mut cutter = LineCutter::default();
        let longest = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(cutter.push(format!("{longest}\n").as_bytes()), [line(&longest)]);
        assert_eq!(cutter.push(format!("{longest}y\n").as_bytes()), [Cut::TooLong]);
    }

    #[test]
    fn too_long_is_said_once_and_the_next_line_is_whole() {
        let mut cutter = LineCutter::default();
        assert_eq!(cutter.push(&vec![0; 5 * MAX_LINE_BYTES]), [Cut::TooLong]);
        assert_eq!(cutter.push(&[0xff; 100]), []);
        assert_eq!(cutter.push(b"tail\nping\n"), [line("ping")]);
    }

    #[test]
    fn reset_forgets_what_a_sender_left_behind() {
        let mut cutter = LineCutter::default();
        cutter.push(b"half a li");
        cutter.reset();
        assert_eq!(cutter.push(b"ping\n"), [line("ping")]);
        cutter.push(&vec![b'x'; MAX_LINE_BYTES + 1]);
        cutter.reset();
        assert_eq!(cutter.push(b"ping\n"), [line("ping")]);
    }
}
