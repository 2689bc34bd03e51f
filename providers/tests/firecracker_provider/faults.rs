//! What a Firecracker may do wrong, which only our fake does when it is told to.

use std::time::Duration;

use hearth_providers::provider::Probe;
use hearth_providers::{VmProvider as _, VmQuery as _, VmRuntimeError, VmSpec, VmStatus};

use crate::Case;
use crate::firecracker_fake::{BeforeSocket, Fault, Settings, What};
use crate::rig::{Host, LONG, Rig, id, kill, restored, snapshot_id, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("a_refused_load_ends_the_process", a_refused_load_ends_the_process),
    ("an_abort_at_load_is_an_incompatible_snapshot", an_abort_at_load),
    ("a_kill_at_load_is_worth_another_try", a_kill_at_load),
    ("a_load_that_hangs_is_ended_in_time", a_load_that_hangs_is_ended_in_time),
    ("a_death_after_the_load_is_a_failed_vm", a_death_after_the_load),
    ("a_pause_without_an_answer_ends_the_vm", a_pause_without_an_answer_ends_the_vm),
    ("a_full_disk_fails_the_snapshot_alone", a_full_disk_fails_the_snapshot_alone),
    ("a_death_in_a_snapshot_leaves_nothing_of_it", a_death_in_a_snapshot),
    ("too_many_connections_are_told", too_many_connections_are_told),
    ("an_end_before_the_socket_is_told", an_end_before_the_socket_is_told),
    ("a_kill_before_the_socket_can_be_tried_again", a_kill_before_the_socket),
    ("a_device_that_is_refused_leaves_nothing", a_device_that_is_refused),
    ("a_tap_in_use_is_told", a_tap_in_use_is_told),
    ("an_older_version_is_asked_what_it_knows", an_older_version_is_asked_what_it_knows),
    ("a_slow_snapshot_outlives_hearth", a_slow_snapshot_outlives_hearth),
    ("another_version_does_not_restore", another_version_does_not_restore),
];

const LOAD: (&str, &str) = ("PUT", "/snapshot/load");
const CREATE: (&str, &str) = ("PUT", "/snapshot/create");
const STATE: (&str, &str) = ("PATCH", "/vm");

fn fault((method, path): (&str, &str), what: What) -> Settings {
    let fault = Fault { method: method.to_owned(), path: path.to_owned(), what, times: None };
    Settings { faults: vec![fault], ..Settings::default() }
}

fn refusal(message: &str) -> What {
    What::Refuse { status: 400, body: format!("{{\"fault_message\":\"{message}\"}}") }
}

impl Rig {
    fn misbehave(&self, settings: &Settings) {
        self.fake.as_ref().unwrap().set(settings);
    }

    fn behave(&self) {
        self.misbehave(&Settings::default());
    }

    fn try_clone(&self, name: &str) -> Result<(), VmRuntimeError> {
        self.provider().create_vm_with_spec(&id(name), &restored("template", "ready", true))
    }
}

fn a_refused_load_ends_the_process(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    let words = [
        ("Load snapshot error: bitcode error", "snapshot_incompatible"),
        ("Load snapshot error: CRC64 validation failed", "snapshot_incompatible"),
        ("Load snapshot error: Failed to open snapshot file: No such file", "snapshot_not_found"),
        ("Load snapshot error: No space left on device (os error 28)", "exhausted"),
        ("Load snapshot error: something new", "backend"),
    ];
    for (message, kind) in words {
        rig.misbehave(&fault(LOAD, refusal(message)));
        let error = rig.try_clone("clone").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        rig.assert_instances(1);
    }
    rig.behave();
    rig.try_clone("clone").unwrap();
}

fn an_abort_at_load(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    rig.misbehave(&fault(LOAD, What::Eof));
    let error = rig.try_clone("clone").unwrap_err();
    assert_eq!(error.kind(), "snapshot_incompatible", "{error}");
    rig.assert_instances(1);
}

fn a_kill_at_load(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    rig.misbehave(&fault(LOAD, What::Signal(9)));
    let error = rig.try_clone("clone").unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
    assert!(error.to_string().contains("signal 9"), "{error}");
    rig.assert_instances(1);
}

fn a_load_that_hangs_is_ended_in_time(host: &Host) {
    let mut rig = Rig::with(host, &Settings::default(), |config| {
        config.restore_timeout = Duration::from_millis(300);
    });
    rig.template("template");
    rig.misbehave(&fault(LOAD, What::Hang));
    let error = rig.try_clone("clone").unwrap_err();
    assert!(matches!(error, VmRuntimeError::Timeout { .. }), "{error}");
    rig.assert_instances(1);
    rig.behave();
    rig.restart();
    rig.try_clone("clone").unwrap_or_else(|error| panic!("{error}"));
}

fn a_death_after_the_load(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    rig.misbehave(&fault(LOAD, What::DieAfter { status: 1 }));
    rig.try_clone("clone").unwrap_or_else(|error| panic!("it answered: {error}"));
    wait_until("its end is seen", || rig.status("clone") == Some(VmStatus::Failed));
    assert!(rig.provider().probe(&id("clone"), Probe::Alive, LONG).is_err());
    let failure = rig.provider().get_vm(&id("clone")).unwrap().failure.unwrap();
    assert_eq!(failure.exit_status, Some(1), "{failure:?}");
}

fn a_pause_without_an_answer_ends_the_vm(host: &Host) {
    let rig = Rig::with(host, &Settings::default(), |config| {
        config.command_timeout = Duration::from_secs(2);
    });
    rig.boot("vm", &rig.cold_spec());
    rig.misbehave(&fault(STATE, What::Hang));
    let error = rig.provider().stop_vm(&id("vm")).unwrap_err();
    assert!(matches!(error, VmRuntimeError::Timeout { .. }), "{error}");
    wait_until("it is failed", || rig.status("vm") == Some(VmStatus::Failed));
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure.unwrap();
    assert!(failure.reason.contains("did not answer"), "{failure:?}");
    assert!(rig.processes().is_empty());
}

fn a_full_disk_fails_the_snapshot_alone(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &VmSpec { track_dirty_pages: true, ..rig.cold_spec() });
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("whole")).unwrap();
    rig.misbehave(&fault(CREATE, refusal("Create snapshot error: No space left on device")));
    let error = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap_err();
    assert_eq!(error.kind(), "exhausted", "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Running));
    rig.counts_past("vm", rig.last_count("vm"));
    assert_eq!(rig.provider().all_snapshots().len(), 1);
    // What had changed may be lost to the next diff: it is a whole one.
    assert!(!rig.instance_dir("vm").join("base-memory").exists());
    rig.behave();
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap();
}

fn a_death_in_a_snapshot(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &rig.cold_spec());
    rig.misbehave(&fault(CREATE, What::Signal(9)));
    let error = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("one")).unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
    wait_until("its end is seen", || rig.status("vm") == Some(VmStatus::Failed));
    assert!(rig.provider().all_snapshots().is_empty());
    assert_eq!(std::fs::read_dir(rig.state.join("snapshots")).unwrap().count(), 0);
}

fn too_many_connections_are_told(host: &Host) {
    let rig = Rig::new(host);
    rig.boot("vm", &rig.cold_spec());
    rig.misbehave(&fault(STATE, What::Refuse { status: 503, body: String::new() }));
    let error = rig.provider().stop_vm(&id("vm")).unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
    assert!(error.to_string().contains("too many connections"), "{error}");
    rig.behave();
    rig.provider().stop_vm(&id("vm")).unwrap();
}

fn an_end_before_the_socket_is_told(host: &Host) {
    let rig = Rig::new(host);
    rig.provider().create_vm_with_spec(&id("vm"), &rig.cold_spec()).unwrap();
    let dies =
        Settings { before_socket: Some(BeforeSocket::Exit { code: 3 }), ..Default::default() };
    rig.misbehave(&dies);
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    assert!(error.to_string().contains("ended while it came up"), "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
    assert!(rig.processes().is_empty());
    rig.behave();
    rig.provider().start_vm(&id("vm")).unwrap();
}

fn a_kill_before_the_socket(host: &Host) {
    let rig = Rig::new(host);
    let hangs = BeforeSocket::HangForMillis(600_000);
    rig.misbehave(&Settings { before_socket: Some(hangs), ..Default::default() });
    rig.provider().create_vm_with_spec(&id("vm"), &rig.cold_spec()).unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| rig.provider().start_vm(&id("vm")));
        wait_until("it starts", || !rig.processes().is_empty());
        rig.processes().into_iter().for_each(kill);
        let error = starting.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("signal 9"), "{error}");
    });
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
    rig.behave();
    rig.provider().start_vm(&id("vm")).unwrap();
    rig.counts_past("vm", 0);
}

fn a_device_that_is_refused(host: &Host) {
    let rig = Rig::new(host);
    rig.provider().create_vm_with_spec(&id("vm"), &rig.cold_spec()).unwrap();
    rig.misbehave(&fault(("PUT", "/drives/rootfs"), refusal("Drive error: so it is")));
    let error = rig.provider().start_vm(&id("vm")).unwrap_err();
    assert!(error.to_string().contains("so it is"), "{error}");
    assert_eq!(rig.status("vm"), Some(VmStatus::Created));
    assert!(rig.processes().is_empty());
}

fn a_tap_in_use_is_told(host: &Host) {
    let rig = Rig::new(host);
    rig.template("template");
    let words = "Load snapshot error: Error restoring MMIO devices: Net: Open tap device failed: \
                 Device or resource busy (os error 16). Invalid TUN/TAP Backend provided by tap0.";
    rig.misbehave(&fault(LOAD, refusal(words)));
    let error = rig.try_clone("clone").unwrap_err();
    assert_eq!(error.kind(), "exhausted", "{error}");
    assert!(error.to_string().contains("TAP"), "{error}");
}

fn an_older_version_is_asked_what_it_knows(host: &Host) {
    let settings = Settings { version: "1.15.0".to_owned(), ..Settings::default() };
    let rig = Rig::with(host, &settings, |_| ());
    // Its load does not know where to move a vsock's socket: it need not be moved.
    rig.boot("template", &VmSpec { vsock_cid: Some(3), ..rig.cold_spec() });
    rig.provider().snapshot_vm(&id("template"), &snapshot_id("ready")).unwrap();
    rig.try_clone("one").unwrap_or_else(|error| panic!("{error}"));
    rig.try_clone("two").unwrap_or_else(|error| panic!("{error}"));
    let rig = Rig::with(host, &settings, |config| config.clock_realtime = true);
    rig.template("template");
    let error = rig.try_clone("clone").unwrap_err();
    assert_eq!(error.kind(), "unsupported", "{error}");
    assert!(error.to_string().contains("1.16.0") && error.to_string().contains("1.15.0"));
    rig.assert_instances(1);
}

fn a_slow_snapshot_outlives_hearth(host: &Host) {
    let mut rig = Rig::with(host, &Settings::default(), |config| {
        config.command_timeout = Duration::from_millis(500);
        config.snapshot_timeout_per_gib = Duration::from_secs(60);
    });
    rig.boot("vm", &rig.cold_spec());
    let before = rig.last_count("vm");
    // As after a `kill -9` of hearth: the guest stands still, and Firecracker writes.
    let mark = rig.instance_dir("vm").join("captured-while-running");
    std::fs::write(&mark, b"").unwrap();
    rig.misbehave(&fault(("GET", "/"), What::DelayMillis(1500)));
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.stop();
    let again = rig.provider_again();
    rig.behave();
    assert_eq!(again.adopted, 1);
    let failure = rig.provider().get_vm(&id("vm")).unwrap().failure;
    assert!(failure.is_none() || !mark.exists(), "{failure:?}");
    wait_until("it counts on or is told dead", || {
        rig.last_count("vm") > before || rig.status("vm") == Some(VmStatus::Failed)
    });
}

fn another_version_does_not_restore(host: &Host) {
    let mut rig = Rig::new(host);
    rig.template("template");
    rig.stop();
    rig.misbehave(&Settings { version: "1.17.0".to_owned(), ..Settings::default() });
    rig.provider_again();
    let error = rig.try_clone("clone").unwrap_err();
    assert_eq!(error.kind(), "snapshot_incompatible", "{error}");
    let text = error.to_string();
    assert!(text.contains("1.16.1") && text.contains("1.17.0"), "{text}");
    rig.assert_instances(1);
}
