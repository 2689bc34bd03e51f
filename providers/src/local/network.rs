//! Network interfaces of VMs, as the host has them.

use std::path::Path;

use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;
use crate::model::NetworkInterface;

/// Where the kernel lists the host's network devices.
pub(crate) const HOST_DEVICES: &str = "/sys/class/net";

/// The interface with its TAP checked, and with an address that no other VM of ours has. It is
/// looked for in `devices`, where the kernel lists them; `None`: they are elsewhere.
///
/// # Errors
/// `InvalidSpec` of `network_interfaces`.
pub(crate) fn on_host(
    uid: Uid,
    index: usize,
    wanted: &NetworkInterface,
    devices: Option<&Path>,
) -> Result<NetworkInterface> {
    let refuse =
        |reason: String| Err(VmRuntimeError::InvalidSpec { field: "network_interfaces", reason });
    let name = wanted.host_dev_name.as_str();
    let valid = !name.is_empty() && name.len() < 16 && !name.contains(['/', ',', '\0']);
    if !valid || name == "." || name == ".." {
        return refuse(format!("{name:?} is no name of a network device"));
    }
    if devices.is_some_and(|devices| !devices.join(name).join("tun_flags").exists()) {
        return refuse(format!("this host has no TAP device {name}"));
    }
    if let Some(mac) = &wanted.guest_mac {
        let octets: Vec<_> = mac.split(':').collect();
        let hex = |octet: &&str| octet.len() == 2 && u8::from_str_radix(octet, 16).is_ok();
        if octets.len() != 6 || !octets.iter().all(hex) {
            return refuse(format!("{mac:?} is no MAC address"));
        }
    }
    let guest_mac = wanted.guest_mac.clone().or_else(|| Some(mac_of(uid, index)));
    Ok(NetworkInterface { guest_mac, ..wanted.clone() })
}

/// In the range that is administered locally, from the digits of the uid.
fn mac_of(uid: Uid, index: usize) -> String {
    let digits: Vec<u8> = uid.to_string().bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.rchunks(2).take(4);
    let octets = pairs.map(|pair| format!(":{}", String::from_utf8_lossy(pair)));
    format!("06:{index:02x}{}", octets.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_by_vm_and_by_interface() {
        let (one, other) = (Uid::from_random([7; 16]), Uid::from_random([8; 16]));
        assert_ne!(mac_of(one, 0), mac_of(other, 0));
        assert_ne!(mac_of(one, 0), mac_of(one, 1));
        assert_eq!(mac_of(one, 0).len(), 17);
    }
}
