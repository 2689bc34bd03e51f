//! The file of `hearth apply`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::error::{Error, Result};
use crate::cli::pools::Settings;
use crate::cli::templates::{Recipe, template_id};
use crate::cli::text::absolute;

/// Shown by `hearth apply --help`, and read by a test.
pub(super) const EXAMPLE: &str = r#"Example:
  [templates.web]
  provider = "qemu"                      # the node's first when left out
  spec = { kernel = "vmlinuz", initrd = "initrd.cpio.gz", rootfs = "web.ext4", mem_size_mib = 256 }
  readiness = { console_marker = "READY", timeout = "60s" }   # or { agent_answer = {} }
  warm_up = ["echo warm"]

  [pools.web]
  template = "web"
  depth = 4                              # or miss_ratio = 0.001, min = 1, max = 64
  warm_state = "running"                 # or "paused"
  max_warm_age = "1h"
  max_parallel_restores = 4
  default_overflow = "warm-else-cold"    # or "wait", "warm-only", "cold-only"
  default_ttl = "5m"
  max_ttl = "24h"
  priority = 0                           # who gets more of a scarce budget: the higher
  cut_over = "rolling"                   # or "immediate"
  max_surge = 0                          # 0: a quarter of the target
  refill_warm_up = ["echo warm"]         # asked of every VM that is restored
  prefault_memory = false                # true: memory is read in before a VM counts as warm

Relative paths are meant from the file. A field that the file leaves out stays as it is; what the file
does not name is left alone. That a file behind a path has changed is not noticed: --rebuild then."#;

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(super) templates: BTreeMap<String, Recipe>,
    pub(super) pools: BTreeMap<String, Settings>,
    /// Where relative paths are meant from.
    #[serde(skip)]
    pub(super) directory: PathBuf,
}

impl File {
    /// Reads and checks the file at `path`; `-` is standard input.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |error: String| Error::Usage(format!("{}: {error}", path.display()));
        let here = std::env::current_dir().map_err(|error| wrong(error.to_string()))?;
        let mut text = String::new();
        let (read, directory) = match path.as_os_str() == "-" {
            true => (std::io::stdin().read_to_string(&mut text), here),
            false => {
                let path = absolute(&here, path);
                let directory = path.parent().map_or(here, Path::to_path_buf);
                let read = std::fs::File::open(&path);
                (read.and_then(|mut file| file.read_to_string(&mut text)), directory)
            }
        };
        read.map_err(|error| wrong(error.to_string()))?;
        Ok(Self { directory, ..Self::parse(&text).map_err(wrong)? })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (id, recipe) in &file.templates {
            if let Some(complaint) = recipe.complaint() {
                return Err(format!("templates.{id}: {complaint}"));
            }
        }
        for (id, settings) in &file.pools {
            if let Some(complaint) = settings.complaint() {
                return Err(format!("pools.{id}: {complaint}"));
            }
        }
        Ok(file)
    }

    /// Whether this file says what the template of a pool is.
    pub(super) fn makes_template_of(&self, settings: &Settings) -> bool {
        let template = settings.template.as_deref().map(template_id);
        template.is_some_and(|template| self.templates.contains_key(template))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_is_a_file() {
        let start = EXAMPLE.find("[templates").unwrap();
        let end = EXAMPLE.find("Relative paths").unwrap();
        let file = File::parse(&EXAMPLE[start..end]).unwrap();
        assert_eq!(file.templates.len(), 1);
        assert!(file.makes_template_of(&file.pools["web"]));
        assert_eq!(file.pools["web"].depth, Some(4));
    }

    #[test]
    fn what_the_file_cannot_say_is_refused_by_line() {
        let error = File::parse("[pools.a]\ndepth = 1\ndetph = 2\n").unwrap_err();
        assert!(error.contains("detph") && error.contains("line 3"), "{error}");
        assert!(File::parse("[pools.a]\ndepth = 'x'\n").is_err());
        let error = File::parse("[pools.a]\nmin = 1\n").unwrap_err();
        assert!(error.starts_with("pools.a: "), "{error}");
    }
}
