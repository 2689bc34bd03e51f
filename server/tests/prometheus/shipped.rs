//! What `deploy/prometheus` has, as it is shipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::tools::promtool;

/// The rules.
pub(crate) const RULES: [&str; 2] = ["recording.yml", "alerts.yml"];
const TESTS: [&str; 2] = ["alerts_test.yml", "alerts_days_test.yml"];

/// A directory or file of this tree.
pub(crate) fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A file of it.
pub(crate) fn read(path: &str) -> String {
    let path = tree(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all alerts.
pub(crate) fn alerts() -> BTreeSet<String> {
    let rules = read("deploy/prometheus/alerts.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// The rules with every duration `part`th of what it is: those in brackets, of offsets, and for how long.
pub(crate) fn scaled(part: u64) -> Vec<(&'static str, String)> {
    let file = |name| (name, scale(&read(&format!("deploy/prometheus/{name}")), part));
    RULES.map(file).into()
}

fn scale(text: &str, part: u64) -> String {
    let mut scaled = String::new();
    let mut rest = text;
    let starts = ["[", "offset ", " for: "];
    while let Some(at) = starts.iter().filter_map(|it| rest.find(it).map(|at| at + it.len())).min()
    {
        scaled.push_str(&rest[..at]);
        rest = &rest[at..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match rest[digits..].bytes().next() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            _ => continue,
        };
        let Ok(number) = rest[..digits].parse::<u64>() else { continue };
        scaled.push_str(&format!("{}ms", number * unit * 1000 / part));
        rest = &rest[digits + 1..];
    }
    scaled + rest
}

/// Each alert has an entry in the run book, where its own rule says, and each entry its alert; each has cases in
/// which it fires and in which it does not.
pub(crate) fn alerts_are_written_of() {
    let (rules, book) = (read("deploy/prometheus/alerts.yml"), read("docs/operations.md"));
    let alerts = alerts();
    let entries = book.lines().filter_map(|line| line.strip_prefix("### Hearth"));
    let entries: BTreeSet<_> = entries.map(|it| format!("Hearth{it}")).collect();
    assert_eq!(alerts, entries);
    for alert in &alerts {
        let anchor = format!("runbook: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{alert} does not say {anchor}");
        let entry = book.split(&format!("### {alert}\n")).nth(1).unwrap_or_default();
        let entry = entry.split("\n##").next().unwrap_or_default();
        for part in ["**Means**", "**Look at**", "**Do**"] {
            assert!(entry.contains(part), "{alert} has no {part}");
        }
    }
    let tests: String = TESTS.map(|it| read(&format!("deploy/prometheus/{it}"))).concat();
    let cases: Vec<_> = tests.split("  - name: \"").skip(1).collect();
    for alert in &alerts {
        let its = cases.iter().filter(|it| it.starts_with(&format!("{alert}: ")));
        let (fires, does_not): (Vec<&&str>, Vec<&&str>) =
            its.partition(|it| it.contains("value: 1 }"));
        assert!(!fires.is_empty() && !does_not.is_empty(), "{alert} has no cases of both kinds");
    }
    assert_eq!(
        scale("a[5m] offset 1h b[$x]\n for: 90s c:ratio5m", 10),
        "a[30000ms] offset 360000ms b[$x]\n for: 9000ms c:ratio5m"
    );
}

/// The rules, the example, and the rules' tests.
pub(crate) fn promtool_accepts() {
    let directory = tree("deploy/prometheus");
    promtool(&["check", "config", "prometheus.yml"], &directory, "");
    promtool(&[&["check", "rules"], &RULES[..]].concat(), &directory, "");
    promtool(&[&["test", "rules"], &TESTS[..]].concat(), &directory, "");
}
