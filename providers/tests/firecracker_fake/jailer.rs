//! The program `jailer`: its command line, and the way into the jail.
//!
//! The real one ends by executing the copy of Firecracker that it made. Here the process goes on
//! as the fake itself, because what lies in the jail is a script that nothing there can run.
//! `--daemonize` and `--new-pid-ns` start the test binary once more before the jail is shut.

use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::arguments::{Arguments, Kind, Known, check_instance_id};
use super::cgroup::Cgroups;
use super::installation::Installation;
use super::jail::{Jail, Limits};
use super::{AS_JAILED, firecracker};

const KNOWN: [Known; 13] = [
    known("cgroup", Kind::Values),
    known("cgroup-version", Kind::Value),
    known("chroot-base-dir", Kind::Value),
    known("daemonize", Kind::Flag),
    known("exec-file", Kind::Required),
    known("gid", Kind::Required),
    known("id", Kind::Required),
    known("netns", Kind::Value),
    known("new-pid-ns", Kind::Flag),
    known("parent-cgroup", Kind::Value),
    known("resource-limit", Kind::Values),
    known("uid", Kind::Required),
    known("version", Kind::Flag),
];

const fn known(name: &'static str, kind: Kind) -> Known {
    Known { name, kind }
}

/// Runs the program, or what it left behind; the answer is the exit status.
pub(super) fn run(installation: Installation, line: &[String], is_jailed: bool) -> i32 {
    match prepare(&installation, line, is_jailed) {
        Ok(Next::Done) => 0,
        Ok(Next::Firecracker(arguments)) => firecracker::run(installation, &arguments),
        Err(reason) => {
            eprintln!("{reason}");
            1
        }
    }
}

enum Next {
    Done,
    Firecracker(Vec<String>),
}

fn prepare(installation: &Installation, line: &[String], is_jailed: bool) -> Result<Next, String> {
    let arguments = Arguments::parse(line, &KNOWN);
    let arguments =
        arguments.map_err(|error| format!("Failed to parse arguments: {}", error.words))?;
    if arguments.has("help") || arguments.has("version") {
        println!("Jailer v{}\n", installation.settings().version);
        return Ok(Next::Done);
    }
    let order = Order::check(&arguments)?;
    let mut for_firecracker = vec!["--id".to_owned(), order.id.clone()];
    for clock in ["--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us"] {
        for_firecracker.extend([clock.to_owned(), "1".to_owned()]);
    }
    for_firecracker.extend(arguments.extra.iter().cloned());
    if is_jailed {
        order.jail.enter()?;
        return Ok(Next::Firecracker(for_firecracker));
    }
    let root = &order.jail.root;
    std::fs::create_dir_all(root)
        .map_err(|error| format!("Failed to create directory {}: {error}", root.display()))?;
    order.jail.copy_program(&order.program)?;
    if let Some(path) = arguments.value("netns") {
        join_network(path)?;
    }
    order.limits.apply()?;
    order.cgroups.set_up()?;
    order.jail.furnish()?;
    let (daemonize, new_pid_ns) = (arguments.has("daemonize"), arguments.has("new-pid-ns"));
    if daemonize || new_pid_ns {
        let pid = start_again(installation, line, daemonize, new_pid_ns)?;
        order.jail.write_pid(pid)?;
        return Ok(Next::Done);
    }
    order.jail.write_pid(std::process::id())?;
    order.jail.enter()?;
    Ok(Next::Firecracker(for_firecracker))
}

/// What a command line asks for, once all of it was found good.
struct Order {
    id: String,
    program: PathBuf,
    jail: Jail,
    cgroups: Cgroups,
    limits: Limits,
}

impl Order {
    fn check(arguments: &Arguments) -> Result<Self, String> {
        let value = |name| arguments.value(name).unwrap_or_default();
        let id = value("id");
        check_instance_id(id).map_err(|(_, words)| format!("Invalid instance ID: {words}"))?;
        let canonical = |path: &str| {
            std::fs::canonicalize(path)
                .map_err(|error| format!("Failed to canonicalize path {path}: {error}"))
        };
        let program = canonical(value("exec-file"))?;
        if !program.is_file() {
            return Err(format!("{} is not a file", program.display()));
        }
        // The name in the jail is that of the file itself, whatever links lead to it.
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let base = canonical(arguments.value("chroot-base-dir").unwrap_or("/srv/jailer"))?;
        if !base.is_dir() {
            return Err(format!("{} is not a directory", base.display()));
        }
        let number = |name: &str, words: &str| {
            let text = arguments.value(name).unwrap_or_default();
            text.parse::<u32>().map_err(|_| format!("Invalid {words}: {text}"))
        };
        let (uid, gid) = (number("uid", "uid")?, number("gid", "gid")?);
        let parent = Path::new(arguments.value("parent-cgroup").unwrap_or(&name));
        if !stays_below(parent) {
            return Err("Parent cgroup path is invalid. Path should not be absolute or contain \
                        '..' or '.'"
                .to_owned());
        }
        let version = arguments.value("cgroup-version").unwrap_or("1");
        let cgroups = Cgroups::check(version, parent, id, arguments.values("cgroup"))?;
        let limits = Limits::check(arguments.values("resource-limit"))?;
        let root = base.join(&name).join(id).join("root");
        Ok(Self {
            id: id.to_owned(),
            program,
            jail: Jail { root, name, uid, gid },
            cgroups,
            limits,
        })
    }
}

/// Whether a path leads only down.
pub(super) fn stays_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn join_network(path: &str) -> Result<(), String> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let file = std::fs::File::open(path);
    let file = file.map_err(|error| format!("Failed to open file {path}: {error}"))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(|error| {
            let error = std::io::Error::from(error);
            format!("Failed to join network namespace: netns: {error}")
        })
}

/// Starts what goes on in the jail, in a session of its own; answers its process id.
fn start_again(
    installation: &Installation,
    line: &[String],
    daemonize: bool,
    new_pid_ns: bool,
) -> Result<u32, String> {
    if new_pid_ns {
        // SAFETY: a new namespace of process ids changes nothing for this process and its memory.
        let unshared =
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) };
        unshared.map_err(|error| {
            let error = std::io::Error::from(error);
            format!("Failed cloning into a new child process: {error}")
        })?;
    }
    let failed = |error: std::io::Error| format!("Failed to daemonize: {error}");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg(AS_JAILED).arg(&installation.settings_file).args(line);
    command.process_group(0);
    if daemonize {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    Ok(command.spawn().map_err(failed)?.id())
}
