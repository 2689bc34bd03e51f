//! The binary `hearth`: the server, and the command line that talks to one.

mod cli;
#[cfg(test)]
mod generated;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
