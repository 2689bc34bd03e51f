//! One server, from its open ports to its end: what `serve` runs, and tests run in process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hearth_pool::error::Error;
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::tasks::TaskGroup;
use hearth_pool::tenants::Tenants;
use hearth_providers::directory::Paths;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::{VmRuntimeError, VmSpec};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::audit::Audit;
use crate::auth::guard::Guard;
use crate::auth::identities::Identities;
use crate::config::{Config, dirs};
use crate::grpc::Services;
use crate::health::Health;
use crate::layers::WatchLayer;
use crate::listen::doors::Doors;
use crate::page::{Doctor, Page};
use crate::telemetry::Levels;
use crate::tls::Tls;
use crate::{admin, backends, furnish, listen, metrics};

/// Where the journal is in the state directory.
const JOURNAL: &str = "journal";

/// Why a server could not start. `Display` has the cause: this is for a person at a terminal.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing for the default template to boot.
    #[error("{0}")]
    Guest(String),
    /// There is nowhere to keep state.
    #[error("there is no home to keep state in: --state DIR says where")]
    NoState,
    /// A directory cannot be made or closed to others.
    #[error("{path} cannot be made, or closed to others: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A provider cannot be opened.
    #[error("the provider {name}: {}", chain(.source))]
    Provider {
        /// Its configured name.
        name: String,
        /// Why.
        source: VmRuntimeError,
    },
    /// A port cannot be had.
    #[error("cannot listen on {address} ({flag}): {source}{}", whose(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What says it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The journal cannot be opened or written, or is not that of what is here.
    #[error("the journal in {path}: {}", chain(&**.source))]
    Journal {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Recovery or the first template failed.
    #[error("{}", chain(.0))]
    Pool(Error),
    /// The Unix socket cannot be had.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What says who is let in, and over what, cannot be used.
    #[error("{0}")]
    Security(String),
    /// A mistake of ours.
    #[error("{0}")]
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// One server.
#[derive(Debug)]
pub struct Hearth {
    config: Config,
    spec: VmSpec,
    manager: Arc<Manager>,
    tasks: TaskGroup,
    health: Arc<Health>,
    grpc: SocketAddr,
    admin: SocketAddr,
    state: PathBuf,
    runtime: PathBuf,
    /// Ends what would hold the server's end up: streams, and waits for operations.
    ending: CancellationToken,
    /// Ends the server with calls under way.
    at_once: CancellationToken,
    served: Option<tokio::sync::oneshot::Receiver<()>>,
    audit: Option<Arc<Audit>>,
}

impl Hearth {
    /// Opens journal, providers and ports. From here on calls are answered, acquires with
    /// `NODE_STARTING`. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind but directories.
    pub async fn open(config: Config, levels: Levels) -> Result<Self, StartError> {
        let spec = furnish::default_spec(&config).map_err(StartError::Guest)?;
        let tls = Tls::open(&config.tls).map_err(StartError::Security)?;
        let identities = open_identities(&config)?;
        metrics::install().map_err(|error| StartError::Internal(error.into()))?;
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let state = config.state.clone().or_else(dirs::default_state).ok_or(StartError::NoState)?;
        let state = make_private(&state)?;
        let journal = Journal::open(&state.join(JOURNAL), &*env);
        let journal = journal.map_err(|error| of_pool(error, &state))?;
        let runtime = match &config.runtime {
            Some(runtime) => runtime.clone(),
            None => dirs::default_runtime(&state, journal.state_uuid()),
        };
        let runtime = make_private(&runtime)?;
        tracing::info!(state = %state.display(), runtime = %runtime.display(), "hearth opens");
        let paths = Paths { state, runtime: runtime.clone() };
        let providers = backends::open(&config, &paths, journal.state_uuid(), &env)
            .map_err(|(name, source)| StartError::Provider { name, source })?;
        let (port, grpc) = bind(config.listen, "--listen")?;
        let (admin_listener, admin) = bind(config.admin, "--admin")?;
        let socket = config.socket.as_deref().map(|path| {
            let failed = |source| StartError::Socket { path: path.to_owned(), source };
            listen::socket::bind(path).map_err(failed)
        });
        let socket = socket.transpose()?;
        let tasks = TaskGroup::new();
        let doctor = Doctor::new(&config, &paths, Arc::clone(&env), tasks.clone());
        let audit = config.keeps_audit().then(|| open_audit(&config, &paths.state, &env));
        let audit = audit.transpose()?;
        let limits = config.limits.to_pool();
        let jobs = Jobs::on_threads(tasks.clone(), limits.places());
        let (clock, group) = (Arc::clone(&env), tasks.clone());
        let manager = Manager::new(clock, limits, journal, jobs, group, providers);
        let reporter = HealthReporter::new();
        let health = Health::new(Arc::clone(&manager), reporter.clone()).await;
        let ending = tasks.stopping().child_token();
        let at_once = CancellationToken::new();
        let tenants = Tenants::new(config.limits.tenants.clone());
        let guard = Guard::new(Arc::clone(&env), identities.clone(), &tenants, &config.grpc);
        let of_page = Arc::clone(&guard);
        let layer = WatchLayer::new(&listen::DESCRIPTOR_SETS, health.is_furnished(), guard);
        let layer = layer.map_err(|error| StartError::Internal(error.into()))?;
        let layer = layer.kept_in(audit.clone());
        audit.iter().for_each(|audit| audit.follow(&tasks));
        let services = Services::new(
            Arc::clone(&manager),
            tasks.clone(),
            env,
            levels,
            (config.grpc.max_message_bytes, config.limits.streams.clone()),
            ending.clone(),
        );
        if let Some(tls) = &tls {
            tls.follow(&config.tls, config.reload_interval, &tasks);
        }
        if let (Some(identities), Some(file)) = (&identities, &config.auth.file) {
            identities.follow(file, config.reload_interval, &tasks);
        }
        let served = (services.routes(), reporter, layer);
        let doors = Doors { port, socket };
        let serving = listen::serve(doors, tls, served, &config.grpc, &tasks, &ending);
        let serving = serving.map_err(StartError::Internal)?;
        let served = Some(listen::spawn(&tasks, serving, at_once.clone()));
        let page = Page::new(&services, Arc::clone(&health), of_page, audit.clone(), doctor);
        admin::serve(admin_listener, Arc::clone(&health), page, &tasks);
        health.follow(&tasks);
        Ok(Self {
            config,
            spec,
            manager,
            tasks,
            health,
            grpc,
            admin,
            state: paths.state,
            runtime,
            ending,
            at_once,
            served,
            audit,
        })
    }

    /// Takes up what a former life left, makes the default template and pool, and takes work.
    ///
    /// # Errors
    /// [`StartError`]; the server is then to be ended.
    pub async fn begin(&self, reap: bool) -> Result<(), StartError> {
        let failed = |error| of_pool(error, &self.state);
        self.manager.start(reap).await.map_err(failed)?;
        furnish::furnish(&self.manager, &self.config, self.spec.clone()).await.map_err(failed)?;
        self.health.furnished().await;
        tracing::info!(grpc = %self.grpc, admin = %self.admin, "serving");
        self.say_who_is_let_in();
        Ok(())
    }

    /// What is said at the start of who can come in.
    fn say_who_is_let_in(&self) {
        let encrypted = self.config.tls.certificate.is_some();
        if self.config.auth.file.is_none() {
            tracing::warn!(
                grpc = %self.grpc,
                "callers are not told apart: everybody who reaches the port is an operator"
            );
        } else if !encrypted && !self.grpc.ip().is_loopback() {
            tracing::warn!(grpc = %self.grpc, "tokens are sent over the network as they are");
        }
        if !self.admin.ip().is_loopback() {
            tracing::warn!(admin = %self.admin, "whoever reaches the admin port learns how much goes on");
        }
    }

    /// Where gRPC is served.
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where metrics and probes are served.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// What it manages: for tests, and for programs that have a server in them.
    pub const fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    /// Waits until something has ended that it cannot do without.
    pub async fn has_failed(&self) {
        self.tasks.stopping().cancelled().await;
    }

    /// Ends: no more work is taken, calls under way are answered, all within bounds. VMs run on,
    /// or are all destroyed.
    pub async fn end(&mut self, stop_vms: bool) {
        // Whoever waits for a VM is told, and so is whoever asks how it goes.
        self.manager.end_service();
        self.health.show().await;
        self.ending.cancel();
        self.health.end_watches().await;
        if let Some(served) = self.served.take()
            && tokio::time::timeout(self.config.grpc.shutdown_timeout, served).await.is_err()
        {
            tracing::warn!("calls under way did not end in time and are cut off");
        }
        self.at_once.cancel();
        self.manager.shut_down(stop_vms).await;
        // What waits is little, and nothing else goes on.
        self.audit.iter().for_each(|audit| audit.write_out());
        if stop_vms && self.config.runtime.is_none() {
            dirs::tidy_runtime(&self.runtime);
        }
    }
}

fn open_audit(
    config: &Config,
    state: &std::path::Path,
    env: &Arc<dyn Env>,
) -> Result<Arc<Audit>, StartError> {
    let dir = match &config.audit.dir {
        // An operator's own may be behind a link.
        Some(dir) => make_private(dir)?,
        None => state.join("audit"),
    };
    let failed = |source| StartError::Directory { path: dir.clone(), source };
    Audit::open(&dir, &config.audit, Arc::clone(env)).map_err(failed)
}

fn open_identities(config: &Config) -> Result<Option<Arc<Identities>>, StartError> {
    let Some(file) = &config.auth.file else { return Ok(None) };
    let wrong = |why| StartError::Security(format!("auth.file: {}: {why}", file.display()));
    Identities::open(file).map(Some).map_err(wrong)
}

/// Makes it, and answers where it is: from here on no link on the way to it is followed.
fn make_private(path: &std::path::Path) -> Result<PathBuf, StartError> {
    let failed = |source| StartError::Directory { path: path.to_owned(), source };
    dirs::make_private(path).and_then(|()| path.canonicalize()).map_err(failed)
}

/// Connections that the kernel holds until they are taken. When all clients come at once, after a
/// restart, one beyond these believes that it is connected, and nobody knows of it.
const BACKLOG: u32 = 4096;

/// Listens on what `flag` says.
fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, flag, source };
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A port that an earlier life has just left is free.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = open().map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// How one finds out who listens there, if somebody does.
fn whose(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; `ss -ltnp` shows which program has it: another hearth?",
        _ => "",
    }
}

/// A failure of the pool at the start, on the state directory `state`. Of its journal it says more than that it
/// cannot be written: it may be damaged, or another's.
fn of_pool(error: Error, state: &std::path::Path) -> StartError {
    match error {
        Error::Storage { source } => StartError::Journal { path: state.join(JOURNAL), source },
        error => StartError::Pool(error),
    }
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
