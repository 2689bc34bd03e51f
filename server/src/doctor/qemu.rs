//! What `hearth doctor` looks at for QEMU.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hearth_providers::backend::Backend as _;
use hearth_providers::env::SystemEnv;
use hearth_providers::qemu::{QemuBackend, QemuConfig, User};

use super::facts::{Facts, said};
use super::{Check, checks};

const INSTALL: &str = "as root: scripts/setup, or install QEMU 9 or newer yourself";
const USER: &str = "user";
const HOW_TO_BECOME: &str = "run hearth as root, with the capabilities of deploy/systemd/qemu-user.conf, and with QEMU \
                             9.1 or newer; or leave out providers.NAME.user";

/// Whether QEMU (`binary`, or the one in `PATH`) is there and new enough, how guests run, whether it can become
/// `user`, and whether VMs get cgroups of their own. Starts a QEMU without a guest, as the server does.
pub(super) fn qemu(binary: Option<&Path>, user: Option<&str>) -> Vec<Check> {
    let mut config = QemuConfig::default();
    config.binary = binary.map_or(config.binary, Path::to_owned);
    let open = |user| {
        let config = QemuConfig { user, ..config.clone() };
        let backend = QemuBackend::new(config, Arc::new(SystemEnv));
        backend.map(|backend| Facts(backend.describe())).map_err(|error| said(&error))
    };
    let user = user.map(str::parse::<User>);
    let becomes = user.map(|user| {
        let user = user.map_err(|why| Check::fail(USER, why, "--user UID:GID"))?;
        let facts = open(Some(user)).map_err(|why| Check::fail(USER, why, HOW_TO_BECOME))?;
        Ok((user, facts))
    });
    let (facts, of_user) = match becomes {
        Some(Ok((user, facts))) => {
            let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
            (Ok(facts), Some(owner(user, &users)))
        }
        // What is wrong may be with the user, or with QEMU.
        Some(Err(check)) => (open(None), Some(check)),
        None => (open(None), None),
    };
    match facts {
        Err(why) => vec![Check::fail("qemu", why, INSTALL)],
        Ok(facts) => {
            let version = format!("QEMU {} ({})", facts.get("version"), facts.get("binary"));
            let of_host = [Check::ok("qemu", version), accel(&facts)];
            let cgroups = checks::cgroups(facts.get("cgroups"));
            of_host.into_iter().chain(of_user).chain([cgroups]).collect()
        }
    }
}

fn accel(facts: &Facts) -> Check {
    match facts.get("accel") {
        "kvm" => Check::ok("accel", format!("kvm: {}", facts.get("accel_reason"))),
        other => Check::warn(
            "accel",
            format!("{other}, in software and slow: {}", facts.get("accel_reason")),
            "on a machine with virtualisation: load kvm_intel or kvm_amd, and let this user open \
             /dev/kvm (group kvm)",
        ),
    }
}

/// Whether `user` is nobody's but the VMs', to go by the table of `users`, as `/etc/passwd` is. Whoever else has
/// its number can end them.
fn owner(user: User, users: &str) -> Check {
    let uid = user.uid().to_string();
    let lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.into_iter().find(|it| it.get(2) == Some(&uid.as_str()));
    let reserve = "make a user for it: useradd --system --no-create-home --shell /usr/sbin/nologin";
    match found.as_deref() {
        None => Check::warn(
            USER,
            format!(
                "each QEMU becomes {user}, a number that is no user's: who is given it can end VMs"
            ),
            format!("{reserve} --uid {uid} hearth-vm"),
        ),
        Some([name, .., shell]) if !shell.ends_with("nologin") && !shell.ends_with("false") => {
            Check::warn(
                USER,
                format!("each QEMU becomes {user}, which is {name}, who can log in and end VMs"),
                format!("{reserve} hearth-vm, and say its numbers"),
            )
        }
        Some(found) => {
            Check::ok(USER, format!("each QEMU becomes {user} ({})", found.first().unwrap_or(&"")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_user_is_well_when_it_is_the_vms_alone() {
        let users = "root:x:0:0:root:/root:/bin/bash\n\
                     hearth-vm:x:7071:7072::/nonexistent:/usr/sbin/nologin\n\
                     alice:x:1000:1000:Alice:/home/alice:/bin/sh\n\n";
        for (user, outcome, said) in [
            ("7071:7072", Outcome::Ok, "hearth-vm"),
            ("1000:1000", Outcome::Warn, "alice"),
            // The number of a group is not a user's.
            ("7072:7072", Outcome::Warn, "no user's"),
        ] {
            let check = owner(user.parse().unwrap(), users);
            assert_eq!(check.status, outcome, "{check:?}");
            assert!(check.message.contains(said) && check.message.contains(user), "{check:?}");
        }
    }

    #[test]
    fn what_is_no_user_is_said_and_a_missing_qemu_is_not_its_fault() {
        let found = qemu(Some(Path::new("/no/such/qemu")), Some("7071:7072"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name, found[0].status), ("qemu", Outcome::Fail));
    }
}
