//! `hearth doctor`: can this machine run hearth, and what mends it when not. Asks no server.
//!
//! A check that fails says that VMs cannot be run like this; one that warns, that something will be slow,
//! lost or missed. Where the server finds out something by itself, the same code is asked here.

mod checks;
#[cfg(all(feature = "docker", target_os = "linux"))]
mod docker;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
mod elf;
#[cfg(any(
    feature = "apple-container",
    feature = "smolvm",
    all(any(feature = "docker", feature = "firecracker"), target_os = "linux")
))]
mod facts;
#[cfg(all(feature = "firecracker", target_os = "linux"))]
mod firecracker;
#[cfg(any(feature = "apple-container", feature = "smolvm"))]
mod tools;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hearth_server::config::dirs;
use serde::Serialize;

use super::error::{Error, Result};
use super::output::{Format, print_json, write_out};

/// Arguments of `hearth doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The kind of provider that is to run.
    #[arg(long, value_enum, default_value_t = Provider::Qemu, value_name = "KIND")]
    provider: Provider,
    /// The program that runs VMs, of all kinds but docker and memory; the one in PATH when not
    /// given.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The container engine's socket, of docker; the provider's default when not given.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The jailer that VMs of firecracker are to run in; with it, what jailing needs must be
    /// there.
    #[arg(long, value_name = "PATH")]
    jailer: Option<PathBuf>,
    /// The state directory that `hearth serve` is to have; its default when not given.
    #[arg(long, env = "HEARTH_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// The runtime directory that `hearth serve` is to have; its default when not given.
    #[arg(long, env = "HEARTH_RUNTIME", value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// The directory of the default template's guest; its default when not given.
    #[arg(long, env = "HEARTH_GUEST", value_name = "DIR")]
    guest: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Provider {
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

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Outcome,
    message: String,
    /// What mends it; empty when nothing has to be.
    remedy: String,
}

/// All that was looked at.
#[derive(Serialize)]
struct Report<'a> {
    status: Outcome,
    checks: &'a [Check],
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

impl Doctor {
    /// Looks at everything and prints it. Blocks for up to a second or so.
    ///
    /// # Errors
    /// [`Error::Failed`] when a check failed; [`Error::Usage`] for a flag of another kind.
    pub(crate) fn run(self, format: Format) -> Result<()> {
        let strays = [
            (
                self.binary.is_some()
                    && matches!(self.provider, Provider::Memory | Provider::Docker),
                "--binary",
            ),
            (self.socket.is_some() && self.provider != Provider::Docker, "--socket"),
            (self.jailer.is_some() && self.provider != Provider::Firecracker, "--jailer"),
        ];
        if let Some((_, flag)) = strays.iter().find(|(is_stray, _)| *is_stray) {
            return Err(Error::Usage(format!("{flag}: this kind of provider has none")));
        }
        let binary = self.binary.as_deref();
        let mut found = match self.provider {
            Provider::Qemu => {
                let mut found = checks::qemu(binary);
                found.push(checks::guest(self.guest.as_deref()));
                found
            }
            Provider::Firecracker => look_at_firecracker(binary, self.jailer.as_deref()),
            Provider::Docker => look_at_docker(self.socket.as_deref()),
            Provider::AppleContainer => look_at_apple_container(binary),
            Provider::Smolvm => look_at_smolvm(binary),
            Provider::Memory => Vec::new(),
        };
        match self.state.or_else(dirs::default_state) {
            Some(state) => {
                found.push(checks::state(&state));
                found.push(checks::runtime(self.runtime.as_deref(), &state));
            }
            None => found.push(Check::fail(
                "state",
                "this user has no home for it",
                "say where: serve --state DIR",
            )),
        }
        found.push(checks::privileges(self.jailer.is_some()));
        found.push(checks::open_files());
        found.push(checks::memory());
        found.push(checks::process());
        let worst = found.iter().map(|check| check.status).max().unwrap_or(Outcome::Ok);
        match format {
            Format::Json => print_json(&Report { status: worst, checks: &found })?,
            Format::Name => {
                let names: String = found.iter().map(|it| format!("{}\n", it.name)).collect();
                write_out(names.as_bytes())?;
            }
            Format::Table => write_out(text(&found).as_bytes())?,
        }
        match worst {
            Outcome::Ok | Outcome::Warn => Ok(()),
            Outcome::Fail => Err(Error::Failed(match self.provider {
                Provider::Qemu
                | Provider::Firecracker
                | Provider::Docker
                | Provider::AppleContainer
                | Provider::Smolvm => {
                    "this machine cannot run it as it is; without VMs of its own: \
                     hearth serve --provider memory"
                        .to_owned()
                }
                Provider::Memory => "this machine cannot run it as it is".to_owned(),
            })),
        }
    }
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
    vec![Check::fail(
        "container",
        "this build of hearth has no apple-container",
        "build it with it",
    )]
}

#[cfg(feature = "smolvm")]
fn look_at_smolvm(binary: Option<&Path>) -> Vec<Check> {
    tools::smolvm(binary)
}

#[cfg(not(feature = "smolvm"))]
fn look_at_smolvm(_: Option<&Path>) -> Vec<Check> {
    vec![Check::fail("smolvm", "this build of hearth has no smolvm", "build it with it")]
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Outcome::Ok => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        text.push_str(&format!("{status}  {:width$}  {}\n", check.name, check.message));
        if !check.remedy.is_empty() {
            text.push_str(&format!("      {:width$}  -> {}\n", "", check.remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_what_it_mends() {
        let checks = [Check::ok("a", "fine"), Check::fail("long", "not there", "install it")];
        assert_eq!(
            text(&checks),
            "ok    a     fine\nFAIL  long  not there\n            -> install it\n"
        );
    }

    #[test]
    fn the_worst_outcome_counts() {
        assert!(Outcome::Fail > Outcome::Warn && Outcome::Warn > Outcome::Ok);
    }
}
