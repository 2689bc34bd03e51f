//! Whether a machine can run hearth, and what mends it when not. `hearth doctor` asks it, and the page of a server.
//!
//! A check that fails says that VMs cannot be run like this; one that warns, that something will be slow,
//! lost or missed. Where the server finds out something by itself, the same code is asked here. A check looks and
//! changes nothing; it may run programs for what they say of themselves.

mod checks;
#[cfg(all(feature = "docker", target_os = "linux"))]
mod docker;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
mod elf;
#[cfg(any(
    feature = "apple-container",
    feature = "smolvm",
    all(any(feature = "docker", feature = "firecracker", feature = "qemu"), target_os = "linux")
))]
mod facts;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
mod firecracker;
#[cfg(all(feature = "qemu", target_os = "linux"))]
mod qemu;
#[cfg(any(feature = "apple-container", feature = "smolvm"))]
mod tools;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::ProviderKind;
use crate::privileges::{self, Need};

pub use checks::guest;

/// How a check came out; the worse, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Well.
    Ok,
    /// Something will be slow, lost or missed.
    Warn,
    /// VMs cannot be run like this.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    /// How it came out.
    pub status: Outcome,
    /// What was found.
    pub message: String,
    /// What mends it; empty when nothing has to be.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, status: Outcome::Ok, message: message.into(), remedy: String::new() }
    }

    fn warn(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (message, remedy) = (message.into(), remedy.into());
        Self { name, status: Outcome::Warn, message, remedy }
    }

    fn fail(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (message, remedy) = (message.into(), remedy.into());
        Self { name, status: Outcome::Fail, message, remedy }
    }
}

/// The worst of `checks`; well when there are none.
pub fn worst<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Outcome {
    checks.into_iter().map(|check| check.status).max().unwrap_or(Outcome::Ok)
}

/// A kind of provider, also one that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Real VMs.
    Qemu,
    /// Real VMs, by Firecracker; needs KVM.
    Firecracker,
    /// Containers, by the Docker Engine or podman.
    Docker,
    /// Containers in VMs, by Apple's container tool; needs macOS.
    #[value(alias = "macos-container")]
    AppleContainer,
    /// Real VMs, by smolvm; needs hardware virtualisation.
    #[value(alias = "smolmachines")]
    Smolvm,
    /// VMs in name only; needs nothing.
    Memory,
}

impl From<ProviderKind> for Kind {
    fn from(kind: ProviderKind) -> Self {
        match kind {
            ProviderKind::Memory => Self::Memory,
            #[cfg(feature = "qemu")]
            ProviderKind::Qemu => Self::Qemu,
            #[cfg(feature = "firecracker")]
            ProviderKind::Firecracker => Self::Firecracker,
            #[cfg(feature = "docker")]
            ProviderKind::Docker => Self::Docker,
            #[cfg(feature = "apple-container")]
            ProviderKind::AppleContainer => Self::AppleContainer,
            #[cfg(feature = "smolvm")]
            ProviderKind::Smolvm => Self::Smolvm,
        }
    }
}

/// A provider that is to run.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// The program that runs VMs; the one in `PATH` when unset.
    pub binary: Option<PathBuf>,
    /// The container engine's socket; the provider's default when unset.
    pub socket: Option<PathBuf>,
    /// The jailer that VMs are to run in.
    pub jailer: Option<PathBuf>,
    /// Whom each VM's QEMU is to become, as `UID:GID`.
    pub user: Option<String>,
}

impl Subject {
    /// The capabilities that its VMs take.
    pub fn needs(&self) -> &'static [Need] {
        privileges::needs(self.jailer.is_some(), self.user.is_some())
    }
}

/// Whether this machine can run such a provider. Blocks for up to some seconds: programs are run, an engine is
/// asked.
pub fn look_at_provider(subject: &Subject) -> Vec<Check> {
    let binary = subject.binary.as_deref();
    match subject.kind {
        Kind::Qemu => look_at_qemu(binary, subject.user.as_deref()),
        Kind::Firecracker => look_at_firecracker(binary, subject.jailer.as_deref()),
        Kind::Docker => look_at_docker(subject.socket.as_deref()),
        Kind::AppleContainer => look_at_apple_container(binary),
        Kind::Smolvm => look_at_smolvm(binary),
        Kind::Memory => Vec::new(),
    }
}

/// Whether this user and this machine have what hearth takes whatever its providers are. `state` and `runtime` are
/// its directories, the runtime directory the server's own choice when unset; `needs`: the capabilities that VMs take.
pub fn look_at_machine(state: Option<&Path>, runtime: Option<&Path>, needs: &[Need]) -> Vec<Check> {
    let mut found = match state {
        Some(state) => vec![checks::state(state), checks::runtime(runtime, state)],
        None => {
            let why = "this user has no home for it";
            vec![Check::fail("state", why, "say where: serve --state DIR")]
        }
    };
    found.push(checks::privileges(needs));
    found.push(checks::open_files());
    found.push(checks::memory());
    found.push(checks::process());
    found
}

#[cfg(all(feature = "qemu", target_os = "linux"))]
fn look_at_qemu(binary: Option<&Path>, user: Option<&str>) -> Vec<Check> {
    qemu::qemu(binary, user)
}

#[cfg(not(all(feature = "qemu", target_os = "linux")))]
fn look_at_qemu(_: Option<&Path>, _: Option<&str>) -> Vec<Check> {
    let (message, remedy) = ("this build of hearth has no qemu", "build it on Linux, with it");
    vec![Check::fail("qemu", message, remedy)]
}

#[cfg(all(feature = "firecracker", target_os = "linux"))]
fn look_at_firecracker(binary: Option<&Path>, jailer: Option<&Path>) -> Vec<Check> {
    firecracker::firecracker(binary, jailer)
}

#[cfg(not(all(feature = "firecracker", target_os = "linux")))]
fn look_at_firecracker(_: Option<&Path>, _: Option<&Path>) -> Vec<Check> {
    let message = "this build of hearth has no firecracker";
    vec![Check::fail("firecracker", message, "build it on Linux, with it")]
}

#[cfg(all(feature = "docker", target_os = "linux"))]
fn look_at_docker(socket: Option<&Path>) -> Vec<Check> {
    docker::docker(socket)
}

#[cfg(not(all(feature = "docker", target_os = "linux")))]
fn look_at_docker(_: Option<&Path>) -> Vec<Check> {
    let message = "this build of hearth has no docker";
    vec![Check::fail("engine", message, "build it on Linux, with it")]
}

#[cfg(feature = "apple-container")]
fn look_at_apple_container(binary: Option<&Path>) -> Vec<Check> {
    tools::apple_container(binary)
}

#[cfg(not(feature = "apple-container"))]
fn look_at_apple_container(_: Option<&Path>) -> Vec<Check> {
    let message = "this build of hearth has no apple-container";
    vec![Check::fail("container", message, "build it with it")]
}

#[cfg(feature = "smolvm")]
fn look_at_smolvm(binary: Option<&Path>) -> Vec<Check> {
    tools::smolvm(binary)
}

#[cfg(not(feature = "smolvm"))]
fn look_at_smolvm(_: Option<&Path>) -> Vec<Check> {
    vec![Check::fail("smolvm", "this build of hearth has no smolvm", "build it with it")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_outcome_counts() {
        let checks = [Check::ok("a", ""), Check::fail("b", "", ""), Check::warn("c", "", "")];
        assert_eq!(worst(&checks), Outcome::Fail);
        assert_eq!(worst(&checks[..1]), Outcome::Ok);
        assert_eq!(worst([]), Outcome::Ok);
    }
}
