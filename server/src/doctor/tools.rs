//! What `hearth doctor` looks at for the providers that are command line tools.
//!
//! The tool is run as the server runs it when it opens a provider, for its version and its list;
//! nothing is made by it. One that does not answer in time is killed.

use std::path::Path;

use hearth_providers::cli::{CliConfig, Tool};

use super::Check;
use super::facts::{PATIENCE, said};

/// What the tool says of itself and of its machines. `found` is the tool, or why there is none.
fn tool<T: Tool>(
    name: &'static str,
    found: hearth_providers::error::Result<T>,
    config: &CliConfig,
    install: &str,
    start: &str,
) -> (Vec<Check>, Option<T>) {
    let tool = match found {
        Ok(tool) => tool,
        Err(error) => return (vec![Check::fail(name, said(&error), install)], None),
    };
    let version = format!("{name} {} ({})", tool.version(), tool.program().display());
    let service = match tool.list(config.command_timeout) {
        Ok(machines) => Check::ok("service", format!("it answers, and has {}", machines.len())),
        Err(error) => Check::fail("service", said(&error), start),
    };
    (vec![Check::ok(name, version), service], Some(tool))
}

/// Whether smolvm (`binary`, or the one in `PATH`) is there, new enough and answers, and whether
/// this machine runs guests for it.
#[cfg(feature = "smolvm")]
pub(super) fn smolvm(binary: Option<&Path>) -> Vec<Check> {
    use hearth_providers::smolvm::{Smolvm, config};

    let config = named(config("doctor"), binary);
    let install = "install smolvm 1.0 or newer into a directory of PATH, or say where: --binary \
                   PATH, and providers.NAME.binary in the file";
    let start = "run it by hand (smolvm machine ls --json): what it says has to be mended there";
    let (mut found, _) = tool("smolvm", Smolvm::find(&config), &config, install, start);
    #[cfg(target_os = "linux")]
    found.push(virtualisation(hearth_providers::smolvm::virtualisation()));
    found
}

#[cfg(all(feature = "smolvm", target_os = "linux"))]
fn virtualisation(how: Result<String, String>) -> Check {
    let remedy = "load kvm_intel or kvm_amd (in a VM: turn on nested virtualisation), and let this \
                  user open /dev/kvm (group kvm)";
    match how {
        Err(why) => Check::fail("kvm", format!("smolvm cannot start VMs: {why}"), remedy),
        Ok(how) if how.starts_with("hardware") => Check::ok("kvm", how),
        Ok(how) => Check::warn("kvm", format!("{how}; VMs may not start, or be slow"), remedy),
    }
}

/// Whether Apple's container (`binary`, or the one in `PATH`) is there and its service runs.
#[cfg(feature = "apple-container")]
pub(super) fn apple_container(binary: Option<&Path>) -> Vec<Check> {
    use hearth_providers::apple_container::{AppleContainer, config};
    use hearth_providers::capabilities::RunningSnapshot;

    let config = named(config("doctor"), binary);
    let install = "on macOS 26 and Apple silicon install Apple's container, or say where it is: \
                   --binary PATH, and providers.NAME.binary in the file";
    let start = "container system start";
    let found = AppleContainer::find(&config);
    let (mut found, tool) = tool("container", found, &config, install, start);
    let stops = |tool: &AppleContainer| {
        tool.capabilities().snapshot_running == RunningSnapshot::StopRequired
    };
    if tool.as_ref().is_some_and(stops) {
        found.push(Check::warn(
            "freeze",
            "this version exports stopped containers alone: a VM is stopped to be frozen",
            "container 1.2.1 or newer",
        ));
    }
    found
}

fn named(config: CliConfig, binary: Option<&Path>) -> CliConfig {
    let binary = binary.map_or_else(|| config.binary.clone(), Path::to_owned);
    CliConfig { binary, command_timeout: config.command_timeout.min(PATIENCE), ..config }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    const NO_PROGRAM: &str = "/no/such/tool";

    fn assert_missing(found: &[Check]) {
        assert_eq!(found[0].status, Outcome::Fail);
        assert!(found[0].message.contains(NO_PROGRAM), "{found:?}");
        assert!(found[0].remedy.contains("--binary"), "{found:?}");
        assert!(found.iter().all(|check| check.name != "service"), "{found:?}");
    }

    #[cfg(feature = "smolvm")]
    #[test]
    fn a_missing_smolvm_says_what_to_install() {
        assert_missing(&smolvm(Some(Path::new(NO_PROGRAM))));
    }

    #[cfg(feature = "apple-container")]
    #[test]
    fn a_missing_container_says_what_to_install() {
        assert_missing(&apple_container(Some(Path::new(NO_PROGRAM))));
    }

    #[cfg(feature = "smolvm")]
    #[test]
    fn another_program_is_not_taken_for_the_tool() {
        let found = smolvm(Some(Path::new("true")));
        assert_eq!(found[0].status, Outcome::Fail);
        assert!(found[0].message.contains("is not smolvm 1.0 or newer"), "{found:?}");
    }

    #[cfg(all(feature = "smolvm", target_os = "linux"))]
    #[test]
    fn vms_need_virtualisation() {
        assert_eq!(virtualisation(Ok("hardware".to_owned())).status, Outcome::Ok);
        assert_eq!(virtualisation(Ok("software: no vmx".to_owned())).status, Outcome::Warn);
        let none = virtualisation(Err("/dev/kvm: No such file or directory".to_owned()));
        assert_eq!(none.status, Outcome::Fail);
        assert!(none.remedy.contains("group kvm"), "{none:?}");
    }
}
