//! Freezing VMs of Apple's container, whose versions differ in whether one has to be stopped.

use crate::cli_fake::{Fault, Settings};
use crate::site::{Case, Site, apple};

pub(crate) const ALL: &[Case] = &[
    ("a_vm_that_can_be_exported_as_it_runs_is_not_stopped", a_running_vm_is_not_stopped),
    ("before_that_version_a_vm_must_be_stopped", an_old_one_must_be_stopped),
    ("the_older_shape_of_answers_is_understood", the_older_shape_is_understood),
];

fn a_running_vm_is_not_stopped() {
    let site = Site::new("apple-container", &apple("1.2.1"));
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.write(&vm, "a note");
    // A stop would fail now.
    let faults = [("stop -t".to_owned(), Fault::DiskFull)].into_iter().collect();
    site.fake.set(&Settings { faults, ..apple("1.2.1") });
    let said = hearth.ok(&["freeze", "mine", "--artifact", "kept"]);
    assert_eq!(said, "frozen mine into artifacts/kept\nhearth resume kept\n");
    site.assert_untouched(&vm);
    assert_eq!(hearth.get("mine")["state"], "RUNNING");
    assert_eq!(hearth.json(&["artifacts", "get", "kept"])["has_memory"], false);
    site.write(&vm, "too late");
    // Beside the first, whose name is taken.
    assert_eq!(
        hearth.ok(&["resume", "kept", "--name", "other"]),
        "resumed vms/other from the artifact\n"
    );
    let resumed = hearth.get("other");
    assert_eq!(site.machine(&resumed).unwrap().disk, "a note");
    assert_eq!(resumed["state"], "RUNNING");
}

fn an_old_one_must_be_stopped() {
    must_be_stopped(&apple("1.2.0"));
}

fn the_older_shape_is_understood() {
    must_be_stopped(&Settings { old_shape: true, ..apple("0.12.0") });
}

fn must_be_stopped(settings: &Settings) {
    let site = Site::new("apple-container", settings);
    let hearth = site.start();
    let vm = hearth.acquire("mine");
    site.write(&vm, "a note");
    let refused = hearth.run(&["freeze", "mine"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("STOP_REQUIRED"), "{refused:?}");
    assert!(refused.err.trim_end().ends_with("--yes stops it"), "{refused:?}");
    assert!(hearth.artifacts().is_empty());
    site.assert_untouched(&vm);
    hearth.freeze_and_release(&site, &vm, "kept");
    assert_eq!(hearth.ok(&["resume", "mine"]), "resumed vms/mine from the artifact\n");
    assert_eq!(site.machine(&hearth.get("mine")).unwrap().disk, "a note");
}
