//! Reads requests as the real server does, which is not quite HTTP.
//!
//! The server has one buffer of 1024 bytes a connection and reads at most that much at a time. A
//! line that does not fit is refused, and what a refused read held is dropped, but the place in
//! the request is kept: that is why the body of a request that was too long comes back as several
//! further errors. A client should drop the connection then; the fake shows those that do not.

use super::headers::{Headers, invalid};

const BUFFER_BYTES: usize = 1024;
const LINE_END: &[u8] = b"\r\n";

/// A request as it was read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Its absolute path; empty when the target has none.
    pub(super) path: String,
    pub(super) body: Option<Vec<u8>>,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Event {
    /// The client waits for `100 Continue`, in this version of HTTP.
    Continue(&'static str),
    /// A whole request.
    Request(Request),
}

#[derive(Debug)]
enum Place {
    RequestLine,
    Headers(Head),
    Body(Head, Vec<u8>),
}

#[derive(Debug)]
struct Head {
    method: String,
    path: String,
    version: &'static str,
    headers: Headers,
}

/// Cuts what a connection brings into requests.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: [u8; BUFFER_BYTES],
    kept: usize,
    place: Place,
    max_body_bytes: usize,
}

impl Reader {
    pub(super) fn new(max_body_bytes: usize) -> Self {
        let place = Place::RequestLine;
        Self { buffer: [0; BUFFER_BYTES], kept: 0, place, max_body_bytes }
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.kept..]
    }

    /// Takes `count` bytes that were put into the room, and appends what they completed to
    /// `events`. The error is what the server says of them.
    pub(super) fn take(&mut self, count: usize, events: &mut Vec<Event>) -> Result<(), String> {
        let (mut start, end) = (0, self.kept + count);
        loop {
            if let Place::Body(..) = self.place {
                match self.take_body(&mut start, end) {
                    Some(request) => events.push(Event::Request(request)),
                    None => return Ok(()),
                }
                continue;
            }
            let Some(length) = position(&self.buffer[start..end], LINE_END) else {
                return self.keep(start, end);
            };
            let line = self.buffer[start..start + length].to_vec();
            if let Place::Headers(head) = &mut self.place {
                if line.is_empty() {
                    self.end_head(events)?;
                } else {
                    head.headers.take(&line)?;
                }
            } else {
                // The line is used up, and a next read begins anew, also when it is refused.
                self.place = Place::Headers(Head::parse(&line)?);
            }
            start += length + LINE_END.len();
        }
    }

    /// Keeps the beginning of a line for the next read.
    fn keep(&mut self, start: usize, end: usize) -> Result<(), String> {
        if start == 0 && end == BUFFER_BYTES {
            return Err(match self.place {
                Place::RequestLine => "Invalid request.".to_owned(),
                _ => {
                    let line = String::from_utf8_lossy(&self.buffer);
                    invalid(format!("Invalid content length. Header: {line}"))
                }
            });
        }
        self.buffer.copy_within(start..end, 0);
        self.kept = end - start;
        Ok(())
    }

    fn end_head(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        let Place::Headers(head) = &self.place else { return Ok(()) };
        let length = head.headers.content_length as usize;
        if length > self.max_body_bytes {
            let limit = self.max_body_bytes;
            return Err(format!(
                "Request payload with size {length} is larger than the limit of {limit} allowed by \
                 server."
            ));
        }
        let Place::Headers(head) = std::mem::replace(&mut self.place, Place::RequestLine) else {
            return Ok(());
        };
        if length == 0 {
            events.push(Event::Request(head.with_body(None)));
            return Ok(());
        }
        if head.headers.expects_continue {
            events.push(Event::Continue(head.version));
        }
        self.place = Place::Body(head, Vec::new());
        Ok(())
    }

    fn take_body(&mut self, start: &mut usize, end: usize) -> Option<Request> {
        let Place::Body(head, body) = &mut self.place else { return None };
        let missing = head.headers.content_length as usize - body.len();
        let taken = missing.min(end - *start);
        body.extend_from_slice(&self.buffer[*start..*start + taken]);
        *start += taken;
        if taken < missing {
            self.kept = 0;
            return None;
        }
        let place = std::mem::replace(&mut self.place, Place::RequestLine);
        let Place::Body(head, body) = place else { return None };
        Some(head.with_body(Some(body)))
    }
}

impl Head {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err("Invalid request.".to_owned());
        };
        let method = match method {
            b"GET" | b"PUT" | b"PATCH" | b"DELETE" => String::from_utf8_lossy(method).into_owned(),
            _ => return Err("Invalid HTTP Method: Unsupported HTTP method.".to_owned()),
        };
        if target.is_empty() {
            return Err("Invalid URI: Empty URI not allowed.".to_owned());
        }
        let target = std::str::from_utf8(target)
            .map_err(|_| "Invalid URI: Cannot parse URI as UTF-8.".to_owned())?;
        let version = match version {
            b"HTTP/1.0" => "HTTP/1.0",
            b"HTTP/1.1" => "HTTP/1.1",
            _ => return Err("Invalid HTTP Version: Unsupported HTTP version.".to_owned()),
        };
        let path = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
            None if target.starts_with('/') => target,
            None => "",
        };
        Ok(Self { method, path: path.to_owned(), version, headers: Headers::default() })
    }

    fn with_body(self, body: Option<Vec<u8>>) -> Request {
        Request { method: self.method, path: self.path, body }
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
