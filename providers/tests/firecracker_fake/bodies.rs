//! The bodies of requests, as strict as the real ones.
//!
//! Names and their order matter: a body that does not fit is answered with serde's own words,
//! which list them.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `PUT /machine-config`, and what `GET` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineConfig {
    pub(super) vcpu_count: u8,
    pub(super) mem_size_mib: usize,
    #[serde(default)]
    pub(super) smt: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cpu_template: Option<CpuTemplate>,
    #[serde(default)]
    pub(super) track_dirty_pages: bool,
    #[serde(default)]
    pub(super) huge_pages: HugePages,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
        }
    }
}

/// `PATCH /machine-config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineConfigUpdate {
    #[serde(default)]
    pub(super) vcpu_count: Option<u8>,
    #[serde(default)]
    pub(super) mem_size_mib: Option<usize>,
    #[serde(default)]
    pub(super) smt: Option<bool>,
    #[serde(default)]
    pub(super) cpu_template: Option<CpuTemplate>,
    #[serde(default)]
    pub(super) track_dirty_pages: Option<bool>,
    #[serde(default)]
    pub(super) huge_pages: Option<HugePages>,
}

impl MachineConfigUpdate {
    pub(super) fn is_empty(&self) -> bool {
        self.vcpu_count.is_none()
            && self.mem_size_mib.is_none()
            && self.smt.is_none()
            && self.cpu_template.is_none()
            && self.track_dirty_pages.is_none()
            && self.huge_pages.is_none()
    }
}

impl From<MachineConfig> for MachineConfigUpdate {
    fn from(config: MachineConfig) -> Self {
        Self {
            vcpu_count: Some(config.vcpu_count),
            mem_size_mib: Some(config.mem_size_mib),
            smt: Some(config.smt),
            cpu_template: config.cpu_template,
            track_dirty_pages: Some(config.track_dirty_pages),
            huge_pages: Some(config.huge_pages),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CpuTemplate {
    C3,
    T2,
    T2S,
    T2CL,
    T2A,
    V1N1,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HugePages {
    #[default]
    None,
    #[serde(rename = "2M")]
    TwoMib,
}

/// `PUT /boot-source`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "BootSourceConfig")]
pub(super) struct BootSource {
    pub(super) kernel_image_path: String,
    pub(super) initrd_path: Option<String>,
    pub(super) boot_args: Option<String>,
}

/// `PUT /actions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionBody {
    pub(super) action_type: ActionType,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum ActionType {
    FlushMetrics,
    InstanceStart,
    SendCtrlAltDel,
}

/// `PATCH /vm`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vm {
    pub(super) state: VmState,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum VmState {
    Paused,
    Resumed,
}

/// `PUT /snapshot/create`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSnapshotParams {
    #[serde(default)]
    pub(super) snapshot_type: SnapshotType,
    pub(super) snapshot_path: PathBuf,
    pub(super) mem_file_path: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum SnapshotType {
    Diff,
    #[default]
    Full,
}

/// `PUT /snapshot/load`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadSnapshotConfig {
    pub(super) snapshot_path: PathBuf,
    pub(super) mem_file_path: Option<PathBuf>,
    pub(super) mem_backend: Option<MemBackendConfig>,
    #[serde(default)]
    pub(super) enable_diff_snapshots: bool,
    #[serde(default)]
    pub(super) track_dirty_pages: bool,
    #[serde(default)]
    pub(super) resume_vm: bool,
    #[serde(default)]
    pub(super) network_overrides: Vec<NetworkOverride>,
    pub(super) vsock_override: Option<VsockOverride>,
    #[serde(default)]
    pub(super) clock_realtime: bool,
}

/// `PUT /snapshot/load` before 1.16.0.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename = "LoadSnapshotConfig")]
pub(super) struct FormerLoadSnapshotConfig {
    snapshot_path: PathBuf,
    mem_file_path: Option<PathBuf>,
    mem_backend: Option<MemBackendConfig>,
    #[serde(default)]
    enable_diff_snapshots: bool,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default)]
    resume_vm: bool,
    #[serde(default)]
    network_overrides: Vec<NetworkOverride>,
}

impl From<FormerLoadSnapshotConfig> for LoadSnapshotConfig {
    fn from(former: FormerLoadSnapshotConfig) -> Self {
        Self {
            snapshot_path: former.snapshot_path,
            mem_file_path: former.mem_file_path,
            mem_backend: former.mem_backend,
            enable_diff_snapshots: former.enable_diff_snapshots,
            track_dirty_pages: former.track_dirty_pages,
            resume_vm: former.resume_vm,
            network_overrides: former.network_overrides,
            vsock_override: None,
            clock_realtime: false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemBackendConfig {
    pub(super) backend_path: PathBuf,
    pub(super) backend_type: MemBackendType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum MemBackendType {
    File,
    Uffd,
}

/// Further fields of an override are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct NetworkOverride {
    pub(super) iface_id: String,
    pub(super) host_dev_name: String,
}

/// Further fields of an override are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct VsockOverride {
    pub(super) uds_path: String,
}

/// `PUT /logger`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoggerConfig {
    pub(super) log_path: Option<PathBuf>,
    pub(super) level: Option<Level>,
    #[serde(rename = "show_level")]
    _show_level: Option<bool>,
    #[serde(rename = "show_log_origin")]
    _show_log_origin: Option<bool>,
    #[serde(rename = "module")]
    _module: Option<String>,
}

/// A level's name, in any case.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Level;

impl TryFrom<String> for Level {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let known = ["off", "trace", "debug", "info", "warn", "warning", "error"];
        match known.contains(&name.to_ascii_lowercase().as_str()) {
            true => Ok(Self),
            false => Err("Invalid LevelFilter"),
        }
    }
}

/// `PUT /metrics`; further fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct MetricsConfig {
    pub(super) metrics_path: PathBuf,
}

/// `PUT /serial`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialConfig {
    pub(super) serial_out_path: Option<PathBuf>,
    #[serde(rename = "rate_limiter")]
    _rate_limiter: Option<Value>,
}

/// `PUT /mmds/config`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MmdsConfig {
    #[serde(default)]
    pub(super) version: MmdsVersion,
    pub(super) network_interfaces: Vec<String>,
    pub(super) ipv4_address: Option<Ipv4Addr>,
    #[serde(default)]
    pub(super) imds_compat: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MmdsVersion {
    #[default]
    V1,
    V2,
}

/// `PUT /cpu-config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CustomCpuTemplate {
    #[serde(default, rename = "kvm_capabilities")]
    _kvm_capabilities: Vec<String>,
    #[serde(default, rename = "cpuid_modifiers")]
    _cpuid_modifiers: Vec<Value>,
    #[serde(default, rename = "msr_modifiers")]
    _msr_modifiers: Vec<Value>,
}
