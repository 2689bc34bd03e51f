//! From method, path and body to what is asked for; what makes no sense ends here.

use serde::de::DeserializeOwned;

use super::actions::Action;
use super::bodies::{
    ActionBody, ActionType, CustomCpuTemplate, FormerLoadSnapshotConfig, LoadSnapshotConfig,
    MmdsConfig, MmdsVersion, Vm, VmState,
};
use super::bodies_of_devices::{
    BalloonUpdateConfig, BlockDeviceUpdateConfig, Drive, NetworkInterface,
    NetworkInterfaceUpdateConfig, Vsock,
};
use super::settings::Settings;
use super::wire::Request;

/// What is asked for, and whether by something deprecated; or why it makes no sense.
type Routed = Result<(Action, bool), String>;

/// Understands a request; touches nothing.
pub(super) fn route(request: &Request, settings: &Settings) -> Routed {
    let mut words = request.path.trim_start_matches('/').split_terminator('/');
    let first = words.next().unwrap_or("");
    let second = words.next();
    match (request.method.as_str(), request.body.as_deref()) {
        ("GET", None) => get(first, second),
        ("GET", Some(_)) => Err("GET request cannot have a body.".to_owned()),
        ("PUT", Some(body)) => put(first, second, body, settings),
        ("PUT", None) => Err("Empty PUT request.".to_owned()),
        ("PATCH", Some(body)) => patch(first, second, body),
        ("PATCH", None) => Err("Empty PATCH request.".to_owned()),
        ("DELETE", Some(_)) => Err("Empty Delete request.".to_owned()),
        (method, _) => Err(unknown(method, first)),
    }
}

fn get(first: &str, second: Option<&str>) -> Routed {
    sound(match (first, second) {
        ("", _) => Action::GetInstance,
        ("balloon", None) => Action::GetBalloon,
        ("balloon", Some("statistics")) => Action::GetBalloonStatistics,
        ("balloon", Some(other)) => {
            return Err(format!("Unrecognized GET request path `{other}`."));
        }
        ("version", _) => Action::GetVersion,
        ("vm", Some("config")) => Action::GetFullConfig,
        ("machine-config", _) => Action::GetMachineConfig,
        ("mmds", _) => Action::GetMmds,
        _ => return Err(unknown("GET", first)),
    })
}

fn put(first: &str, second: Option<&str>, body: &[u8], settings: &Settings) -> Routed {
    match (first, second) {
        ("actions", _) => sound(match json::<ActionBody>(body)?.action_type {
            ActionType::FlushMetrics => Action::FlushMetrics,
            ActionType::InstanceStart => Action::Start,
            ActionType::SendCtrlAltDel => Action::SendCtrlAltDel,
        }),
        ("balloon", _) => sound(Action::SetBalloon(json(body)?)),
        ("boot-source", _) => sound(Action::SetBootSource(json(body)?)),
        ("cpu-config", _) => json::<CustomCpuTemplate>(body).and(sound(Action::SetCpuConfig)),
        ("drives", id) => {
            let id = checked_id(id)?;
            let drive: Drive = json(body)?;
            check_same_drive(id, &drive.drive_id).and(sound(Action::SetDrive(drive)))
        }
        ("logger", _) => sound(Action::SetLogger(json(body)?)),
        ("serial", _) => sound(Action::SetSerial(json(body)?)),
        ("machine-config", _) => sound(Action::SetMachineConfig(json(body)?)),
        ("metrics", _) => sound(Action::SetMetrics(json(body)?)),
        ("mmds", None) => sound(Action::PutMmds(json(body)?)),
        ("mmds", Some("config")) => {
            let config: MmdsConfig = json(body)?;
            let deprecated = config.version == MmdsVersion::V1;
            Ok((Action::SetMmdsConfig(config), deprecated))
        }
        ("mmds", Some(other)) => Err(format!("Unrecognized PUT request path `{other}`.")),
        ("network-interfaces", id) => {
            let id = checked_id(id)?;
            let interface: NetworkInterface = json(body)?;
            check_same_interface(id, &interface.iface_id)?;
            sound(Action::SetInterface(interface))
        }
        ("snapshot", Some("create")) => sound(Action::Create(json(body)?)),
        ("snapshot", Some("load")) => load(body, settings),
        ("snapshot", Some(other)) => Err(unknown("PUT", &format!("/snapshot/{other}"))),
        ("snapshot", None) => Err("Missing snapshot operation type.".to_owned()),
        ("vsock", _) => {
            let vsock: Vsock = json(body)?;
            let deprecated = vsock.vsock_id.is_some();
            Ok((Action::SetVsock(vsock), deprecated))
        }
        ("entropy", _) => sound(Action::SetEntropy(json(body)?)),
        _ => Err(unknown("PUT", first)),
    }
}

fn patch(first: &str, second: Option<&str>, body: &[u8]) -> Routed {
    match (first, second) {
        ("balloon", None) => {
            let update: BalloonUpdateConfig = json(body)?;
            sound(Action::UpdateBalloon(update.amount_mib))
        }
        ("drives", id) => {
            let id = checked_id(id)?;
            let update: BlockDeviceUpdateConfig = json(body)?;
            check_same_drive(id, &update.drive_id).and(sound(Action::UpdateDrive(update)))
        }
        ("machine-config", _) => {
            let update: super::bodies::MachineConfigUpdate = json(body)?;
            match update.is_empty() {
                true => Err("Empty PATCH request.".to_owned()),
                false => sound(Action::UpdateMachineConfig(update)),
            }
        }
        ("mmds", _) => sound(Action::PatchMmds(json(body)?)),
        ("network-interfaces", id) => {
            let id = checked_id(id)?;
            let update: NetworkInterfaceUpdateConfig = json(body)?;
            check_same_interface(id, &update.iface_id)?;
            sound(Action::UpdateInterface(update))
        }
        ("vm", _) => sound(match json::<Vm>(body)?.state {
            VmState::Paused => Action::Pause,
            VmState::Resumed => Action::Resume,
        }),
        _ => Err(unknown("PATCH", first)),
    }
}

fn load(body: &[u8], settings: &Settings) -> Routed {
    let config = match settings.is_at_least(1, 16) {
        true => json::<LoadSnapshotConfig>(body)?,
        false => json::<FormerLoadSnapshotConfig>(body)?.into(),
    };
    let either = "either `mem_backend` or `mem_file_path`";
    match (&config.mem_backend, &config.mem_file_path) {
        (Some(_), Some(_)) => {
            Err(bad_body(&format!("too many fields: {either} exclusively is required")))
        }
        (None, None) => Err(bad_body(&format!("missing field: {either} is required"))),
        (_, file) => {
            let deprecated = file.is_some() || config.enable_diff_snapshots;
            Ok((Action::Load(Box::new(config)), deprecated))
        }
    }
}

fn sound(action: Action) -> Routed {
    Ok((action, false))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| bad_body(&error.to_string()))
}

fn bad_body(reason: &str) -> String {
    format!("An error occurred when deserializing the json body of a request: {reason}.")
}

fn unknown(method: &str, path: &str) -> String {
    format!("Invalid request method and/or path: {method} {path}.")
}

fn checked_id(id: Option<&str>) -> Result<&str, String> {
    let id = id.filter(|id| !id.is_empty()).ok_or("The ID cannot be empty.")?;
    match id.chars().all(|letter| letter == '_' || letter.is_alphanumeric()) {
        true => Ok(id),
        false => {
            Err("API Resource IDs can only contain alphanumeric characters and underscores."
                .to_owned())
        }
    }
}

fn check_same_drive(path: &str, body: &str) -> Result<(), String> {
    match path == body {
        true => Ok(()),
        false => Err("The id from the path does not match the id from the body!".to_owned()),
    }
}

fn check_same_interface(path: &str, body: &str) -> Result<(), String> {
    match path == body {
        true => Ok(()),
        false => Err(format!(
            "The id from the path [{path}] does not match the id from the body [{body}]!"
        )),
    }
}
