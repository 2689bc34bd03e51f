//! The command line: `hearth serve`, and a thin client of the API for everything else.
//!
//! A client command is one or a few calls and a print; it decides nothing that the server could. Answers
//! go to standard output, everything else to standard error, and the exit code says what to do next
//! (see [`error::EXIT_CODES`]).

mod apply;
mod artifacts;
mod ask;
#[cfg(test)]
mod cli_page;
mod connect;
mod context;
mod debug;
mod doctor;
mod error;
mod leases;
mod node;
mod operations;
mod output;
mod pools;
mod progress;
mod settings;
mod snapshots;
mod spec;
mod templates;
mod text;
mod token;
mod usage;
mod view;
mod vms;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use hearth_server::serve::{self, ServeArgs};

use tokio::signal::unix::{SignalKind, signal};

use context::{Context, Global};
use error::{EXIT_CODES, Error, Result};

/// Keeps microVMs warm and hands them out in microseconds.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<ServeArgs>),
    /// Take a VM from a pool; it is yours until its lease ends.
    Acquire(leases::Acquire),
    /// Give VMs back; they are destroyed.
    Release(leases::Release),
    /// Move the end of a lease.
    Renew(leases::Renew),
    /// See and use VMs.
    #[command(visible_alias = "vm")]
    Vms(vms::Command),
    /// Talk to a VM's guest: keys and screen, or a pipe.
    Connect(connect::Connect),
    /// Print what a VM wrote on its console.
    Console(vms::Console),
    /// Keep a VM as an artifact that can be resumed; the VM goes on.
    Freeze(artifacts::Freeze),
    /// Begin a new VM where a frozen one stood.
    Resume(artifacts::Resume),
    /// See and delete artifacts.
    #[command(visible_alias = "artifact")]
    Artifacts(artifacts::Command),
    /// See and delete snapshots of VMs.
    #[command(visible_alias = "snapshot")]
    Snapshots(snapshots::Command),
    /// See, make, change and delete pools.
    #[command(visible_alias = "pool")]
    Pools(pools::Command),
    /// See, make and delete templates.
    #[command(visible_alias = "template")]
    Templates(templates::Command),
    /// Make templates and pools what a file says.
    Apply(apply::Apply),
    /// See the server, and take it out of service.
    Node(node::Command),
    /// Show what VMs and snapshots take on disk.
    Usage(usage::Command),
    /// Follow what takes longer than a call.
    #[command(visible_alias = "operation")]
    Operations(operations::Command),
    /// Check whether this machine can run hearth. Needs no server.
    Doctor(doctor::Doctor),
    /// Collect what a bug report needs.
    Debug(debug::Command),
    /// Print a script that has a shell complete commands, flags and values. Needs no server.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Make a token for a caller, and its hash for the server. Needs no server.
    Token(token::Token),
    /// Show where commands go and who calls, and what says so. Needs no server.
    Config,
}

/// Parses the arguments, does what they say and answers how it went.
pub(crate) fn main() -> ExitCode {
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end here too. A reader that went away is no reason to complain.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let format = cli.global.output;
    match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Doctor(doctor) => end(doctor.run(format), format),
        Command::Token(token) => end(token.run(format), format),
        Command::Completion { shell } => end(completion(shell), format),
        Command::Config => {
            end(cli.global.settings().and_then(|settings| settings.print(format)), format)
        }
        command => end(run_client(command, cli.global), format),
    }
}

/// Prints what has `shell` complete this command line.
fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hearth", &mut script);
    output::write_out(&script)
}

fn end(result: Result<()>, format: output::Format) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report(format);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_client(command: Command, mut global: Global) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("cannot start: {error}")))?;
    // A file that is wrong is told before a server is looked for.
    let apply = match &command {
        Command::Apply(apply) => Some(apply.read()?),
        _ => None,
    };
    let settings = global.settings()?;
    let result = runtime.block_on(async {
        let mut context = match &command {
            // A server that is away is what is to be looked into.
            Command::Debug(_) => Context::connect_later(global, &settings).await?,
            _ => Context::connect(global, &settings).await?,
        };
        // Who holds a VM gives it back first.
        let ends_itself = matches!(&command, Command::Acquire(acquire) if acquire.holds());
        tokio::select! {
            result = dispatch(command, apply, &mut context) => return result,
            () = interrupted(), if !ends_itself => {}
        }
        Err(Error::Interrupted(context.goes_on.take()))
    });
    result.map_err(|error| error.about(settings.where_to(), settings.who()))
}

/// Waits until the user interrupts; what shows progress is dropped then, and takes it away.
async fn interrupted() {
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupts) => drop(interrupts.recv().await),
        // Then the kernel ends the command, as it does any other.
        Err(_) => std::future::pending().await,
    }
}

async fn dispatch(
    command: Command,
    apply: Option<apply::File>,
    context: &mut Context,
) -> Result<()> {
    match command {
        Command::Acquire(acquire) => acquire.run(context).await,
        Command::Release(release) => release.run(context).await,
        Command::Renew(renew) => renew.run(context).await,
        Command::Vms(command) => command.run(context).await,
        Command::Connect(connect) => connect.run(context).await,
        Command::Console(console) => console.run(context).await,
        Command::Freeze(freeze) => freeze.run(context).await,
        Command::Resume(resume) => resume.run(context).await,
        Command::Artifacts(command) => command.run(context).await,
        Command::Snapshots(command) => command.run(context).await,
        Command::Pools(command) => command.run(context).await,
        Command::Templates(command) => command.run(context).await,
        Command::Node(command) => command.run(context).await,
        Command::Usage(command) => command.run(context).await,
        Command::Operations(command) => command.run(context).await,
        Command::Debug(command) => command.run(context).await,
        Command::Apply(apply_args) => match apply {
            Some(plan) => apply_args.run(context, &plan).await,
            None => Ok(()),
        },
        Command::Serve(_)
        | Command::Doctor(_)
        | Command::Token(_)
        | Command::Config
        | Command::Completion { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_go_before_and_after_the_command() {
        for line in ["hearth --output json vms list", "hearth vms list --output json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.output, output::Format::Json);
        }
    }
}
