//! What the VMM does once a guest is there.

use std::io::Write as _;

use hearth_providers::env::{Env as _, SystemEnv};

use super::actions::Action;
use super::answer::{Answer, Fate};
use super::bodies::{CreateSnapshotParams, SnapshotType};
use super::bodies_of_devices::BlockDeviceUpdateConfig;
use super::errors::{NO_DEVICE, NO_MMDS_STORE, ONLY_BEFORE_BOOT};
use super::memory_file;
use super::mmds::mmds_value;
use super::preboot::{Outcome, answer};
use super::state_file::SavedState;
use super::vmm::{Stage, Vmm, open_drive};

impl Vmm {
    pub(super) fn perform_after_boot(&mut self, action: Action) -> Answer {
        answer(match action {
            Action::Pause => {
                if self.stage == Stage::Running {
                    self.guest.pause();
                    (self.stage, self.pause_is_bare) = (Stage::Paused, true);
                }
                Ok(())
            }
            Action::Resume => return self.resume(),
            Action::Create(params) => self.create(&params),
            Action::UpdateDrive(update) => self.update_drive(update),
            Action::UpdateInterface(update) => {
                let mut interfaces = self.config.network_interfaces.iter();
                match interfaces.any(|it| it.iface_id == update.iface_id) {
                    true => Ok(()),
                    false => Err(format!(
                        "Network config error: Unable to update the net device: {NO_DEVICE}"
                    )),
                }
            }
            Action::GetBalloon => match &self.config.balloon {
                Some(balloon) => return Answer::with(balloon),
                None => Err(format!("Internal VMM error: {NO_DEVICE}")),
            },
            Action::UpdateBalloon(amount_mib) => match &mut self.config.balloon {
                Some(balloon) => {
                    balloon.amount_mib = amount_mib;
                    Ok(())
                }
                None => Err(format!("Balloon update error: {NO_DEVICE}")),
            },
            Action::GetBalloonStatistics => Err(format!("Internal VMM error: {NO_DEVICE}")),
            Action::GetMmds => match &self.mmds {
                Some(mmds) => return mmds_value(&mmds.store),
                None => Err(NO_MMDS_STORE.to_owned()),
            },
            Action::PutMmds(data) => return self.put_mmds(data),
            Action::PatchMmds(data) => return self.patch_mmds(&data),
            Action::FlushMetrics => {
                if let Some(metrics) = &mut self.metrics {
                    // Nobody is told of a flush that fails.
                    let _ = metrics.write_all(b"{}\n");
                }
                Ok(())
            }
            Action::SendCtrlAltDel => Ok(()),
            Action::SetDrive(_) | Action::SetInterface(_) => Err("PCI is not enabled".to_owned()),
            _ => Err(ONLY_BEFORE_BOOT.to_owned()),
        })
    }

    /// Lets the guest run. One without a kernel dies of it, after the answer.
    pub(super) fn resume(&mut self) -> Answer {
        if self.stage == Stage::Paused {
            // The bug of 1.16: a pause without a snapshot costs the guest its ears.
            let is_deaf = self.pause_is_bare && !self.settings.is_at_least(1, 17);
            (self.stage, self.pause_is_bare) = (Stage::Running, false);
            if self.guest_is_unusable {
                let died = "RunWithApi(MicroVMStoppedWithError(GenericError))";
                return Answer { fate: Fate::Exits(died), ..Answer::done() };
            }
            self.guest.resume(is_deaf);
        }
        Answer::done()
    }

    fn create(&mut self, params: &CreateSnapshotParams) -> Outcome {
        let failed = |reason: String| format!("Create snapshot error: {reason}");
        if self.stage != Stage::Paused {
            return Err(failed(
                "Cannot save the microVM state: Operation not allowed: save/restore unavailable \
                 while running"
                    .to_owned(),
            ));
        }
        let snapshot = SystemEnv.uid().to_string();
        let format = self.settings.snapshot_format();
        let state = SavedState::new(format, snapshot.clone(), self.config.clone());
        state.write(&params.snapshot_path).map_err(failed)?;
        let memory = {
            let mut state = self.guest.state();
            state.memory.snapshot = snapshot;
            state.memory.clone()
        };
        let tracks = self.config.machine_config.track_dirty_pages;
        let kind = params.snapshot_type;
        let dirty = self.kernel_is_dirty || !tracks;
        memory_file::write(&params.mem_file_path, kind, self.memory_bytes(), &memory, dirty)
            .map_err(failed)?;
        self.kernel_is_dirty = false;
        self.pause_is_bare = false;
        self.guest.end_connections();
        let kind = if kind == SnapshotType::Full { "full" } else { "diff" };
        self.console.log("main", &format!("'create {kind} snapshot' VMM action took 1 us."));
        Ok(())
    }

    fn update_drive(&mut self, update: BlockDeviceUpdateConfig) -> Outcome {
        let failed = |reason: &str| {
            let what = "Drive config error: Unable to patch the block device";
            Err(format!("{what}: {reason} Please verify the request arguments."))
        };
        let place = self.config.drives.iter().position(|it| it.drive_id == update.drive_id);
        let Some(place) = place else { return failed(NO_DEVICE) };
        match (update.path_on_host, update.rate_limiter) {
            (None, None) => failed("Block: Running method expected different backend."),
            (None, Some(_)) => Ok(()),
            (Some(path), _) => {
                let mut drive = self.config.drives[place].clone();
                drive.path_on_host = Some(path);
                match open_drive(&drive) {
                    Err(reason) => failed(&format!("Block: {reason}")),
                    Ok(file) => {
                        (self.config.drives[place], self.drives[place]) = (drive, file);
                        self.attach_devices();
                        Ok(())
                    }
                }
            }
        }
    }

    /// Starts a guest that was loaded; it is paused.
    pub(super) fn adopt(&mut self, memory: Option<super::guest::Memory>) {
        self.guest_is_unusable = memory.is_none();
        self.guest.state().memory = memory.unwrap_or_default();
        self.attach_devices();
        self.stage = Stage::Paused;
        self.start_counting();
    }
}
