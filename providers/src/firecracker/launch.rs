//! Starting and ending the process of a machine, in a jail or not.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::FirecrackerBackend;
use super::api::SOCKET;
use super::blueprint::Blueprint;
use super::home::{CONSOLE, LOG, METRICS};
use super::machine::Machine;
use crate::backend::Place;
use crate::backend::Reaped;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::supervise::{Launch, Led};

impl FirecrackerBackend {
    /// Gives a machine that is being made a jail, where there are jails.
    pub(super) fn make_machine(&self, place: &Place, mut blueprint: Blueprint) -> Result<Machine> {
        let assigned = self.jails.as_ref().map(|jails| jails.assign(&place.uid.to_string()));
        let (jail, user) = assigned.transpose()?.unzip();
        blueprint.jail = jail;
        blueprint.write(&place.dir)?;
        Ok(Machine::new(&place.dir, blueprint, user, &self.config))
    }

    /// Starts the machine's process; it does not listen yet. What fails is undone.
    pub(super) fn launch(&self, place: &Place, machine: &Machine) -> Result<()> {
        let name = place.uid.to_string();
        let home = machine.home();
        tracing::debug_span!("furnish").in_scope(|| home.furnish(&machine.blueprint))?;
        if self.config.metrics {
            home.make_file(METRICS)
                .map_err(|error| files::io_error("make the metrics' file".into(), error))?;
        }
        let mut arguments: Vec<OsString> = Vec::new();
        let jail = machine.blueprint.jail.as_ref();
        let jails = self.jails.as_ref().filter(|_| jail.is_some());
        if let (Some(jails), Some(jail)) = (jails, jail) {
            arguments.extend(jails.arguments(&name, &place.dir, jail));
        } else {
            arguments.extend(["--id".into(), name.clone().into()]);
        }
        arguments
            .extend(["--api-sock", SOCKET, "--log-path", LOG, "--level", "Warn"].map(Into::into));
        if self.config.metrics {
            arguments.extend(["--metrics-path", METRICS].map(Into::into));
        }
        let pid_file = jails.and_then(|jails| jails.pid_file(&home.root));
        let led = jails.map(|_| Led {
            executable: &self.host.binary,
            home: &home.root,
            pid_file: pid_file.as_deref(),
            timeout: self.config.start_timeout,
        });
        let program = jails.map_or(&self.host.binary, |jails| &jails.program);
        let console = &machine.vmm.console;
        let mut launch = Launch::new(program, &arguments, &place.dir, &name, console);
        launch.led = led;
        launch.enters_cgroup = jail.is_none_or(|jail| jail.cgroups.is_empty());
        let spawn = || self.supervisor.spawn(launch, machine.vmm.bounded());
        let spawned = tracing::debug_span!("spawn").in_scope(spawn);
        machine.vmm.set_process(spawned.map_err(|error| self.in_its_words(machine, error))?);
        Ok(())
    }

    /// What has to hold of a process once it listens, and not before: it may still be the jailer.
    pub(super) fn check_jail(&self, machine: &Machine) -> Result<()> {
        let (Some(jails), Some(jail)) = (&self.jails, &machine.blueprint.jail) else {
            return Ok(());
        };
        let process = machine.vmm.process();
        process.map_or(Ok(()), |process| jails.check_limits(jail, process.record().pid))
    }

    /// A jailer that leaves its output leaves the guest's, too: Firecracker writes it then.
    pub(super) fn writes_console_itself(&self, machine: &Machine) -> bool {
        let jails = self.jails.as_ref().filter(|_| machine.blueprint.jail.is_some());
        jails.is_some_and(|jails| jails.config.daemonize)
    }

    /// The name of the console in the machine's home, made for it to write.
    pub(super) fn own_console(&self, machine: &Machine) -> Result<&'static str> {
        let made = machine.home().make_file(CONSOLE);
        made.map_err(|error| files::io_error("make the console's file".into(), error))?;
        Ok(CONSOLE)
    }

    /// Ends a process that never became a running machine, without a word to anybody.
    pub(super) fn undo_launch(&self, machine: &Machine) {
        self.end_handler(machine);
        if self.supervisor.undo_launch(&machine.vmm, self.config.kill_timeout) {
            self.clear_jail(machine);
        }
    }

    /// Takes away what a jailer made outside of the instance's directory, and its jail.
    pub(super) fn clear_jail(&self, machine: &Machine) {
        let jail = machine.blueprint.jail.iter();
        jail.flat_map(|jail| &jail.cgroups).for_each(|dir| self.supervisor.remove_cgroup(dir));
        if let Err(error) = machine.home().clear_jail() {
            tracing::warn!(dir = %machine.vmm.dir.display(), %error, "a jail is not wholly gone");
        }
    }

    /// From now on the machine's end is reported.
    pub(super) fn watch(&self, place: &Place, machine: &Arc<Machine>) {
        let Some(process) = machine.vmm.process() else { return };
        let (weak, env) = (Arc::downgrade(machine), Arc::clone(&self.env));
        let ended = Arc::clone(&place.ended);
        process.on_exit(move |exit| {
            let Some(machine) = weak.upgrade() else { return };
            machine.handler.kill();
            let failure = machine.vmm.note_end(exit, &*env);
            failure.into_iter().for_each(|failure| ended(failure));
        });
    }

    /// A program that ended at once has said why on its output.
    fn in_its_words(&self, machine: &Machine, error: VmRuntimeError) -> VmRuntimeError {
        let said = machine.vmm.console.tail(1024);
        match said.trim().lines().last() {
            Some(words) if machine.blueprint.jail.is_some() => {
                VmRuntimeError::backend(format!("{error}: {words}"), error)
            }
            _ => error,
        }
    }
}

/// Ends whatever runs in the directory of an instance that nobody takes up, and takes away what a
/// jailer made for it elsewhere.
pub(super) fn reap(backend: &FirecrackerBackend, dir: &Path) -> Reaped {
    let reaped = backend.supervisor.reap(dir, backend.config.kill_timeout);
    let jail = Blueprint::read(dir).ok().and_then(|blueprint| blueprint.jail);
    let cgroups = jail.into_iter().flat_map(|jail| jail.cgroups);
    cgroups.for_each(|dir| backend.supervisor.remove_cgroup(&dir));
    backend.tidy_handler(dir);
    reaped
}
