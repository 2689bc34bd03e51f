//! Making a machine that goes on from a snapshot.
//!
//! A process that was asked to load cannot be asked again, whatever it answered: it is ended.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::FirecrackerBackend;
use super::api::{Api, ApiError, MemBackend, NetworkOverride, SnapshotLoad, VsockOverride};
use super::blueprint::Blueprint;
use super::capture::keep_base;
use super::config::MemoryBackend;
use super::home::VSOCK;
use super::image::{Image, MEMORY, STATE, incompatible};
use super::machine::{Machine, Refusal};
use crate::backend::{Backend, Place, Source};
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::SnapshotView;

/// The names of what is loaded, where it needs any in the machine's home; gone once it is.
const OLD_STATE: &str = "loaded.state";
pub(super) const OLD_MEMORY: &str = "loaded.memory";

impl FirecrackerBackend {
    pub(super) fn make_clone(
        &self,
        place: &Place,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        let overrides = &source.how.network_overrides;
        if !overrides.is_empty() && !self.host.has_network_overrides() {
            return Err(self.too_old("replacing network interfaces at a restore", "1.12.0"));
        }
        if self.config.clock_realtime && !self.host.has_clock_realtime() {
            return Err(self.too_old("setting the guest's clock at a restore", "1.16.0"));
        }
        let image = source.image;
        self.fits(source)?;
        let blueprint = image.blueprint.clone();
        let blueprint = blueprint.with_overrides(place.uid, overrides, &self.config)?;
        let files = tracing::debug_span!("files").entered();
        for drive in &blueprint.drives {
            drive.copy_between(&source.dir, &place.dir, &|| true)?;
        }
        drop(files);
        let machine = Arc::new(self.make_machine(place, blueprint)?);
        self.launch(place, &machine)?;
        let loaded = self.load(place, &machine, source).and_then(|()| self.check_jail(&machine));
        loaded.inspect_err(|_| self.undo_launch(&machine))?;
        self.watch(place, &machine);
        Ok(machine)
    }

    fn load(
        &self,
        place: &Place,
        machine: &Arc<Machine>,
        source: &Source<'_, Image>,
    ) -> Result<()> {
        let home = machine.home();
        let lend = |from: &Path, name| {
            home.lend_briefly(from, name)
                .map_err(|error| files::io_error(format!("lend {name}"), error))
        };
        let memory = source.dir.join(MEMORY);
        let state = lend(&source.dir.join(STATE), OLD_STATE)?;
        let (backend_type, backend_path) = match &self.config.memory {
            MemoryBackend::File => ("File", lend(&memory, OLD_MEMORY)?),
            MemoryBackend::Uffd { handler } => {
                ("Uffd", self.launch_handler(place, machine, handler, &memory)?)
            }
        };
        let blueprint: &Blueprint = &machine.blueprint;
        let has_vsock = blueprint.vsock_cid.is_some();
        let overridden = |id: &str| source.how.network_overrides.iter().any(|it| it.iface_id == id);
        let interfaces = blueprint.interfaces.iter().filter(|it| overridden(&it.iface_id));
        let body = SnapshotLoad {
            snapshot_path: &state,
            mem_backend: MemBackend { backend_type, backend_path: &backend_path },
            track_dirty_pages: blueprint.track_dirty_pages,
            resume_vm: source.how.resume_immediately,
            network_overrides: interfaces
                .map(|it| NetworkOverride {
                    iface_id: &it.iface_id,
                    host_dev_name: &it.host_dev_name,
                })
                .collect(),
            // Without it the recorded path counts, which is the same in each machine's own home.
            vsock_override: (has_vsock && self.host.has_vsock_override())
                .then_some(VsockOverride { uds_path: VSOCK }),
            clock_realtime: self.config.clock_realtime.then_some(true),
        };
        let config = &self.config;
        if self.writes_console_itself(machine) {
            let console = json!({ "serial_out_path": self.own_console(machine)? });
            let put = |api: &Api, timeout| api.put("/serial", &console, timeout);
            let asked = "write its console";
            let called =
                machine.first_call(asked, config.start_timeout, config.command_timeout, put);
            called.map_err(|Refusal { error, .. }| error)?;
        }
        let call = |api: &Api, timeout| -> Result<(), ApiError> {
            api.put("/snapshot/load", &body, timeout)
        };
        let asked = "load a snapshot";
        // From when it is started until it listens, has loaded, and has resumed where that is asked for.
        let load = || machine.first_call(asked, config.start_timeout, config.restore_timeout, call);
        let loaded = tracing::debug_span!("load").in_scope(load);
        loaded.map_err(|refusal| {
            // Without its handler it would not have answered: it was ended.
            machine.handler_error().unwrap_or_else(|| explain(refusal, source.view))
        })?;
        // It has them mapped or read: a link would only keep the files of a deleted snapshot.
        [OLD_STATE, OLD_MEMORY].iter().for_each(|name| home.discard(name));
        keep_base(machine, &source.dir);
        Ok(())
    }

    fn too_old(&self, what: &str, since: &str) -> VmRuntimeError {
        let here = &self.host.version;
        let what = format!("{what}: it takes Firecracker {since} or newer, and here is {here}");
        VmRuntimeError::Unsupported { what }
    }
}

/// In what Firecracker says of a snapshot that does not fit it, or is damaged.
const UNFIT: &[&str] = &[
    "bitcode",
    "CRC",
    "too short",
    "largest possible file offset",
    "Invalid data version",
    "Magic value does not match",
];

/// What a failed load means. What could be checked has been, so this is what it did not know, or
/// what has changed since.
fn explain(refusal: Refusal, view: &SnapshotView) -> VmRuntimeError {
    let Refusal { error, message, aborted } = refusal;
    if aborted {
        let reason = "Firecracker died of it: its state and its memory are of different snapshots";
        return incompatible(view, reason.to_owned());
    }
    let Some(message) = message else { return error };
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(UNFIT) {
        return incompatible(view, format!("Firecracker refuses it: {message}"));
    }
    if says(&["Failed to open snapshot file", "Error creating guest memory from file"]) {
        return VmRuntimeError::SnapshotNotFound {
            vm: view.vm_id.to_string(),
            snapshot_id: view.snapshot_id.clone(),
            reason: message,
        };
    }
    if says(&["TUN/TAP", "Tap"]) && says(&["os error 16"]) {
        let what = format!("the VM's TAP device, which another has ({message}),");
        return VmRuntimeError::Exhausted { what, retry_after: None };
    }
    error
}
