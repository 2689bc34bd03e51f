//! `hearth doctor`: can this machine run hearth, and what mends it when not. Asks no server.

use std::path::PathBuf;

use clap::Args;
use hearth_server::config::dirs;
use hearth_server::doctor::{
    Check, Kind, Outcome, Subject, guest, look_at_machine, look_at_provider, worst,
};
use serde::Serialize;

use super::error::{Error, Result};
use super::output::{Format, Tone, out_has_colours, print_json, write_out};

/// Arguments of `hearth doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The kind of provider that is to run.
    #[arg(long, value_enum, default_value_t = Kind::Qemu, value_name = "KIND")]
    provider: Kind,
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
    /// The user that each VM of qemu is to be, as in the configuration; with it, what that needs
    /// must be there.
    #[arg(long, value_name = "UID:GID")]
    user: Option<String>,
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

/// All that was looked at.
#[derive(Serialize)]
struct Report<'a> {
    status: Outcome,
    checks: &'a [Check],
}

impl Doctor {
    /// Looks at everything and prints it. Blocks for up to a second or so.
    ///
    /// # Errors
    /// [`Error::Failed`] when a check failed; [`Error::Usage`] for a flag of another kind.
    pub(crate) fn run(self, format: Format) -> Result<()> {
        let kind = self.provider;
        let strays = [
            (self.binary.is_some() && matches!(kind, Kind::Memory | Kind::Docker), "--binary"),
            (self.socket.is_some() && kind != Kind::Docker, "--socket"),
            (self.jailer.is_some() && kind != Kind::Firecracker, "--jailer"),
            (self.user.is_some() && kind != Kind::Qemu, "--user"),
        ];
        if let Some((_, flag)) = strays.iter().find(|(is_stray, _)| *is_stray) {
            return Err(Error::Usage(format!("{flag}: this kind of provider has none")));
        }
        let Self { binary, socket, jailer, user, .. } = self;
        let subject = Subject { kind, binary, socket, jailer, user };
        let mut found = look_at_provider(&subject);
        if kind == Kind::Qemu {
            found.push(guest(self.guest.as_deref()));
        }
        let state = self.state.or_else(dirs::default_state);
        found.extend(look_at_machine(state.as_deref(), self.runtime.as_deref(), subject.needs()));
        let worst = worst(&found);
        match format {
            Format::Json => print_json(&Report { status: worst, checks: &found })?,
            Format::Name => {
                let names: String = found.iter().map(|it| format!("{}\n", it.name)).collect();
                write_out(names.as_bytes())?;
            }
            Format::Table | Format::Wide => {
                write_out(text(&found, out_has_colours()).as_bytes())?;
            }
        }
        let without = match kind {
            Kind::Memory => "",
            _ => "; without VMs of its own: hearth serve --provider memory",
        };
        match worst {
            Outcome::Ok | Outcome::Warn => Ok(()),
            Outcome::Fail => {
                Err(Error::Failed(format!("this machine cannot run it as it is{without}")))
            }
        }
    }
}

fn text(checks: &[Check], colours: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (status, tone) = match check.status {
            Outcome::Ok => ("ok  ", Tone::Good),
            Outcome::Warn => ("warn", Tone::Warn),
            Outcome::Fail => ("FAIL", Tone::Bad),
        };
        let status = tone.paint(status, colours);
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
        let check = |name, status, message: &str, remedy: &str| Check {
            name,
            status,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        };
        let checks = [
            check("a", Outcome::Ok, "fine", ""),
            check("long", Outcome::Fail, "not there", "install it"),
        ];
        let plain = "ok    a     fine\nFAIL  long  not there\n            -> install it\n";
        assert_eq!(text(&checks, false), plain);
        assert!(text(&checks, true).contains("\u{1b}[31mFAIL\u{1b}[0m  long"));
    }
}
