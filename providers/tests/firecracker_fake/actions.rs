//! What a request asks the VMM to do.

use serde_json::Value;

use super::bodies::{
    BootSource, CreateSnapshotParams, LoadSnapshotConfig, LoggerConfig, MachineConfig,
    MachineConfigUpdate, MetricsConfig, MmdsConfig, SerialConfig,
};
use super::bodies_of_devices::{
    Balloon, BlockDeviceUpdateConfig, Drive, Entropy, NetworkInterface,
    NetworkInterfaceUpdateConfig, Vsock,
};

/// What a request asks for, once its body was understood.
#[derive(Debug)]
pub(super) enum Action {
    GetBalloon,
    GetBalloonStatistics,
    GetFullConfig,
    GetInstance,
    GetMachineConfig,
    GetMmds,
    GetVersion,
    SetMachineConfig(MachineConfig),
    UpdateMachineConfig(MachineConfigUpdate),
    SetBootSource(BootSource),
    SetCpuConfig,
    SetDrive(Drive),
    UpdateDrive(BlockDeviceUpdateConfig),
    SetInterface(NetworkInterface),
    UpdateInterface(NetworkInterfaceUpdateConfig),
    SetVsock(Vsock),
    SetEntropy(Entropy),
    SetBalloon(Balloon),
    UpdateBalloon(u32),
    SetLogger(LoggerConfig),
    SetMetrics(MetricsConfig),
    SetSerial(SerialConfig),
    SetMmdsConfig(MmdsConfig),
    PutMmds(Value),
    PatchMmds(Value),
    Start,
    FlushMetrics,
    SendCtrlAltDel,
    Pause,
    Resume,
    Create(CreateSnapshotParams),
    Load(Box<LoadSnapshotConfig>),
}
