//! The filters of lists: terms joined by `AND`, each `field = value` or `field != value`.
//!
//! A small part of AIP-160, and all of it: what is not understood is refused, so that a filter
//! never means less than it says.

use hearth_pool::error::Error;

/// The longest filter, in bytes.
const MAX_BYTES: usize = 2048;

/// A filter that was understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, PartialEq, Eq)]
struct Term {
    field: String,
    negated: bool,
    value: String,
}

/// What a list can be filtered by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    /// Any text.
    Text(&'static str),
    /// One of these; the prefix may be left out by the caller, and `true` is as good as `TRUE`.
    OneOf(&'static str, &'static str, &'static [&'static str]),
    /// `{name}.{key}`, any text.
    Map(&'static str),
}

impl Filter {
    /// Reads `text`, whose fields must be among `fields`.
    ///
    /// # Errors
    /// A violation of the field `filter`, saying where and why.
    pub(crate) fn parse(text: &str, fields: &[Field]) -> Result<Self, Error> {
        let refuse = |why: String| Error::invalid("filter", why);
        if text.len() > MAX_BYTES {
            return Err(refuse(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let mut tokens = tokens(text).map_err(refuse)?.into_iter().peekable();
        let mut terms = Vec::new();
        while tokens.peek().is_some() {
            if !terms.is_empty() {
                match tokens.next() {
                    Some(Token::Word(word)) if word == "AND" => {}
                    other => return Err(refuse(format!("expected AND, found {other:?}"))),
                }
            }
            let (field, operator, value) = (tokens.next(), tokens.next(), tokens.next());
            let (Some(Token::Word(field)), Some(Token::Operator(negated)), Some(value)) =
                (field, operator, value)
            else {
                return Err(refuse("expected terms such as state = RUNNING".to_owned()));
            };
            let value = match value {
                Token::Word(value) | Token::Quoted(value) => value,
                Token::Operator(_) => return Err(refuse(format!("{field} has no value"))),
            };
            let value = known(&field, value, fields).map_err(refuse)?;
            terms.push(Term { field, negated, value });
        }
        Ok(Self { terms })
    }

    /// Whether something matches whose fields `get` knows; an absent one is empty.
    pub(crate) fn matches<'a>(
        &self,
        get: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>,
    ) -> bool {
        self.terms.iter().all(|term| {
            let is_equal = get(&term.field).unwrap_or_default() == term.value;
            is_equal != term.negated
        })
    }
}

/// The value as it is compared.
fn known(field: &str, value: String, fields: &[Field]) -> Result<String, String> {
    let name = |it: &Field| match it {
        Field::Text(name) | Field::OneOf(name, ..) => (*name).to_owned(),
        Field::Map(name) => format!("{name}.{{key}}"),
    };
    for known in fields {
        match known {
            Field::Text(name) if *name == field => return Ok(value),
            Field::OneOf(name, prefix, values) if *name == field => {
                let upper = value.to_uppercase();
                let bare = upper.strip_prefix(prefix).unwrap_or(&upper).to_owned();
                return match values.contains(&bare.as_str()) {
                    true => Ok(bare),
                    false => Err(format!("{field} is one of {}", values.join(", "))),
                };
            }
            Field::Map(name)
                if field
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')) =>
            {
                return Ok(value);
            }
            Field::Text(_) | Field::OneOf(..) | Field::Map(_) => {}
        }
    }
    let names: Vec<_> = fields.iter().map(name).collect();
    Err(format!("there is no field {field:?}; there are {}", names.join(", ")))
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    /// True for `!=`.
    Operator(bool),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let after = |count: usize| rest[count..].trim_start();
        rest = match first {
            '=' => {
                tokens.push(Token::Operator(false));
                after(1)
            }
            '!' if rest.starts_with("!=") => {
                tokens.push(Token::Operator(true));
                after(2)
            }
            '"' => {
                let (value, length) = quoted(rest)?;
                tokens.push(Token::Quoted(value));
                after(length)
            }
            first if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                after(length)
            }
            other => return Err(format!("{other:?} stands in double quotes, or not at all")),
        };
    }
    Ok(tokens)
}

/// The text in the quotes that `rest` begins with, and the bytes that it takes up.
fn quoted(rest: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped)) if escaped == '"' || escaped == '\\' => value.push(escaped),
                _ => return Err("only \\\" and \\\\ are escapes".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a quote has no end".to_owned())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const FIELDS: &[Field] = &[
        Field::OneOf("state", "STATE_", &["RUNNING", "STOPPED"]),
        Field::Text("pool"),
        Field::Map("labels"),
    ];

    fn matches(filter: &str) -> bool {
        Filter::parse(filter, FIELDS).unwrap().matches(|field| match field {
            "state" => Some(Cow::Borrowed("RUNNING")),
            "pool" => Some(Cow::Borrowed("pools/a")),
            "labels.team" => Some(Cow::Borrowed("ci 1 \"x\"")),
            _ => None,
        })
    }

    #[test]
    fn terms_are_joined() {
        assert!(matches(""));
        assert!(matches("state = RUNNING"));
        assert!(matches("state=STATE_RUNNING AND pool=pools/a"));
        assert!(matches("state != STOPPED AND labels.team = \"ci 1 \\\"x\\\"\""));
        assert!(matches("labels.absent = \"\" AND labels.absent != x"));
        assert!(!matches("state = STOPPED"));
        assert!(!matches("state = RUNNING AND pool != pools/a"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "state",
            "state =",
            "= RUNNING",
            "state = RUNNING pool = pools/a",
            "state = RUNNING AND",
            "state = RUNNING OR pool = pools/a",
            "state = SLEEPING",
            "nonsense = 1",
            "labels = x",
            "labels. = x",
            "state > RUNNING",
            "pool = \"open",
            "pool = \"\\n\"",
            "state = = RUNNING",
            "NOT state = RUNNING",
            "(state = RUNNING)",
        ] {
            let error = Filter::parse(bad, FIELDS).unwrap_err();
            let Error::InvalidArgument(violations) = error else { panic!("{bad}") };
            assert_eq!(violations[0].field, "filter", "{bad}");
        }
        assert!(Filter::parse(&"a".repeat(3000), FIELDS).is_err());
    }
}
