//! What `hearth doctor` looks at for Firecracker.
//!
//! What the server finds out by itself is asked of the same code; judged here is what it means
//! for whoever sets a host up.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hearth_providers::backend::Backend as _;
use hearth_providers::env::SystemEnv;
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig, JailerConfig, kvm};

use super::elf::{Linkage, linkage};
use super::facts::{Facts, said};
use super::{Check, checks};

/// The newest version that hearth was tested with.
const NEWEST_TESTED: [u32; 3] = [1, 16, 1];
const INSTALL: &str = "unpack a release of Firecracker, 1.10 or newer, into a directory of PATH, or \
                       say where: providers.NAME.binary";
const GET_RELEASE: &str = "take firecracker and jailer from one release of Firecracker, whose \
                           programs are statically linked, and run hearth as root";
/// What an operator does about `/dev/kvm`.
const GET_KVM: &str = "load kvm_intel or kvm_amd (in a VM: turn on nested virtualisation), and let \
                       this user open /dev/kvm (group kvm)";
/// What a hierarchy of cgroup version 2 can limit.
const CONTROLLERS: &str = "cgroup.controllers";

/// Whether Firecracker and its jailer are there and fit, what runs guests, whether this user may
/// jail, and whether VMs get cgroups of their own. `binary` and `jailer` are those of the command
/// line. Starts both programs for their versions.
pub(super) fn firecracker(binary: Option<&Path>, jailer: Option<&Path>) -> Vec<Check> {
    let mut config = FirecrackerConfig::default();
    config.binary = binary.map_or(config.binary, Path::to_owned);
    let open = |config: &FirecrackerConfig| {
        let backend = FirecrackerBackend::new(config.clone(), Arc::new(SystemEnv));
        backend.map(|backend| Facts(backend.describe())).map_err(|error| said(&error))
    };
    let opened = open(&config);
    let mut found = vec![match &opened {
        Ok(facts) => version(facts.get("version"), facts.get("binary")),
        Err(why) => Check::fail("firecracker", why, INSTALL),
    }];
    if let Ok(facts) = &opened {
        let of_jailer = JailerConfig::default();
        let program = jailer.map_or(of_jailer.binary.clone(), Path::to_owned);
        config.jailer = Some(JailerConfig { binary: program, ..of_jailer });
        let fits = open(&config).map(|facts| facts.get("jailer").to_owned());
        found.push(jail(jailer.is_some(), fits, linkage(Path::new(facts.get("binary")))));
    }
    found.push(virtualisation(kvm()));
    found.push(user(jailer.is_some(), rustix::process::geteuid().is_root()));
    if let Ok(facts) = &opened {
        found.push(checks::cgroups(facts.get("cgroups")));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    found.push(hierarchy(&mounts, |file| fs::read_to_string(file).ok()));
    found
}

fn version(version: &str, binary: &str) -> Check {
    let message = format!("Firecracker {version} ({binary})");
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let numbers: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    // A newer patch of a release that is known is no news.
    match numbers[..2] > NEWEST_TESTED[..2] {
        false => Check::ok("firecracker", message),
        true => {
            let [major, minor, patch] = NEWEST_TESTED;
            let message =
                format!("{message} is newer than {major}.{minor}.{patch}, the newest tested");
            Check::warn("firecracker", message, "try a template and a restore before relying on it")
        }
    }
}

/// `is_asked`: VMs are to be jailed. `fits`: what the jailer is, or why it cannot be used.
fn jail(is_asked: bool, fits: Result<String, String>, linkage: Linkage) -> Check {
    let severity = if is_asked { Check::fail } else { Check::warn };
    let consequence = "; without it VMs run with hearth's own rights";
    match (fits, linkage) {
        (Err(why), _) => severity("jailer", format!("{why}{consequence}"), GET_RELEASE.to_owned()),
        (Ok(_), Linkage::Interpreted(by)) => severity(
            "jailer",
            format!(
                "Firecracker needs {by}, which is not in the root directory that the jailer puts \
                 it into{consequence}"
            ),
            GET_RELEASE.to_owned(),
        ),
        (Ok(_), Linkage::Unknown(why)) => severity(
            "jailer",
            format!("Firecracker {why}, and the jailer needs a program of one file{consequence}"),
            GET_RELEASE.to_owned(),
        ),
        (Ok(jailer), Linkage::Static) => {
            Check::ok("jailer", format!("{jailer}, of the same version; Firecracker is static"))
        }
    }
}

fn virtualisation(kvm: Result<String, String>) -> Check {
    match kvm {
        Err(why) => Check::fail("kvm", format!("Firecracker cannot run VMs: {why}"), GET_KVM),
        Ok(how) if how.starts_with("hardware") => Check::ok("kvm", how),
        Ok(how) => Check::warn(
            "kvm",
            format!("{how}; those that run are slow"),
            "for real work a machine with virtualisation; here, QEMU runs any guest: --provider qemu",
        ),
    }
}

fn user(is_asked: bool, is_root: bool) -> Check {
    let remedy = "run hearth as root: it starts the jailer, and VMs get users of their own";
    match (is_root, is_asked) {
        (true, _) => Check::ok("user", "root: VMs can be jailed"),
        (false, true) => Check::fail("user", "not root, and the jailer needs root", remedy),
        (false, false) => Check::warn("user", "not root: VMs cannot be jailed", remedy),
    }
}

/// What limits of jailed VMs can be written by cgroup version 2, to go by the table of mounts.
fn hierarchy(mounts: &str, controllers: impl Fn(&Path) -> Option<String>) -> Check {
    let unified = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    });
    let found = unified.and_then(|place| controllers(&Path::new(place).join(CONTROLLERS)));
    match found.as_deref().map(str::trim).unwrap_or_default() {
        "" => Check::warn(
            "cgroup-version",
            "cgroup version 2, the default of a jailer's limits, has no controllers here",
            "set providers.NAME.jailer.cgroup_version = 1, and limits by the names of version 1; \
             or boot with systemd.unified_cgroup_hierarchy=1",
        ),
        controllers => Check::ok("cgroup-version", format!("2, with {controllers}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_missing_firecracker_says_what_to_install_and_the_rest_is_looked_at() {
        let found = firecracker(Some(Path::new("/no/such/firecracker")), None);
        assert_eq!(found[0].status, Outcome::Fail);
        assert!(found[0].message.contains("/no/such/firecracker"), "{found:?}");
        assert!(found[0].remedy.contains("release"), "{found:?}");
        assert!(found.iter().any(|check| check.name == "kvm"), "{found:?}");
        assert!(found.iter().all(|check| check.name != "jailer"), "{found:?}");
    }

    #[test]
    fn versions_newer_than_the_newest_tested_are_told() {
        for (text, outcome) in [
            ("1.10.0", Outcome::Ok),
            ("1.16.1", Outcome::Ok),
            ("1.16.9", Outcome::Ok),
            ("1.17.0-dev", Outcome::Warn),
            ("2.0.0", Outcome::Warn),
        ] {
            assert_eq!(version(text, "/fc").status, outcome, "{text}");
        }
    }

    #[test]
    fn a_jailer_that_cannot_be_used_fails_only_where_it_is_asked_for() {
        let interpreted = || Linkage::Interpreted("/lib64/ld.so".to_owned());
        let fits = || Ok("1.16.1".to_owned());
        assert_eq!(jail(true, fits(), Linkage::Static).status, Outcome::Ok);
        assert_eq!(jail(true, fits(), interpreted()).status, Outcome::Fail);
        assert_eq!(jail(false, fits(), interpreted()).status, Outcome::Warn);
        let other = Err("of version 1.15.0".to_owned());
        let check = jail(true, other.clone(), Linkage::Static);
        assert_eq!(check.status, Outcome::Fail);
        assert!(check.message.contains("1.15.0") && check.remedy.contains("one release"));
        assert_eq!(jail(false, other, Linkage::Static).status, Outcome::Warn);
        assert_eq!(user(true, false).status, Outcome::Fail);
        assert_eq!(user(false, false).status, Outcome::Warn);
        assert_eq!(user(true, true).status, Outcome::Ok);
    }

    #[test]
    fn limits_of_version_2_need_its_controllers() {
        let mounts =
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw\n";
        let file = Path::new("/sys/fs/cgroup/unified/cgroup.controllers");
        let with = |text: &'static str| move |at: &Path| (at == file).then(|| text.to_owned());
        assert_eq!(hierarchy(mounts, with("cpu memory pids\n")).status, Outcome::Ok);
        let hybrid = hierarchy(mounts, with("\n"));
        assert_eq!(hybrid.status, Outcome::Warn);
        assert!(hybrid.remedy.contains("cgroup_version = 1"), "{hybrid:?}");
        assert_eq!(hierarchy("", with("cpu")).status, Outcome::Warn);
    }

    #[test]
    fn kvm_in_software_is_a_warning_and_none_a_failure() {
        assert_eq!(virtualisation(Ok("hardware".to_owned())).status, Outcome::Ok);
        let software = virtualisation(Ok("software: no vmx".to_owned()));
        assert_eq!(software.status, Outcome::Warn);
        assert!(software.message.contains("no vmx"), "{software:?}");
        let none = virtualisation(Err("/dev/kvm: Permission denied".to_owned()));
        assert_eq!(none.status, Outcome::Fail);
        assert!(none.remedy.contains("group kvm"), "{none:?}");
    }
}
