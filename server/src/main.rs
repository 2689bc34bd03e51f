//! The binary `hearth`: the server, and the command line that talks to one.

mod cli;

use std::process::ExitCode;

/// An acquire takes some dozens of small pieces of memory, many of which another thread gives back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
