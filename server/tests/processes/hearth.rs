//! One hearth process on a state directory of its own, and what is asked of it.

use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hearth_proto::HearthClient;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{AcquireVmRequest, AcquireVmResponse, GetVmRequest, ListVmsRequest, Vm};
use hearth_providers::env::{Env as _, SystemEnv};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
pub(crate) type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long anything may take before a case fails. Never a claim of speed.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why there can be no QEMU here, if so.
pub(crate) fn missing_qemu_host() -> Option<String> {
    let guest = guest_dir();
    if !guest.join("vmlinuz").is_file() {
        return Some("the guest image is missing (scripts/guest builds it)".to_owned());
    }
    let binary = format!("qemu-system-{}", std::env::consts::ARCH);
    let found = Command::new(&binary).arg("--version").output().is_ok_and(|it| it.status.success());
    (!found).then(|| format!("{binary} is missing (scripts/setup installs it)"))
}

fn guest_dir() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    std::env::var_os("HEARTH_GUEST_DIR").map_or(built, PathBuf::from)
}

/// A host: what outlives the process. VMs that a case left behind end with it.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    provider: &'static str,
    config: Option<PathBuf>,
    depth: usize,
    /// Where the default template's guest lies.
    guest: PathBuf,
    /// What becomes hearth, with its own arguments.
    program: Vec<OsString>,
}

/// A running hearth; dropped, it is killed.
pub(crate) struct Hearth {
    child: Child,
    pub(crate) client: HearthClient,
    grpc: String,
    admin: String,
}

impl Host {
    pub(crate) fn new(provider: &'static str) -> Answer<Self> {
        let program = vec![env!("CARGO_BIN_EXE_hearth").into()];
        let (dir, guest) = (tempfile::tempdir()?, guest_dir());
        Ok(Self { dir, provider, config: None, depth: 4, guest, program })
    }

    /// From now on another program is started, which becomes hearth.
    #[allow(dead_code, reason = "most test binaries have one hearth alone")]
    pub(crate) fn run_as(&mut self, program: Vec<OsString>) {
        self.program = program;
    }

    /// From now on the guest is a copy of it, in this directory of the host.
    #[allow(dead_code, reason = "most test binaries have readers of every file")]
    pub(crate) fn copy_guest(&mut self, to: &Path) -> Outcome {
        std::fs::create_dir(to)?;
        for file in std::fs::read_dir(&self.guest)? {
            let file = file?;
            // What the build of the guest keeps for itself lies in directories.
            if file.file_type()?.is_file() {
                std::fs::copy(file.path(), to.join(file.file_name()))?;
            }
        }
        self.guest = to.to_owned();
        Ok(())
    }

    /// One whose hearth has a configuration, made in a directory that it is given, and a default
    /// pool of `depth`.
    #[allow(dead_code, reason = "not every test binary has such hosts")]
    pub(crate) fn configured(
        provider: &'static str,
        depth: usize,
        make: impl FnOnce(&Path) -> Answer<String>,
    ) -> Answer<Self> {
        let dir = tempfile::tempdir()?;
        let text = make(dir.path())?;
        let config = dir.path().join("hearth.toml");
        std::fs::write(&config, format!("{text}\n[default_pool]\ndepth = {depth}\n"))?;
        let program = vec![env!("CARGO_BIN_EXE_hearth").into()];
        let guest = guest_dir();
        Ok(Self { dir, provider, config: Some(config), depth, guest, program })
    }

    /// Starts hearth and waits until it serves.
    pub(crate) async fn start(&self) -> Answer<Hearth> {
        let mut hearth = self.begin(&[]).await?;
        // Ready only after recovery; then the pool fills. It may have ended instead.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !hearth.ready().await || hearth.warm().await < self.depth {
            self.wait_a_little(&mut hearth.child, deadline).await?;
        }
        Ok(hearth)
    }

    /// Starts hearth, with `more` arguments, and waits until it can be reached: before its recovery.
    pub(crate) async fn begin(&self, more: &[&str]) -> Answer<Hearth> {
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(["serve", "--provider", self.provider, "--listen", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0", "--state"])
            .arg(self.state())
            .arg("--runtime")
            .arg(self.runtime())
            .arg("--guest")
            .arg(&self.guest)
            .args(self.config.iter().flat_map(|path| [Path::new("--config"), path]))
            .args(more)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(self.log())?)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let mut address = |prefix: &str| -> Answer<String> {
            for line in lines.by_ref() {
                if let Some(address) = line?.strip_prefix(prefix) {
                    return Ok(address.trim().to_owned());
                }
            }
            Err(format!("hearth ended without saying {prefix:?}: {}", self.log_tail()).into())
        };
        let grpc = address("listening on grpc://")?;
        let admin = address("admin on http://")?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let client = loop {
            match HearthClient::connect(&grpc).await {
                Ok(client) => break client,
                Err(_) => self.wait_a_little(&mut child, deadline).await?,
            }
        };
        Ok(Hearth { child, client, grpc, admin })
    }

    async fn wait_a_little(&self, child: &mut Child, deadline: tokio::time::Instant) -> Outcome {
        if child.try_wait()?.is_some() || tokio::time::Instant::now() > deadline {
            return Err(format!("hearth does not serve: {}", self.log_tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// Everything of it lies below.
    #[allow(dead_code, reason = "not every test binary looks for what is left")]
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("hearth.log")
    }

    /// The lines of its log that have `text`.
    #[allow(dead_code, reason = "not every test binary reads the log")]
    pub(crate) fn log_lines(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The cgroups that the records of this host's instances name.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let instances = std::fs::read_dir(self.state().join("instances")).into_iter().flatten();
        let records = instances.flatten().flat_map(|instance| {
            ["vmm.json", "uffd.json"].map(|record| instance.path().join(record))
        });
        let cgroup = |record: PathBuf| {
            let text = std::fs::read(record).ok()?;
            let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
            record["cgroup"].as_str().map(PathBuf::from)
        };
        records.filter_map(cgroup).collect()
    }

    /// Processes that run in an instance's directory of this host.
    pub(crate) fn vmm_pids(&self) -> Vec<u32> {
        let instances = self.state().join("instances");
        let Ok(instances) = instances.canonicalize() else { return Vec::new() };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
                cwd.is_ok_and(|cwd| cwd.starts_with(&instances))
            })
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.vmm_pids() {
            kill(pid);
        }
        // No hearth is left that would take them away.
        for cgroup in self.cgroups() {
            for _ in 0..100 {
                match std::fs::remove_dir(&cgroup) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Ok(()) | Err(_) => break,
                }
            }
            let _ = cgroup.parent().map(std::fs::remove_dir);
        }
    }
}

impl Hearth {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn terminate(mut self) -> Answer<std::process::ExitStatus> {
        let pid = i32::try_from(self.child.id())?;
        kill_process(Pid::from_raw(pid).ok_or("no pid")?, Signal::TERM)?;
        Ok(self.child.wait()?)
    }

    /// What a shell of ours prints for `commands` on this hearth; every one must succeed.
    #[allow(dead_code, reason = "not every test binary has a shell")]
    pub(crate) fn shell(&self, commands: &str) -> Answer<String> {
        let output = Command::new("sh")
            .args(["-ec", &format!("hearth() {{ \"$HEARTH\" \"$@\"; }}\n{commands}")])
            .env("HEARTH", env!("CARGO_BIN_EXE_hearth"))
            .env("HEARTH_ADDRESS", format!("http://{}", self.grpc))
            .stdin(Stdio::null())
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(format!("{commands}: {output:?}").into()),
        }
    }

    pub(crate) async fn acquire(&self, request: AcquireVmRequest) -> Answer<AcquireVmResponse> {
        Ok(self.client.acquire(request, PATIENCE).await?)
    }

    pub(crate) async fn get(&self, name: &str) -> Answer<Vm> {
        let request = GetVmRequest { name: name.to_owned() };
        Ok(self.client.vms.clone().get_vm(request).await?.into_inner())
    }

    pub(crate) async fn vms(&self) -> Answer<Vec<Vm>> {
        let request = ListVmsRequest { page_size: 1000, ..ListVmsRequest::default() };
        Ok(self.client.vms.clone().list_vms(request).await?.into_inner().vms)
    }

    /// Warm VMs, running.
    pub(crate) async fn warm_vms(&self) -> Answer<Vec<Vm>> {
        let is_warm = |vm: &Vm| vm.lease.is_none() && vm.state() == State::Running;
        Ok(self.vms().await?.into_iter().filter(|vm| is_warm(vm) && !vm.pool.is_empty()).collect())
    }

    async fn warm(&self) -> usize {
        self.metric("hearth_warm_vms{pool=\"default\"}").await.unwrap_or(0.0) as usize
    }

    /// The value of one series; `None` when it is not there.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin_page("/metrics").await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub(crate) async fn ready(&self) -> bool {
        self.admin_page("/readyz").await.is_ok_and(|page| page.starts_with("HTTP/1.1 200"))
    }

    /// Every metric, as text.
    #[allow(dead_code, reason = "not every test binary reads them all")]
    pub(crate) async fn metrics(&self) -> Answer<String> {
        self.admin_page("/metrics").await
    }

    /// Where it is reached.
    #[allow(dead_code, reason = "most test binaries have a client alone")]
    pub(crate) fn address(&self) -> &str {
        &self.grpc
    }

    /// One more connection.
    #[allow(dead_code, reason = "not every test binary makes some")]
    pub(crate) async fn connect(&self) -> Answer<HearthClient> {
        Ok(HearthClient::connect(&self.grpc).await?)
    }

    async fn admin_page(&self, path: &str) -> Answer<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.admin).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Waits, bounded, until `done`.
    pub(crate) async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) -> Outcome {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done().await {
            if tokio::time::Instant::now() > deadline {
                return Err(format!("never: {what}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
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

/// `kill -9` of a process that a case's own hearth started.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended already is what is wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
}

pub(crate) fn request(vm_id: &str) -> AcquireVmRequest {
    AcquireVmRequest {
        pool: "pools/default".to_owned(),
        vm_id: vm_id.to_owned(),
        request_id: SystemEnv.uid().to_string(),
        ..AcquireVmRequest::default()
    }
}
