//! Results as files have them: of whichever command wrote the file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::comparison::Comparison;
use super::report::{Report, Settings};
use super::saturation::Saturation;
use super::stamp::Stamp;
use super::steps::Step;

/// What one rate after another has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// On what.
    pub stamp: Stamp,
    /// Of what.
    pub settings: Settings,
    /// Each rate.
    pub steps: Vec<Step>,
}

/// What a search for the highest rate has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saturated {
    /// On what.
    pub stamp: Stamp,
    /// Of what.
    pub settings: Settings,
    /// What was found.
    pub saturation: Saturation,
}

/// Results of one command.
#[derive(Clone, Debug)]
pub enum Results {
    /// Of `run`.
    Run(Box<Report>),
    /// Of `compare-floor`.
    Comparison(Box<Comparison>),
    /// Of `run --steps`.
    Steps(Box<Steps>),
    /// Of `saturate`.
    Saturated(Box<Saturated>),
}

impl Results {
    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// That it cannot be read, or is none of the results.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path);
        let parsed = text.map_err(|error| error.to_string()).and_then(|text| Self::parse(&text));
        parsed.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads JSON. Which results it is of is told by what only these have.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let has = |key| value.get(key).is_some();
        let read = if has("ratios") {
            serde_json::from_value(value).map(|it| Self::Comparison(Box::new(it)))
        } else if has("saturation") {
            serde_json::from_value(value).map(|it| Self::Saturated(Box::new(it)))
        } else if has("steps") {
            serde_json::from_value(value).map(|it| Self::Steps(Box::new(it)))
        } else if has("by_source") {
            serde_json::from_value(value).map(|it| Self::Run(Box::new(it)))
        } else {
            return Err("no results of hearth-bench".to_owned());
        };
        read.map_err(|error| error.to_string())
    }

    /// On what, and of what.
    pub fn origin(&self) -> (&Stamp, &Settings) {
        match self {
            Self::Run(it) => (&it.stamp, &it.settings),
            Self::Comparison(it) => (&it.stamp, &it.settings),
            Self::Steps(it) => (&it.stamp, &it.settings),
            Self::Saturated(it) => (&it.stamp, &it.settings),
        }
    }

    /// The command that wrote them.
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Comparison(_) => "compare-floor",
            Self::Steps(_) => "run --steps",
            Self::Saturated(_) => "saturate",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::comparison::tests::comparison;
    use super::super::tally::Tally;
    use super::*;

    #[test]
    fn a_file_is_known_by_what_it_has() {
        let (stamp, settings) = (Stamp::take(None), Settings::default());
        let tally = Tally::default();
        let run = Report::new(stamp.clone(), settings.clone(), &tally, Duration::ZERO, false);
        let saturation = Saturation {
            rate_per_s: Some(1.0),
            unsustained_per_s: None,
            is_the_generators: false,
            steps: Vec::new(),
        };
        let steps = Vec::new();
        let steps = Steps { stamp: stamp.clone(), settings: settings.clone(), steps };
        let texts = [
            serde_json::to_string(&run),
            serde_json::to_string(&comparison((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))),
            serde_json::to_string(&steps),
            serde_json::to_string(&Saturated { stamp, settings, saturation }),
        ];
        let commands = texts.map(|it| Results::parse(&it.unwrap()).unwrap().command());
        assert_eq!(commands, ["run", "compare-floor", "run --steps", "saturate"]);
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for text in ["", "[]", "{}", r#"{"ratios": 7}"#] {
            assert!(Results::parse(text).is_err(), "{text}");
        }
    }
}
