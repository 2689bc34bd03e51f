//! What is Apple's own: two shapes of answers, "stopping", and images that are built.

use std::sync::Arc;

use hearth_providers::apple_container::{self, AppleContainer, AppleContainerProvider};
use hearth_providers::cli::CliConfig;
use hearth_providers::env::SystemEnv;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus};
use tempfile::TempDir;

use crate::cli_fake::{self, Fault, Kind, Settings, Store};
use crate::rig::{Case, id, paths, restored, snapshot_id, spec};

pub(crate) const ALL: &[Case] = &[
    ("a_restore_is_a_rebuild", a_restore_is_a_rebuild),
    ("a_clones_image_goes_with_it", a_clones_image_goes_with_it),
    ("what_is_stopping_is_waited_for", what_is_stopping_is_waited_for),
    ("old_answers_are_taken_up", old_answers_are_taken_up),
    ("an_old_version_exports_what_is_stopped", an_old_version_exports_what_is_stopped),
    ("a_failed_export_leaves_nothing", a_failed_export_leaves_nothing),
    ("another_program_is_refused", another_program_is_refused),
];

fn settings(version: &str) -> Settings {
    Settings { kind: Kind::Apple, version: version.to_owned(), ..Settings::default() }
}

struct Rig {
    provider: Option<AppleContainerProvider>,
    fake: Store,
    config: CliConfig,
    dir: TempDir,
}

impl Rig {
    fn new(settings: &Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (program, fake) = cli_fake::install(dir.path(), settings);
        let mut rig = Self { provider: None, fake, config: CliConfig::new(program, "state"), dir };
        rig.reopen();
        rig
    }

    fn reopen(&mut self) {
        self.provider = None;
        let (env, paths) = (Arc::new(SystemEnv), paths(self.dir.path()));
        let opened = apple_container::open("apple", self.config.clone(), env, paths);
        self.provider = Some(opened.unwrap().0);
    }

    fn provider(&self) -> &AppleContainerProvider {
        self.provider.as_ref().unwrap()
    }

    /// A running VM with a note on its disk.
    fn run(&self, name: &str) -> hearth_providers::Uid {
        let wanted = hearth_providers::VmSpec { boot_args: "/bin/serve it".into(), ..spec("base") };
        self.provider().create_vm_with_spec(&id(name), &wanted).unwrap();
        self.provider().start_vm(&id(name)).unwrap();
        let uid = self.provider().get_vm(&id(name)).unwrap().uid;
        self.fake.change(&format!("hearth-{uid}"), |machine| machine.disk = "a note".to_owned());
        uid
    }
}

fn a_restore_is_a_rebuild() {
    let rig = Rig::new(&settings("1.2.1"));
    let uid = rig.run("vm");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    assert_eq!(rig.provider().status(&id("vm")), Some(VmStatus::Running));
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true)).unwrap();
    let clone = rig.provider().get_vm(&id("clone")).unwrap().uid;
    let machine = rig.fake.machine(&format!("hearth-{clone}")).unwrap();
    assert_eq!((machine.disk.as_str(), machine.state.as_str()), ("a note", "running"));
    assert_eq!(machine.command, ["/bin/serve", "it"]);
    assert_eq!((machine.vcpu_count, machine.mem_size_mib), (2, 256));
    let image = rig.fake.machine(&format!("image=hearth-restored:{clone}")).unwrap();
    for line in ["ENV A=\"b c\"", "WORKDIR \"/srv\"", "USER 7:8", "CMD [\"it\"]"] {
        assert!(image.output.lines().any(|said| said == line), "{line} in {}", image.output);
    }
    assert!(!image.output.contains("dev.hearth"), "{}", image.output);
}

fn a_clones_image_goes_with_it() {
    let rig = Rig::new(&settings("1.2.1"));
    let uid = rig.run("vm");
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, false)).unwrap();
    assert_eq!(rig.fake.machines().len(), 3);
    rig.provider().destroy_vm(&id("clone")).unwrap();
    rig.provider().destroy_vm(&id("vm")).unwrap();
    assert_eq!(rig.fake.machines(), []);
}

fn what_is_stopping_is_waited_for() {
    let rig = Rig::new(&settings("1.2.1"));
    let uid = rig.run("vm");
    rig.provider().stop_vm(&id("vm")).unwrap();
    let stopped = rig.fake.machine(&format!("hearth-{uid}")).unwrap();
    assert_eq!(stopped.state, "stopped");
    rig.provider().start_vm(&id("vm")).unwrap();
    rig.fake.change(&stopped.name, |machine| {
        machine.state = "stopping".to_owned();
        machine.looks = 3;
    });
    rig.provider().destroy_vm(&id("vm")).unwrap();
    assert_eq!(rig.fake.machines(), []);
}

fn old_answers_are_taken_up() {
    let mut rig = Rig::new(&Settings { old_shape: true, ..settings("0.12.0") });
    rig.run("running");
    rig.run("stopped");
    rig.provider().stop_vm(&id("stopped")).unwrap();
    rig.provider().create_vm_with_spec(&id("created"), &spec("base")).unwrap();
    rig.reopen();
    assert_eq!(rig.provider().status(&id("running")), Some(VmStatus::Running));
    assert_eq!(rig.provider().status(&id("stopped")), Some(VmStatus::Stopped));
    assert_eq!(rig.provider().status(&id("created")), Some(VmStatus::Created));
    // The tool is upgraded under what runs.
    rig.fake.set(&settings("1.2.1"));
    rig.reopen();
    assert_eq!(rig.provider().status(&id("running")), Some(VmStatus::Running));
}

fn an_old_version_exports_what_is_stopped() {
    let rig = Rig::new(&settings("1.2.0"));
    rig.run("vm");
    let refused = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert_eq!(refused.kind(), "stop_required");
    rig.provider().stop_vm(&id("vm")).unwrap();
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
}

fn a_failed_export_leaves_nothing() {
    let rig = Rig::new(&settings("1.2.1"));
    let uid = rig.run("vm");
    let mut full = settings("1.2.1");
    full.faults.insert("export -o".to_owned(), Fault::DiskFull);
    rig.fake.set(&full);
    let error = rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert_eq!(error.kind(), "exhausted");
    let snapshots = paths(rig.dir.path()).state.join("snapshots");
    assert_eq!(std::fs::read_dir(snapshots).unwrap().count(), 0);
    full.faults.clear();
    full.faults.insert("build -t".to_owned(), Fault::DiskFull);
    rig.fake.set(&full);
    rig.provider().snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap();
    let made = rig.provider().create_vm_with_spec(&id("clone"), &restored(uid, true));
    assert_eq!(made.unwrap_err().kind(), "exhausted");
    assert_eq!(rig.fake.machines().len(), 1, "a clone was left");
}

fn another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (program, _) =
        cli_fake::install(dir.path(), &Settings { kind: Kind::Smolvm, ..settings("1.0.0") });
    let error = AppleContainer::find(&CliConfig::new(program, "state")).unwrap_err();
    assert!(error.to_string().contains("is not Apple's container"), "{error}");
}
