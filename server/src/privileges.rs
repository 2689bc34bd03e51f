//! What this process may do on the host, and what it has to be able to.
//!
//! Hearth needs no capability, and no root, for any provider but a Firecracker that is jailed and a QEMU that
//! becomes a user of its own. What it needs there is one table each, which `hearth serve` warns by and
//! `hearth doctor` shows; the units in `deploy/systemd` grant the same, which a test compares.

#[cfg(target_os = "linux")]
use rustix::thread::CapabilitySet;

/// A capability of the kernel's, as its name is written in units, and what it is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// As `CAP_CHOWN`.
    pub name: &'static str,
    /// What cannot be done without it.
    pub why: &'static str,
    #[cfg(target_os = "linux")]
    flag: CapabilitySet,
}

macro_rules! needs {
    ($(#[$about:meta])* $table:ident: $($flag:ident $name:literal $why:literal,)*) => {
        $(#[$about])*
        pub const $table: &[Need] = &[$(Need {
            name: $name,
            why: $why,
            #[cfg(target_os = "linux")]
            flag: CapabilitySet::$flag,
        }),*];
    };
}

needs! {
    /// What jailing takes, beside that the jailer has to be started by root.
    JAILER:
    CHOWN "CAP_CHOWN" "give a jail's files to its VM's user",
    FOWNER "CAP_FOWNER" "set the modes of files that are a VM's user's",
    DAC_OVERRIDE "CAP_DAC_OVERRIDE" "read and remove files that are a VM's user's",
    SETUID "CAP_SETUID" "run a VM as a user of its own",
    SETGID "CAP_SETGID" "run a VM in a group of its own",
    KILL "CAP_KILL" "end a VM that runs as another user",
    SYS_PTRACE "CAP_SYS_PTRACE" "see what a process of another user is, before it is ended",
    SYS_CHROOT "CAP_SYS_CHROOT" "put a VM into a root directory of its own",
    MKNOD "CAP_MKNOD" "make a jail's /dev/kvm",
    SYS_ADMIN "CAP_SYS_ADMIN" "give a VM mounts of its own",
    SYS_RESOURCE "CAP_SYS_RESOURCE" "set limits on a VM's process",
}

needs! {
    /// What a QEMU that becomes a user of its own takes, beside that it has to be started by root.
    QEMU_USER:
    SETUID "CAP_SETUID" "run a VM as a user of its own",
    SETGID "CAP_SETGID" "run a VM in a group of its own",
    KILL "CAP_KILL" "end a VM that runs as another user",
    SYS_PTRACE "CAP_SYS_PTRACE" "know a VM of another user again after a restart",
}

/// What a provider takes whose VMs are `jailed`, or become a `user` of their own.
pub const fn needs(jailed: bool, user: bool) -> &'static [Need] {
    match (jailed, user) {
        (true, _) => JAILER,
        (false, true) => QEMU_USER,
        (false, false) => &[],
    }
}

/// What of `needs` this process does not have, each once. Empty on other systems than Linux, which have nothing
/// that needs them either.
pub fn missing<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Vec<Need> {
    #[cfg(target_os = "linux")]
    {
        missing_of(needs, held())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = needs;
        Vec::new()
    }
}

/// Whether this process has any capability at all, as root has.
pub fn is_privileged() -> bool {
    #[cfg(target_os = "linux")]
    {
        !held().is_empty()
    }
    #[cfg(not(target_os = "linux"))]
    {
        rustix::process::geteuid().is_root()
    }
}

/// What of `needs` is not `held`.
#[cfg(target_os = "linux")]
fn missing_of<'a>(needs: impl IntoIterator<Item = &'a Need>, held: CapabilitySet) -> Vec<Need> {
    let mut missing: Vec<Need> = Vec::new();
    for need in needs {
        if !held.contains(need.flag) && missing.iter().all(|it| it.name != need.name) {
            missing.push(*need);
        }
    }
    missing
}

#[cfg(target_os = "linux")]
fn held() -> CapabilitySet {
    // The kernel refuses only what is malformed; then nothing is known to be held.
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn unit(name: &str) -> String {
        let path = format!("{}/../deploy/systemd/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn granted(unit: &str) -> BTreeSet<String> {
        let lines = unit.lines().filter_map(|it| it.strip_prefix("CapabilityBoundingSet="));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    }

    #[test]
    fn the_units_grant_what_is_needed_and_nothing_else() {
        let plain = unit("hearth.service");
        assert_eq!(granted(&plain), BTreeSet::new());
        assert!(plain.lines().any(|it| it == "User=hearth"));
        assert!(plain.lines().any(|it| it == "CapabilityBoundingSet="), "none is not all");
        for (file, needs) in [("jailed-firecracker.conf", JAILER), ("qemu-user.conf", QEMU_USER)] {
            let needed: BTreeSet<_> = needs.iter().map(|it| it.name.to_owned()).collect();
            assert_eq!(granted(&unit(file)), needed, "{file}");
            assert!(unit(file).lines().any(|it| it == "User=root"), "{file}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_missing_is_what_is_not_held() {
        for needs in [JAILER, QEMU_USER] {
            assert_eq!(
                missing_of(needs, CapabilitySet::empty()),
                needs,
                "who has none misses each"
            );
            assert_eq!(missing_of(needs, CapabilitySet::all()), []);
            for need in needs {
                assert_eq!(missing_of(needs, CapabilitySet::all() - need.flag), [*need]);
                let without: Vec<_> = needs.iter().filter(|it| *it != need).copied().collect();
                assert_eq!(missing_of(needs, need.flag), without);
            }
        }
        let both = JAILER.iter().chain(QEMU_USER);
        assert_eq!(missing_of(both, CapabilitySet::empty()), JAILER, "each is said once");
    }
}
