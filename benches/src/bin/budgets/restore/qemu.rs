//! QEMU by a bare driver: the same program with the same arguments on the same files as the provider's,
//! and the monitor's lines written by hand.
//!
//! Arguments and files are not described a second time: they are read from a clone of the provider's
//! that stands still, whose command line the kernel shows. So both sides start the same QEMU, however
//! the provider changes.
//!
//! It leaves out what the provider does besides: names, records and metadata, checks that the snapshot
//! is whole and fits this QEMU, a session and a cgroup of the process's own, a pidfd with somebody who
//! watches it, bounds on the console and the log, deadlines, and any understanding of a refusal but
//! that it is one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hearth_providers::model::SnapshotRef;
use hearth_providers::{VmId, VmRuntime, VmSpec};
use serde_json::{Value, json};

use super::bare::{Driver, Outcome, connect};

const MONITOR: &str = "qmp.sock";
/// How often the monitor's socket is looked for: as the provider.
const FIRST_CONTACT: Duration = Duration::from_millis(1);
/// How often a QEMU that loads is asked whether it has: as the provider.
const POLL: Duration = Duration::from_micros(500);

/// What every restore uses.
pub(crate) struct Qemu {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Files that a machine needs in its directory, as they are before it runs: its disks' own layers.
    own_files: Vec<PathBuf>,
    /// The state of the devices.
    state: PathBuf,
    /// Memory is in a file that is mapped, and not in the state.
    maps_memory: bool,
}

impl Qemu {
    /// Learns from a clone of `snapshot`, whose files are in `snapshot_dir`, how `provider` starts one;
    /// `instances` is where its VMs work, and copies of files are kept in `keep`.
    ///
    /// # Errors
    /// When it cannot be restored, or is not as expected.
    pub(crate) fn learn(
        provider: &dyn VmRuntime,
        instances: &Path,
        snapshot: &SnapshotRef,
        snapshot_dir: &Path,
        keep: &Path,
    ) -> Outcome<Self> {
        let model = VmId::parse("model")?;
        let restore_from = SnapshotRef { resume_immediately: false, ..snapshot.clone() };
        let spec = VmSpec { restore_from: Some(restore_from), ..VmSpec::default() };
        provider.create_vm_with_spec(&model, &spec)?;
        let learned = Self::of(provider, &model, instances, snapshot_dir, keep);
        provider.destroy_vm(&model)?;
        learned
    }

    fn of(
        provider: &dyn VmRuntime,
        model: &VmId,
        instances: &Path,
        snapshot_dir: &Path,
        keep: &Path,
    ) -> Outcome<Self> {
        let view = provider.get_vm(model).ok_or("the model is gone")?;
        let pid = view.process.ok_or("the model has no process")?.pid;
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
        let arguments: Vec<_> = words.skip(1).map(|it| OsString::from_vec(it.to_vec())).collect();
        let state = snapshot_dir.join("state");
        let is_mapped = |it: &OsString| {
            it.to_string_lossy().contains(&*snapshot_dir.join("ram").to_string_lossy())
        };
        fs::create_dir_all(keep)?;
        let mut own_files = Vec::new();
        for entry in fs::read_dir(instances.join(view.uid.to_string()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "qcow2") {
                let kept = keep.join(path.file_name().ok_or("a file without a name")?);
                fs::copy(&path, &kept)?;
                own_files.push(kept);
            }
        }
        Ok(Self {
            program: fs::read_link(format!("/proc/{pid}/exe"))?,
            maps_memory: arguments.iter().any(is_mapped),
            arguments,
            own_files,
            state,
        })
    }
}

impl Driver for Qemu {
    fn start(&self, dir: &Path) -> io::Result<Child> {
        for file in &self.own_files {
            fs::copy(file, dir.join(file.file_name().unwrap_or_default()))?;
        }
        File::create(dir.join("console"))?;
        let log = File::create(dir.join("qemu.log"))?;
        Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    fn load(&self, dir: &Path) -> Outcome {
        let mut monitor = Monitor::greet(dir)?;
        let set = |name: &str, state| json!({ "capability": name, "state": state });
        let capabilities =
            [set("x-ignore-shared", self.maps_memory), set("mapped-ram", !self.maps_memory)];
        monitor.ask("migrate-set-capabilities", &json!({ "capabilities": capabilities }))?;
        let from = json!({ "transport": "file", "filename": self.state, "offset": 0 });
        let channels = json!([{ "channel-type": "main", "addr": from }]);
        monitor.ask("migrate-incoming", &json!({ "channels": channels }))?;
        while monitor.status()? == "inmigrate" {
            std::thread::sleep(POLL);
        }
        monitor.ask("cont", &json!({})).map(drop)
    }

    fn ask(&self, dir: &Path) -> Outcome {
        match Monitor::greet(dir)?.status()?.as_str() {
            "running" => Ok(()),
            other => Err(format!("QEMU says that its guest is {other}").into()),
        }
    }
}

/// A connection to a monitor.
struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn greet(dir: &Path) -> Outcome<Self> {
        let stream = connect(&dir.join(MONITOR), (FIRST_CONTACT, FIRST_CONTACT))?;
        let mut monitor = Self { lines: BufReader::new(stream) };
        monitor.receive("QMP")?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn status(&mut self) -> Outcome<String> {
        let answer = self.ask("query-status", &json!({}))?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Outcome<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.lines.get_mut().write_all(line.as_bytes())?;
        self.receive("return")
    }

    /// The next line that has `key`; events are passed over, refusals are not.
    fn receive(&mut self, key: &str) -> Outcome<Value> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Err("QEMU has ended; its log would say why".into());
            }
            let mut said: Value = serde_json::from_str(&line)?;
            if let Some(answer) = said.get_mut(key) {
                return Ok(answer.take());
            }
            if said.get("error").is_some() {
                return Err(said.to_string().into());
            }
        }
    }
}
