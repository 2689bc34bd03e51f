//! `hearth-bench picture`: results as SVG, drawn from a file of theirs.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use hearth_benches::load::picture::draw;
use hearth_benches::load::results::Results;

#[derive(Debug, clap::Args)]
pub(crate) struct Picture {
    /// Results, as --json wrote them.
    results: PathBuf,
}

impl Picture {
    /// Prints it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn run(self) -> Result<bool, Box<dyn Error>> {
        let svg = draw(&Results::read(&self.results)?);
        std::io::stdout().write_all(svg.as_bytes())?;
        Ok(true)
    }
}

/// A file for a picture, made before the measurement: one that cannot be made must not cost a run.
pub(crate) struct Svg(Option<File>);

impl Svg {
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let file = path
            .map(|path| File::create(path).map_err(|error| format!("{}: {error}", path.display())));
        Ok(Self(file.transpose()?))
    }

    /// Draws the results, if there is a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn draw(self, results: &Results) -> Result<(), Box<dyn Error>> {
        let Some(mut file) = self.0 else { return Ok(()) };
        Ok(file.write_all(draw(results).as_bytes())?)
    }
}
