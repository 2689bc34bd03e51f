//! Colours: what is well, what wants a look, what is wrong. Never the only sign of it: the text says the same.
//!
//! NO_COLOR turns them off, CLICOLOR_FORCE on where there is no terminal, as for the help.

use std::io;

use anstream::{AutoStream, ColorChoice};

/// How something is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As text.
    #[default]
    Plain,
    /// Well.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// What says what the rest is.
    Title,
}

impl Tone {
    /// `text` in this colour where there are `colours`.
    pub(crate) fn paint(self, text: &str, colours: bool) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Title => "1",
            Self::Plain => return text.to_owned(),
        };
        match colours && !text.is_empty() {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// Whether what is printed to standard output may have colours.
pub(crate) fn out_has_colours() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Whether what is said on standard error may have colours.
pub(crate) fn err_has_colours() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_end_where_the_text_does() {
        assert_eq!(Tone::Bad.paint("a", true), "\u{1b}[31ma\u{1b}[0m");
        assert_eq!(Tone::Bad.paint("a", false), "a");
        assert_eq!(Tone::Plain.paint("a", true), "a");
        assert_eq!(Tone::Title.paint("", true), "");
    }
}
