//! A tool that hangs, floods, raves, lies or fails: errors are typed, and nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use hearth_providers::cli::CliConfig;
use hearth_providers::env::SystemEnv;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus, smolvm};

use crate::cli_fake::{self, Fault, Settings};
use crate::rig::{Case, Rig, id, paths, settings, snapshot_id, spec, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("a_program_that_is_not_there_is_named", a_program_that_is_not_there_is_named),
    ("another_program_or_an_old_one_is_refused", another_program_or_an_old_one_is_refused),
    ("a_start_that_hangs_leaves_the_vm_created", a_start_that_hangs_leaves_the_vm_created),
    ("a_start_that_fails_leaves_the_vm_created", a_start_that_fails_leaves_the_vm_created),
    ("a_start_that_was_made_counts", a_start_that_was_made_counts),
    ("a_database_that_is_being_made_is_waited_for", a_database_that_is_being_made_is_waited_for),
    ("a_vm_that_ends_at_once_is_failed", a_vm_that_ends_at_once_is_failed),
    ("a_create_that_fails_leaves_nothing", a_create_that_fails_leaves_nothing),
    ("a_full_disk_leaves_no_snapshot", a_full_disk_leaves_no_snapshot),
    ("a_list_that_makes_no_sense_kills_nobody", a_list_that_makes_no_sense_kills_nobody),
    ("a_flood_is_cut_off", a_flood_is_cut_off),
    ("a_removal_that_was_only_said_is_made_up_for", a_removal_that_was_only_said),
    ("what_the_tool_cannot_do_is_refused", what_the_tool_cannot_do_is_refused),
];

fn with_fault(command: &str, fault: Fault) -> Settings {
    let mut settings = settings();
    settings.faults.insert(command.to_owned(), fault);
    settings
}

fn a_program_that_is_not_there_is_named() {
    let config = CliConfig::new("/nonexistent/smolvm", "state");
    let error = smolvm::Smolvm::find(&config).unwrap_err();
    assert_eq!(error.kind(), "backend");
    assert!(error.to_string().contains("/nonexistent/smolvm is not there: install"), "{error}");
}

fn another_program_or_an_old_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let old = Settings { version: "0.9.1".to_owned(), ..Settings::default() };
    let (program, fake) = cli_fake::install(dir.path(), &old);
    let config = CliConfig::new(program, "state");
    let error = smolvm::Smolvm::find(&config).unwrap_err();
    assert!(error.to_string().contains("is not smolvm 1.0 or newer"), "{error}");
    fake.set(&with_fault("--version", Fault::Raves));
    assert_eq!(smolvm::Smolvm::find(&config).unwrap_err().kind(), "backend");
    fake.set(&settings());
    let unnamed = CliConfig { state: String::new(), ..config };
    let opened = smolvm::open("smolvm", unnamed, Arc::new(SystemEnv), paths(dir.path()));
    assert_eq!(opened.unwrap_err().kind(), "invalid_spec");
}

fn a_start_that_hangs_leaves_the_vm_created() {
    let rig = Rig::with(|config| config.start_timeout = Duration::from_secs(2));
    let uid = rig.create("vm");
    rig.fake.set(&with_fault("machine start", Fault::Hangs));
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    assert_eq!(error.kind(), "timeout");
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
    assert_eq!(rig.machine(uid).unwrap().state, "created");
    rig.fake.set(&settings());
    rig.provider().start_vm(&id("vm")).unwrap();
}

fn a_start_that_fails_leaves_the_vm_created() {
    let rig = Rig::new();
    rig.provider().create_vm_with_spec(&id("vm"), &spec("missing")).unwrap();
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap();
    assert!(cause.contains("manifest unknown"), "{cause}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
}

fn a_start_that_was_made_counts() {
    let rig = Rig::new();
    rig.create("vm");
    rig.fake.set(&with_fault("machine start", Fault::FailsAfterwards));
    rig.provider().start_vm(&id("vm")).unwrap();
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
}

fn a_database_that_is_being_made_is_waited_for() {
    let rig = Rig::new();
    let fails_once = |command| rig.fake.set(&with_fault(command, Fault::NotOpen));
    fails_once("machine create");
    rig.create("vm");
    fails_once("machine start");
    rig.provider().start_vm(&id("vm")).unwrap();
    fails_once("machine ls");
    let probe = hearth_providers::provider::Probe::Alive;
    rig.provider().probe(&id("vm"), probe, Duration::from_secs(30)).unwrap();
}

fn a_vm_that_ends_at_once_is_failed() {
    let rig = Rig::new();
    rig.provider().create_vm_with_spec(&id("vm"), &spec("ends-at-once")).unwrap();
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    assert!(error.to_string().contains("nothing to do"), "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Failed));
    rig.provider().destroy_vm(&id("vm")).unwrap();
}

fn a_create_that_fails_leaves_nothing() {
    let rig = Rig::new();
    for fault in [Fault::FailsAfterwards, Fault::DiskFull] {
        rig.fake.set(&with_fault("machine create", fault));
        let error = rig.provider().create_vm_with_spec(&id("vm"), &spec("base")).unwrap_err();
        let kind = if fault == Fault::DiskFull { "exhausted" } else { "backend" };
        assert_eq!(error.kind(), kind);
        assert_eq!(rig.fake.machines(), []);
        assert_eq!(rig.status("vm"), None);
    }
    rig.fake.set(&settings());
    rig.create("vm");
}

fn a_full_disk_leaves_no_snapshot() {
    let rig = Rig::new();
    rig.run("vm");
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.fake.set(&with_fault("pack create", Fault::DiskFull));
    let error = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert_eq!(error.kind(), "exhausted");
    assert_eq!(std::fs::read_dir(rig.paths().state.join("snapshots")).unwrap().count(), 0);
    // It ends well and leaves no pack.
    rig.fake.set(&with_fault("pack create", Fault::Raves));
    let error = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert!(error.to_string().contains("left no machine.smolmachine"), "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Stopped));
}

fn a_list_that_makes_no_sense_kills_nobody() {
    let rig = Rig::new();
    let (_, other) = (rig.run("vm"), rig.run("other"));
    rig.fake.set(&with_fault("machine ls", Fault::Raves));
    let probe = hearth_providers::provider::Probe::Alive;
    let error = rig.provider().probe(&id("vm"), probe, Duration::from_secs(30)).unwrap_err();
    assert_eq!(error.kind(), "backend");
    rig.fake.set(&settings());
    rig.change(other, |machine| machine.state = "stopped".to_owned());
    wait_until("the other is failed", || rig.status("other") == Some(VmStatus::Failed));
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
}

fn a_flood_is_cut_off() {
    let rig = Rig::new();
    rig.run("vm");
    rig.fake.set(&with_fault("machine logs", Fault::Floods));
    let piece = rig.provider().console(&id("vm"), 6, 5).unwrap();
    assert_eq!((piece.offset, piece.bytes.as_slice()), (6, b"flood".as_slice()));
    rig.fake.set(&with_fault("machine ls", Fault::Floods));
    let probe = hearth_providers::provider::Probe::Alive;
    let error = rig.provider().probe(&id("vm"), probe, Duration::from_secs(30)).unwrap_err();
    assert!(error.to_string().contains("writes more than"), "{error}");
    rig.fake.set(&settings());
}

fn a_removal_that_was_only_said() {
    let rig = Rig::with(|config| config.remove_timeout = Duration::from_millis(200));
    let uid = rig.run("vm");
    rig.fake.set(&Settings { cancels_removals: true, ..settings() });
    rig.provider().destroy_vm(&id("vm")).unwrap();
    assert_eq!(rig.status("vm"), Some(VmStatus::Destroyed));
    assert!(rig.machine(uid).is_some(), "the fake has removed it");
    rig.fake.set(&settings());
    wait_until("it is swept", || rig.machine(uid).is_none());
}

fn what_the_tool_cannot_do_is_refused() {
    let rig = Rig::new();
    let mut wanted = spec("base");
    wanted.rootfs_read_only = true;
    let error = rig.provider().create_vm_with_spec(&id("vm"), &wanted).unwrap_err();
    assert!(error.to_string().starts_with("rootfs_read_only"), "{error}");
    rig.run("vm");
    assert_eq!(
        rig.provider().guest_channel(&id("vm")).map(drop).unwrap_err().kind(),
        "unsupported"
    );
}
