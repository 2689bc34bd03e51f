//! Starts of hearth on what containers it left, or somebody else did.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use hearth_proto::v1::vm::State;
use hearth_providers::env::{Env as _, SystemEnv};

use crate::containers::{name, run_labelled, run_stranger, stands};
use crate::docker_engine::EngineHost;
use crate::site::{BOTH, Case, Site, assert_runs, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("orphans_are_reaped_and_strangers_stay", orphans_are_reaped_and_strangers_stay, BOTH),
    ("another_boot_of_the_host_fails_every_lease", another_boot_fails_every_lease, BOTH),
];

fn orphans_are_reaped_and_strangers_stay(engine: &EngineHost) {
    let site = Site::new(engine, 1);
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    wait_until("it is replaced", || hearth.warm() == 1);
    hearth.kill();
    let labels = |state: &str, uid: &str| -> HashMap<String, String> {
        let pairs = [("dev.hearth.state", state), ("dev.hearth.uid", uid)];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    };
    let (orphan, foreign) = (SystemEnv.uid().to_string(), SystemEnv.uid().to_string());
    run_labelled(engine, &name(&orphan), labels(site.uuid(), &orphan));
    run_labelled(engine, &name(&foreign), labels("another state", &foreign));
    let copied = format!("copied-{orphan}");
    run_labelled(engine, &copied, labels(site.uuid(), &orphan));
    let stranger = format!("stranger-{orphan}");
    run_stranger(engine, &stranger);

    let hearth = site.start();
    assert!(stands(engine, &name(&orphan)).is_none(), "ours, and in no record");
    assert_eq!(hearth.metric("hearth_orphans_reaped_total{kind=\"container\"}"), Some(1.0));
    for theirs in [name(&foreign), copied, stranger] {
        assert!(stands(engine, &theirs).is_some_and(|it| it.1 > 0), "{theirs}");
        crate::containers::remove(engine, &theirs);
    }
    assert_runs(&site, &hearth.get("vms/mine").unwrap());
    hearth.release(&vm);
    site.assert_nothing_left(&hearth);
}

/// A program that becomes hearth in a world whose boot has another id.
fn in_another_boot(dir: &Path) -> Vec<OsString> {
    let id = dir.join("boot-id");
    std::fs::write(&id, "00000000-1111-2222-3333-444444444444\n").unwrap();
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
    let program = ["unshare", "--mount", "sh", "-c", script, "sh"];
    program.map(OsString::from).into_iter().chain([id.into()]).collect()
}

/// An engine may start its containers with the host: without what they had in memory.
fn another_boot_fails_every_lease(engine: &EngineHost) {
    let mut site = Site::new(engine, 2);
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.exec(&vm, "echo kept > /etc/note");
    hearth.freeze(&vm.name, "kept").unwrap();
    wait_until("it is replaced", || hearth.warm() == 2);
    let warm: Vec<_> = hearth.waiting().into_iter().map(|vm| vm.uid).collect();
    hearth.kill();
    let stranger = format!("stranger-{}", vm.uid);
    run_stranger(engine, &stranger);

    let program = in_another_boot(site.dir());
    site.run_by(program);
    let hearth = site.start();
    let failed = hearth.get("vms/mine").unwrap();
    assert_eq!((failed.state(), &failed.uid), (State::Failed, &vm.uid));
    let failure = failed.failure.clone().unwrap();
    assert!(failure.message.contains("the host was restarted"), "{failure:?}");
    assert!(failure.console_tail.contains("READY"), "{failure:?}");
    assert!(stands(engine, &name(&vm.uid)).is_none(), "it does not go on for nobody");
    wait_until("the warm ones are gone", || {
        warm.iter().all(|uid| stands(engine, &name(uid)).is_none())
    });
    assert!(hearth.waiting().iter().all(|vm| !warm.contains(&vm.uid)));
    assert!(stands(engine, &stranger).is_some_and(|it| it.1 > 0), "a stranger goes on");
    crate::containers::remove(engine, &stranger);

    hearth.release(&failed);
    assert!(site.instance(&vm.uid).join("preserved.json").is_file());
    let resumed = hearth.resume("artifacts/kept").unwrap();
    assert_eq!(site.exec(&resumed, "cat /etc/note"), "kept\n");
    hearth.release(&resumed);
    hearth.delete_when_unused("kept");
    site.assert_nothing_left(&hearth);
}
