//! Reading an argument vector as the real tools do: strictly.

use std::collections::BTreeMap;

/// An argument vector, taken apart.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// Flags with a value, in the order given.
    pub(super) values: BTreeMap<String, Vec<String>>,
    /// Flags without.
    pub(super) switches: Vec<String>,
    /// What is no flag.
    pub(super) rest: Vec<String>,
}

impl Arguments {
    /// Takes `words` apart; a flag that is in neither list is an error. What follows `--`, and
    /// after a first word that is no flag everything if `greedy`, is the rest.
    pub(super) fn parse(
        words: &[String],
        with_value: &[&str],
        switches: &[&str],
        greedy: bool,
    ) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.rest.extend(words.by_ref().cloned());
            } else if with_value.contains(&word.as_str()) {
                let value = words.next().filter(|value| !value.starts_with('-'));
                let value = value.ok_or_else(|| format!("a value is required for '{word}'"))?;
                parsed.values.entry(word.clone()).or_default().push(value.clone());
            } else if switches.contains(&word.as_str()) {
                parsed.switches.push(word.clone());
            } else if word.starts_with('-') {
                return Err(format!("unexpected argument '{word}' found"));
            } else {
                parsed.rest.push(word.clone());
                if greedy {
                    parsed.rest.extend(words.by_ref().cloned());
                }
            }
        }
        Ok(parsed)
    }

    /// The last value of a flag.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.values.get(flag)?.last().map(String::as_str)
    }

    pub(super) fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|given| given == switch)
    }

    /// The labels given with `flag`.
    pub(super) fn labels(&self, flag: &str) -> BTreeMap<String, String> {
        let given = self.values.get(flag).into_iter().flatten();
        given
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}
