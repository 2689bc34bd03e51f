//! Real processes: shells and sleeps.

use std::fs;
use std::sync::mpsc;

use super::*;

const LONG: Duration = Duration::from_secs(10);

fn arguments(script: &str) -> Vec<OsString> {
    vec!["-c".into(), script.into()]
}

fn run(supervisor: &Supervisor, dir: &Path, script: &str) -> Process {
    let output = Arc::new(AppendLog::new(dir.join("log"), 4096));
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap();
    let arguments = arguments(script);
    let launch = Launch::new(Path::new("/bin/sh"), &arguments, dir, name, &output);
    supervisor.spawn(launch, vec![Arc::clone(&output)]).unwrap()
}

#[test]
fn an_end_is_reported_with_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::new().unwrap();
    let process = run(&supervisor, dir.path(), "echo said; exit 3");
    let (sender, receiver) = mpsc::channel();
    process.on_exit(move |exit| sender.send(exit).unwrap());
    assert_eq!(receiver.recv_timeout(LONG), Ok(Exit::Status(3)));
    assert_eq!(process.wait(LONG), Some(Exit::Status(3)));
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "said\n");
    supervisor.tidy(process.record());
    assert!(process.record().cgroup.as_ref().is_none_or(|cgroup| !cgroup.exists()));
    let killed = run(&supervisor, dir.path(), "exec sleep 100");
    killed.kill();
    assert_eq!(killed.wait(LONG), Some(Exit::Signal(9)));
    let (sender, receiver) = mpsc::channel();
    killed.on_exit(move |exit| sender.send(exit.status()).unwrap());
    assert_eq!(receiver.recv_timeout(LONG), Ok(Some(137)), "also when it is over");
    supervisor.tidy(killed.record());
}

#[test]
fn a_process_gets_nothing_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    // What a careless parent leaves open.
    let open = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let supervisor = Supervisor::new().unwrap();
    let process = run(&supervisor, dir.path(), "exec sleep 100");
    let pid = process.record().pid;
    let log = dir.path().canonicalize().unwrap().join("log");
    // It becomes another program, and each opens its libraries for a moment.
    let descriptors = || {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut all: Vec<_> =
            all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect();
        all.sort();
        all
    };
    let session = || {
        let session = rustix::process::getsid(procfs::to_pid(pid).ok()).unwrap();
        session.as_raw_nonzero().get().cast_unsigned()
    };
    let deadline = Deadline::after(LONG);
    while !procfs::executable(pid).ends_with("sleep")
        || descriptors() != [Path::new("/dev/null"), &log, &log]
    {
        assert!(deadline.left().is_some(), "{:?}", descriptors());
        std::thread::yield_now();
    }
    assert_eq!(session(), pid);
    // The shell that ran it may have set a variable or two of its own.
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO"));
    process.kill();
    process.wait(LONG).unwrap();
    supervisor.tidy(process.record());
}

#[test]
fn a_process_gets_a_cgroup_of_its_own_and_keeps_its_number_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::new().unwrap();
    let process = run(&supervisor, dir.path(), "exec sleep 100");
    let Some(cgroup) = process.record().cgroup.clone() else { return };
    let deadline = Deadline::after(LONG);
    let members = || fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    while members().trim() != process.record().pid.to_string() {
        assert!(deadline.left().is_some(), "{:?}", members());
        std::thread::yield_now();
    }
    process.kill();
    process.wait(LONG).unwrap();
    supervisor.tidy(process.record());
    // One that ends before its move leaves as little.
    let short = run(&supervisor, dir.path(), "exit 0");
    assert_eq!(short.wait(LONG), Some(Exit::Status(0)));
    supervisor.tidy(short.record());
    assert!(!cgroup.exists());
}

#[test]
fn a_process_is_adopted_only_if_it_is_the_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = Supervisor::new().unwrap();
    let process = run(&first, dir.path(), "exec sleep 100");
    drop((process, first));
    let record: ProcessRecord = files::read_json(&dir.path().join(RECORD)).unwrap();
    let second = Supervisor::new().unwrap();
    let adopt = |record: ProcessRecord, dir: &Path| second.adopt(record, dir, Vec::new());
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(adopt(record.clone(), elsewhere.path()).is_none());
    let other_boot = ProcessRecord { boot_id: "another".to_owned(), ..record.clone() };
    assert!(adopt(other_boot, dir.path()).is_none());
    let later = ProcessRecord { start_ticks: record.start_ticks + 1, ..record.clone() };
    assert!(adopt(later, dir.path()).is_none());
    let found = second.find_unrecorded(dir.path()).unwrap();
    assert_eq!((found.pid, found.start_ticks), (record.pid, record.start_ticks));
    let adopted = adopt(record.clone(), dir.path()).unwrap();
    adopted.kill();
    assert!(adopted.wait(LONG).is_some());
    second.tidy(&record);
    assert!(adopt(record, dir.path()).is_none(), "it is dead");
}

#[test]
fn a_record_names_no_other_directory_as_its_cgroup() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("hearth-vms/victim");
    fs::create_dir_all(&victim).unwrap();
    let record = ProcessRecord {
        pid: u32::MAX,
        start_ticks: 0,
        boot_id: String::new(),
        executable: "true".into(),
        cgroup: Some(victim.clone()),
    };
    let instance = dir.path().join("instance");
    fs::create_dir(&instance).unwrap();
    files::write_json(&instance.join(RECORD), &record).unwrap();
    let supervisor = Supervisor::new().unwrap();
    assert_eq!(supervisor.reap(&instance, LONG).cgroups, 0);
    supervisor.tidy(&record);
    supervisor.remove_cgroup(&victim);
    assert!(victim.is_dir());
}

#[test]
fn what_works_in_a_directory_is_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let first = Supervisor::new().unwrap();
    let process = run(&first, dir.path(), "sleep 100 & exec sleep 100");
    let cgroup = process.record().cgroup.clone();
    drop((process, first));
    let second = Supervisor::new().unwrap();
    let mut reaped = 0;
    // The shell may not yet have started its own child when it is reaped.
    while reaped == 0 {
        reaped = second.reap(dir.path(), LONG).processes;
    }
    assert!(procfs::Below::of(dir.path()).processes().is_empty());
    assert!(cgroup.is_none_or(|cgroup| !cgroup.exists()));
    assert_eq!(second.reap(dir.path(), LONG), Reaped::default());
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = Arc::new(AppendLog::new(dir.path().join("log"), 4096));
    let program = Path::new("/no/such/program");
    let launch = Launch::new(program, &[], dir.path(), "none", &output);
    let supervisor = Supervisor::new().unwrap();
    let error = supervisor.spawn(launch, Vec::new()).unwrap_err();
    assert_eq!(error.kind(), "backend", "{error}");
}
