//! Puts the layers together. After each the whole is read anew, so that an error is of the
//! layer that came last.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::Value;
use serde::Serialize;

use super::{Config, ProviderConfig, ProviderKind};

/// What the variables of the environment begin with.
const PREFIX: &str = "HEARTH_";

/// Variables that are for clients and for tests, not for the server.
const NOT_OURS: [&str; 16] = [
    "ADDRESS",
    "BLESS",
    "CA",
    "CERTIFICATE",
    "FIRECRACKER",
    "GUEST_DIR",
    "JAILER",
    "KEY",
    "LONG",
    "OUTPUT",
    "REQUIRE",
    "SERVER_NAME",
    "TIMEOUT",
    "TOKEN",
    "TOKEN_FILE",
    "TTL",
];

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why} (in {layer})", if key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct ConfigError {
    /// The key, with dots.
    pub key: String,
    /// Where it came from.
    pub layer: String,
    /// What is wrong.
    pub why: String,
}

/// A configuration, and what was odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The whole.
    pub config: Config,
    /// Variables that look like ours and mean nothing.
    pub ignored_variables: Vec<String>,
}

/// What flags say; unset: nothing.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guest: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<crate::telemetry::LogFormat>,
    #[serde(skip)]
    pub(crate) provider: Option<ProviderKind>,
    /// What would let strangers in is served all the same.
    #[serde(skip)]
    pub(crate) insecure: bool,
}

/// The configuration of `file`, the environment `variables` and `flags`, checked.
///
/// # Errors
/// [`ConfigError`], the first thing that is wrong.
pub(crate) fn load_from(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Loaded, ConfigError> {
    let Some(file) = file else { return load_text(None, variables, flags) };
    let layer = format!("the file {}", file.display());
    match std::fs::read_to_string(file) {
        Ok(text) => load_text(Some((&layer, &text)), variables, flags),
        Err(error) => {
            let why = format!("it cannot be read: {error}");
            Err(ConfigError { key: String::new(), layer, why })
        }
    }
}

/// As [`load_from`], of a file by what it is called in errors, and what is in it.
///
/// # Errors
/// As for [`load_from`].
pub(crate) fn load_text(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Loaded, ConfigError> {
    let mut stages = Stages { figment: Figment::new(), before: Vec::new() };
    stages.add("the defaults", Figment::from(Serialized::defaults(Config::default())))?;
    if let Some((layer, text)) = file {
        stages.add(layer, Figment::from(Toml::string(text)))?;
    }
    let (environment, ignored_variables) = environment(variables)?;
    stages.add("the environment", environment)?;
    stages.add("the flags", Figment::from(Serialized::defaults(flags)))?;
    let mut config = stages.read("the flags")?;
    choose_provider(&mut config, flags.provider);
    let checked = config.check().and_then(|()| match flags.insecure {
        true => Ok(()),
        false => config.check_exposure(),
    });
    checked.map_err(|(key, why)| {
        let layer = stages.layer_of(&key);
        ConfigError { key, layer, why }
    })?;
    Ok(Loaded { config, ignored_variables })
}

/// As [`load_from`], with the environment of this process.
///
/// # Errors
/// As for [`load_from`].
pub fn load(args: &crate::serve::ServeArgs) -> Result<Loaded, ConfigError> {
    // What is no text is none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(args.config.as_deref(), variables, &args.flags())
}

/// A kind by flag is the default provider's: one of that name, or else a new one.
fn choose_provider(config: &mut Config, kind: Option<ProviderKind>) {
    let kind = match kind {
        Some(kind) => kind,
        None if config.providers.is_empty() => ProviderKind::DEFAULT,
        None => return,
    };
    let of_kind = |it: &(&String, &ProviderConfig)| it.1.kind == kind;
    let name = match config.providers.iter().find(of_kind) {
        Some((name, _)) => name.clone(),
        None => {
            let name = kind.as_str().to_owned();
            config.providers.entry(name.clone()).or_insert_with(|| ProviderConfig::of(kind));
            name
        }
    };
    config.default_provider = Some(name);
}

struct Stages {
    figment: Figment,
    /// Each layer's name, and what there was after it.
    before: Vec<(String, Figment)>,
}

impl Stages {
    fn add(&mut self, layer: &str, values: Figment) -> Result<(), ConfigError> {
        self.figment = std::mem::take(&mut self.figment).merge(values);
        self.before.push((layer.to_owned(), self.figment.clone()));
        self.read(layer).map(drop)
    }

    fn read(&self, layer: &str) -> Result<Config, ConfigError> {
        self.figment.extract().map_err(|error| in_layer(error, layer))
    }

    /// The layer that a key has its value from.
    fn layer_of(&self, key: &str) -> String {
        let value = |figment: &Figment| figment.find_value(key).ok();
        let last = value(&self.figment);
        let first = self.before.iter().find(|(_, figment)| value(figment) == last);
        first.map(|(layer, _)| layer.clone()).unwrap_or_default()
    }
}

fn in_layer(error: figment::Error, layer: &str) -> ConfigError {
    let mut path = error.path.clone();
    let why = match &error.kind {
        Kind::UnknownField(field, known) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            let all = known.join(", ");
            match meant_by(field, known) {
                Some(meant) => format!("there is no such key; is {meant} meant? There are {all}"),
                None if known.is_empty() => "there is no such key".to_owned(),
                None => format!("there is no such key; there are {all}"),
            }
        }
        kind => kind.to_string(),
    };
    ConfigError { key: path.join("."), layer: layer.to_owned(), why }
}

/// The key of `known` that `given` is a misspelling of, if it is one.
fn meant_by<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |key: &&str| strsim::damerau_levenshtein(given, key);
    // A third of the letters may be wrong, or missing.
    known.iter().copied().min_by_key(distance).filter(|key| distance(key) * 3 <= key.len())
}

/// The layer that the environment is, and the variables that mean nothing.
fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(Figment, Vec<String>), ConfigError> {
    let known = serde_json::to_value(Config::default()).unwrap_or_default();
    let (mut layer, mut ignored) = (Figment::new(), Vec::new());
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let key = name.to_lowercase().replace("__", ".");
        let first = key.split('.').next().unwrap_or_default();
        // A word of one part may be another program's; of several, it is meant for us.
        if known.get(first).is_none() && !name.contains("__") {
            if !NOT_OURS.contains(&name) {
                ignored.push(variable);
            }
            continue;
        }
        if key.split('.').any(str::is_empty) {
            let (layer, why) = ("the environment".to_owned(), "it is no key".to_owned());
            return Err(ConfigError { key: variable, layer, why });
        }
        // Numbers, booleans and lists as TOML has them; all else is text. It never fails.
        let value: Value = value.parse().unwrap_or_else(|_| Value::from(value.clone()));
        layer = layer.merge(Serialized::default(&key, value));
    }
    Ok((layer, ignored))
}
