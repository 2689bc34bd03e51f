//! The bodies that describe devices, and the configuration that `GET /vm/config` shows.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bodies::{BootSource, MachineConfig, MmdsConfig};

/// `GET /vm/config`, and what of it a state file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Config {
    pub(super) balloon: Option<Balloon>,
    pub(super) drives: Vec<Drive>,
    pub(super) boot_source: BootSource,
    cpu_config: Option<Value>,
    logger: Option<Value>,
    pub(super) machine_config: MachineConfig,
    metrics: Option<Value>,
    pub(super) mmds_config: Option<MmdsConfig>,
    pub(super) network_interfaces: Vec<NetworkInterface>,
    pub(super) vsock: Option<Vsock>,
    pub(super) entropy: Option<Entropy>,
    pmem: Vec<Value>,
    memory_hotplug: Option<Value>,
}

/// `PUT /drives/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "BlockDeviceConfig")]
pub(super) struct Drive {
    pub(super) drive_id: String,
    partuuid: Option<String>,
    pub(super) is_root_device: bool,
    #[serde(default)]
    cache_type: CacheType,
    pub(super) is_read_only: Option<bool>,
    pub(super) path_on_host: Option<String>,
    rate_limiter: Option<RateLimiter>,
    pub(super) io_engine: Option<FileEngineType>,
    pub(super) socket: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum CacheType {
    #[default]
    Unsafe,
    Writeback,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum FileEngineType {
    Async,
    Sync,
}

/// `PATCH /drives/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockDeviceUpdateConfig {
    pub(super) drive_id: String,
    pub(super) path_on_host: Option<String>,
    pub(super) rate_limiter: Option<RateLimiter>,
}

/// `PUT /network-interfaces/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "NetworkInterfaceConfig")]
pub(super) struct NetworkInterface {
    pub(super) iface_id: String,
    pub(super) host_dev_name: String,
    pub(super) guest_mac: Option<Mac>,
    mtu: Option<u16>,
    rx_rate_limiter: Option<RateLimiter>,
    tx_rate_limiter: Option<RateLimiter>,
}

/// `PATCH /network-interfaces/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkInterfaceUpdateConfig {
    pub(super) iface_id: String,
    #[serde(rename = "rx_rate_limiter")]
    _rx_rate_limiter: Option<RateLimiter>,
    #[serde(rename = "tx_rate_limiter")]
    _tx_rate_limiter: Option<RateLimiter>,
}

/// A MAC address; shown in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Mac(pub(super) String);

impl TryFrom<String> for Mac {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_byte = |part: &str| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
        match text.split(':').count() == 6 && text.split(':').all(is_byte) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("The provided MAC address is invalid."),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "RateLimiterConfig")]
pub(super) struct RateLimiter {
    bandwidth: Option<TokenBucket>,
    ops: Option<TokenBucket>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename = "TokenBucketConfig")]
struct TokenBucket {
    size: u64,
    one_time_burst: Option<u64>,
    refill_time: u64,
}

/// `PUT /vsock`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "VsockDeviceConfig")]
pub(super) struct Vsock {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) vsock_id: Option<String>,
    guest_cid: u32,
    pub(super) uds_path: String,
}

/// `PUT /entropy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "EntropyDeviceConfig")]
pub(super) struct Entropy {
    rate_limiter: Option<RateLimiter>,
}

/// `PUT /balloon`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "BalloonDeviceConfig")]
pub(super) struct Balloon {
    pub(super) amount_mib: u32,
    deflate_on_oom: bool,
    #[serde(default)]
    stats_polling_interval_s: u16,
    #[serde(default)]
    free_page_hinting: bool,
    #[serde(default)]
    free_page_reporting: bool,
}

/// `PATCH /balloon`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BalloonUpdateConfig {
    pub(super) amount_mib: u32,
}
