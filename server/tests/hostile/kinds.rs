//! Providers of every kind, each in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::cli::{CliBackend, CliConfig};
use hearth_providers::directory::Paths;
use hearth_providers::docker::{DockerBackend, DockerConfig};
use hearth_providers::engine::Engine;
use hearth_providers::env::{Env, SystemEnv};
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig};
use hearth_providers::memory::MemoryBackend;
use hearth_providers::qemu::{QemuBackend, QemuConfig};
use hearth_providers::readiness::Readiness;
use hearth_providers::smolvm::Smolvm;
use hearth_providers::{VmRuntime, VmSpec};

use crate::docker_engine::{self, BASE, EngineHost};
use crate::{Answer, cli_fake, firecracker_fake};

/// A provider, and what its VMs are made from.
pub(crate) struct Site {
    pub(crate) runtime: Arc<dyn VmRuntime>,
    pub(crate) spec: VmSpec,
    pub(crate) readiness: Readiness,
    /// How long a call may take, and how often each caller asks for a VM.
    pub(crate) limit: Duration,
    pub(crate) rounds: usize,
    /// An engine of the tests' own; it goes after the provider.
    _engine: Option<EngineHost>,
    pub(crate) dir: tempfile::TempDir,
}

type Missing = fn() -> Option<String>;
type Make = fn() -> Answer<Site>;

/// Every kind but memory: its name, why it cannot be here, and how it is made.
pub(crate) const OTHERS: [(&str, Missing, Make); 5] = [
    ("qemu", missing_qemu, qemu),
    ("docker", || docker_engine::missing("docker"), docker),
    ("firecracker-fake", || None, firecracker),
    ("smolvm-fake", || None, smolvm),
    ("apple-container-fake", || None, apple),
];

fn env() -> Arc<dyn Env> {
    Arc::new(SystemEnv)
}

fn paths(dir: &Path) -> Paths {
    Paths { state: dir.join("state"), runtime: dir.join("run") }
}

fn site(dir: tempfile::TempDir, runtime: Arc<dyn VmRuntime>, spec: VmSpec) -> Site {
    let readiness = Readiness::ConsoleMarker("READY".to_owned());
    let limit = Duration::from_secs(20);
    Site { runtime, spec, readiness, limit, rounds: 6, _engine: None, dir }
}

pub(crate) fn memory() -> Answer<Site> {
    let runtime = Arc::new(MemoryBackend::provider("memory", env()));
    let made = site(tempfile::tempdir()?, runtime, VmSpec::default());
    let (readiness, limit) = (Readiness::AgentAnswers, Duration::from_secs(1));
    Ok(Site { readiness, limit, rounds: 12, ..made })
}

fn guest() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    std::env::var_os("HEARTH_GUEST_DIR").map_or(built, PathBuf::from)
}

fn missing_qemu() -> Option<String> {
    if !guest().join("vmlinuz").is_file() {
        return Some("the guest image is missing (scripts/guest builds it)".to_owned());
    }
    QemuBackend::new(QemuConfig::default(), env()).err().map(|error| error.to_string())
}

fn qemu() -> Answer<Site> {
    let dir = tempfile::tempdir()?;
    let backend = QemuBackend::new(QemuConfig::default(), env())?;
    let (engine, _) = Engine::open("qemu", backend, env(), paths(dir.path()))?;
    let file = |name: &str| guest().join(name).canonicalize().map(Some);
    let spec = VmSpec {
        kernel: file("vmlinuz")?,
        initrd: file("initrd.cpio.gz")?,
        rootfs: file("rootfs.ext4")?,
        boot_args: "quiet".to_owned(),
        ..VmSpec::default()
    };
    Ok(site(dir, Arc::new(engine), spec))
}

fn docker() -> Answer<Site> {
    let (dir, host) = (tempfile::tempdir()?, EngineHost::start("docker")?);
    let command = ["sh", "-c", "echo READY; exec sleep 1000000"].map(str::to_owned).to_vec();
    let config = DockerConfig { socket: host.socket(), command, ..DockerConfig::new("hostile") };
    let backend = DockerBackend::new(config, &paths(dir.path()), env())?;
    let (engine, _) = Engine::open("docker", backend, env(), paths(dir.path()))?;
    let spec = VmSpec { image: Some(BASE.to_owned()), ..VmSpec::default() };
    Ok(Site { _engine: Some(host), ..site(dir, Arc::new(engine), spec) })
}

fn firecracker() -> Answer<Site> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("bin"))?;
    let fake = firecracker_fake::install(&at("bin"), &firecracker_fake::Settings::default());
    std::fs::write(at("kernel"), b"\x7fELF, as far as the fake looks")?;
    std::fs::write(at("rootfs"), vec![0; 1 << 20])?;
    let config = FirecrackerConfig { binary: fake.firecracker, ..FirecrackerConfig::default() };
    let backend = FirecrackerBackend::new(config, env())?;
    let (engine, _) = Engine::open("firecracker", backend, env(), paths(dir.path()))?;
    let (kernel, rootfs) = (Some(at("kernel")), Some(at("rootfs")));
    let spec = VmSpec { kernel, rootfs, mem_size_mib: 4, ..VmSpec::default() };
    Ok(site(dir, Arc::new(engine), spec))
}

fn smolvm() -> Answer<Site> {
    let dir = tempfile::tempdir()?;
    let version = "1.32.2".to_owned();
    let settings = cli_fake::Settings { version, ..cli_fake::Settings::default() };
    let config = CliConfig::new(cli_fake::install(dir.path(), &settings).0, "hostile");
    let tool = Smolvm::find(&config)?;
    let backend = CliBackend::new(tool, config, &paths(dir.path()), env())?;
    let (engine, _) = Engine::open("smolvm", backend, env(), paths(dir.path()))?;
    let spec = VmSpec { image: Some("base".to_owned()), ..VmSpec::default() };
    Ok(site(dir, Arc::new(engine), spec))
}

fn apple() -> Answer<Site> {
    use hearth_providers::apple_container::AppleContainer;
    let dir = tempfile::tempdir()?;
    let (kind, version) = (cli_fake::Kind::Apple, "1.2.1".to_owned());
    let settings = cli_fake::Settings { kind, version, ..cli_fake::Settings::default() };
    let config = CliConfig::new(cli_fake::install(dir.path(), &settings).0, "hostile");
    let tool = AppleContainer::find(&config)?;
    let backend = CliBackend::new(tool, config, &paths(dir.path()), env())?;
    let (engine, _) = Engine::open("apple", backend, env(), paths(dir.path()))?;
    let spec = VmSpec { image: Some("base".to_owned()), ..VmSpec::default() };
    Ok(site(dir, Arc::new(engine), spec))
}
