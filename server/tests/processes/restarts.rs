//! Another hearth on the same state directory: a new program, another boot of the host.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::State;
use hearth_proto::v1::{GetTemplateRequest, Vm, endpoint, template};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::cases::{pid, settle};
use crate::hearth::{Answer, Host, Outcome, kill, request};
use crate::running::cases;

cases! {
    true a_new_program_takes_over_and_guests_notice_nothing,
    true after_another_boot_of_the_host_leases_are_failed_and_nothing_is_warm,
    true after_an_upgrade_of_qemu_the_template_is_built_again_while_warm_vms_serve,
}

/// A tenant's own conversation with its guest, which hearth has no part in.
struct Conversation(BufReader<UnixStream>);

impl Conversation {
    async fn begin(vm: &Vm) -> Answer<Self> {
        let channel = vm.endpoints.iter().find(|it| it.kind() == endpoint::Kind::Unix);
        let channel = &channel.ok_or("no channel")?.address;
        Ok(Self(BufReader::new(UnixStream::connect(channel).await?)))
    }

    /// The guest's counter and the id of its boot.
    async fn ping(&mut self) -> Answer<(u64, String)> {
        self.0.get_mut().write_all(b"\nping\n").await?;
        let mut line = String::new();
        while !line.starts_with("pong ") {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err("the guest hung up".into());
            }
        }
        let word = |key: &str| line.split_ascii_whitespace().find_map(|it| it.strip_prefix(key));
        let counter = word("counter=").ok_or("no counter")?.parse()?;
        Ok((counter, word("boot_id=").ok_or("no boot id")?.to_owned()))
    }
}

async fn a_new_program_takes_over_and_guests_notice_nothing() -> Outcome {
    let mut host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let before = hearth.acquire(request("mine")).await?.vm.ok_or("no vm")?;
    settle(&hearth, &host, 1).await?;
    let warm: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    let mut tenant = Conversation::begin(&before).await?;
    let (counter, boot_id) = tenant.ping().await?;
    assert!(hearth.terminate()?.success());
    // While nobody serves the guest goes on.
    let (between, _) = tenant.ping().await?;

    let next = host.dir().join("hearth-next");
    fs::copy(env!("CARGO_BIN_EXE_hearth"), &next)?;
    host.run_as(vec![next.clone().into()]);
    let hearth = host.start().await?;
    assert_eq!(fs::read_link(format!("/proc/{}/exe", hearth.pid()))?, next.canonicalize()?);
    let after = hearth.get("vms/mine").await?;
    assert_eq!((&after.uid, after.state()), (&before.uid, State::Running));
    assert_eq!(pid(&after)?, pid(&before)?, "the same process");
    let (goes_on, same_boot_id) = tenant.ping().await?;
    println!("the guest's counter: {counter}, {between} without hearth, {goes_on} after it");
    assert!(counter < between && between < goes_on);
    assert_eq!(same_boot_id, boot_id);
    let again: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    assert_eq!(again, warm, "adopted, not restored anew");
    assert_eq!(hearth.acquire(request("next")).await?.source(), Source::Warm);
    drop(tenant);
    for name in ["vms/mine", "vms/next"] {
        let vm = hearth.get(name).await?;
        hearth.client.release(&vm).await?;
    }
    settle(&hearth, &host, 0).await
}

/// A program that becomes hearth in a world whose boot has another id.
fn in_another_boot(dir: &Path) -> Answer<Vec<OsString>> {
    let id = dir.join("boot-id");
    fs::write(&id, "00000000-1111-2222-3333-444444444444\n")?;
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
    let program = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let mut program: Vec<OsString> = program.into_iter().map(OsString::from).collect();
    program.extend([id.into(), env!("CARGO_BIN_EXE_hearth").into()]);
    Ok(program)
}

async fn after_another_boot_of_the_host_leases_are_failed_and_nothing_is_warm() -> Outcome {
    let mut host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let asked = request("mine");
    let before = hearth.acquire(asked.clone()).await?.vm.ok_or("no vm")?;
    hearth.shell("hearth vms ask mine 'write note kept'; hearth freeze mine --artifact kept")?;
    settle(&hearth, &host, 1).await?;
    let warm: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    hearth.kill()?;
    // As a restart of the host has it: no process lives, and numbers may be others' by now.
    host.vmm_pids().into_iter().for_each(kill);

    host.run_as(in_another_boot(host.dir())?);
    let hearth = host.start().await?;
    let after = hearth.get("vms/mine").await?;
    assert_eq!((&after.uid, after.state()), (&before.uid, State::Failed));
    let failure = after.failure.ok_or("no failure")?;
    assert!(failure.message.contains("the host was restarted"), "{failure:?}");
    assert!(failure.exit_status.is_none() && failure.exit_signal.is_none(), "{failure:?}");
    let replay = hearth.acquire(asked).await?;
    assert_eq!((replay.replayed, replay.vm.map(|vm| vm.uid)), (true, Some(before.uid.clone())));
    let again: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    assert!(again.is_disjoint(&warm), "warm before and after another boot");
    let reaped = hearth.metric("hearth_orphans_reaped_total{kind=\"vm\"}").await;
    assert_eq!(reaped, Some(4.0));
    hearth.until("they are gone", async || host.vmm_pids().len() == 4).await?;

    // The artifact's directory stays when its VM goes, and what is in it goes on.
    hearth.client.release(&before).await?;
    assert!(host.state().join("instances").join(&before.uid).join("preserved.json").is_file());
    let said = hearth.shell("hearth resume kept --name again; hearth vms ask again 'read note'")?;
    assert!(said.contains("data kept"), "{said}");
    hearth.shell("hearth release again")?;
    settle(&hearth, &host, 0).await
}

/// Has every snapshot say that an older QEMU made it.
fn age_snapshots(host: &Host) -> Outcome {
    for entry in fs::read_dir(host.state().join("snapshots"))? {
        let image = entry?.path().join("image.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&image)?)?;
        json["made_with"]["qemu"] = "9.0.1".into();
        fs::write(image, json.to_string())?;
    }
    Ok(())
}

async fn after_an_upgrade_of_qemu_the_template_is_built_again_while_warm_vms_serve() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    let warm: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    hearth.kill()?;
    age_snapshots(&host)?;

    // It serves at once, with what is warm, and does not wait for the build.
    let hearth = host.begin(&[]).await?;
    hearth.until("it serves", async || hearth.ready().await).await?;
    let template = async || {
        let request = GetTemplateRequest { name: "templates/default".to_owned() };
        let found = hearth.client.templates.clone().get_template(request).await;
        found.map(tonic::Response::into_inner)
    };
    assert_eq!(template().await?.state(), template::State::Building, "a boot takes seconds");
    let got = hearth.acquire(request("mine")).await?;
    let vm = got.vm.as_ref().ok_or("no vm")?;
    assert!(got.source() == Source::Warm && warm.contains(&vm.uid));
    hearth
        .until("it is built again", async || {
            template()
                .await
                .is_ok_and(|it| it.generation == 2 && it.state() == template::State::Ready)
        })
        .await?;
    let is_new = |vm: &Vm| vm.template_generation == 2;
    hearth
        .until("the pool has gone over", async || {
            hearth.warm_vms().await.is_ok_and(|vms| vms.len() == 4 && vms.iter().all(is_new))
        })
        .await?;
    assert!(is_new(&hearth.acquire(request("next")).await?.vm.ok_or("no vm")?));
    assert_eq!(hearth.get("vms/mine").await?.state(), State::Running, "a tenant notices nothing");
    hearth.shell("hearth release mine next")?;
    settle(&hearth, &host, 0).await
}
