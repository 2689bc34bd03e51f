//! Command lines, as the real programs read them.

use std::collections::BTreeMap;

/// An argument that a program knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Flag,
    /// A value.
    Value,
    /// A value, and it must be there.
    Required,
    /// A value, as often as one likes.
    Values,
}

/// The arguments of a command line.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    given: BTreeMap<&'static str, Vec<String>>,
    /// What came after `--`.
    pub(super) extra: Vec<String>,
}

/// Why a command line makes no sense: the error's name, the argument, and the words for it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) name: &'static str,
    pub(super) argument: String,
    pub(super) words: String,
}

impl Arguments {
    pub(super) fn parse(line: &[String], known: &[Known]) -> Result<Self, Refused> {
        let end = line.iter().position(|word| word == "--");
        let (own, extra) = match end {
            Some(end) => (&line[..end], &line[end + 1..]),
            None => (line, &[][..]),
        };
        let mut arguments = Self { given: BTreeMap::new(), extra: extra.to_vec() };
        // These two are heeded before anything else is looked at.
        for alone in ["help", "version"] {
            let long = format!("--{alone}");
            if own.contains(&long) || (alone == "help" && own.iter().any(|word| word == "-h")) {
                arguments.given.insert(alone, Vec::new());
                return Ok(arguments);
            }
        }
        let mut words = own.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or(word);
            let found = known.iter().find(|it| word.starts_with("--") && it.name == name);
            let Some(argument) = found else { return Err(unexpected(name)) };
            let before = arguments.given.contains_key(argument.name);
            if before && argument.kind != Kind::Values {
                let words = format!("The argument '{name}' was provided more than once.");
                return Err(refused("DuplicateArgument", name, words));
            }
            let values = arguments.given.entry(argument.name).or_default();
            if argument.kind != Kind::Flag {
                let value = words.next().filter(|value| !value.starts_with("--"));
                let Some(value) = value else {
                    let words =
                        format!("The argument '{name}' requires a value, but none was supplied.");
                    return Err(refused("MissingValue", name, words));
                };
                values.push(value.clone());
            }
        }
        let mut required: Vec<_> =
            known.iter().filter(|it| it.kind == Kind::Required).map(|it| it.name).collect();
        required.sort_unstable();
        match required.into_iter().find(|name| !arguments.has(name)) {
            Some(name) => Err(missing(name)),
            None => Ok(arguments),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value of an argument that takes one.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    pub(super) fn values(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }
}

pub(super) fn missing(name: &str) -> Refused {
    refused("MissingArgument", name, format!("Argument '{name}' required, but not found."))
}

fn unexpected(name: &str) -> Refused {
    let words =
        format!("Found argument '{name}' which wasn't expected, or isn't valid in this context.");
    refused("UnexpectedArgument", name, words)
}

fn refused(name: &'static str, argument: &str, words: String) -> Refused {
    Refused { name, argument: argument.to_owned(), words }
}

/// The rule for instance ids; the error names the first offence, as code and in words.
pub(super) fn check_instance_id(id: &str) -> Result<(), (String, String)> {
    const MAX_BYTES: usize = 64;
    if id.is_empty() || id.len() > MAX_BYTES {
        let length = id.len();
        return Err((
            format!("InvalidLen({length}, 1, {MAX_BYTES})"),
            format!("Invalid len ({length});  the length must be between 1 and {MAX_BYTES}"),
        ));
    }
    let strange = |letter: char| !(letter == '-' || letter.is_alphanumeric());
    match id.chars().enumerate().find(|(_, letter)| strange(*letter)) {
        None => Ok(()),
        Some((at, letter)) => Err((
            format!("InvalidChar({letter:?}, {at})"),
            format!("Invalid char ({letter}) at position {at}"),
        )),
    }
}
