//! The metadata service's store. Its data are no part of a snapshot; its configuration is.

use serde_json::Value;

use super::answer::Answer;
use super::bodies::MmdsConfig;
use super::errors::NO_MMDS_STORE;
use super::preboot::Outcome;
use super::vmm::Vmm;

/// The store.
#[derive(Debug, Default)]
pub(super) struct Mmds {
    pub(super) store: Value,
    is_initialized: bool,
}

impl Vmm {
    pub(super) fn set_mmds_config(&mut self, config: MmdsConfig) -> Outcome {
        let known = |id: &String| {
            self.config.network_interfaces.iter().any(|interface| interface.iface_id == *id)
        };
        // The prefix has one M too many in the real one.
        if config.network_interfaces.is_empty() {
            return Err("MMMDS config error: The list of network interface IDs that allow \
                        forwarding MMDS requests is empty."
                .to_owned());
        }
        if !config.network_interfaces.iter().all(known) {
            return Err("MMMDS config error: The list of network interface IDs provided contains \
                        at least one ID that does not correspond to any existing network \
                        interface."
                .to_owned());
        }
        self.mmds.get_or_insert_default();
        let address = config.ipv4_address.unwrap_or([169, 254, 169, 254].into());
        self.config.mmds_config = Some(MmdsConfig { ipv4_address: Some(address), ..config });
        Ok(())
    }

    /// Replaces the store, where there is one.
    pub(super) fn put_mmds(&mut self, data: Value) -> Answer {
        let Some(mmds) = &mut self.mmds else { return Answer::refused(NO_MMDS_STORE) };
        if data.to_string().len() > self.max_mmds_bytes {
            return too_much_data();
        }
        *mmds = Mmds { store: data, is_initialized: true };
        Answer::done()
    }

    /// Merges into the store, where there is one with data.
    pub(super) fn patch_mmds(&mut self, data: &Value) -> Answer {
        let Some(mmds) = self.mmds.as_mut().filter(|mmds| mmds.is_initialized) else {
            return Answer::refused(NO_MMDS_STORE);
        };
        let mut store = mmds.store.clone();
        merge(&mut store, data);
        if store.to_string().len() > self.max_mmds_bytes {
            return too_much_data();
        }
        mmds.store = store;
        Answer::done()
    }
}

/// The store as it is shown: nothing is an empty object.
pub(super) fn mmds_value(store: &Value) -> Answer {
    match store {
        Value::Null => Answer::with(&serde_json::Map::new()),
        store => Answer::with(store),
    }
}

fn too_much_data() -> Answer {
    let reason = "MMDS limit exceeded error: The MMDS patch request doesn't fit.";
    Answer { status: 413, ..Answer::refused(reason) }
}

/// Merges as JSON Merge Patch (RFC 7396) has it.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = into else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(name)),
            value => merge(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}
