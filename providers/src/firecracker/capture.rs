//! Taking a snapshot of a machine, which afterwards stands where it stood.
//!
//! A snapshot stands alone. Where changed pages are tracked, the memory of the last snapshot is
//! copied while the guest still runs, and Firecracker then writes the changed pages into that
//! copy: merging into a file of the right length is what it does by design. The last snapshot's
//! memory is kept by a link of our own, so that it may be deleted meanwhile.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::FirecrackerBackend;
use super::api::VmState;
use super::blueprint::Blueprint;
use super::image::{Image, MEMORY, STATE};
use super::machine::Machine;
use crate::backend::Captured;
use crate::beneath;
use crate::error::Result;
use crate::files;
use crate::local::image;

/// In the instance's directory while a snapshot of a running guest is under way: should hearth
/// end meanwhile, whoever takes the machine up lets the guest go on.
const STANDS_STILL: &str = "captured-while-running";
/// In the instance's directory: the memory that the tracked changes are counted from.
const BASE: &str = "base-memory";
/// In the machine's home: what is being written.
const NEW_STATE: &str = "snapshot.state";
const NEW_MEMORY: &str = "snapshot.memory";

impl FirecrackerBackend {
    pub(super) fn capture(
        &self,
        machine: &Machine,
        was_running: bool,
        into: &Path,
    ) -> Result<Captured<Image>> {
        let is_diff = self.copy_base(machine)?;
        let mark = machine.vmm.dir.join(STANDS_STILL);
        if was_running {
            beneath::create(&mark)
                .map_err(|error| files::io_error("mark a snapshot's begin".into(), error))?;
        }
        let stood = self.capture_still(machine, was_running, is_diff, into);
        if was_running {
            // Whatever went wrong, the guest goes on; one that cannot is not left to look alive.
            if let Err(error) = machine.resume() {
                machine.vmm.give_up(format!("the guest could not go on after a snapshot: {error}"));
                return Err(stood.err().unwrap_or(error));
            }
            let _ = fs::remove_file(&mark);
        }
        let finished = stood.and_then(|()| self.finish(machine, into));
        if finished.is_err() {
            // What has changed since the base may be written down already, and nowhere.
            let _ = fs::remove_file(machine.vmm.dir.join(BASE));
            let home = machine.home();
            [NEW_STATE, NEW_MEMORY].iter().for_each(|name| home.discard(name));
        }
        let (image, size_bytes) = finished?;
        let made_with = image.made_with.clone();
        Ok(Captured { image, has_memory: true, size_bytes, made_with })
    }

    /// How long writing the memory of a machine may take.
    pub(super) fn snapshot_timeout(&self, blueprint: &Blueprint) -> Duration {
        let per_gib = self.config.snapshot_timeout_per_gib;
        let gib = blueprint.mem_size_mib.div_ceil(1024);
        self.config.command_timeout + per_gib.saturating_mul(u32::try_from(gib).unwrap_or(u32::MAX))
    }

    /// What has to happen while the guest stands still.
    fn capture_still(
        &self,
        machine: &Machine,
        was_running: bool,
        is_diff: bool,
        into: &Path,
    ) -> Result<()> {
        if was_running {
            machine.pause()?;
        }
        let body = json!({
            "snapshot_type": if is_diff { "Diff" } else { "Full" },
            "snapshot_path": NEW_STATE,
            "mem_file_path": NEW_MEMORY,
        });
        machine.create_snapshot(&body, self.snapshot_timeout(&machine.blueprint))?;
        let go_on = || !machine.vmm.is_killed();
        let mut drives = machine.blueprint.drives.iter();
        drives.try_for_each(|drive| drive.copy_between(&machine.vmm.dir, into, &go_on))
    }

    /// What can wait until the guest runs again.
    fn finish(&self, machine: &Machine, into: &Path) -> Result<(Image, u64)> {
        let home = machine.home();
        let taken = home
            .take(NEW_STATE, &into.join(STATE))
            .and_then(|()| home.take(NEW_MEMORY, &into.join(MEMORY)));
        taken.map_err(|error| files::io_error("take a snapshot's files".into(), error))?;
        let blueprint = Blueprint { boot: None, jail: None, ..machine.blueprint.clone() };
        let image = Image::of(into, blueprint, self.host.made_with())?;
        image.write(into)?;
        let size_bytes = image::sync_dir(into).map_err(|error| {
            files::io_error(format!("write {} to its medium", into.display()), error)
        })?;
        keep_base(machine, into);
        Ok((image, size_bytes))
    }

    /// Lays the last snapshot's memory ready to be changed. False when there is none, or changes
    /// are not tracked: all memory has to be written.
    fn copy_base(&self, machine: &Machine) -> Result<bool> {
        let home = machine.home();
        // Left by a hearth that ended meanwhile: what is of the right length would be merged into.
        [NEW_STATE, NEW_MEMORY].iter().for_each(|name| home.discard(name));
        if !machine.blueprint.track_dirty_pages {
            return Ok(false);
        }
        let go_on = || !machine.vmm.is_killed();
        match home.give_copy(&machine.vmm.dir.join(BASE), NEW_MEMORY, &go_on) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(files::io_error("copy the last snapshot's memory".into(), error)),
        }
    }

    /// Lets a guest go on that an earlier hearth left standing still in the middle of a snapshot.
    /// Answers where the machine stands.
    pub(super) fn finish_interrupted_capture(&self, machine: &Machine) -> Result<VmState> {
        let mark = machine.vmm.dir.join(STANDS_STILL);
        if !mark.exists() {
            return machine.state(self.config.command_timeout);
        }
        // What changed since the base may be written down in a file that nobody will have.
        let _ = fs::remove_file(machine.vmm.dir.join(BASE));
        // It may still be writing, and answers nothing else before it has.
        let state = machine.state(self.snapshot_timeout(&machine.blueprint))?;
        if state == VmState::Paused {
            machine.resume()?;
        }
        let _ = fs::remove_file(&mark);
        machine.state(self.config.command_timeout)
    }
}

/// From now on changes are counted from the snapshot in `dir`. Without it the next one is whole.
pub(super) fn keep_base(machine: &Machine, dir: &Path) {
    if !machine.blueprint.track_dirty_pages {
        return;
    }
    let base = machine.vmm.dir.join(BASE);
    let _ = fs::remove_file(&base);
    if let Err(error) = fs::hard_link(dir.join(MEMORY), &base) {
        tracing::warn!(dir = %dir.display(), %error, "the next snapshot has to be a whole one");
    }
}
