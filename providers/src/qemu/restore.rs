//! Making a machine that goes on from a snapshot.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qapi::qmp::{self, RunState};
use rustix::fs::OFlags;

use super::QemuBackend;
use super::arguments::Beginning;
use super::blueprint::{Blueprint, Memory};
use super::capture::{file_channel, set_capabilities};
use super::image::{Image, STATE};
use super::machine::Machine;
use crate::backend::{Backend, Place, Source};
use crate::beneath;
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::files;

/// How often a QEMU that loads a state is asked whether it has.
const POLL: Duration = Duration::from_micros(500);

impl QemuBackend {
    pub(super) fn make_clone(
        &self,
        place: &Place,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        if !source.how.network_overrides.is_empty() {
            let what = "replacing network interfaces at a restore".to_owned();
            return Err(VmRuntimeError::Unsupported { what });
        }
        let image = source.image;
        self.fits(source)?;
        let files = tracing::debug_span!("files").entered();
        let disks = image.blueprint.disks.iter().enumerate();
        let disks = disks.map(|(index, disk)| disk.restore(index, &source.dir, &place.dir));
        let memory = match &image.blueprint.memory {
            Memory::CloneOf(name) => Memory::CloneOf(source.dir.join(name)),
            Memory::OwnFile | Memory::Private => Memory::Private,
        };
        let blueprint =
            Blueprint { memory, disks: disks.collect::<Result<_>>()?, ..image.blueprint.clone() };
        blueprint.write(&place.dir)?;
        drop(files);
        let machine = Arc::new(Machine::new(place.dir.clone(), blueprint, &self.config));
        self.launch(place, &machine, Beginning::Incoming)?;
        let loaded = self.load(&machine, source);
        // A QEMU that cannot load its state ends at once, and its last words say why.
        loaded.inspect_err(|_| self.undo_launch(&machine))?;
        self.watch(place, &machine);
        Ok(machine)
    }

    fn load(&self, machine: &Machine, source: &Source<'_, Image>) -> Result<()> {
        let load = tracing::debug_span!("load").entered();
        set_capabilities(machine, source.image.has_memory_file())?;
        let state = source.dir.join(STATE);
        match self.config.user {
            None => self.load_from(machine, &state)?,
            Some(_) => {
                let file = beneath::open(&state, OFlags::RDONLY)
                    .map_err(|error| files::io_error("open the state's file".into(), error))?;
                machine.with_file(&file, |state| self.load_from(machine, state))?;
            }
        }
        drop(load);
        match source.how.resume_immediately {
            true => tracing::debug_span!("cont").in_scope(|| machine.resume()),
            false => Ok(()),
        }
    }

    /// Has QEMU load the state that it can open as `state`, and waits until it has.
    fn load_from(&self, machine: &Machine, state: &Path) -> Result<()> {
        let channels = Some(vec![file_channel(state)?]);
        machine.execute(&qmp::migrate_incoming { channels, exit_on_error: None, uri: None })?;
        let timeout = self.config.restore_timeout;
        let deadline = Deadline::after(timeout);
        while machine.run_state()? == RunState::inmigrate {
            if deadline.left().is_none() {
                let what = "QEMU, to load a snapshot,".to_owned();
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}
