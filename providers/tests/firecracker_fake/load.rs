//! Loading a snapshot. Whatever fails here ends the process after the answer, but for what is
//! said before anything was touched.

use super::answer::{Answer, Fate};
use super::bodies::{LoadSnapshotConfig, MemBackendType};
use super::bodies_of_devices::Config;
use super::errors::bind;
use super::memory_file::{self, Found};
use super::state_file::SavedState;
use super::uffd;
use super::vmm::{Vmm, open_drive};
use super::vsock;

/// What the process says when it ends over a load.
const RESTORE_FAILED: &str = "RunWithApi(BuildMicroVmError(Restore))";

impl Vmm {
    pub(super) fn load(&mut self, config: &LoadSnapshotConfig) -> Answer {
        if self.is_on_boot_path {
            let reason = "Loading a microVM snapshot not allowed after configuring boot-specific \
                          resources.";
            return Answer::refused(&format!("Load snapshot error: {reason}"));
        }
        match self.restore(config) {
            Err(reason) => {
                let reason =
                    format!("Load snapshot error: Failed to restore from snapshot: {reason}");
                Answer { fate: Fate::Exits(RESTORE_FAILED), ..Answer::refused(&reason) }
            }
            Ok(false) => Answer { fate: Fate::Aborts, ..Answer::done() },
            Ok(true) if config.resume_vm => self.resume(),
            Ok(true) => Answer::done(),
        }
    }

    /// False when state and memory are of two snapshots: that is found out where the real one
    /// can only panic.
    fn restore(&mut self, config: &LoadSnapshotConfig) -> Result<bool, String> {
        let format = self.settings.snapshot_format();
        let state = SavedState::read(&config.snapshot_path, format);
        let state = state.and_then(|mut state| {
            override_devices(&mut state.config, config)?;
            Ok(state)
        });
        let state =
            state.map_err(|reason| format!("Failed to get snapshot state from file: {reason}"))?;
        self.config = state.config;
        self.config.machine_config.track_dirty_pages =
            config.track_dirty_pages || config.enable_diff_snapshots;
        let found = self.read_memory(config);
        let found = found.map_err(|reason| format!("Failed to load guest memory: {reason}"))?;
        self.restore_devices().map_err(|reason| {
            format!(
                "Failed to build microVM from snapshot: Failed to restore devices: Error restoring \
                 MMIO devices: {reason}"
            )
        })?;
        let memory = match found {
            Found::Memory(memory) if memory.snapshot != state.snapshot => return Ok(false),
            Found::Memory(memory) => Some(memory),
            Found::Unusable => None,
        };
        self.kernel_is_dirty = false;
        if self.config.mmds_config.is_some() {
            self.mmds.get_or_insert_default();
        }
        self.adopt(memory);
        Ok(true)
    }

    fn read_memory(&self, config: &LoadSnapshotConfig) -> Result<Found, String> {
        let (path, kind) = match (&config.mem_backend, &config.mem_file_path) {
            (Some(backend), _) => (&backend.backend_path, backend.backend_type),
            (None, Some(path)) => (path, MemBackendType::File),
            (None, None) => return Err("there is no memory".to_owned()),
        };
        match kind {
            MemBackendType::File => memory_file::read(path, self.memory_bytes())
                .map_err(|reason| format!("Error creating guest memory from file: {reason}")),
            MemBackendType::Uffd => uffd::read(path, self.memory_bytes())
                .map_err(|reason| format!("Error creating guest memory from uffd: {reason}")),
        }
    }

    fn restore_devices(&mut self) -> Result<(), String> {
        let drives = self.config.drives.iter().map(open_drive).collect::<Result<Vec<_>, _>>();
        self.drives = drives.map_err(|reason| format!("Block: {reason}"))?;
        let interfaces = self.config.network_interfaces.iter();
        let taps = interfaces.map(|it| self.open_tap(it)).collect::<Result<Vec<_>, _>>();
        let taps =
            taps.map_err(|reason| format!("Net: Failed to create a network device: {reason}"))?;
        self.taps.extend(taps.into_iter().flatten());
        match &self.config.vsock {
            None => Ok(()),
            Some(device) => vsock::bind(&device.uds_path, &self.guest, &self.installation)
                .map_err(|error| format!("VsockUnixBackend: {}", bind(&error))),
        }
    }
}

fn override_devices(saved: &mut Config, config: &LoadSnapshotConfig) -> Result<(), String> {
    for wanted in &config.network_overrides {
        let mut interfaces = saved.network_interfaces.iter_mut();
        let found = interfaces.find(|it| it.iface_id == wanted.iface_id);
        let found = found.ok_or("Unknown Network Device.")?;
        found.host_dev_name.clone_from(&wanted.host_dev_name);
    }
    if let Some(wanted) = &config.vsock_override {
        let found = saved.vsock.as_mut().ok_or("Unknown Vsock Device.")?;
        found.uds_path.clone_from(&wanted.uds_path);
    }
    Ok(())
}
