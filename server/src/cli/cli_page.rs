//! `docs/cli.md` shows what the code says: its tables are made here and compared.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Cli;
use super::error::EXIT_CODES;
use crate::generated;

/// One after the other: both write the same file when they are told to.
#[test]
fn the_page_has_every_command_and_every_exit_code() {
    let mut commands = "| command | does |\n|---|---|\n".to_owned();
    for command in Cli::command().get_subcommands() {
        add("hearth", command, &mut commands);
    }
    generated::check("cli.md", "commands", &commands);
    let mut codes = "| code | means |\n|---|---|\n".to_owned();
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").expect("a code and what it means");
        let _ = writeln!(codes, "| {code} | {meaning} |");
    }
    generated::check("cli.md", "exit codes", &codes);
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
