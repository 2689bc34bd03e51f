//! Freezing VMs that have to be stopped for it.

use crate::cli_fake::{Fault, Settings};
use crate::site::{Case, Site, smolvm, wait_until};
use crate::terminal::answer;

pub(crate) const ALL: &[Case] = &[
    ("a_running_vm_is_frozen_only_when_it_may_be_stopped", frozen_when_it_may_be_stopped),
    ("on_a_terminal_it_asks_before_it_stops_a_vm", on_a_terminal_it_asks),
    ("a_freeze_that_fails_leaves_nothing_recorded", a_failed_freeze_leaves_nothing),
];

const QUESTION: &str = "mine must be stopped to be frozen. Stop it? [y/N] ";

fn frozen_when_it_may_be_stopped() {
    let site = Site::new("smolvm", &smolvm());
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.write(&vm, "a note");

    // There is nobody to be asked.
    let refused = hearth.run(&["freeze", "mine"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.starts_with("hearth: STOP_REQUIRED: "), "{refused:?}");
    assert!(refused.err.trim_end().ends_with("--yes stops it"), "{refused:?}");
    assert!(hearth.artifacts().is_empty());
    site.assert_untouched(&vm);
    let now = hearth.get("mine");
    assert_eq!((&now["state"], &now["preserved"]), (&"RUNNING".into(), &false.into()));

    let said = hearth.ok(&["freeze", "mine", "--artifact", "kept", "--yes"]);
    assert_eq!(said, "frozen mine into artifacts/kept\nhearth resume kept\n");
    let artifact = hearth.json(&["artifacts", "get", "kept"]);
    assert_eq!((&artifact["vm"], &artifact["has_memory"]), (&"vms/mine".into(), &false.into()));
    let now = hearth.get("mine");
    assert_eq!((&now["preserved"], &now["artifact"]), (&true.into(), &"artifacts/kept".into()));
    assert_eq!(now["state"], "STOPPED");

    // It is whole, and can be begun again.
    hearth.ok(&["vms", "start", "mine"]);
    let machine = site.machine(&vm).unwrap();
    assert_eq!((machine.state.as_str(), machine.disk.as_str()), ("running", "a note"));
    site.write(&vm, "too late");
    hearth.ok(&["release", "mine"]);
    wait_until("it is gone", || site.machine(&vm).is_none());
    assert_eq!(hearth.ok(&["resume", "mine"]), "resumed vms/mine from the artifact\n");
    let resumed = hearth.get("mine");
    assert_ne!(resumed["uid"], vm["uid"]);
    assert_eq!((&resumed["state"], &resumed["origin"]), (&"RUNNING".into(), &"ARTIFACT".into()));
    assert_eq!(site.machine(&resumed).unwrap().disk, "a note");
    site.assert_untouched(&resumed);
}

fn on_a_terminal_it_asks() {
    let site = Site::new("smolvm", &smolvm());
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    let freeze = || hearth.command(&["freeze", "mine", "--artifact", "kept"]);
    // Said, only passed over, and the end of what is typed.
    for no in ["n\n", "\n", "\x04"] {
        let ended = answer(freeze(), QUESTION, no);
        assert_eq!((ended.code, ended.out.as_str()), (0, "cancelled\n"), "{no:?}: {ended:?}");
        assert!(hearth.artifacts().is_empty(), "{no:?}");
        site.assert_untouched(&vm);
    }
    let ended = answer(freeze(), QUESTION, "y\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.starts_with("frozen mine into artifacts/kept\n"), "{ended:?}");
    assert_eq!(hearth.artifacts(), ["artifacts/kept"]);
    // What does not run is frozen, or captured, without a question.
    hearth.ok(&["freeze", "mine", "--artifact", "again"]);
    assert_eq!(hearth.artifacts(), ["artifacts/again", "artifacts/kept"]);
    hearth.ok(&["vms", "start", "mine"]);
    let refused = hearth.run(&["vms", "snapshot", "mine", "--id", "one"]);
    assert!(refused.err.contains("STOP_REQUIRED"), "{refused:?}");
    hearth.ok(&["vms", "snapshot", "mine", "--id", "one", "--allow-stop"]);
    assert_eq!(hearth.get("mine")["state"], "STOPPED");
}

fn a_failed_freeze_leaves_nothing() {
    let site = Site::new("smolvm", &smolvm());
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    let before = site.snapshots();
    let faults = [("pack create".to_owned(), Fault::DiskFull)].into_iter().collect();
    site.fake.set(&Settings { faults, ..smolvm() });
    let failed = hearth.run(&["freeze", "mine", "--yes"]);
    assert_eq!(failed.code, 4, "{failed:?}");
    assert!(failed.err.contains("disk space"), "{failed:?}");
    assert!(hearth.artifacts().is_empty());
    assert_eq!(site.snapshots(), before);
    let now = hearth.get("mine");
    assert_eq!((&now["preserved"], &now["state"]), (&false.into(), &"RUNNING".into()), "as it was");
    site.fake.set(&smolvm());
    hearth.ok(&["freeze", "mine", "--artifact", "kept", "--yes"]);
    assert!(site.machine(&vm).is_some());
}
