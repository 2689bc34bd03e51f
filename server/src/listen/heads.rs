//! How many calls have come on a connection, be they looked at or not: its frames of headers, counted as
//! they are read (RFC 9113, sections 3.4 and 4.1).

/// What a client says first, before any frame.
const PREFACE_BYTES: usize = 24;
/// What a frame begins with: three bytes of length, its type, flags, and a stream.
const HEAD_BYTES: usize = 9;
/// The type of the frame that a call begins with.
const HEADERS: u8 = 1;

/// Counts the calls in the bytes of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    count: u64,
    /// Bytes until the next frame's head.
    skip: usize,
    /// What there is of a head, and how much that is.
    head: [u8; HEAD_BYTES],
    len: usize,
}

impl Default for Heads {
    fn default() -> Self {
        Self { count: 0, skip: PREFACE_BYTES, head: [0; HEAD_BYTES], len: 0 }
    }
}

impl Heads {
    /// Calls that have come.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// These bytes come next.
    pub(super) fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.len));
            self.head[self.len..][..head.len()].copy_from_slice(head);
            self.len += head.len();
            bytes = rest;
            if self.len == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                self.len = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.count += u64::from(kind == HEADERS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, 0, 0, 0, 0, 1];
        // Were they taken for a head, they would be one of headers.
        frame.resize(HEAD_BYTES + usize::from(len), HEADERS);
        frame
    }

    #[test]
    fn calls_are_counted_however_their_bytes_come() {
        let frames = [frame(4, 0), frame(HEADERS, 40), frame(0, 9), frame(HEADERS, 0), frame(8, 4)];
        let said = [vec![HEADERS; PREFACE_BYTES], frames.concat()].concat();
        for piece in 1..=said.len() {
            let mut heads = Heads::default();
            said.chunks(piece).for_each(|bytes| heads.note(bytes));
            assert_eq!(heads.count(), 2, "in pieces of {piece}");
        }
    }
}
