//! How long a start takes that finds much: stand-ins for VMMs, which are processes that hearth takes up
//! as it does QEMU's, and QEMUs, all leased or warm.
//!
//! It takes minutes, so it runs where `HEARTH_LONG` is set; `HEARTH_STAND_INS` and `HEARTH_QEMUS` say how
//! many (1,000 and 50). It prints the time until hearth serves, and asserts none.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hearth_pool::journal::{Journal, LeaseRecord, RecordState};
use hearth_proto::v1::AcquireVmRequest;
use hearth_proto::v1::acquire_vm_request::Expiration;
use hearth_proto::v1::vm::State;
use hearth_providers::env::{Env as _, SystemEnv};
use hearth_providers::{Uid, VmId};

use crate::cases::settle;
use crate::hearth::{Answer, Host, Outcome, request};
use crate::running::cases;

cases! {
    true a_start_finds_a_thousand_stand_ins_and_fifty_qemus,
}

/// The first argument of a process that stands in for a QEMU.
const AS_STAND_IN: &str = "--stand-in";
const MONITOR: &str = "qmp.sock";

pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("HEARTH_LONG").is_some()
}

/// Becomes a stand-in, and does not return, when this process was started for that.
pub(crate) fn stand_in_if_asked() {
    if std::env::args().nth(1).as_deref() == Some(AS_STAND_IN) {
        let listener = UnixListener::bind(MONITOR).expect("a socket in the instance's directory");
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever hangs up in the middle has what it wanted.
            let _ = answer(&stream);
        }
    }
}

/// What a QEMU's monitor answers whose guest runs.
fn answer(mut stream: &UnixStream) -> std::io::Result<()> {
    stream.write_all(b"{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n")?;
    for line in BufReader::new(stream).lines() {
        let said: &[u8] = match line?.contains("query-status") {
            true => {
                b"{\"return\":{\"running\":true,\"singlestep\":false,\"status\":\"running\"}}\n"
            }
            false => b"{\"return\":{}}\n",
        };
        stream.write_all(said)?;
    }
    Ok(())
}

/// A process that stands in; ended when this is dropped.
struct StandIn(Child);

impl StandIn {
    /// One in the instance's directory `dir`, with the record of its process.
    fn begin(dir: &Path) -> Answer<Self> {
        let mut command = Command::new("setsid");
        command.arg(std::env::current_exe()?).arg(AS_STAND_IN).current_dir(dir);
        let this = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        while !dir.join(MONITOR).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = this.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').ok_or("no fields")?.1;
        let ticks: u64 = fields.split_ascii_whitespace().nth(19).ok_or("no start")?.parse()?;
        let record = serde_json::json!({
            "pid": pid, "start_ticks": ticks, "boot_id": SystemEnv.boot_id(),
            "executable": std::env::current_exe()?, "cgroup": null,
        });
        fs::write(dir.join("vmm.json"), record.to_string())?;
        Ok(this)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used of processors, in user and system time.
fn processor_ms(pid: u32) -> Answer<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no fields")?.1;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    Ok(ticks.filter_map(|it| it.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// Instances that are made as `model` is, leased, and run by stand-ins.
fn plant(host: &Host, model: &str, count: usize) -> Answer<Vec<(StandIn, String)>> {
    let instances = host.state().join("instances");
    let journal = Journal::open(&host.state().join("journal"), &SystemEnv)?;
    let leases = journal.leases()?;
    let lease = leases.iter().find(|lease| lease.uid.to_string() == model).ok_or("no lease")?;
    let mut planted = Vec::new();
    for number in 0..count {
        let uid: Uid = SystemEnv.uid();
        let dir = instances.join(uid.to_string());
        fs::create_dir(&dir)?;
        for file in ["instance.json", "machine.json"] {
            let text = fs::read_to_string(instances.join(model).join(file))?;
            fs::write(dir.join(file), text.replace(model, &uid.to_string()))?;
        }
        let name = format!("stand-in-{number}");
        std::os::unix::fs::symlink(&dir, host.runtime().join("names").join(&name))?;
        journal.write_lease(&LeaseRecord {
            uid,
            state: RecordState::Leased,
            vm_id: VmId::parse(&name)?,
            request_id: Some(SystemEnv.uid().to_string().into()),
            fence: lease.fence + 1 + i64::try_from(number)?,
            ..lease.clone()
        })?;
        planted.push((StandIn::begin(&dir)?, name));
    }
    Ok(planted)
}

fn count(variable: &str, default: usize) -> Answer<usize> {
    std::env::var(variable).map_or(Ok(default), |text| Ok(text.parse()?))
}

async fn a_start_finds_a_thousand_stand_ins_and_fifty_qemus() -> Outcome {
    let (stand_ins, qemus) = (count("HEARTH_STAND_INS", 1000)?, count("HEARTH_QEMUS", 50)?);
    let host = Host::configured("qemu", 4, |_| Ok(String::new()))?;
    let hearth = host.start().await?;
    // Four wait in the pool, which are probed; the others have tenants.
    let for_long = |name: &str| {
        let ttl = prost_types::Duration { seconds: 12 * 3600, nanos: 0 };
        AcquireVmRequest { expiration: Some(Expiration::Ttl(ttl)), ..request(name) }
    };
    for number in 5..qemus {
        hearth.acquire(for_long(&format!("vm-{number}"))).await?;
    }
    let model = hearth.acquire(for_long("model")).await?.vm.ok_or("no vm")?;
    settle(&hearth, &host, qemus - 4).await?;
    hearth.kill()?;
    let planted = plant(&host, &model.uid, stand_ins)?;

    let begun = tokio::time::Instant::now();
    let hearth = host.begin(&[]).await?;
    let reachable = begun.elapsed();
    hearth.until("it serves", async || hearth.ready().await).await?;
    println!(
        "restart: {stand_ins} stand-ins + {qemus} QEMUs: serving after {} ms, of which {} ms until the port \
         was open (all taken up) and the rest with the probes of 4 warm VMs; hearth used {} ms of processors",
        begun.elapsed().as_millis(),
        reachable.as_millis(),
        processor_ms(hearth.pid())?,
    );
    let vms = hearth.vms().await?;
    let running = vms.iter().filter(|vm| vm.state() == State::Running).count();
    println!("{running} of the {} VMs that were listed run", vms.len());
    for (_, name) in planted.iter().step_by(97) {
        let vm = hearth.get(&format!("vms/{name}")).await?;
        assert_eq!(vm.state(), State::Running, "{vm:?}");
    }
    let leased = hearth.metric("hearth_leased_vms{pool=\"default\"}").await;
    assert_eq!(leased, Some((stand_ins + qemus - 4) as f64));
    for log in host.log_lines("a provider has looked at what it left") {
        println!("{log}");
    }
    for log in host.log_lines("recovery has finished") {
        println!("{log}");
    }
    Ok(())
}
