//! `docs/cli.md` shows what the code says: its tables are made here and compared. `HEARTH_BLESS=1` writes
//! them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};

use super::Cli;
use super::error::EXIT_CODES;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")
}

/// The table between the marks of this name is `table`, or is made so.
fn check(name: &str, table: &str) {
    let (begin, end) =
        (format!("<!-- {name}: generated, do not edit -->\n"), format!("<!-- end of {name} -->\n"));
    let text = std::fs::read_to_string(page()).expect("docs/cli.md is there");
    let (before, rest) = text.split_once(&begin).expect("the page has the table's begin");
    let (shown, after) = rest.split_once(&end).expect("the page has the table's end");
    if std::env::var_os("HEARTH_BLESS").is_some() {
        std::fs::write(page(), format!("{before}{begin}{table}{end}{after}"))
            .expect("it is written");
        return;
    }
    assert_eq!(shown, table, "HEARTH_BLESS=1 writes the table anew");
}

/// One after the other: both write the same file when they are told to.
#[test]
fn the_page_has_every_command_and_every_exit_code() {
    let mut commands = "| command | does |\n|---|---|\n".to_owned();
    for command in Cli::command().get_subcommands() {
        add("hearth", command, &mut commands);
    }
    check("commands", &commands);
    let mut codes = "| code | means |\n|---|---|\n".to_owned();
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").expect("a code and what it means");
        let _ = writeln!(codes, "| {code} | {meaning} |");
    }
    check("exit codes", &codes);
}

/// A row for each command below `command` that does something, and for itself.
fn add(before: &str, command: &Command, table: &mut String) {
    let name = format!("{before} {}", command.get_name());
    let verbs: Vec<_> = command.get_subcommands().collect();
    if verbs.is_empty() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(table, "| `{name}` | {} |", about.replace('|', "\\|"));
    }
    for verb in verbs {
        add(&name, verb, table);
    }
}
