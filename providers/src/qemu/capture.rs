//! Taking a snapshot of a machine, which afterwards stands where it stood.
//!
//! The guest stands still while QEMU writes the state of its devices, and while memory and the
//! machine's own disk layers are copied; the layers below never change, so they wait until it
//! runs again, as does the way to the medium.

use std::path::Path;
use std::time::Duration;

use qapi::qmp::{self, MigrationCapability as Capability, MigrationStatus, RunState};

use super::QemuBackend;
use super::arguments::RAM;
use super::blueprint::{Blueprint, Memory};
use super::image::{Image, STATE};
use super::machine::{Machine, refused};
use crate::backend::Captured;
use crate::beneath;
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::local::copy;
use crate::local::image;

/// In the instance's directory while a snapshot of a running guest is under way: should hearth
/// end meanwhile, whoever takes the machine up lets the guest go on.
const STANDS_STILL: &str = "captured-while-running";
/// More than any disk writes: the default would be 128 MiB a second.
const UNLIMITED: u64 = 1 << 50;

impl QemuBackend {
    pub(super) fn capture(
        &self,
        machine: &Machine,
        was_running: bool,
        into: &Path,
    ) -> Result<Captured<Image>> {
        let mark = machine.dir().join(STANDS_STILL);
        if was_running {
            beneath::create(&mark)
                .map_err(|error| files::io_error("mark a snapshot's begin".into(), error))?;
        }
        let stood = self.capture_still(machine, was_running, into);
        if was_running {
            // Whatever went wrong, the guest goes on; one that cannot is not left to look alive.
            if let Err(error) = machine.resume() {
                machine.vmm.give_up(format!("the guest could not go on after a snapshot: {error}"));
                return Err(stood.err().unwrap_or(error));
            }
            let _ = std::fs::remove_file(&mark);
        }
        stood?;
        let image = self.finish(machine, into)?;
        let size_bytes = image::sync_dir(into).map_err(|error| {
            files::io_error(format!("write {} to its medium", into.display()), error)
        })?;
        let made_with = image.made_with.clone();
        Ok(Captured { image, has_memory: true, size_bytes, made_with })
    }

    /// What has to happen while the guest stands still.
    fn capture_still(&self, machine: &Machine, was_running: bool, into: &Path) -> Result<()> {
        if was_running {
            machine.pause()?;
        } else if machine.run_state()? == RunState::postmigrate {
            // QEMU writes its state once for each time that the guest has run.
            machine.execute(&qmp::cont {})?;
            machine.pause()?;
        }
        let in_file = machine.blueprint.memory == Memory::OwnFile;
        self.write_state(machine, in_file, &into.join(STATE))?;
        let go_on = || !machine.vmm.is_killed();
        if in_file {
            copy::copy(&machine.dir().join(RAM), &into.join(RAM), &go_on)
                .map_err(|error| files::io_error("copy the guest's memory".into(), error))?;
        }
        for (index, disk) in machine.blueprint.disks.iter().enumerate() {
            disk.capture_own_layer(index, machine.dir(), into, &go_on)?;
        }
        Ok(())
    }

    fn write_state(&self, machine: &Machine, without_memory: bool, to: &Path) -> Result<()> {
        set_capabilities(machine, without_memory)?;
        let parameters =
            qmp::MigrateSetParameters { max_bandwidth: Some(UNLIMITED), ..Default::default() };
        machine.execute(&qmp::migrate_set_parameters(parameters))?;
        let file = beneath::create(to)
            .map_err(|error| files::io_error("make the state's file".into(), error))?;
        machine.with_file(&file, |opened| {
            let channels = Some(vec![file_channel(opened)?]);
            machine.execute(&qmp::migrate { channels, detach: None, resume: None, uri: None })?;
            let written = await_migration(machine, self.config.snapshot_timeout)
                .map_err(|error| files::full_or(error, to, "QEMU, to write its state"));
            if matches!(written, Err(VmRuntimeError::Timeout { .. })) {
                cancel_migration(machine, self.config.command_timeout);
            }
            written
        })
    }

    /// What can wait until the guest runs again.
    fn finish(&self, machine: &Machine, into: &Path) -> Result<Image> {
        let go_on = || !machine.vmm.is_killed();
        let from = &machine.blueprint;
        let disks = from.disks.iter().enumerate();
        let disks = disks.map(|(index, disk)| disk.capture_layers(index, into, &go_on));
        let memory = match from.memory {
            Memory::OwnFile => Memory::CloneOf(RAM.into()),
            Memory::CloneOf(_) | Memory::Private => Memory::Private,
        };
        let blueprint =
            Blueprint { boot: None, memory, disks: disks.collect::<Result<_>>()?, ..from.clone() };
        let image = Image { made_with: self.host.made_with(), blueprint };
        image.write(into)?;
        Ok(image)
    }

    /// Lets a guest go on that an earlier hearth left standing still in the middle of a snapshot.
    /// Answers whether there was such a one.
    pub(super) fn finish_interrupted_capture(&self, machine: &Machine) -> Result<bool> {
        let mark = machine.dir().join(STANDS_STILL);
        if !mark.exists() {
            return Ok(false);
        }
        if machine.run_state()? != RunState::running {
            cancel_migration(machine, self.config.command_timeout);
            machine.resume()?;
        }
        let _ = std::fs::remove_file(&mark);
        Ok(true)
    }
}

/// Memory that lies in a shared file is left out, or pages get fixed places in the state.
pub(super) fn set_capabilities(machine: &Machine, without_memory: bool) -> Result<()> {
    let set = |capability, state| qmp::MigrationCapabilityStatus { capability, state };
    let capabilities = vec![
        set(Capability::x_ignore_shared, without_memory),
        set(Capability::mapped_ram, !without_memory),
    ];
    machine.execute(&qmp::migrate_set_capabilities { capabilities }).map(drop)
}

pub(super) fn file_channel(path: &Path) -> Result<qmp::MigrationChannel> {
    let filename = path.to_str().ok_or_else(|| VmRuntimeError::Unsupported {
        what: format!("a path that is not UTF-8: {}", path.display()),
    })?;
    let file = qmp::FileMigrationArgs { filename: filename.to_owned(), offset: 0 };
    Ok(qmp::MigrationChannel {
        addr: qmp::MigrationAddress::file(file),
        channel_type: qmp::MigrationChannelType::main,
    })
}

fn await_migration(machine: &Machine, timeout: Duration) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut pause = Duration::from_millis(1);
    loop {
        let info = machine.execute(&qmp::query_migrate {})?;
        match info.status {
            Some(MigrationStatus::completed) => return Ok(()),
            Some(MigrationStatus::failed | MigrationStatus::cancelled) => {
                let why = info.error_desc.unwrap_or_else(|| "it does not say why".to_owned());
                return Err(refused("write its state", why));
            }
            _ if deadline.left().is_none() => {
                let what = "QEMU, to write its state,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            }
            _ => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(20));
    }
}

/// Ends a migration that may be under way, and waits until it has ended. Best effort.
fn cancel_migration(machine: &Machine, timeout: Duration) {
    if machine.execute(&qmp::migrate_cancel {}).is_ok() {
        let _ = await_migration(machine, timeout);
    }
}
