//! A hearth that is a user of its own without any capability, as `deploy/systemd/hearth.service` starts it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::hearth::{Answer, Host, Outcome, request};
use crate::running::cases;

cases! {
    true a_user_without_capabilities_serves_virtual_machines,
}

/// The user of the image, which no machine has by itself.
const UID: u32 = 7070;

async fn a_user_without_capabilities_serves_virtual_machines() -> Outcome {
    let mut host = Host::new("qemu")?;
    let dir = host.dir().to_owned();
    // Neither the build nor the guest need be readable for everybody.
    let hearth = dir.join("hearth");
    fs::copy(env!("CARGO_BIN_EXE_hearth"), &hearth)?;
    host.copy_guest(&dir.join("guest"))?;
    let notify = dir.join("notify");
    let manager = UnixDatagram::bind(&notify)?;
    let is_root = rustix::process::geteuid().is_root();
    let mut program: Vec<std::ffi::OsString> = vec!["env".into()];
    program.push(format!("NOTIFY_SOCKET={}", notify.display()).into());
    program.push(format!("HOME={}", dir.display()).into());
    program.push("setpriv".into());
    if is_root {
        own(&dir)?;
        for argument in ["--reuid", "7070", "--regid", "7070", "--clear-groups"] {
            program.push(argument.into());
        }
        program.extend(["--bounding-set".into(), "-all".into()]);
    }
    program.extend(["--inh-caps", "-all", "--no-new-privs"].map(Into::into));
    program.push(hearth.into());
    host.run_as(program);

    let hearth = host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no VM")?;
    let pong = hearth.shell("hearth vms ask mine ping")?;
    assert!(pong.starts_with("pong"), "{pong}");

    let vmm = u32::try_from(vm.process.ok_or("no process")?.pid)?;
    for pid in [hearth.pid(), vmm] {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        assert_eq!(field(&status, "CapEff:")?, "0000000000000000", "{pid}");
        assert_eq!(field(&status, "NoNewPrivs:")?, "1", "{pid}");
        if is_root {
            assert_eq!(field(&status, "CapBnd:")?, "0000000000000000", "{pid}");
            assert_eq!(field(&status, "Uid:")?, UID.to_string(), "{pid}");
        }
    }
    let mut heard = [0; 32];
    manager.set_nonblocking(true)?;
    let count = manager.recv(&mut heard)?;
    assert_eq!(&heard[..count], b"READY=1");
    assert!(hearth.terminate()?.success());
    let count = manager.recv(&mut heard)?;
    assert_eq!(&heard[..count], b"STOPPING=1");
    Ok(())
}

/// Gives all that lies at `path` to the user.
fn own(path: &Path) -> Outcome {
    chown(path, Some(UID), Some(UID))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}

/// The first word of a line of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Answer<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.map(str::to_owned).ok_or_else(|| format!("no {name}").into())
}
