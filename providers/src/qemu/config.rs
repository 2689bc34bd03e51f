//! What an operator can say about QEMU.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How guest code is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// By the hardware where a canary shows that it works, else in software.
    #[default]
    Auto,
    /// By the hardware; without it the backend cannot be made.
    Kvm,
    /// In software.
    Tcg,
}

/// Whom a QEMU becomes once it has opened what it needs, in place of staying hearth's own user. Takes a hearth
/// that is root, and QEMU 9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The number of the user.
    pub const fn uid(self) -> u32 {
        self.uid
    }
}

impl FromStr for User {
    type Err = &'static str;

    /// From the numbers of a user and a group, `UID:GID`; neither is root's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse().ok().filter(|it| (1..u32::MAX).contains(it));
        let numbers = text.split_once(':').map(|(uid, gid)| (number(uid), number(gid)));
        match numbers {
            Some((Some(uid), Some(gid))) => Ok(Self { uid, gid }),
            _ => Err("it must be the numbers of a user and a group that are not root's: UID:GID"),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// How QEMU is run. The default suits every host that has it installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    /// The program: a path, or a name to be looked up in `PATH`.
    pub binary: PathBuf,
    /// How guest code is run.
    pub accel: Accel,
    /// QEMU's machine type, with its options: `q35`, or `virt` on ARM.
    pub machine: String,
    /// How long a QEMU may take from its start until it answers.
    pub start_timeout: Duration,
    /// How long it may take to load a snapshot.
    pub restore_timeout: Duration,
    /// How long it may take to write one.
    pub snapshot_timeout: Duration,
    /// How long it may take to answer any other command.
    pub command_timeout: Duration,
    /// How long it may take to be gone once it is killed.
    pub kill_timeout: Duration,
    /// How much of a guest's console is kept, at least; at most twice as much and what it writes
    /// in a second.
    pub console_max_bytes: u64,
    /// Whom it becomes; hearth's own user where nobody is named.
    pub user: Option<User>,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from(format!("qemu-system-{}", std::env::consts::ARCH)),
            accel: Accel::Auto,
            machine: if cfg!(target_arch = "aarch64") { "virt" } else { "q35" }.to_owned(),
            start_timeout: Duration::from_secs(30),
            restore_timeout: Duration::from_secs(30),
            snapshot_timeout: Duration::from_secs(120),
            command_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(10),
            console_max_bytes: 1 << 20,
            user: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_two_numbers_and_never_root() {
        assert_eq!("7071:7072".parse::<User>().unwrap().to_string(), "7071:7072");
        for wrong in
            ["", "7071", "0:7071", "7071:0", "hearth:hearth", "1:2:3", "-1:1", "4294967295:1"]
        {
            assert!(wrong.parse::<User>().is_err(), "{wrong}");
        }
    }
}
