//! A hearth whose QEMUs become a user of their own, with the capabilities of `deploy/systemd/qemu-user.conf` alone.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use hearth_server::privileges::QEMU_USER;

use crate::hearth::{Answer, Hearth, Host, Outcome, request};
use crate::running::cases;

cases! {
    true vms_are_a_user_of_their_own_and_live_through_an_upgrade_to_it_and_back,
    true what_keeps_vms_from_a_user_of_their_own_is_said,
}

/// Of no user of any machine.
const USER: &str = "[providers.vms]\nkind = \"qemu\"\nuser = \"7071:7072\"\n";
const NONE: &str = "[providers.vms]\nkind = \"qemu\"\n";
const HEARTH: &str = env!("CARGO_BIN_EXE_hearth");

/// Becomes hearth with these capabilities alone.
fn with_only(capabilities: &[&str]) -> Vec<OsString> {
    let names = capabilities.iter().map(|it| it.to_lowercase().replace("cap_", ",+"));
    let set = format!("-all{}", names.collect::<String>());
    let words = ["setpriv", "--inh-caps", "-all", "--bounding-set", &set, "--no-new-privs", HEARTH];
    words.map(Into::into).into()
}

fn needed() -> Vec<&'static str> {
    QEMU_USER.iter().map(|need| need.name).collect()
}

async fn vms_are_a_user_of_their_own_and_live_through_an_upgrade_to_it_and_back() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("not root: QEMUs become no other user");
        return Ok(());
    }
    let mut host = Host::configured("qemu", 1, |_| Ok(NONE.to_owned()))?;
    host.run_as(with_only(&needed()));
    let hearth = host.start().await?;
    let before = taken(&hearth, "before").await?;
    assert_eq!(uid(before)?, "0");
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());

    configure(&host, NONE, USER)?;
    let hearth = host.start().await?;
    // What was warm is as it was; what is restored from now on is not.
    hearth.shell("hearth acquire --name warm")?;
    let during = taken(&hearth, "during").await?;
    assert_eq!(uid(during)?, "7071");
    let status = fs::read_to_string(format!("/proc/{during}/status"))?;
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    are_there(&hearth, &[("before", before), ("during", during)]).await?;
    hearth.kill()?;

    let hearth = host.start().await?;
    are_there(&hearth, &[("before", before), ("during", during)]).await?;
    hearth.kill()?;

    configure(&host, USER, NONE)?;
    let hearth = host.start().await?;
    are_there(&hearth, &[("before", before), ("during", during)]).await?;
    hearth.shell("hearth release warm && hearth release before && hearth release during")?;
    let after = taken(&hearth, "after").await?;
    hearth.shell("hearth release after")?;
    let released = [before, during, after];
    let have_ended = async || !host.vmm_pids().iter().any(|pid| released.contains(pid));
    hearth.until("what was released has ended", have_ended).await?;
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());
    assert_eq!(host.log_lines("cannot be confined"), [""; 0]);
    Ok(())
}

async fn what_keeps_vms_from_a_user_of_their_own_is_said() -> Outcome {
    let is_root = rustix::process::geteuid().is_root();
    let mut host = Host::configured("qemu", 1, |_| Ok(USER.to_owned()))?;
    if !is_root {
        let ended = host.begin(&[]).await.err().ok_or("it serves")?.to_string();
        assert!(ended.contains("only where hearth is root"), "{ended}");
        assert_eq!(doctor(&[HEARTH.into()])?.user, "fail");
        return Ok(());
    }
    // Each is missed by name; without the rights to become somebody nothing starts.
    for name in needed() {
        let others: Vec<_> = needed().into_iter().filter(|it| *it != name).collect();
        let found = doctor(&with_only(&others))?;
        assert!(found.privileges.contains(name), "{name}: {}", found.privileges);
        let becomes = !["CAP_SETUID", "CAP_SETGID"].contains(&name);
        assert_eq!(found.user, if becomes { "warn" } else { "fail" }, "{name}");
        if !becomes {
            host.run_as(with_only(&others));
            let ended = host.begin(&[]).await.err().ok_or("it serves")?.to_string();
            assert!(ended.contains("canary"), "{ended}");
            assert_eq!(host.log_lines(name).len(), 1, "{}", host.log_tail());
            fs::remove_file(host.log())?;
        }
    }
    assert_eq!(
        doctor(&with_only(&needed()))?.privileges,
        "all capabilities that confining VMs takes"
    );
    Ok(())
}

fn configure(host: &Host, from: &str, to: &str) -> Outcome {
    let path = host.dir().join("hearth.toml");
    let text = fs::read_to_string(&path)?;
    assert!(text.contains(from), "{text}");
    Ok(fs::write(&path, text.replace(from, to))?)
}

/// Acquires it, and answers the number of its process.
async fn taken(hearth: &Hearth, name: &str) -> Answer<u32> {
    hearth.acquire(request(name)).await?;
    pid(hearth, name).await
}

async fn pid(hearth: &Hearth, name: &str) -> Answer<u32> {
    let vm = hearth.get(&format!("vms/{name}")).await?;
    Ok(vm.process.ok_or("no process")?.pid.try_into()?)
}

/// These are the processes that they were, and their guests answer.
async fn are_there(hearth: &Hearth, vms: &[(&str, u32)]) -> Outcome {
    for (name, process) in vms {
        assert_eq!(pid(hearth, name).await?, *process, "{name}");
        let pong = hearth.shell(&format!("hearth vms ask {name} ping"))?;
        assert!(pong.starts_with("pong"), "{name}: {pong}");
    }
    Ok(())
}

fn uid(pid: u32) -> Answer<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(line.and_then(|it| it.split_whitespace().next()).ok_or("no uid")?.to_owned())
}

/// What the doctor says.
struct Found {
    privileges: String,
    /// The outcome.
    user: String,
}

fn doctor(program: &[OsString]) -> Answer<Found> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(["doctor", "--provider", "qemu", "--user", "7071:7072"]);
    command.args(["--output", "json", "--state"]).arg(dir.path());
    let report: serde_json::Value = serde_json::from_slice(&command.output()?.stdout)?;
    let check = |name: &str, field: &str| {
        let checks = report["checks"].as_array().into_iter().flatten();
        let found = checks.into_iter().find(|check| check["name"] == name);
        let text = found.and_then(|check| check[field].as_str()).map(str::to_owned);
        text.ok_or_else(|| format!("no {name}: {report}"))
    };
    Ok(Found { privileges: check("privileges", "message")?, user: check("user", "status")? })
}
