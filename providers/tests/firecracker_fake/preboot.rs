//! What the VMM does before a guest is there.
//!
//! Whatever configures the machine sets `is_on_boot_path` first, so also when it is refused.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use super::actions::Action;
use super::answer::Answer;
use super::bodies::{
    BootSource, CpuTemplate, HugePages, LoggerConfig, MachineConfigUpdate, MetricsConfig,
};
use super::bodies_of_devices::{Balloon, Drive, FileEngineType, NetworkInterface, Vsock};
use super::console::open_to_append;
use super::errors::{ONLY_AFTER_BOOT, bind};
use super::mmds::mmds_value;
use super::vmm::{Stage, Vmm, open_drive};
use super::vsock;

/// Done, or why not.
pub(super) type Outcome = Result<(), String>;

const MAX_VCPUS: u8 = 32;

impl Vmm {
    pub(super) fn perform_before_boot(&mut self, action: Action) -> Answer {
        let boots = matches!(
            action,
            Action::SetMachineConfig(_)
                | Action::UpdateMachineConfig(_)
                | Action::SetBootSource(_)
                | Action::SetDrive(_)
                | Action::SetInterface(_)
                | Action::SetVsock(_)
                | Action::SetEntropy(_)
                | Action::SetBalloon(_)
                | Action::SetMmdsConfig(_)
        );
        self.is_on_boot_path |= boots;
        answer(match action {
            Action::SetMachineConfig(config) => self.set_machine_config(&config.into()),
            Action::UpdateMachineConfig(update) => self.set_machine_config(&update),
            Action::SetBootSource(source) => self.set_boot_source(source),
            Action::SetCpuConfig => Ok(()),
            Action::SetDrive(drive) => self.set_drive(drive),
            Action::SetInterface(interface) => self.set_interface(interface),
            Action::SetVsock(device) => self.set_vsock(device),
            Action::SetEntropy(entropy) => {
                self.config.entropy = Some(entropy);
                Ok(())
            }
            Action::SetBalloon(balloon) => self.set_balloon(balloon),
            Action::SetLogger(logger) => self.set_logger(&logger),
            Action::SetMetrics(metrics) => self.set_metrics(&metrics),
            Action::SetSerial(serial) => match serial.serial_out_path {
                Some(path) => self.console.serial_to(&path).map_err(|error| error.to_string()),
                None => Ok(()),
            },
            Action::SetMmdsConfig(config) => self.set_mmds_config(config),
            Action::GetMmds => {
                let mmds = self.mmds.get_or_insert_default();
                return mmds_value(&mmds.store);
            }
            Action::GetBalloon => match &self.config.balloon {
                Some(balloon) => return Answer::with(balloon),
                None => Err("Balloon config error: No balloon device found.".to_owned()),
            },
            Action::PutMmds(data) => {
                self.mmds.get_or_insert_default();
                return self.put_mmds(data);
            }
            Action::PatchMmds(data) => {
                self.mmds.get_or_insert_default();
                return self.patch_mmds(&data);
            }
            Action::Start => self.start(),
            Action::Load(config) => return self.load(&config),
            _ => Err(ONLY_AFTER_BOOT.to_owned()),
        })
    }

    fn set_machine_config(&mut self, update: &MachineConfigUpdate) -> Outcome {
        let mut config = self.config.machine_config.clone();
        config.vcpu_count = update.vcpu_count.unwrap_or(config.vcpu_count);
        config.mem_size_mib = update.mem_size_mib.unwrap_or(config.mem_size_mib);
        config.smt = update.smt.unwrap_or(config.smt);
        config.track_dirty_pages = update.track_dirty_pages.unwrap_or(config.track_dirty_pages);
        config.huge_pages = update.huge_pages.unwrap_or(config.huge_pages);
        config.cpu_template = match update.cpu_template {
            None => config.cpu_template,
            Some(CpuTemplate::None) => None,
            Some(template) => Some(template),
        };
        let odd = config.smt && config.vcpu_count > 1 && config.vcpu_count % 2 == 1;
        if config.vcpu_count == 0 || config.vcpu_count > MAX_VCPUS || odd {
            return Err(format!(
                "Machine config error: The number of vCPUs must be greater than 0, less than \
                 {MAX_VCPUS} and must be 1 or an even number if SMT is enabled."
            ));
        }
        let huge = config.huge_pages == HugePages::TwoMib;
        if config.mem_size_mib == 0 || (huge && config.mem_size_mib % 2 == 1) {
            return Err("Machine config error: The memory size (MiB) is either 0, or not a \
                        multiple of the configured page size."
                .to_owned());
        }
        let balloon = self.config.balloon.as_ref().map_or(0, |balloon| balloon.amount_mib);
        if config.mem_size_mib < balloon as usize {
            return Err("Machine config error: The memory size (MiB) is smaller than the \
                        previously set balloon device target size."
                .to_owned());
        }
        self.config.machine_config = config;
        Ok(())
    }

    fn set_boot_source(&mut self, source: BootSource) -> Outcome {
        File::open(&source.kernel_image_path).map_err(|error| {
            format!("Boot source error: The kernel file cannot be opened: {error}")
        })?;
        if let Some(path) = &source.initrd_path {
            File::open(path).map_err(|error| {
                format!(
                    "Boot source error: The initrd file cannot be opened due to invalid path or \
                     invalid permissions. {error}"
                )
            })?;
        }
        self.kernel = Some(source.kernel_image_path.clone().into());
        self.config.boot_source = source;
        Ok(())
    }

    fn set_drive(&mut self, mut drive: Drive) -> Outcome {
        let place = self.config.drives.iter().position(|it| it.drive_id == drive.drive_id);
        let has_root = self.config.drives.first().is_some_and(|first| first.is_root_device);
        if drive.is_root_device && has_root && place != Some(0) {
            return Err("Drive config error: A root block device already exists!".to_owned());
        }
        let file = open_drive(&drive).map_err(|reason| {
            format!("Drive config error: Unable to create the virtio block device: {reason}")
        })?;
        drive.is_read_only.get_or_insert(false);
        drive.io_engine.get_or_insert(FileEngineType::Sync);
        let is_root = drive.is_root_device;
        let place = place.unwrap_or_else(|| {
            let place = if is_root { 0 } else { self.drives.len() };
            self.config.drives.insert(place, drive.clone());
            // The file is put in just below; the two lists stay as long as each other.
            self.drives.insert(place, file.try_clone().expect("a file can be opened twice"));
            place
        });
        (self.config.drives[place], self.drives[place]) = (drive, file);
        if is_root {
            self.config.drives.swap(0, place);
            self.drives.swap(0, place);
        }
        Ok(())
    }

    fn set_interface(&mut self, interface: NetworkInterface) -> Outcome {
        let others = self.config.network_interfaces.iter();
        let mut others = others.filter(|other| other.iface_id != interface.iface_id);
        if let Some(mac) = &interface.guest_mac
            && others.any(|other| other.guest_mac.as_ref() == Some(mac))
        {
            let mac = &mac.0;
            return Err(format!("Network config error: The MAC address is already in use: {mac}"));
        }
        let tap = self.open_tap(&interface).map_err(|reason| {
            format!("Network config error: Could not create the network device: {reason}")
        })?;
        self.taps.extend(tap);
        self.config.network_interfaces.retain(|it| it.iface_id != interface.iface_id);
        self.config.network_interfaces.push(interface);
        Ok(())
    }

    fn set_vsock(&mut self, mut device: Vsock) -> Outcome {
        let failed = |error: &std::io::Error| {
            let reason = bind(error);
            format!("Vsock config error: Cannot create backend for vsock device: {reason}")
        };
        if let Some(former) = self.config.vsock.take() {
            std::fs::remove_file(&former.uds_path).map_err(|error| failed(&error))?;
        }
        vsock::bind(&device.uds_path, &self.guest, &self.installation)
            .map_err(|error| failed(&error))?;
        device.vsock_id = None;
        self.config.vsock = Some(device);
        Ok(())
    }

    fn set_balloon(&mut self, balloon: Balloon) -> Outcome {
        if balloon.amount_mib as usize > self.config.machine_config.mem_size_mib {
            return Err("Balloon config error: Amount of pages requested is too large.".to_owned());
        }
        self.config.balloon = Some(balloon);
        Ok(())
    }

    fn set_logger(&mut self, logger: &LoggerConfig) -> Outcome {
        match &logger.log_path {
            None => Ok(()),
            Some(path) => self
                .console
                .log_to(path)
                .map_err(|error| format!("Logger error: Failed to open target file: {error}")),
        }
    }

    fn set_metrics(&mut self, metrics: &MetricsConfig) -> Outcome {
        let failed = |reason: String| {
            let what = "Cannot initialize the metrics system due to bad user input";
            format!("Metrics error: {what}: {reason}")
        };
        let file =
            open_to_append(&metrics.metrics_path).map_err(|error| failed(error.to_string()))?;
        if self.metrics.is_some() {
            return Err(failed("Reinitialization of metrics not allowed.".to_owned()));
        }
        self.metrics = Some(file);
        Ok(())
    }

    fn start(&mut self) -> Outcome {
        let Some(kernel) = &self.kernel else {
            return Err("Start microvm error: Cannot start microvm without kernel configuration."
                .to_owned());
        };
        let mut magic = [0; 4];
        let read = File::open(kernel).and_then(|mut kernel| kernel.read_exact(&mut magic));
        if read.is_err() || magic != *b"\x7fELF" {
            return Err("Start microvm error: System configuration error: Cannot load kernel due \
                        to invalid memory configuration or invalid kernel image: Kernel Loader: \
                        failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number"
                .to_owned());
        }
        self.attach_devices();
        // A store that nothing in the guest can reach is dropped.
        self.mmds = self.mmds.take().filter(|_| self.config.mmds_config.is_some());
        self.guest.boot();
        self.stage = Stage::Running;
        self.guest.resume(false);
        self.start_counting();
        Ok(())
    }

    pub(super) fn start_counting(&self) {
        Arc::clone(&self.guest).count(Duration::from_millis(self.settings.count_every_millis));
    }
}

pub(super) fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Ok(()) => Answer::done(),
        Err(reason) => Answer::refused(&reason),
    }
}
