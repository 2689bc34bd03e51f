//! `client.toml`: the servers that a user's commands go to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hearth_server::own_file::must_be_own;
use serde::Deserialize;

use crate::cli::error::{Error, Result};

/// What a file says: one server, and others by their names. Paths in it are meant from where it lies. There is no
/// token in it, but the name of a file that has it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) address: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    /// The one of `contexts` that is meant when nothing else is said.
    pub(super) context: Option<String>,
    /// Others, each whole by itself.
    pub(super) contexts: BTreeMap<String, File>,
}

impl File {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is wrong, and where.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::Usage(format!("{}: {why}", path.display()));
        // Who changes it has commands, and what they send, go elsewhere.
        must_be_own(path, 0o002).map_err(Error::Usage)?;
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (name, server) in &file.contexts {
            if server.context.is_some() || !server.contexts.is_empty() {
                return Err(format!("contexts.{name}: a context has no contexts"));
            }
        }
        Ok(file)
    }
}

/// Where the file is when nothing says so: below `$XDG_CONFIG_HOME`, or `~/.config`.
pub(super) fn usual_path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let config =
        variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("hearth/client.toml"))
}
