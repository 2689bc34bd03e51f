//! The requests of the guest channel, and nothing but their reading.
//!
//! A request is one line: a verb, and what the verb takes after one space. What a line
//! *does* is the agent's business; here it is only understood or refused.

use std::fmt;

/// Longest name a guest can be told, and longest file name, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// A request that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// `ping`: who and how old are you?
    Ping,
    /// `name <text>`: this is your name from now on.
    Name(&'a str),
    /// `echo <text>`: say this.
    Echo(&'a str),
    /// `write <file> <text>`: keep this text.
    Write {
        /// Plain name of the file.
        file: &'a str,
        /// All that it is to hold.
        text: &'a str,
    },
    /// `read <file>`: what was kept there?
    Read {
        /// Plain name of the file.
        file: &'a str,
    },
    /// `poweroff`: end in order.
    PowerOff,
    /// `panic`: end without order.
    Panic,
}

/// Why a line was refused; its `Display` is what follows `error ` in the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such verb, or a verb with too much or too little after it.
    Unknown,
    /// A name that is not one.
    BadName,
    /// A file name that is not plain.
    BadFile,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "unknown request",
            Self::BadName => "bad name: 1 to 63 of a-z, 0-9 and -",
            Self::BadFile => "bad file name: 1 to 63 of A-Z, a-z, 0-9, - _ and inner dots",
        })
    }
}

impl<'a> Request<'a> {
    /// Reads one line, given without its newline.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong with it.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let line = std::str::from_utf8(line).map_err(|_| Refusal::Unknown)?;
        // Answers are lines too: nothing that could break one is let in.
        if line.chars().any(char::is_control) {
            return Err(Refusal::Unknown);
        }
        match line.split_once(' ').map_or((line, None), |(verb, rest)| (verb, Some(rest))) {
            ("ping", None) => Ok(Self::Ping),
            ("poweroff", None) => Ok(Self::PowerOff),
            ("panic", None) => Ok(Self::Panic),
            ("name", Some(name)) => checked_name(name).map(Self::Name),
            ("echo", Some(text)) => Ok(Self::Echo(text)),
            ("read", Some(file)) => checked_file(file).map(|file| Self::Read { file }),
            ("write", Some(rest)) => {
                let (file, text) = rest.split_once(' ').ok_or(Refusal::Unknown)?;
                checked_file(file).map(|file| Self::Write { file, text })
            }
            _ => Err(Refusal::Unknown),
        }
    }
}

fn checked_name(name: &str) -> Result<&str, Refusal> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain);
    if fits { Ok(name) } else { Err(Refusal::BadName) }
}

/// A file name that stays where it is put: no separator, and no dot in front, which leaves
/// out `.`, `..` and hidden files.
fn checked_file(file: &str) -> Result<&str, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = !file.is_empty()
        && file.len() <= MAX_NAME_BYTES
        && !file.starts_with('.')
        && file.bytes().all(plain);
    if fits { Ok(file) } else { Err(Refusal::BadFile) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request<'_>, Refusal> {
        Request::parse(line.as_bytes())
    }

    #[test]
    fn every_request_is_understood() {
        assert_eq!(parse("ping"), Ok(Request::Ping));
        assert_eq!(parse("name agent-7"), Ok(Request::Name("agent-7")));
        assert_eq!(parse("echo  two  spaces "), Ok(Request::Echo(" two  spaces ")));
        assert_eq!(parse("echo "), Ok(Request::Echo("")));
        assert_eq!(
            parse("write notes.txt a b"),
            Ok(Request::Write { file: "notes.txt", text: "a b" })
        );
        assert_eq!(parse("write empty "), Ok(Request::Write { file: "empty", text: "" }));
        assert_eq!(parse("read notes.txt"), Ok(Request::Read { file: "notes.txt" }));
        assert_eq!(parse("poweroff"), Ok(Request::PowerOff));
        assert_eq!(parse("panic"), Ok(Request::Panic));
    }

    #[test]
    fn anything_else_is_unknown() {
        for line in
            ["", " ", "PING", "ping ", "ping 1", "echo", "write a", "read", "reboot", "a\tb"]
        {
            assert_eq!(parse(line), Err(Refusal::Unknown), "{line:?}");
        }
        assert_eq!(Request::parse(&[0xff, 0xfe, 0x00]), Err(Refusal::Unknown));
        assert_eq!(Request::parse(b"echo a\0b"), Err(Refusal::Unknown));
        assert_eq!(Refusal::Unknown.to_string(), "unknown request");
    }

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        let longest = "a".repeat(63);
        assert_eq!(parse(&format!("name {longest}")), Ok(Request::Name(&longest)));
        for name in ["", "A", "a b", "a/b", "ü", &"a".repeat(64)] {
            assert_eq!(parse(&format!("name {name}")), Err(Refusal::BadName), "{name:?}");
        }
    }

    #[test]
    fn file_names_cannot_leave_the_directory() {
        for file in ["", ".", "..", ".hidden", "a/b", "/etc", "../a", &"a".repeat(64)] {
            assert_eq!(parse(&format!("read {file}")), Err(Refusal::BadFile), "{file:?}");
            assert_eq!(parse(&format!("write {file} x")), Err(Refusal::BadFile), "{file:?}");
        }
    }
}
