//! Artifacts whose files are gone, and those that outlive a hearth.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli_fake::Settings;
use crate::site::{Case, Hearth, Site, apple, smolvm, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("an_artifact_of_smolvm_without_its_files_begins_anew", smolvm_begins_anew),
    ("an_artifact_of_apple_container_without_its_files_begins_anew", apple_begins_anew),
    ("leases_and_artifacts_of_smolvm_live_through_a_kill", smolvm_lives_through_a_kill),
    ("leases_and_artifacts_of_apple_container_live_through_a_kill", apple_lives_through_a_kill),
];

fn smolvm_begins_anew() {
    begins_anew("smolvm", &smolvm(), "machine.smolmachine");
}

fn apple_begins_anew() {
    begins_anew("apple-container", &apple("1.2.1"), "rootfs.tar");
}

fn begins_anew(kind: &str, settings: &Settings, file: &str) {
    let site = Site::new(kind, settings);
    let hearth = site.start();
    let (first, first_dir) = freeze_one(&site, &hearth, "first");
    let (second, second_dir) = freeze_one(&site, &hearth, "second");
    std::fs::remove_file(first_dir.join(file)).unwrap();
    falls_back(&site, &hearth, &first);
    std::fs::remove_dir_all(&second_dir).unwrap();
    falls_back(&site, &hearth, &second);
    // What is gone is still gone for the next hearth, which says so as well.
    hearth.ok(&["release", "first", "second"]);
    hearth.kill();
    let hearth = site.start();
    assert_eq!(hearth.artifacts(), ["artifacts/first", "artifacts/second"]);
    for vm in [&first, &second] {
        falls_back(&site, &hearth, vm);
    }
}

/// A VM that was frozen under its own name and released, and where its snapshot is.
fn freeze_one(site: &Site, hearth: &Hearth, name: &str) -> (Value, PathBuf) {
    let before = site.snapshots();
    hearth.ok(&["pools", "wait", "default", "--warm", "1"]);
    let vm = hearth.acquire(name);
    site.write(&vm, "a note");
    hearth.freeze_and_release(site, &vm, name);
    let new: Vec<_> = site.snapshots().difference(&before).cloned().collect();
    let [dir] = new.as_slice() else { panic!("{new:?}") };
    assert!(is_whole(dir));
    (vm, dir.clone())
}

fn is_whole(dir: &Path) -> bool {
    dir.join("image.json").is_file()
}

fn falls_back(site: &Site, hearth: &Hearth, vm: &Value) {
    let name = vm["name"].as_str().unwrap();
    let id = name.trim_start_matches("vms/");
    assert_eq!(
        hearth.ok(&["resume", id]),
        format!("resumed {name} anew from templates/default: the artifact's data is gone\n")
    );
    let resumed = hearth.get(id);
    assert_eq!((&resumed["state"], &resumed["origin"]), (&"RUNNING".into(), &"TEMPLATE".into()));
    assert_eq!(site.machine(&resumed).unwrap().disk, "", "a fresh disk");
    assert!(site.log().contains("an artifact's data is gone"), "nothing is logged");
}

fn smolvm_lives_through_a_kill() {
    live_through_a_kill("smolvm", &smolvm());
}

fn apple_lives_through_a_kill() {
    live_through_a_kill("apple-container", &apple("1.2.1"));
}

fn live_through_a_kill(kind: &str, settings: &Settings) {
    let site = Site::new(kind, settings);
    let hearth = site.start();
    let (frozen, _) = freeze_one(&site, &hearth, "frozen");
    hearth.ok(&["pools", "wait", "default", "--warm", "1"]);
    let leased = hearth.acquire("leased");
    site.write(&leased, "of the leased");
    hearth.ok(&["pools", "wait", "default", "--warm", "1"]);
    hearth.kill();
    assert_eq!(site.machine(&leased).unwrap().state, "running", "it runs on");

    let hearth = site.start();
    let after = hearth.get("leased");
    assert_eq!((&after["uid"], &after["state"]), (&leased["uid"], &"RUNNING".into()));
    assert_eq!(site.machine(&after).unwrap().disk, "of the leased");
    site.assert_untouched(&after);
    assert_eq!(hearth.artifacts(), ["artifacts/frozen"]);
    assert_eq!(hearth.ok(&["resume", "frozen"]), "resumed vms/frozen from the artifact\n");
    let resumed = hearth.get("frozen");
    assert_ne!(resumed["uid"], frozen["uid"]);
    assert_eq!(site.machine(&resumed).unwrap().disk, "a note");

    // Nothing of either is left behind.
    hearth.ok(&["release", "leased", "frozen"]);
    wait_until("both are gone", || [&after, &resumed].iter().all(|vm| site.machine(vm).is_none()));
    wait_until("the artifact can be deleted", || {
        hearth.run(&["artifacts", "delete", "frozen"]).code == 0
    });
    wait_until("only the template's snapshot is left", || site.snapshots().len() == 1);
}
