//! The argument vector: a pure function of the blueprint and the host.
//!
//! Paths of the instance are relative to its directory, in which QEMU works: a socket's path has
//! to fit into 108 bytes, and a state directory need not. Options with paths in them are JSON,
//! in which a comma means nothing.

use std::ffi::OsString;

use serde_json::json;

use super::blueprint::{Blueprint, Memory};
use super::host::Host;

/// The monitor's socket, in the instance's directory.
pub(super) const MONITOR: &str = "qmp.sock";
/// The socket of the guest's agent.
pub(super) const AGENT: &str = "agent.sock";
/// What the guest writes on its serial port.
pub(super) const CONSOLE: &str = "console";
/// The guest's memory, of a machine that was booted.
pub(super) const RAM: &str = "ram";

/// How a machine comes to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It boots and runs.
    Boot,
    /// It waits for a state to be loaded, and then for being told to run.
    Incoming,
}

pub(super) fn arguments(
    name: &str,
    blueprint: &Blueprint,
    host: &Host,
    beginning: Beginning,
) -> Vec<OsString> {
    let mut arguments = Arguments(Vec::new());
    let a = &mut arguments;
    a.add("-name", &format!("hearth-{name}"));
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        a.0.push(flag.into());
    }
    a.add("-display", "none");
    a.0.extend(host.confinement().into_iter().flatten().map(OsString::from));
    a.json("-object", &memory(blueprint));
    a.add("-machine", &format!("{},memory-backend=ram", host.machine));
    a.add("-accel", host.accel);
    a.add("-cpu", host.cpu);
    a.add("-smp", &blueprint.vcpu_count.to_string());
    a.add("-m", &format!("{}M", blueprint.mem_size_mib));
    if let (Beginning::Boot, Some(boot)) = (beginning, &blueprint.boot) {
        a.0.extend(["-kernel".into(), boot.kernel.clone().into_os_string()]);
        a.add("-append", &boot.command_line);
        if let Some(initrd) = &boot.initrd {
            a.0.extend(["-initrd".into(), initrd.clone().into_os_string()]);
        }
    }
    a.add("-chardev", &format!("file,id=console,path={CONSOLE},append=on"));
    a.add("-serial", "chardev:console");
    a.json("-device", &json!({ "driver": "virtio-serial-pci" }));
    a.add("-chardev", &format!("socket,id=agent,path={AGENT},server=on,wait=off"));
    a.json("-device", &json!({ "driver": "virtserialport", "chardev": "agent", "name": "agent" }));
    add_disks(a, blueprint);
    add_interfaces(a, blueprint);
    if let Some(cid) = blueprint.vsock_cid {
        a.json("-device", &json!({ "driver": "vhost-vsock-pci", "guest-cid": cid }));
    }
    if beginning == Beginning::Incoming {
        a.add("-incoming", "defer");
        a.0.push("-S".into());
    }
    a.add("-qmp", &format!("unix:{MONITOR},server=on,wait=off"));
    arguments.0
}

fn memory(blueprint: &Blueprint) -> serde_json::Value {
    let size = blueprint.mem_size_bytes();
    match &blueprint.memory {
        Memory::OwnFile => json!({
            "qom-type": "memory-backend-file", "id": "ram", "size": size,
            "mem-path": RAM, "share": true,
        }),
        // The file is opened for reading alone: no error of ours or QEMU's can write to it.
        Memory::CloneOf(path) => json!({
            "qom-type": "memory-backend-file", "id": "ram", "size": size,
            "mem-path": path.to_string_lossy(), "share": false, "readonly": true, "rom": "off",
        }),
        Memory::Private => json!({ "qom-type": "memory-backend-ram", "id": "ram", "size": size }),
    }
}

fn add_disks(a: &mut Arguments, blueprint: &Blueprint) {
    let limits = blueprint.rate_limits;
    let mut group = serde_json::Map::new();
    for (name, limit) in [
        ("bps-total", limits.disk_bytes_per_second),
        ("iops-total", limits.disk_operations_per_second),
    ] {
        if limit != 0 {
            group.insert(name.to_owned(), limit.into());
        }
    }
    let throttled = !group.is_empty();
    if throttled {
        a.json(
            "-object",
            &json!({ "qom-type": "throttle-group", "id": "limits", "limits": group }),
        );
    }
    for (index, disk) in blueprint.disks.iter().enumerate() {
        let (node, device) = disk.arguments(index, throttled);
        a.json("-blockdev", &node);
        a.json("-device", &device);
    }
}

fn add_interfaces(a: &mut Arguments, blueprint: &Blueprint) {
    for (index, interface) in blueprint.interfaces.iter().enumerate() {
        let id = format!("net-{index}");
        let tap = &interface.host_dev_name;
        a.json(
            "-netdev",
            &json!({ "type": "tap", "id": id, "ifname": tap, "script": "no", "downscript": "no" }),
        );
        let mut device = json!({ "driver": "virtio-net-pci", "netdev": id, "romfile": "" });
        if let Some(mac) = &interface.guest_mac {
            device["mac"] = mac.as_str().into();
        }
        a.json("-device", &device);
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    fn json(&mut self, option: &str, value: &serde_json::Value) {
        self.add(option, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::{NetworkInterface, RateLimits};

    fn host() -> Host {
        Host {
            binary: "qemu".into(),
            version: "10.0.2".to_owned(),
            accel: "tcg",
            accel_reason: String::new(),
            cpu: "max",
            machine: "q35".to_owned(),
            sandboxed: true,
            user: None,
        }
    }

    fn blueprint(memory: Memory) -> Blueprint {
        Blueprint {
            vcpu_count: 2,
            mem_size_mib: 64,
            memory,
            boot: Some(super::super::blueprint::Boot {
                kernel: "/k".into(),
                initrd: None,
                command_line: "quiet".to_owned(),
            }),
            disks: Vec::new(),
            interfaces: Vec::new(),
            vsock_cid: None,
            rate_limits: RateLimits::default(),
        }
    }

    fn text(blueprint: &Blueprint, beginning: Beginning) -> String {
        let arguments = arguments("uid", blueprint, &host(), beginning);
        arguments.iter().map(|it| it.to_string_lossy() + "\n").collect()
    }

    #[test]
    fn a_boot_shares_its_memory_with_a_file_of_its_own() {
        let text = text(&blueprint(Memory::OwnFile), Beginning::Boot);
        assert!(text.contains("-kernel\n/k\n") && text.contains("-append\nquiet\n"));
        assert!(text.contains("\"mem-path\":\"ram\"") && text.contains("\"share\":true"));
        assert!(text.contains("-sandbox\non,") && text.contains("-smp\n2\n"));
        assert!(!text.contains("-incoming") && !text.contains("-S\n"));
    }

    #[test]
    fn a_clone_reads_the_memory_of_its_snapshot_and_boots_nothing() {
        let from = PathBuf::from("/state, of hearth/ram");
        let text = text(&blueprint(Memory::CloneOf(from)), Beginning::Incoming);
        assert!(text.contains("\"mem-path\":\"/state, of hearth/ram\""));
        assert!(text.contains("\"share\":false") && text.contains("\"readonly\":true"));
        assert!(text.contains("-incoming\ndefer\n-S\n") && !text.contains("-kernel"));
    }

    #[test]
    fn limits_and_interfaces_become_devices() {
        let mut blueprint = blueprint(Memory::Private);
        blueprint.rate_limits.disk_operations_per_second = 100;
        let tap = NetworkInterface { host_dev_name: "tap0".to_owned(), ..Default::default() };
        blueprint.interfaces.push(tap);
        let text = text(&blueprint, Beginning::Incoming);
        assert!(text.contains("\"iops-total\":100") && !text.contains("bps-total"));
        assert!(text.contains("\"ifname\":\"tap0\"") && text.contains("virtio-net-pci"));
    }
}
