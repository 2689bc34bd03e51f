//! Telling a Firecracker that was just started what to boot.

use serde_json::{Value, json};

use super::FirecrackerBackend;
use super::blueprint::{Blueprint, Boot};
use super::home::VSOCK;
use super::machine::{Machine, Refusal};
use crate::backend::Place;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::model::RateLimits;

/// The names of what is booted, in the machine's home.
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
/// Buckets are refilled once in this time.
const REFILL_MILLIS: u64 = 1000;

impl FirecrackerBackend {
    /// Boots a machine that was never started.
    pub(super) fn boot(&self, place: &Place, machine: &Machine) -> Result<()> {
        let boot = machine.blueprint.boot.as_ref().ok_or_else(|| VmRuntimeError::Backend {
            what: "a machine that was restored cannot be booted".to_owned(),
            source: None,
        })?;
        self.launch(place, machine)?;
        let booted = self.configure(machine, boot).and_then(|()| {
            self.check_jail(machine)?;
            machine.put("/actions", &json!({ "action_type": "InstanceStart" }))
        });
        booted.inspect_err(|_| self.undo_launch(machine))
    }

    fn configure(&self, machine: &Machine, boot: &Boot) -> Result<()> {
        let home = machine.home();
        let lend = |from, name| {
            home.lend(from, name)
                .map_err(|error| files::io_error(format!("lend the {name}"), error))
        };
        let (config, blueprint) = (&self.config, &machine.blueprint);
        let size = json!({
            "vcpu_count": blueprint.vcpu_count,
            "mem_size_mib": blueprint.mem_size_mib,
            "track_dirty_pages": blueprint.track_dirty_pages,
        });
        let called = machine.first_call(
            "take its size",
            config.start_timeout,
            config.command_timeout,
            |api, timeout| api.put("/machine-config", &size, timeout),
        );
        called.map_err(|Refusal { error, .. }| error)?;
        lend(&boot.kernel, KERNEL)?;
        let mut source = json!({ "kernel_image_path": KERNEL, "boot_args": boot.command_line });
        if let Some(initrd) = &boot.initrd {
            lend(initrd, INITRD)?;
            source["initrd_path"] = INITRD.into();
        }
        machine.put("/boot-source", &source)?;
        for (path, body) in devices(blueprint) {
            machine.put(&path, &body)?;
        }
        if self.writes_console_itself(machine) {
            let console = self.own_console(machine)?;
            machine.put("/serial", &json!({ "serial_out_path": console }))?;
        }
        Ok(())
    }
}

/// What is put where, in the order of the guest's devices.
fn devices(blueprint: &Blueprint) -> Vec<(String, Value)> {
    let limits = blueprint.rate_limits;
    let mut devices = Vec::new();
    for drive in &blueprint.drives {
        let mut body = json!({
            "drive_id": drive.id,
            "path_on_host": drive.file(),
            "is_root_device": drive.is_root,
            "is_read_only": drive.read_only,
        });
        if let Some(limiter) = disk_limiter(&limits, blueprint.drives.len()) {
            body["rate_limiter"] = limiter;
        }
        devices.push((format!("/drives/{}", drive.id), body));
    }
    for interface in &blueprint.interfaces {
        let mut body = json!({
            "iface_id": interface.iface_id,
            "host_dev_name": interface.host_dev_name,
            "guest_mac": interface.guest_mac,
        });
        if let Some(limiter) = network_limiter(&limits, blueprint.interfaces.len()) {
            body["rx_rate_limiter"] = limiter.clone();
            body["tx_rate_limiter"] = limiter;
        }
        devices.push((format!("/network-interfaces/{}", interface.iface_id), body));
    }
    if let (Some(mmds), Some(first)) = (&blueprint.mmds, blueprint.interfaces.first()) {
        let version = if mmds.without_token { "V1" } else { "V2" };
        let mut body = json!({ "version": version, "network_interfaces": [first.iface_id] });
        if let Some(address) = mmds.ipv4_address {
            body["ipv4_address"] = address.to_string().into();
        }
        devices.push(("/mmds/config".to_owned(), body));
    }
    if let Some(cid) = blueprint.vsock_cid {
        let body = json!({ "guest_cid": cid, "uds_path": VSOCK });
        devices.push(("/vsock".to_owned(), body));
    }
    if blueprint.entropy {
        devices.push(("/entropy".to_owned(), json!({})));
    }
    devices
}

/// Firecracker limits each drive, the spec all of them together: each gets its share.
fn disk_limiter(limits: &RateLimits, drives: usize) -> Option<Value> {
    let bucket = |total| bucket(total, drives);
    let both = [
        ("bandwidth", bucket(limits.disk_bytes_per_second)),
        ("ops", bucket(limits.disk_operations_per_second)),
    ];
    limiter(both)
}

/// The same for both directions of each interface.
fn network_limiter(limits: &RateLimits, interfaces: usize) -> Option<Value> {
    limiter([("bandwidth", bucket(limits.network_bytes_per_second, 2 * interfaces))])
}

fn limiter<const N: usize>(buckets: [(&str, Option<Value>); N]) -> Option<Value> {
    let set = buckets.into_iter().filter_map(|(name, it)| Some((name.to_owned(), it?)));
    let set: serde_json::Map<_, _> = set.collect();
    (!set.is_empty()).then_some(Value::Object(set))
}

fn bucket(total: u64, shares: usize) -> Option<Value> {
    let share = (total / shares.max(1) as u64).max(1);
    (total != 0).then(|| json!({ "size": share, "refill_time": REFILL_MILLIS }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firecracker::blueprint::MmdsSettings;
    use crate::model::NetworkInterface;

    #[test]
    fn limits_are_shared_out_and_absent_ones_left_out() {
        let limits = RateLimits { disk_bytes_per_second: 1000, ..RateLimits::default() };
        let limiter = disk_limiter(&limits, 2).unwrap();
        assert_eq!(limiter, json!({ "bandwidth": { "size": 500, "refill_time": 1000 } }));
        assert_eq!(network_limiter(&limits, 1), None);
        let limits = RateLimits { network_bytes_per_second: 1000, ..RateLimits::default() };
        let limiter = network_limiter(&limits, 1).unwrap();
        assert_eq!(limiter["bandwidth"]["size"], 500);
    }

    #[test]
    fn devices_are_told_by_their_names_in_the_home() {
        let interface = NetworkInterface {
            iface_id: "eth0".into(),
            host_dev_name: "tap0".into(),
            guest_mac: None,
        };
        let blueprint = Blueprint {
            vcpu_count: 1,
            mem_size_mib: 128,
            track_dirty_pages: false,
            boot: None,
            drives: Vec::new(),
            interfaces: vec![interface],
            vsock_cid: Some(3),
            rate_limits: RateLimits::default(),
            entropy: true,
            mmds: Some(MmdsSettings { without_token: false, ipv4_address: None }),
            jail: None,
        };
        let devices = devices(&blueprint);
        let paths: Vec<_> = devices.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/network-interfaces/eth0", "/mmds/config", "/vsock", "/entropy"]);
        assert_eq!(devices[2].1, json!({ "guest_cid": 3, "uds_path": "vsock.sock" }));
        assert_eq!(devices[1].1["network_interfaces"], json!(["eth0"]));
    }
}
