//! What came of all cases, one line for each provider, against the lines that are expected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hearth_providers::conformance::cases;
use parking_lot::Mutex;

/// What a case shows as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Passed,
    Failed,
    Ignored,
    Unsupported,
}

/// What each case of each provider shows as.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    shown: Mutex<BTreeMap<&'static str, BTreeMap<&'static str, Shown>>>,
}

impl Summary {
    pub(crate) fn note(&self, provider: &'static str, case: &'static str, shown: Shown) {
        self.shown.lock().entry(provider).or_default().insert(case, shown);
    }

    /// Prints the lines of the providers whose cases were all run, in this order, and compares
    /// them with the expected ones. True when they differ.
    pub(crate) fn conclude(&self, providers: impl Iterator<Item = &'static str>) -> bool {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance.expected");
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let (mut differs, mut blessed) = (false, String::new());
        for provider in providers {
            let found = format!("conformance {provider}: ");
            let wanted = expected.lines().find(|line| line.starts_with(&found));
            let line = self.line(provider);
            line.iter().for_each(|(line, _)| println!("{line}"));
            let compared = line.filter(|(_, ignored)| *ignored == 0).map(|(line, _)| line);
            if let Some(line) = &compared
                && wanted != Some(line)
            {
                differs = true;
                println!("  expected: {}", wanted.unwrap_or("nothing"));
            }
            let kept = compared.or_else(|| wanted.map(str::to_owned));
            blessed.extend(kept.map(|line| line + "\n"));
        }
        if differs && std::env::var_os("HEARTH_BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(&path, blessed).expect("conformance.expected can be written");
            return false;
        }
        differs
    }

    /// The provider's line, and how many cases were ignored; `None` when not all were run.
    fn line(&self, provider: &str) -> Option<(String, usize)> {
        let shown = self.shown.lock();
        let shown = shown.get(provider).filter(|shown| shown.len() == cases().count())?;
        let of = |wanted: Shown| {
            shown.iter().filter(move |(_, shown)| **shown == wanted).map(|(name, _)| *name)
        };
        let ignored = of(Shown::Ignored).count();
        let unsupported: Vec<_> = of(Shown::Unsupported).collect();
        let names = match unsupported.as_slice() {
            [] => String::new(),
            names => format!(" ({})", names.join(", ")),
        };
        let line = format!(
            "conformance {provider}: {} passed, {} failed, {ignored} ignored, {} unsupported{names}",
            of(Shown::Passed).count(),
            of(Shown::Failed).count(),
            unsupported.len(),
        );
        Some((line, ignored))
    }
}
