//! A state directory, and one life of hearth after another on it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_proto::{HearthClient, v1};
use hearth_server::config::{Config, ProviderConfig, ProviderKind};
use hearth_server::serve::Hearth as Server;
use hearth_server::telemetry::Levels;

use tonic::{Code, Status};

use crate::Answer;

/// The first argument of a process that is to be hearth.
const AS_HEARTH: &str = "--hearth";
/// What the threads of its runtime are called, by their numbers.
const THREAD: &str = "hearth-";
/// The one that answers calls, and hands VMs over.
pub(crate) const WORKER: &str = "hearth-0";
/// The one that makes the blocking calls.
pub(crate) const BLOCKING: &str = "hearth-1";
/// How many VMs its pool keeps warm.
pub(crate) const DEPTH: usize = 1;
/// How long anything may take before the case fails. Never a claim of speed.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a process that was killed may be seen to live.
const DYING: Duration = Duration::from_secs(10);

/// Becomes hearth, and does not return, when this process was started for that.
pub(crate) fn run_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != AS_HEARTH) {
        return;
    }
    let Some(dir) = arguments.next() else { return };
    let started = AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(24 * 3600))
        .thread_name_fn(move || format!("{THREAD}{}", started.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build();
    let runtime = runtime.expect("there are threads");
    runtime.block_on(async {
        let server = Server::open(config(Path::new(&dir)), Levels::detached()).await;
        let server = server.expect("it opens");
        server.begin(false).await.expect("it begins");
        println!("grpc://{}", server.grpc_address());
        std::future::pending::<()>().await;
    });
}

fn config(dir: &Path) -> Config {
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        state: Some(dir.join("state")),
        runtime: Some(dir.join("run")),
        guest: is_qemu().then(guest_dir),
        ..Config::default()
    };
    config.default_pool.depth = Some(DEPTH);
    let (name, provider) = match is_qemu() {
        true => ("qemu", ProviderConfig::of(ProviderKind::Qemu)),
        false => {
            let memory = ProviderConfig::of(ProviderKind::Memory);
            ("memory", ProviderConfig { durable: Some(true), ..memory })
        }
    };
    config.providers.insert(name.to_owned(), provider);
    config
}

/// The guest that `scripts/guest` builds.
fn guest_dir() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    std::env::var_os("HEARTH_GUEST_DIR").map_or(built, PathBuf::from)
}

/// Its VMs are QEMU's, and not those of memory made durable.
pub(crate) fn is_qemu() -> bool {
    std::env::var_os("HEARTH_KILLS").is_some_and(|kind| kind == "qemu")
}

/// What outlives hearth.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Drop for Host {
    /// Ends the VMs of a case that failed: those that run in an instance's directory.
    fn drop(&mut self) {
        let Ok(instances) = self.path("state/instances").canonicalize() else { return };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
            if cwd.is_ok_and(|cwd| cwd.starts_with(&instances))
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// One life; killed when it is dropped.
pub(crate) struct Hearth {
    child: Child,
    pub(crate) client: HearthClient,
}

impl Host {
    pub(crate) fn new() -> Answer<Self> {
        Ok(Self { dir: tempfile::tempdir()? })
    }

    /// Starts hearth and waits until its recovery is over and its pool is full.
    pub(crate) async fn start(&self) -> Answer<Hearth> {
        let program = Command::new(std::env::current_exe()?);
        self.started(program).await?.ok_or_else(|| {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            format!("hearth does not start again: {log}").into()
        })
    }

    /// The same by strace, as `strace` has been told to; nothing when it ends before it serves.
    pub(crate) async fn start_traced(&self, mut strace: Command) -> Answer<Option<Hearth>> {
        strace.arg(std::env::current_exe()?);
        self.started(strace).await
    }

    async fn started(&self, mut program: Command) -> Answer<Option<Hearth>> {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log"))?;
        let mut child = program
            .arg(AS_HEARTH)
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut address = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut address)?;
        let Some(address) = address.trim().strip_prefix("grpc://") else {
            child.wait()?;
            return Ok(None);
        };
        let client = match HearthClient::connect(address).await {
            Ok(client) => client,
            Err(error) => return Self::ended(child, error.into()),
        };
        let hearth = Hearth { child, client };
        let filled = Hearth::until("the pool is full", async || {
            match hearth.is_full().await {
                Ok(is_full) => is_full,
                // There is nobody to wait for.
                Err(error) => error.code() == Code::Unavailable && hearth.is_gone(),
            }
        });
        filled.await?;
        Ok((!hearth.is_gone()).then_some(hearth))
    }

    /// What cannot be reached has to have ended.
    fn ended(
        mut child: Child,
        error: Box<dyn std::error::Error + Send + Sync>,
    ) -> Answer<Option<Hearth>> {
        match child.wait()?.signal() {
            Some(_) => Ok(None),
            None => Err(error),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How many instances are on disk, whole or not.
    pub(crate) fn instances(&self) -> usize {
        std::fs::read_dir(self.path("state/instances")).map_or(0, Iterator::count)
    }

    /// How many snapshots are on disk, whole or not.
    pub(crate) fn snapshots(&self) -> usize {
        std::fs::read_dir(self.path("state/snapshots")).map_or(0, Iterator::count)
    }

    /// The marks of preserved VMs that are on disk and name an artifact.
    pub(crate) fn marks(&self) -> usize {
        let instances = std::fs::read_dir(self.path("state/instances")).into_iter().flatten();
        let marked = |dir: PathBuf| {
            let mark = std::fs::read_to_string(dir.join("preserved.json")).unwrap_or_default();
            mark.contains("\"artifacts\": [\n")
        };
        instances.flatten().filter(|entry| marked(entry.path())).count()
    }
}

impl Hearth {
    /// The thread of this name.
    pub(crate) fn thread(&self, name: &str) -> Answer<u32> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let path = task?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim() == name {
                let tid = path.file_name().and_then(|tid| tid.to_str());
                return Ok(tid.ok_or("a thread without a number")?.parse()?);
            }
        }
        Err(format!("it has no thread {name}").into())
    }

    pub(crate) async fn get(&self, vm_id: &str) -> Result<v1::Vm, Status> {
        let request = v1::GetVmRequest { name: format!("vms/{vm_id}") };
        self.client.vms.clone().get_vm(request).await.map(tonic::Response::into_inner)
    }

    /// As many VMs are warm as should be.
    pub(crate) async fn is_full(&self) -> Result<bool, Status> {
        let request = v1::GetPoolRequest { name: "pools/default".to_owned() };
        let pool = self.client.pools.clone().get_pool(request).await?.into_inner();
        let warm = pool.status.map_or(0, |status| status.warm);
        Ok(usize::try_from(warm).is_ok_and(|warm| warm == DEPTH))
    }

    /// Every VM that lives, warm ones too.
    pub(crate) async fn vms(&self) -> Result<Vec<v1::Vm>, Status> {
        let request = v1::ListVmsRequest { page_size: 1000, ..Default::default() };
        Ok(self.client.vms.clone().list_vms(request).await?.into_inner().vms)
    }

    /// Its process, or the strace that is around it, runs no longer; it is not waited for.
    fn is_gone(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let state = |stat: &str| stat.rsplit(')').next().map(|rest| rest.trim_start().to_owned());
        stat.ok().as_deref().and_then(state).is_none_or(|rest| rest.starts_with(['Z', 'X']))
    }

    /// `kill -9` of the hearth that runs by strace.
    pub(crate) fn kill_traced(mut self) -> Answer<()> {
        let strace = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"))?;
        for pid in children.split_ascii_whitespace() {
            let pid = rustix::process::Pid::from_raw(pid.parse()?).ok_or("no pid")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// Waits, bounded, for its end by a signal.
    pub(crate) async fn killed(&mut self) -> Answer<()> {
        let deadline = tokio::time::Instant::now() + DYING;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.signal() == Some(9) => return Ok(()),
                Some(status) => return Err(format!("hearth ended with {status}").into()),
                None if tokio::time::Instant::now() > deadline => {
                    return Err("hearth failed, and was not killed".into());
                }
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Waits, bounded, until `done`.
    pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) -> Answer<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done().await {
            if tokio::time::Instant::now() > deadline {
                return Err(format!("never: {what}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Hearth {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
