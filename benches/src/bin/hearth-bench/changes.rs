//! `hearth-bench compare`: what is between two results.

use std::error::Error;
use std::path::PathBuf;

use hearth_benches::load::changes::Changes;
use hearth_benches::load::results::Results;

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// Results of `run` or `compare-floor`, as --json wrote them.
    before: PathBuf,
    /// Later results of the same command.
    after: PathBuf,
}

impl Compare {
    /// Prints the changes; answers whether nothing got slower.
    ///
    /// # Errors
    /// When a file cannot be read, or they are not of the same kind.
    pub(crate) fn run(self) -> Result<bool, Box<dyn Error>> {
        let (before, after) = (Results::read(&self.before)?, Results::read(&self.after)?);
        let changes = Changes::between(&before, &after)?;
        print!("{changes}");
        Ok(!changes.is_slower())
    }
}
