//! Processes that stand in for QEMUs: hearth takes them up after a restart as it does those, and they
//! cost next to nothing, so that there can be a thousand.
//!
//! One is this program again, started in an instance's directory with [`AS_STAND_IN`] as its only
//! argument. It answers on the monitor's socket what a QEMU answers whose guest runs.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hearth_pool::env::SystemEnv;
use hearth_pool::journal::{Journal, LeaseRecord, RecordState};
use hearth_providers::env::Env as _;
use hearth_providers::{Uid, VmId};
use serde_json::{Value, json};

use crate::operator::until;

const AS_STAND_IN: &str = "stand-in";
const MONITOR: &str = "qmp.sock";

/// Becomes a stand-in, and does not return before it is killed, when this process was started for that.
///
/// # Errors
/// When it cannot listen where it is.
pub(crate) fn become_one_if_asked() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(AS_STAND_IN) || arguments.next().is_some() {
        return Ok(());
    }
    for stream in UnixListener::bind(MONITOR)?.incoming().map_while(Result::ok) {
        // Whoever hangs up in the middle has what it wanted.
        let _ = answer(&stream);
    }
    Ok(())
}

fn answer(mut stream: &UnixStream) -> std::io::Result<()> {
    stream.write_all(b"{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n")?;
    for line in BufReader::new(stream).lines() {
        let said = match line?.contains("query-status") {
            true => r#"{"return":{"running":true,"singlestep":false,"status":"running"}}"#,
            false => r#"{"return":{}}"#,
        };
        stream.write_all(format!("{said}\n").as_bytes())?;
    }
    Ok(())
}

/// A process that stands in; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct StandIn(Child);

impl StandIn {
    fn begin(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(AS_STAND_IN).current_dir(dir).env_clear();
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    /// Waits until it listens, and leaves the record of its process, as the supervisor does.
    fn record(&self, dir: &Path) -> Result<(), Box<dyn Error>> {
        until("a stand-in listens", || Ok(dir.join(MONITOR).exists()))?;
        let pid = self.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').ok_or("no fields")?.1;
        let ticks: u64 = fields.split_ascii_whitespace().nth(19).ok_or("no start")?.parse()?;
        let record = json!({
            "pid": pid, "start_ticks": ticks, "boot_id": SystemEnv.boot_id(),
            "executable": std::env::current_exe()?, "cgroup": null,
        });
        Ok(fs::write(dir.join("vmm.json"), record.to_string())?)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Instances like that of `model`, a QEMU's uid, each with a lease of its own and a process that stands
/// in, on the state directory and below the names of a hearth that does not run. Blocks.
///
/// # Errors
/// When the journal or the directories are not as expected.
pub(crate) fn plant(
    state: &Path,
    runtime: &Path,
    model: &str,
    count: usize,
) -> Result<Vec<StandIn>, Box<dyn Error>> {
    let instances = state.join("instances");
    let journal = Journal::open(&state.join("journal"), &SystemEnv)?;
    let leases = journal.leases()?;
    let lease = leases.iter().find(|lease| lease.uid.to_string() == model).ok_or("no lease")?;
    let read = |uid: &str, file: &str| fs::read_to_string(instances.join(uid).join(file));
    let mut planted = Vec::with_capacity(count);
    for number in 0..count {
        let uid: Uid = SystemEnv.uid();
        let dir = instances.join(uid.to_string());
        fs::create_dir(&dir)?;
        let mut record: Value = read(model, "instance.json")?.parse()?;
        // Its first name, which it gets again when it is released.
        (record["uid"], record["vm_id"]) = (json!(uid), json!(VmId::warm(uid)));
        fs::write(dir.join("instance.json"), record.to_string())?;
        let machine = read(model, "machine.json")?.replace(model, &uid.to_string());
        fs::write(dir.join("machine.json"), machine)?;
        let name = format!("stand-in-{number}");
        std::os::unix::fs::symlink(&dir, runtime.join("names").join(&name))?;
        journal.write_lease(&LeaseRecord {
            uid,
            state: RecordState::Leased,
            vm_id: VmId::parse(&name)?,
            request_id: Some(SystemEnv.uid().to_string().into()),
            fence: lease.fence + 1 + i64::try_from(number)?,
            ..lease.clone()
        })?;
        planted.push((StandIn::begin(&dir)?, dir));
    }
    planted.into_iter().map(|(it, dir)| it.record(&dir).map(|()| it)).collect()
}
