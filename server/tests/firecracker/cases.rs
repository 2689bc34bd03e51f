//! What must hold of VMs of Firecracker, seen from outside.

use std::collections::HashMap;
use std::process::Command;

use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{SnapshotVmRequest, Vm};

use crate::frozen::{
    a_frozen_jailed_vm_goes_on_and_is_resumed_with_its_memory,
    a_frozen_vm_goes_on_and_is_resumed_with_its_memory, an_artifact_lives_through_a_kill_of_hearth,
    an_artifact_without_its_memory_begins_anew_from_the_template,
};
use crate::hearth::{Answer, Outcome, kill, request};
use crate::rig::{Rig, ask, pings, settle};
use crate::running::cases;

cases! {
    false a_warm_handoff_touches_neither_firecracker_nor_the_guest,
    false leased_and_warm_vms_live_through_a_kill_of_hearth,
    true jailed_vms_live_through_a_kill_of_hearth,
    false a_killed_leased_vmm_is_failed_and_released,
    false each_vm_has_a_disk_of_its_own,
    false a_start_without_a_kernel_says_what_to_set,
    false the_doctor_looks_at_the_programs_that_it_is_given,
    false a_frozen_vm_goes_on_and_is_resumed_with_its_memory,
    true a_frozen_jailed_vm_goes_on_and_is_resumed_with_its_memory,
    false an_artifact_lives_through_a_kill_of_hearth,
    false an_artifact_without_its_memory_begins_anew_from_the_template,
}

async fn a_warm_handoff_touches_neither_firecracker_nor_the_guest() -> Outcome {
    let rig = Rig::new(false)?;
    let hearth = rig.host.start().await?;
    let mut pinged = HashMap::new();
    for vm in hearth.warm_vms().await? {
        pinged.insert(vm.uid.clone(), pings(&vm).await?);
    }
    rig.watch();
    let before = rig.noted()?;
    let got = hearth.acquire(request("mine")).await?;
    assert_eq!(got.source(), Source::Warm);
    assert_eq!(rig.noted()?, before, "a request was made");
    let vm = got.vm.ok_or("no vm")?;
    let last = pinged.get(&vm.uid).ok_or("not one of the warm ones")?;
    assert_eq!(pings(&vm).await?, last + 1, "the guest was asked");
    // That nothing was noted says something: what is asked is noted.
    let (name, snapshot_id) = (vm.name.clone(), "s".to_owned());
    let asked = SnapshotVmRequest { name, snapshot_id, ..SnapshotVmRequest::default() };
    hearth.client.vms.clone().snapshot_vm(asked).await?;
    assert!(rig.noted()? > before, "a snapshot was not noticed");
    rig.unwatch();
    // What was restored meanwhile hung; what is restored from now on does not.
    settle(&hearth, &rig.host, 1).await?;
    hearth.client.release(&vm).await?;
    settle(&hearth, &rig.host, 0).await
}

async fn leased_and_warm_vms_live_through_a_kill_of_hearth() -> Outcome {
    live_through_a_kill(false).await
}

async fn jailed_vms_live_through_a_kill_of_hearth() -> Outcome {
    live_through_a_kill(true).await
}

async fn live_through_a_kill(is_jailed: bool) -> Outcome {
    let rig = Rig::new(is_jailed)?;
    let hearth = rig.host.start().await?;
    let mut leased = Vec::new();
    for name in ["a", "b"] {
        let got = hearth.acquire(request(name)).await?;
        leased.push(got.vm.ok_or("no vm")?);
    }
    assert_eq!(ask(&leased[0], "name kept").await?, "ok name=kept");
    settle(&hearth, &rig.host, 2).await?;
    let warm = by_uid(&hearth.warm_vms().await?)?;
    hearth.kill()?;
    assert_eq!(rig.host.vmm_pids().len(), 5, "they run on");

    let hearth = rig.host.start().await?;
    for before in &leased {
        let after = hearth.get(&before.name).await?;
        assert_eq!((&after.uid, after.state()), (&before.uid, State::Running));
        assert_eq!(pid(&after)?, pid(before)?, "the same process");
    }
    let kept = ask(&hearth.get("vms/a").await?, "ping").await?;
    assert!(kept.ends_with("name=kept"), "{kept}");
    assert_eq!(by_uid(&hearth.warm_vms().await?)?, warm, "adopted, not restored anew");
    assert_eq!(hearth.acquire(request("c")).await?.source(), Source::Warm);
    for name in ["vms/a", "vms/b", "vms/c"] {
        hearth.client.release(&hearth.get(name).await?).await?;
    }
    settle(&hearth, &rig.host, 0).await
}

async fn a_killed_leased_vmm_is_failed_and_released() -> Outcome {
    let rig = Rig::new(false)?;
    let hearth = rig.host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    kill(pid(&vm)?);
    hearth
        .until("it is FAILED", async || {
            hearth.get("vms/mine").await.is_ok_and(|vm| vm.state() == State::Failed)
        })
        .await?;
    let failure = hearth.get("vms/mine").await?.failure.ok_or("no failure")?;
    assert!(format!("{failure:?}").contains("signal 9"), "{failure:?}");
    assert!(failure.console_tail.contains("count "), "{failure:?}");
    hearth.client.release(&vm).await?;
    settle(&hearth, &rig.host, 0).await
}

async fn each_vm_has_a_disk_of_its_own() -> Outcome {
    let rig = Rig::new(false)?;
    let hearth = rig.host.start().await?;
    let mut vms = Vec::new();
    for name in ["a", "b"] {
        vms.push(hearth.acquire(request(name)).await?.vm.ok_or("no vm")?);
    }
    assert_eq!(ask(&vms[0], "write file of-a").await?, "ok bytes=4");
    assert_eq!(ask(&vms[0], "read file").await?, "data of-a");
    let other = ask(&vms[1], "read file").await?;
    assert!(other.starts_with("error "), "{other}");
    Ok(())
}

async fn a_start_without_a_kernel_says_what_to_set() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = hearth()
        .args(["serve", "--provider", "firecracker", "--listen", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--state"])
        .arg(dir.path().join("state"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for hint in ["default_template.kernel", "default_template.enabled = false", "vmlinux"] {
        assert!(said.contains(hint), "{said}");
    }
    assert!(!dir.path().join("state").exists(), "nothing was opened");
    Ok(())
}

async fn the_doctor_looks_at_the_programs_that_it_is_given() -> Outcome {
    let rig = Rig::new(false)?;
    let (firecracker, jailer) = rig.programs();
    let dir = tempfile::tempdir()?;
    let output = hearth()
        .args(["doctor", "--provider", "firecracker", "-o", "json", "--binary"])
        .arg(firecracker)
        .arg("--jailer")
        .arg(jailer)
        .arg("--state")
        .arg(dir.path())
        .arg("--runtime")
        .arg(dir.path())
        .output()?;
    // A script is no program that a jailer can run.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().ok_or("no checks")?;
    let check = |name: &str| {
        let found = checks.iter().find(|check| check["name"] == name);
        found.cloned().ok_or_else(|| format!("no check {name}: {report}"))
    };
    assert_eq!(check("firecracker")?["status"], "ok", "{report}");
    assert!(check("firecracker")?["message"].to_string().contains("1.16.1"), "{report}");
    assert_eq!(check("jailer")?["status"], "fail", "{report}");
    assert!(check("jailer")?["remedy"].to_string().contains("statically"), "{report}");
    check("kvm")?;
    check("user")?;
    check("cgroups")?;
    Ok(())
}

fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env_remove("RUST_LOG");
    command
}

fn by_uid(vms: &[Vm]) -> Answer<HashMap<String, u32>> {
    vms.iter().map(|vm| Ok((vm.uid.clone(), pid(vm)?))).collect()
}

fn pid(vm: &Vm) -> Answer<u32> {
    Ok(u32::try_from(vm.process.as_ref().ok_or("no process")?.pid)?)
}
