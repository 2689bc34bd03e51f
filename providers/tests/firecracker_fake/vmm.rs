//! The VMM: what it was told, what it holds open, and in which of its three states it is.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use serde_json::json;

use super::actions::Action;
use super::answer::Answer;
use super::bodies_of_devices::{Config, Drive, NetworkInterface};
use super::console::Console;
use super::errors::{backing_file, busy_tap};
use super::guest::Guest;
use super::installation::Installation;
use super::mmds::Mmds;
use super::route::route;
use super::settings::Settings;
use super::wire::Request;

/// The longest name of a network device that Linux has room for, in bytes.
const MAX_DEVICE_NAME_BYTES: usize = 15;

/// How far the VMM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    NotStarted,
    Running,
    Paused,
}

/// The VMM.
pub(super) struct Vmm {
    pub(super) installation: Arc<Installation>,
    /// As they were when the present request came.
    pub(super) settings: Settings,
    pub(super) console: Arc<Console>,
    pub(super) guest: Arc<Guest>,
    pub(super) stage: Stage,
    pub(super) config: Config,
    /// The drives' files, in the order of their descriptions.
    pub(super) drives: Vec<File>,
    pub(super) taps: Vec<OwnedFd>,
    pub(super) kernel: Option<PathBuf>,
    /// The store exists once somebody has asked for it before the boot.
    pub(super) mmds: Option<Mmds>,
    pub(super) metrics: Option<File>,
    pub(super) max_mmds_bytes: usize,
    /// Something was configured, or tried to be, that a load would replace.
    pub(super) is_on_boot_path: bool,
    /// The guest's kernel was written since the last snapshot, or nobody keeps track of it.
    pub(super) kernel_is_dirty: bool,
    /// It was paused by a request, and no snapshot was taken since.
    pub(super) pause_is_bare: bool,
    /// There is no kernel in the memory that was loaded: the guest dies when it runs.
    pub(super) guest_is_unusable: bool,
    id: String,
}

impl Vmm {
    pub(super) fn new(
        installation: Arc<Installation>,
        console: Arc<Console>,
        id: &str,
        max_mmds_bytes: usize,
    ) -> Self {
        Self {
            settings: installation.settings(),
            installation,
            guest: Guest::new(Arc::clone(&console)),
            console,
            stage: Stage::NotStarted,
            config: Config::default(),
            drives: Vec::new(),
            taps: Vec::new(),
            kernel: None,
            mmds: None,
            metrics: None,
            max_mmds_bytes,
            is_on_boot_path: false,
            kernel_is_dirty: true,
            pause_is_bare: false,
            guest_is_unusable: false,
            id: id.to_owned(),
        }
    }

    /// Does what a request asks for, or says why not.
    pub(super) fn handle(&mut self, request: &Request) -> Answer {
        let (method, path) = (capitalized(&request.method), &request.path);
        let mut line = format!("The API server received a {method} request on {path:?}");
        if let Some(body) = &request.body {
            line.push_str(&format!(" with body {:?}", String::from_utf8_lossy(body)));
        }
        self.console.log("fc_api", &(line + "."));
        match route(request, &self.settings) {
            Err(reason) => Answer::refused(&reason),
            Ok((action, deprecated)) => Answer { deprecated, ..self.perform(action) },
        }
    }

    fn perform(&mut self, action: Action) -> Answer {
        let answer = match (action, self.stage) {
            (Action::GetInstance, stage) => self.instance(stage),
            (Action::GetVersion, _) => {
                Answer::with(&json!({ "firecracker_version": self.settings.version }))
            }
            (Action::GetFullConfig, _) => Answer::with(&self.config),
            (Action::GetMachineConfig, _) => Answer::with(&self.config.machine_config),
            (action, Stage::NotStarted) => self.perform_before_boot(action),
            (action, Stage::Running | Stage::Paused) => self.perform_after_boot(action),
        };
        let outcome = match (answer.status, answer.body.as_deref()) {
            (status @ (200 | 204), _) => {
                let phrase = if status == 200 { "OK" } else { "No Content" };
                format!("The request was executed successfully. Status code: {status} {phrase}.")
            }
            (status, body) => {
                let body = body.unwrap_or_default();
                format!("Received Error. Status code: {status} Bad Request. Message: {body}")
            }
        };
        self.console.log("fc_api", &outcome);
        answer
    }

    fn instance(&self, stage: Stage) -> Answer {
        let state = match stage {
            Stage::NotStarted => "Not started",
            Stage::Running => "Running",
            Stage::Paused => "Paused",
        };
        let (id, version) = (&self.id, &self.settings.version);
        // Written out, because the order of the fields is kept, too.
        let body = format!(
            r#"{{"id":{id:?},"state":{state:?},"vmm_version":{version:?},"app_name":"Firecracker"}}"#
        );
        Answer { status: 200, body: Some(body), ..Answer::done() }
    }

    /// Tells the guest of its devices.
    pub(super) fn attach_devices(&self) {
        let mut state = self.guest.state();
        let writable = |drive: &Drive| drive.is_read_only != Some(true);
        let mut drives = self.config.drives.iter().zip(&self.drives);
        state.drive =
            drives.find(|(drive, _)| writable(drive)).and_then(|(_, file)| file.try_clone().ok());
        let interfaces = self.config.network_interfaces.iter();
        state.interfaces =
            interfaces.map(|it| (it.iface_id.clone(), it.host_dev_name.clone())).collect();
    }

    /// Opens a TAP, where that matters.
    pub(super) fn open_tap(&self, interface: &NetworkInterface) -> Result<Option<OwnedFd>, String> {
        let name = &interface.host_dev_name;
        if name.len() > MAX_DEVICE_NAME_BYTES {
            return Err("Open tap device failed: Invalid interface name".to_owned());
        }
        if !self.settings.taps_are_exclusive {
            return Ok(None);
        }
        self.installation.open_tap(name).map(Some).ok_or_else(|| busy_tap(name))
    }

    /// The guest's memory, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.config.machine_config.mem_size_mib as u64) << 20
    }
}

/// Opens a drive's file as the drive asks for it.
pub(super) fn open_drive(drive: &Drive) -> Result<File, String> {
    let (Some(path), None) = (&drive.path_on_host, &drive.socket) else {
        return Err("Invalid block config.".to_owned());
    };
    let writable = drive.is_read_only != Some(true);
    let file = File::options().read(true).write(writable).open(path);
    file.map_err(|error| backing_file(&error, path))
}

fn capitalized(method: &str) -> String {
    let (first, rest) = method.split_at(method.len().min(1));
    first.to_owned() + &rest.to_ascii_lowercase()
}
