//! What a VM is made of. What is asked for and cannot be had is refused by name.

use std::path::{Path, PathBuf};

use hearth_pool::error::{Error, Result};
use hearth_proto::v1;
use hearth_providers::model::{
    self, Drive, NetworkInterface, RateLimits, SnapshotRef, SnapshotSource, VmSpec,
};
use hearth_providers::{SnapshotId, VmId};

use crate::check::Fields;

/// The most interfaces, and the most further drives, of one VM.
const MAX_DEVICES: usize = 16;

/// The spec in the field `path`.
///
/// # Errors
/// `Unimplemented` for what cannot be had; what is wrong goes to `fields`.
pub(crate) fn spec(fields: &mut Fields, path: &str, spec: v1::VmSpec) -> Result<VmSpec> {
    let at = |field: &str| format!("{path}.{field}");
    let default = VmSpec::default();
    if let Some(from) = spec.restore_from {
        let restore_from = snapshot_ref(fields, &at("restore_from"), from)?;
        return Ok(VmSpec { restore_from, ..default });
    }
    let file = |file: String| (!file.is_empty()).then(|| PathBuf::from(file));
    let positive = |fields: &mut Fields, field: &str, number: Option<i32>, unset: u32| {
        let Some(number) = number else { return unset };
        u32::try_from(number).ok().filter(|number| *number > 0).unwrap_or_else(|| {
            fields.wrong(at(field), "it must be at least 1");
            unset
        })
    };
    let vcpu_count = positive(fields, "vcpu_count", spec.vcpu_count, default.vcpu_count);
    let unset = u32::try_from(default.mem_size_mib).unwrap_or(u32::MAX);
    let mem_size_mib = positive(fields, "mem_size_mib", spec.mem_size_mib, unset).into();
    for (field, devices) in [
        ("network_interfaces", spec.network_interfaces.len()),
        ("extra_drives", spec.extra_drives.len()),
    ] {
        if devices > MAX_DEVICES {
            fields.wrong(at(field), format_args!("there are more than {MAX_DEVICES}"));
        }
    }
    let rate_limits = match spec.rootfs_rate_limit {
        Some(_) if !spec.extra_drives.is_empty() => {
            return Err(Error::Unimplemented { what: "a limit on one drive of several" });
        }
        Some(limit) => disk_limits(fields, &at("rootfs_rate_limit"), &limit)?,
        None => RateLimits::default(),
    };
    let interfaces = &at("network_interfaces");
    let network_interfaces = interfaces_of(fields, interfaces, spec.network_interfaces)?;
    let drives = spec.extra_drives.into_iter().enumerate();
    let extra_drives = drives
        .map(|(index, it)| drive(fields, &at(&format!("extra_drives[{index}]")), it))
        .collect::<Result<_>>()?;
    let vsock_cid = match spec.vsock {
        None => None,
        Some(v1::Vsock { guest_cid: 0 }) => {
            return Err(Error::Unimplemented { what: "a vsock whose cid the provider picks" });
        }
        Some(v1::Vsock { guest_cid }) => {
            if guest_cid < 3 {
                fields.wrong(at("vsock.guest_cid"), "it must be at least 3");
            }
            Some(guest_cid)
        }
    };
    Ok(VmSpec {
        kernel: file(spec.kernel),
        initrd: file(spec.initrd),
        rootfs: file(spec.rootfs),
        rootfs_read_only: spec.rootfs_read_only.unwrap_or(default.rootfs_read_only),
        image: (!spec.image.is_empty()).then_some(spec.image),
        vcpu_count,
        mem_size_mib,
        boot_args: spec.boot_args.unwrap_or(default.boot_args),
        network_interfaces,
        extra_drives,
        rate_limits,
        vsock_cid,
        track_dirty_pages: spec.track_dirty_pages.unwrap_or(default.track_dirty_pages),
        restore_from: None,
        tags: default.tags,
    })
}

/// The reference in the field `path`.
///
/// # Errors
/// As for [`spec`].
pub(crate) fn snapshot_ref(
    fields: &mut Fields,
    path: &str,
    from: v1::SnapshotRef,
) -> Result<Option<SnapshotRef>> {
    use v1::snapshot_ref::Vm;
    let source = match from.vm {
        Some(Vm::VmId(id)) => {
            fields.id(&format!("{path}.vm_id"), &id, VmId::parse).map(SnapshotSource::Name)
        }
        Some(Vm::Uid(uid)) if !uid.is_empty() => {
            fields.uid(&format!("{path}.uid"), &uid).map(SnapshotSource::VmUid)
        }
        Some(Vm::Uid(_)) | None => {
            fields.wrong(format!("{path}.vm_id"), "vm_id or uid must be set");
            None
        }
    };
    let at = format!("{path}.snapshot_id");
    let snapshot_id = fields.id(&at, &from.snapshot_id, SnapshotId::parse);
    let at = format!("{path}.network_overrides");
    let network_overrides = interfaces_of(fields, &at, from.network_overrides)?;
    let resume_immediately = from.resume_immediately;
    Ok(source.zip(snapshot_id).map(|(source, snapshot_id)| SnapshotRef {
        source,
        snapshot_id,
        resume_immediately,
        network_overrides,
    }))
}

/// The interfaces in the field `path`.
///
/// # Errors
/// As for [`spec`].
pub(crate) fn interfaces_of(
    fields: &mut Fields,
    path: &str,
    interfaces: Vec<v1::NetworkInterface>,
) -> Result<Vec<NetworkInterface>> {
    if interfaces.len() > MAX_DEVICES {
        fields.wrong(path, format_args!("there are more than {MAX_DEVICES}"));
        return Ok(Vec::new());
    }
    let mut seen = std::collections::BTreeSet::new();
    let each = interfaces.into_iter().enumerate().map(|(index, interface)| {
        let at = |field: &str| format!("{path}[{index}].{field}");
        if interface.rx_rate_limiter.is_some() || interface.tx_rate_limiter.is_some() {
            return Err(Error::Unimplemented { what: "a limit on one network interface" });
        }
        if interface.iface_id.is_empty() || !seen.insert(interface.iface_id.clone()) {
            fields.wrong(at("iface_id"), "it must be set, and be unique");
        }
        // IFNAMSIZ, with the zero at the end.
        if interface.host_dev_name.is_empty() || interface.host_dev_name.len() > 15 {
            fields.wrong(at("host_dev_name"), "it must have 1 to 15 bytes");
        }
        let guest_mac = (!interface.guest_mac.is_empty()).then_some(interface.guest_mac);
        if guest_mac.as_deref().is_some_and(|mac| !is_mac(mac)) {
            fields.wrong(at("guest_mac"), "it must be of the form xx:xx:xx:xx:xx:xx");
        }
        let (iface_id, host_dev_name) = (interface.iface_id, interface.host_dev_name);
        Ok(NetworkInterface { iface_id, host_dev_name, guest_mac })
    });
    each.collect()
}

fn is_mac(mac: &str) -> bool {
    let bytes: Vec<_> = mac.split(':').collect();
    let is_byte = |it: &&str| it.len() == 2 && it.bytes().all(|digit| digit.is_ascii_hexdigit());
    bytes.len() == 6 && bytes.iter().all(is_byte)
}

fn drive(fields: &mut Fields, path: &str, drive: v1::Drive) -> Result<Drive> {
    if drive.rate_limiter.is_some() {
        return Err(Error::Unimplemented { what: "a limit on one drive of several" });
    }
    if drive.drive_id.is_empty() {
        fields.wrong(format!("{path}.drive_id"), "it must be set");
    }
    if drive.path_on_host.is_empty() {
        fields.wrong(format!("{path}.path_on_host"), "it must be set");
    }
    let path = PathBuf::from(drive.path_on_host);
    Ok(Drive { drive_id: drive.drive_id, path, read_only: drive.read_only })
}

fn disk_limits(fields: &mut Fields, path: &str, limit: &v1::RateLimiter) -> Result<RateLimits> {
    let mut per_second = |field: &str, bucket: &Option<v1::TokenBucket>| {
        let Some(bucket) = bucket else { return Ok(0) };
        if bucket.one_time_burst.is_some() {
            return Err(Error::Unimplemented { what: "a burst beyond a limit" });
        }
        let at = format!("{path}.{field}");
        let Some(refill) = fields.duration(&at, bucket.refill_time) else {
            fields.wrong(format!("{at}.refill_time"), "it must be set");
            return Ok(0);
        };
        let rate = bucket.size as f64 / refill.as_secs_f64();
        if !(1.0..1e15).contains(&rate) {
            fields.wrong(at, "it must be at least one token a second");
        }
        Ok(rate as u64)
    };
    Ok(RateLimits {
        disk_bytes_per_second: per_second("bandwidth", &limit.bandwidth)?,
        disk_operations_per_second: per_second("ops", &limit.ops)?,
        network_bytes_per_second: 0,
    })
}

/// A spec on the wire.
pub(crate) fn to_wire(spec: &VmSpec) -> v1::VmSpec {
    let file = |file: &Option<PathBuf>| file.as_deref().map(text).unwrap_or_default();
    let limits = spec.rate_limits;
    let bucket = |size: u64| {
        let refill_time = super::duration(std::time::Duration::from_secs(1));
        (size > 0).then_some(v1::TokenBucket { size, one_time_burst: None, refill_time })
    };
    let rate_limit = v1::RateLimiter {
        bandwidth: bucket(limits.disk_bytes_per_second),
        ops: bucket(limits.disk_operations_per_second),
    };
    let is_limited = rate_limit.bandwidth.is_some() || rate_limit.ops.is_some();
    v1::VmSpec {
        kernel: file(&spec.kernel),
        initrd: file(&spec.initrd),
        rootfs: file(&spec.rootfs),
        rootfs_read_only: Some(spec.rootfs_read_only),
        image: spec.image.clone().unwrap_or_default(),
        vcpu_count: i32::try_from(spec.vcpu_count).ok(),
        mem_size_mib: i32::try_from(spec.mem_size_mib).ok(),
        boot_args: Some(spec.boot_args.clone()),
        rootfs_rate_limit: is_limited.then_some(rate_limit),
        network_interfaces: spec.network_interfaces.iter().map(interface_to_wire).collect(),
        extra_drives: spec.extra_drives.iter().map(drive_to_wire).collect(),
        vsock: spec.vsock_cid.map(|guest_cid| v1::Vsock { guest_cid }),
        track_dirty_pages: Some(spec.track_dirty_pages),
        restore_from: spec.restore_from.as_ref().map(reference_to_wire),
    }
}

fn reference_to_wire(from: &SnapshotRef) -> v1::SnapshotRef {
    let vm = match &from.source {
        SnapshotSource::Name(vm_id) => v1::snapshot_ref::Vm::VmId(vm_id.to_string()),
        SnapshotSource::VmUid(uid) => v1::snapshot_ref::Vm::Uid(uid.to_string()),
    };
    v1::SnapshotRef {
        vm: Some(vm),
        snapshot_id: from.snapshot_id.to_string(),
        resume_immediately: from.resume_immediately,
        network_overrides: from.network_overrides.iter().map(interface_to_wire).collect(),
    }
}

fn interface_to_wire(interface: &NetworkInterface) -> v1::NetworkInterface {
    v1::NetworkInterface {
        iface_id: interface.iface_id.clone(),
        host_dev_name: interface.host_dev_name.clone(),
        guest_mac: interface.guest_mac.clone().unwrap_or_default(),
        rx_rate_limiter: None,
        tx_rate_limiter: None,
    }
}

fn drive_to_wire(drive: &model::Drive) -> v1::Drive {
    v1::Drive {
        drive_id: drive.drive_id.clone(),
        path_on_host: text(&drive.path),
        read_only: drive.read_only,
        rate_limiter: None,
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: v1::VmSpec) -> Result<VmSpec> {
        let mut fields = Fields::default();
        let read = spec(&mut fields, "spec", wire)?;
        fields.done().map(|()| read)
    }

    fn violated(wire: v1::VmSpec) -> Vec<String> {
        let Err(Error::InvalidArgument(violations)) = read(wire) else { panic!("it is right") };
        violations.into_iter().map(|it| it.field).collect()
    }

    #[test]
    fn a_spec_survives_the_wire() {
        let made = VmSpec {
            kernel: Some("/k".into()),
            initrd: Some("/i".into()),
            rootfs: Some("/r".into()),
            rootfs_read_only: true,
            vcpu_count: 3,
            mem_size_mib: 300,
            boot_args: "quiet".to_owned(),
            network_interfaces: vec![NetworkInterface {
                iface_id: "eth0".to_owned(),
                host_dev_name: "tap0".to_owned(),
                guest_mac: Some("02:00:00:00:00:01".to_owned()),
            }],
            rate_limits: RateLimits {
                disk_bytes_per_second: 1000,
                disk_operations_per_second: 10,
                network_bytes_per_second: 0,
            },
            vsock_cid: Some(7),
            ..VmSpec::default()
        };
        assert_eq!(read(to_wire(&made)).unwrap(), made);
        assert_eq!(read(v1::VmSpec::default()).unwrap(), VmSpec::default());
    }

    #[test]
    fn nothing_is_not_a_size() {
        let none = v1::VmSpec { vcpu_count: Some(0), mem_size_mib: Some(0), ..Default::default() };
        assert_eq!(violated(none), ["spec.vcpu_count", "spec.mem_size_mib"]);
        let less =
            v1::VmSpec { vcpu_count: Some(-1), mem_size_mib: Some(-1), ..Default::default() };
        assert_eq!(violated(less).len(), 2);
    }

    #[test]
    fn a_restore_ignores_the_fields_of_a_boot_and_checks_its_own() {
        let from = v1::SnapshotRef {
            vm: Some(v1::snapshot_ref::Vm::VmId("a".to_owned())),
            snapshot_id: "s".to_owned(),
            ..Default::default()
        };
        let wire = v1::VmSpec {
            vcpu_count: Some(0),
            restore_from: Some(from.clone()),
            ..Default::default()
        };
        assert!(read(wire).unwrap().restore_from.is_some());
        let wrong = v1::SnapshotRef { vm: None, snapshot_id: "../x".to_owned(), ..from };
        let wire = v1::VmSpec { restore_from: Some(wrong), ..Default::default() };
        assert_eq!(violated(wire), ["spec.restore_from.vm_id", "spec.restore_from.snapshot_id"]);
    }

    #[test]
    fn what_cannot_be_had_is_refused_and_not_dropped() {
        let limited = v1::NetworkInterface {
            rx_rate_limiter: Some(v1::RateLimiter::default()),
            ..Default::default()
        };
        for wire in [
            v1::VmSpec { vsock: Some(v1::Vsock { guest_cid: 0 }), ..Default::default() },
            v1::VmSpec { network_interfaces: vec![limited], ..Default::default() },
        ] {
            assert!(matches!(read(wire), Err(Error::Unimplemented { .. })));
        }
    }
}
