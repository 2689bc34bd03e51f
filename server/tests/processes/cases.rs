//! What must hold when processes die.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{AcquireVmRequest, Vm, endpoint};
use tokio::io::AsyncWriteExt as _;

use crate::hearth::{Answer, Hearth, Host, Outcome, kill, request};
use crate::running::cases;

cases! {
    true a_killed_warm_vmm_is_never_handed_out_and_is_replaced,
    true a_killed_leased_vmm_is_failed_with_its_console,
    true hearth_killed_under_load_loses_nothing,
    true sigterm_leaves_vms_running_for_the_next_start,
    true names_lost_while_hearth_was_down_are_made_again,
    true vms_of_a_lost_journal_are_left_alone,
    true a_frozen_vm_goes_on_with_its_memory_and_its_disk,
    false leases_of_the_memory_provider_are_failed_after_a_kill,
    false a_second_hearth_on_the_state_directory_is_refused,
}

async fn a_killed_warm_vmm_is_never_handed_out_and_is_replaced() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let victim = hearth.warm_vms().await?.remove(0);
    kill(pid(&victim)?);
    let died = "hearth_stale_discarded_total{pool=\"default\",reason=\"died\"}";
    hearth.until("its death is counted", async || hearth.metric(died).await >= Some(1.0)).await?;
    for number in 0..6 {
        let got = hearth.acquire(request(&format!("vm-{number}"))).await?;
        let vm = got.vm.ok_or("no vm")?;
        assert_ne!(vm.uid, victim.uid);
        assert_eq!(vm.state(), State::Running);
    }
    hearth
        .until("it is replaced", async || hearth.warm_vms().await.is_ok_and(|warm| warm.len() == 4))
        .await?;
    assert_eq!(host.vmm_pids().len(), 10);
    Ok(())
}

async fn a_killed_leased_vmm_is_failed_with_its_console() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let vm = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    kill(pid(&vm)?);
    let begun = tokio::time::Instant::now();
    hearth
        .until("it is FAILED", async || {
            hearth.get("vms/mine").await.is_ok_and(|vm| vm.state() == State::Failed)
        })
        .await?;
    println!("seen to be FAILED {:?} after its kill", begun.elapsed());
    let failure = hearth.get("vms/mine").await?.failure.ok_or("no failure")?;
    assert!(format!("{failure:?}").contains("signal 9"), "{failure:?}");
    assert_eq!((failure.exit_signal, failure.exit_status), (Some(9), None));
    let told = hearth.shell("hearth vms describe mine")?;
    assert!(told.contains("signal 9"), "{told}");
    hearth.client.release(&vm).await?;

    // One whose guest has said something: it is told with the failure.
    let vm = hearth.acquire(request("said")).await?.vm.ok_or("no vm")?;
    let channel = vm.endpoints.iter().find(|it| it.kind() == endpoint::Kind::Unix);
    let channel = &channel.ok_or("no channel")?.address;
    tokio::net::UnixStream::connect(channel).await?.write_all(b"\npanic\n").await?;
    hearth
        .until("it is FAILED", async || {
            hearth.get("vms/said").await.is_ok_and(|vm| vm.state() == State::Failed)
        })
        .await?;
    let failure = hearth.get("vms/said").await?.failure.ok_or("no failure")?;
    assert!(failure.console_tail.contains("panic asked for"), "{failure:?}");
    assert_eq!((failure.exit_signal, failure.exit_status), (None, Some(0)));
    let told = hearth.shell("hearth vms describe said")?;
    assert!(told.contains("panic asked for") && told.contains("exit status"), "{told}");
    hearth.client.release(&vm).await?;
    let dir = host.state().join("instances").join(&vm.uid);
    hearth.until("its directory is gone", async || !dir.exists()).await?;
    // Evidence of both outlives them.
    let kept = std::fs::read_dir(host.state().join("quarantine"))?;
    let kept: Vec<_> = kept.map(|entry| entry.map(|it| it.path())).collect::<Result<_, _>>()?;
    assert_eq!(kept.len(), 2, "{kept:?}");
    let of_it = kept.iter().find(|it| it.to_string_lossy().ends_with(&vm.uid));
    let of_it = of_it.ok_or("no evidence of it")?;
    for file in ["failure.json", "console"] {
        let text = String::from_utf8_lossy(&std::fs::read(of_it.join(file))?).into_owned();
        assert!(text.contains("panic asked for"), "{file}: {text}");
    }
    assert!(of_it.join("qemu.log").is_file());
    Ok(())
}

async fn hearth_killed_under_load_loses_nothing() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = Arc::new(host.start().await?);
    // Callers that acquire and keep, each remembering what it was told.
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let hearth = Arc::clone(&hearth);
        callers.spawn(async move {
            let mut answered = Vec::new();
            for number in 0.. {
                let asked = request(&format!("load-{caller}-{number}"));
                match hearth.acquire(asked.clone()).await {
                    Ok(got) => answered.push((asked, got.vm)),
                    Err(_) => return (answered, asked),
                }
            }
            unreachable!("callers go on until hearth is killed")
        });
    }
    hearth
        .until("there is load", async || {
            let leased = hearth.metric("hearth_leased_vms{pool=\"default\"}").await;
            leased >= Some(10.0)
        })
        .await?;
    let child = Arc::clone(&hearth);
    kill(child.pid());
    let told = callers.join_all().await;
    drop(child);
    Arc::into_inner(hearth).ok_or("still held")?.kill()?;
    let pids_before: HashSet<_> = host.vmm_pids().into_iter().collect();

    let hearth = host.start().await?;
    let mut seen = HashMap::new();
    for (answered, unanswered) in told {
        for (asked, vm) in answered {
            let before = vm.ok_or("no vm")?;
            let after = hearth.get(&before.name).await?;
            assert_eq!((&after.uid, after.state()), (&before.uid, State::Running));
            assert_eq!(pid(&after)?, pid(&before)?, "the same process");
            assert!(pids_before.contains(&pid(&after)?));
            let replay = hearth.acquire(asked).await?;
            assert!(replay.replayed, "a replay is answered");
            assert_eq!(replay.vm.map(|vm| vm.uid), Some(before.uid.clone()));
            assert!(seen.insert(before.uid, before.name).is_none(), "a VM given twice");
        }
        let vm = retry(&hearth, unanswered).await?;
        assert!(seen.insert(vm.uid, vm.name).is_none(), "a VM given twice");
    }
    settle(&hearth, &host, seen.len()).await?;
    for name in seen.values() {
        let vm = hearth.get(name).await?;
        hearth.client.release(&vm).await?;
    }
    settle(&hearth, &host, 0).await?;
    println!("{} leases lived through the kill", seen.len());
    Ok(())
}

async fn sigterm_leaves_vms_running_for_the_next_start() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let before = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    settle(&hearth, &host, 1).await?;
    let warm: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    assert!(hearth.terminate()?.success());
    assert_eq!(host.vmm_pids().len(), 5);
    let hearth = host.start().await?;
    assert_eq!(pid(&hearth.get("vms/mine").await?)?, pid(&before)?);
    let again: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    assert_eq!(again, warm, "adopted, not restored anew");
    let got = hearth.acquire(request("next")).await?;
    assert_eq!(got.source(), Source::Warm);
    Ok(())
}

async fn names_lost_while_hearth_was_down_are_made_again() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let before = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    settle(&hearth, &host, 1).await?;
    hearth.kill()?;
    std::fs::remove_dir_all(host.runtime())?;
    let hearth = host.start().await?;
    let after = hearth.get("vms/mine").await?;
    assert_eq!((&after.uid, after.state()), (&before.uid, State::Running));
    assert!(host.runtime().join("names/mine").is_symlink());
    settle(&hearth, &host, 1).await?;
    hearth.client.release(&after).await?;
    settle(&hearth, &host, 0).await
}

async fn vms_of_a_lost_journal_are_left_alone() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    settle(&hearth, &host, 0).await?;
    hearth.kill()?;
    std::fs::remove_dir_all(host.state().join("journal"))?;
    let refused = host.start().await.err().ok_or("it started without its journal")?;
    assert!(refused.to_string().contains("--reap"), "{refused}");
    assert_eq!(host.vmm_pids().len(), 4, "they run on");
    Ok(())
}

async fn a_frozen_vm_goes_on_with_its_memory_and_its_disk() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let before = hearth.shell(
        "hearth acquire --name demo-1 >/dev/null
             hearth vms ask demo-1 'write note before the freeze'
             hearth vms ask demo-1 ping
             hearth freeze demo-1 --artifact kept && hearth release demo-1",
    )?;
    assert!(before.contains("frozen demo-1 into artifacts/kept\n"), "{before}");
    let counted = |text: &str| -> Answer<(u64, String)> {
        let word = |key: &str| text.split_ascii_whitespace().find_map(|it| it.strip_prefix(key));
        let counter = word("counter=").ok_or("no counter")?.parse()?;
        Ok((counter, word("boot_id=").ok_or("no boot id")?.to_owned()))
    };
    let (counter, boot_id) = counted(&before)?;
    // The file and the memory are in the artifact, and need no hearth that lives on.
    hearth.kill()?;
    let hearth = host.start().await?;
    let after = hearth.shell(
        "hearth resume demo-1
             hearth vms ask demo-1 'read note'
             hearth vms ask demo-1 ping",
    )?;
    assert!(after.starts_with("resumed vms/demo-1 from the artifact\n"), "{after}");
    assert!(after.contains("data before the freeze\n"), "{after}");
    let (goes_on, same_boot_id) = counted(&after)?;
    println!("the counter was {counter} before the freeze and is {goes_on} after the resume");
    assert_eq!(same_boot_id, boot_id, "it was not booted");
    assert!(goes_on > counter, "{goes_on} after {counter}");
    // While a VM runs from it, the artifact stays; its file by hand deleted, the next one is anew.
    hearth.shell("hearth release demo-1; hearth resume kept --name other >/dev/null")?;
    assert!(hearth.shell("hearth artifacts delete kept").is_err());
    hearth.shell("hearth release other")?;
    let snapshot = hearth.shell("hearth artifacts get kept --output json")?;
    let snapshot: serde_json::Value = serde_json::from_str(&snapshot)?;
    let reference = snapshot["reference"].as_str().ok_or("no reference")?;
    std::fs::remove_file(host.state().join(reference).join("state"))?;
    let anew = hearth.shell("hearth resume kept --name anew; hearth vms ask anew ping")?;
    assert!(anew.starts_with("resumed vms/anew anew from templates/default"), "{anew}");
    Ok(())
}

async fn leases_of_the_memory_provider_are_failed_after_a_kill() -> Outcome {
    let host = Host::new("memory")?;
    let hearth = host.start().await?;
    let asked = request("mine");
    let before = hearth.acquire(asked.clone()).await?.vm.ok_or("no vm")?;
    hearth.kill()?;
    let hearth = host.start().await?;
    let after = hearth.get("vms/mine").await?;
    assert_eq!((&after.uid, after.state()), (&before.uid, State::Failed));
    let replay = hearth.acquire(asked).await?;
    assert!(replay.replayed);
    hearth.client.release(&before).await?;
    assert!(hearth.get("vms/mine").await.is_err());
    hearth.acquire(request("mine")).await?;
    Ok(())
}

async fn a_second_hearth_on_the_state_directory_is_refused() -> Outcome {
    let host = Host::new("memory")?;
    let _first = host.start().await?;
    let refused = host.start().await.err().ok_or("a second hearth was let in")?.to_string();
    assert!(refused.contains("another hearth"), "{refused}");
    Ok(())
}

/// An acquire that was not answered is made again: it gets one VM, the first or a new one.
async fn retry(hearth: &Hearth, asked: AcquireVmRequest) -> Answer<Vm> {
    let first = hearth.acquire(asked.clone()).await?.vm.ok_or("no vm")?;
    let second = hearth.acquire(asked).await?;
    assert!(second.replayed);
    assert_eq!(second.vm.map(|vm| vm.uid).as_ref(), Some(&first.uid));
    Ok(first)
}

/// Waits until exactly the warm and the leased live.
pub(crate) async fn settle(hearth: &Hearth, host: &Host, leased: usize) -> Outcome {
    let settled = hearth.until("live = warm + leased", async || {
        let warm = hearth.warm_vms().await.map_or(0, |warm| warm.len());
        warm == 4 && host.vmm_pids().len() == 4 + leased
    });
    settled.await.map_err(|error| format!("{error}\n{}", host.log_tail()).into())
}

pub(crate) fn pid(vm: &Vm) -> Answer<u32> {
    Ok(u32::try_from(vm.process.as_ref().ok_or("no process")?.pid)?)
}
