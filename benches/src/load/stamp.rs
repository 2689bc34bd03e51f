//! On what a figure was measured: without that it says nothing.
//!
//! What cannot be found out is absent, and never guessed.

use std::fs;
use std::process::{Command, Stdio};

use hearth_proto::v1::Node;
use hearth_providers::env::{Env as _, SystemEnv};
use serde::{Deserialize, Serialize};

/// The machine and the programs. Of the machine that the generator runs on, which is the server's
/// when the address is on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When it was measured, in UTC.
    pub time: String,
    /// Model of the CPU.
    pub cpu_model: Option<String>,
    /// CPUs that this process may use.
    pub cpu_count: Option<usize>,
    /// Memory of the machine in MiB.
    pub mem_size_mib: Option<u64>,
    /// Kernel and its release.
    pub kernel: String,
    /// How the clock of the CPU is governed.
    pub governor: Option<String>,
    /// Whether the machine is a virtual one.
    pub is_virtualised: Option<bool>,
    /// Version of this program.
    pub bench_version: String,
    /// Whether this program was built with optimisations.
    pub bench_is_optimised: bool,
    /// Whether it was built by a profile of its work, as `scripts/release` builds what is shipped.
    #[serde(default)]
    pub bench_is_profiled: bool,
    /// Commit of the git tree that it was run in, with `-dirty` when that was changed.
    pub commit: Option<String>,
    /// The server.
    pub server: Option<Server>,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Version of hearth.
    pub hearth_version: String,
    /// Its providers.
    pub providers: Vec<Provider>,
}

/// A provider of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Provider {
    pub name: String,
    pub kind: String,
    pub version: String,
    pub accel: String,
}

impl Stamp {
    /// Of this machine, and of the server, if there is one. Blocks: it reads files and runs git.
    pub fn take(node: Option<&Node>) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok();
        let cpuinfo = cpuinfo.as_deref();
        let meminfo = fs::read_to_string("/proc/meminfo").ok();
        let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let uname = rustix::system::uname();
        let text = |it: &std::ffi::CStr| it.to_string_lossy().into_owned();
        Self {
            time: humantime::format_rfc3339_seconds(SystemEnv.now()).to_string(),
            cpu_model: cpuinfo.and_then(|it| value_of(it, "model name")).map(str::to_owned),
            cpu_count: std::thread::available_parallelism().ok().map(usize::from),
            mem_size_mib: meminfo.as_deref().and_then(mem_size_mib),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            governor: governor.ok().map(|it| it.trim().to_owned()),
            is_virtualised: cpuinfo.and_then(is_virtualised),
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            bench_is_optimised: !cfg!(debug_assertions),
            bench_is_profiled: option_env!("HEARTH_PROFILED").is_some(),
            commit: commit(),
            server: node.map(Server::of),
        }
    }

    /// In a few lines, for a table's head.
    pub fn lines(&self) -> Vec<String> {
        let or = |it: &Option<String>| it.clone().unwrap_or_else(|| "unknown".to_owned());
        let count = self.cpu_count.map_or("unknown".to_owned(), |it| it.to_string());
        let machine = match self.is_virtualised {
            Some(true) => "virtual machine",
            Some(false) => "bare metal",
            None => "machine of unknown kind",
        };
        let build = match (self.bench_is_optimised, self.bench_is_profiled) {
            (false, _) => "NOT OPTIMISED",
            (true, false) => "optimised, not by a profile",
            (true, true) => "optimised by a profile",
        };
        let (cpu, governor) = (or(&self.cpu_model), or(&self.governor));
        let commit = or(&self.commit);
        let mut lines = vec![
            format!("{cpu}, {count} CPUs, governor {governor}, {machine}, {}", self.kernel),
            format!(
                "hearth-bench {} ({build}), commit {commit}, {}",
                self.bench_version, self.time
            ),
        ];
        lines.extend(self.server.as_ref().map(|server| {
            let providers = server.providers.iter().map(|it| {
                format!("{} ({} {} {})", it.name, it.kind, it.version, it.accel).replace(" )", ")")
            });
            let providers: Vec<_> = providers.collect();
            format!("hearth {}, providers {}", server.hearth_version, providers.join(", "))
        }));
        lines
    }
}

impl Server {
    fn of(node: &Node) -> Self {
        let providers = node.providers.iter().map(|it| Provider {
            name: it.name.clone(),
            kind: it.kind.clone(),
            version: it.version.clone(),
            accel: it.accel.clone(),
        });
        Self { hearth_version: node.hearth_version.clone(), providers: providers.collect() }
    }
}

/// The first value of a key in lines of `key : value`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn mem_size_mib(meminfo: &str) -> Option<u64> {
    let kib: u64 = value_of(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// Hypervisors set a flag of x86 CPUs; elsewhere it is not known.
fn is_virtualised(cpuinfo: &str) -> Option<bool> {
    Some(value_of(cpuinfo, "flags")?.split(' ').any(|it| it == "hypervisor"))
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=40", "--match="]);
    let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    let text = String::from_utf8(text).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_the_kernel_prints() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(value_of(cpuinfo, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(is_virtualised(cpuinfo), Some(true));
        assert_eq!(is_virtualised("flags\t: fpu vme\n"), Some(false));
        assert_eq!(is_virtualised("Features\t: fp asimd\n"), None);
        assert_eq!(mem_size_mib("MemTotal:       24576000 kB\n"), Some(24_000));
        assert_eq!(mem_size_mib("MemTotal: lots\n"), None);
    }

    #[test]
    fn a_stamp_says_what_the_server_says() {
        let provider = hearth_proto::v1::Provider {
            name: "main".to_owned(),
            kind: "qemu".to_owned(),
            version: "7.2".to_owned(),
            accel: "tcg".to_owned(),
            ..Default::default()
        };
        let hearth_version = "1.2.3".to_owned();
        let node = Node { hearth_version, providers: vec![provider], ..Default::default() };
        let stamp = Stamp::take(Some(&node));
        let lines = stamp.lines();
        assert_eq!(lines[2], "hearth 1.2.3, providers main (qemu 7.2 tcg)");
        assert_eq!(stamp.bench_is_optimised, !cfg!(debug_assertions));
        assert_eq!(Stamp::take(None).lines().len(), 2);
    }
}
