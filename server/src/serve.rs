//! `hearth serve`: the life of the process, from its configuration to its exit code.
//!
//! Bad configuration ends it before a port is bound. It takes work from when recovery has
//! finished until drain begins; VMs outlive it, unless it is told to take them along.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, ProviderKind};
pub use crate::hearth::{Hearth, StartError};
use crate::notify;
use crate::privileges;
use crate::process;
use crate::telemetry::{self, Export, Levels, LogFormat};

/// How long threads that are blocked in a provider may hold the process up at its very end.
const THREADS_TIMEOUT: Duration = Duration::from_millis(500);

/// Exit code when something went wrong.
const FAILED: u8 = 1;
/// Exit code for a wrong command line or configuration.
const WRONG: u8 = 2;
/// Exit code when a second signal ended it at once.
const INTERRUPTED: u8 = 130;

/// Arguments of `hearth serve`. What is not given is as the file, the environment
/// (`HEARTH_LISTEN` and so on) or the built-in default has it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Kind of the default provider.
    #[arg(long, value_enum, value_name = "KIND")]
    pub provider: Option<ProviderKind>,
    /// Where to serve gRPC; port 0 picks a free one and prints it [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// A Unix socket on which to serve gRPC, too; only this user and root can use it.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to serve /metrics, /healthz and /readyz [default: 127.0.0.1:7071].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// What survives a restart [default: /var/lib/hearth as root, else below the user's state
    /// directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Names of VMs, best on tmpfs [default: below /run/hearth, else the state directory].
    #[arg(long, value_name = "DIR")]
    pub runtime: Option<PathBuf>,
    /// Configuration in TOML; docs/configuration.md has every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the default template boots, as scripts/guest builds it.
    #[arg(long, value_name = "DIR")]
    pub guest: Option<PathBuf>,
    /// Destroy VMs that belong to another journal than the one that is there.
    #[arg(long)]
    pub reap: bool,
    /// Destroy all VMs at the end; without it they run on and are adopted at the next start.
    #[arg(long)]
    pub stop_vms: bool,
    /// Serve other machines without encryption, or without telling callers apart.
    #[arg(long)]
    pub insecure: bool,
    /// How to write the log [default: human on a terminal, json elsewhere].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Serves until it is told to end, by SIGTERM or SIGINT, or cannot go on. Must not be called
/// from async code: it has a runtime of its own.
pub fn run(args: ServeArgs) -> ExitCode {
    let loaded = match config::load(&args) {
        Ok(loaded) => loaded,
        Err(error) => return complain(&error, WRONG),
    };
    let (levels, export) = match telemetry::init(&loaded.config) {
        Ok(begun) => begun,
        Err(why) => return complain(&format!("the log: {why}"), WRONG),
    };
    for variable in &loaded.ignored_variables {
        tracing::warn!(variable, "it means nothing to hearth: docs/configuration.md has the names");
    }
    warn_as_init();
    process::prepare();
    warn_of_missing_privileges(&loaded.config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no threads: {error}"), FAILED),
    };
    let code = runtime.block_on(live_followed(loaded.config, levels, export, &args));
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    ExitCode::from(code)
}

/// The life, and the export of what is followed of it, which ends last.
async fn live_followed(
    config: Config,
    levels: Levels,
    export: Option<Export>,
    args: &ServeArgs,
) -> u8 {
    let exporting = match export.map(Export::begin).transpose() {
        Ok(exporting) => exporting,
        Err(why) => return failed(&format!("the export of spans: {why}")),
    };
    let code = live(config, levels, args).await;
    if let Some(exporting) = exporting {
        exporting.end().await;
    }
    code
}

/// The life itself; answers the exit code.
async fn live(config: Config, levels: Levels, args: &ServeArgs) -> u8 {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("signals cannot be heard: {error}")),
    };
    let opened = tokio::select! {
        opened = Hearth::open(config, levels) => opened,
        () = signals.next() => return 0,
    };
    let mut hearth = match opened {
        Ok(hearth) => hearth,
        Err(error @ StartError::Guest(_)) => {
            failed(&error);
            return WRONG;
        }
        Err(error) => return failed(&error),
    };
    say(&format!("listening on grpc://{}", hearth.grpc_address()));
    say(&format!("admin on http://{}", hearth.admin_address()));
    let mut code = tokio::select! {
        begun = hearth.begin(args.reap) => match begun {
            Ok(()) => 0,
            Err(error) => failed(&error),
        },
        () = signals.next() => {
            tokio::select! {
                () = hearth.end(false) => return 0,
                () = signals.next() => return INTERRUPTED,
            }
        }
    };
    if code == 0 {
        notify::tell(notify::READY);
        tokio::select! {
            () = signals.next() => tracing::info!("ending: no more acquires are taken"),
            () = hearth.has_failed() => code = FAILED,
        }
    }
    notify::tell(notify::STOPPING);
    tokio::select! {
        () = hearth.end(args.stop_vms && code == 0) => {}
        () = signals.next() => {
            tracing::warn!("told twice to end: ending at once; VMs are found at the next start");
            return INTERRUPTED;
        }
    }
    tracing::info!("ended");
    code
}

impl ServeArgs {
    pub(crate) fn flags(&self) -> config::Flags {
        config::Flags {
            listen: self.listen,
            socket: self.socket.clone(),
            admin: self.admin,
            state: self.state.clone(),
            runtime: self.runtime.clone(),
            guest: self.guest.clone(),
            log_format: self.log_format,
            provider: self.provider,
            insecure: self.insecure,
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A container's first process takes everything with it when it ends.
fn warn_as_init() {
    if std::process::id() == 1 {
        tracing::warn!(
            "hearth is the first process of its PID namespace: VMs of this node end with it, \
             and cannot outlive an upgrade"
        );
    }
}

/// A VM that cannot be confined, or not be ended, is noticed when it should be; this says why before.
fn warn_of_missing_privileges(config: &Config) {
    let providers = config.providers.values();
    let needs = providers.flat_map(|it| privileges::needs(it.jailer.is_some(), it.user.is_some()));
    for need in privileges::missing(needs) {
        tracing::warn!(
            capability = need.name,
            "VMs cannot be confined as configured without it: {}",
            need.why
        );
    }
}

fn failed(error: &dyn std::fmt::Display) -> u8 {
    tracing::error!("{error}");
    FAILED
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "hearth: {error}");
    ExitCode::from(code)
}

/// To standard output, for scripts; one that nobody reads is no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
