//! Rows on command lines.

use crate::row::{Change, Jailer, Kind, Row, Step};
use crate::states::{captured, captured_and};

pub(crate) fn rows() -> Vec<Row> {
    let long: &'static str = Box::leak("x".repeat(65).into_boxed_str());
    let far: &'static str = Box::leak(format!("/{}", "x".repeat(120)).into_boxed_str());
    let describe = vec!["--describe-snapshot", "DIR/state"];
    let mut rows = vec![
        command("the version", vec![], &["--version"]),
        command("the version, whatever else is said", vec![], &["--nonsense", "--version"]),
        command("the format of snapshots", vec![], &["--snapshot-version"]),
        command("the format of a snapshot", captured(), &describe),
        command(
            "the format of a state with another version",
            captured_and(vec![Step::Change("state", Change::Version)]),
            &describe,
        ),
        command("the format of an empty state", vec![Step::File("state", 0)], &describe),
        command("the format of no state", vec![], &describe),
        command("an unknown argument", vec![], &["--nonsense"]),
        command("a word that is no argument", vec![], &["nonsense"]),
        command("an argument without its value", vec![], &["--id"]),
        command("an argument instead of a value", vec![], &["--id", "--no-seccomp"]),
        command("an argument twice", vec![], &["--id", "a", "--id", "b"]),
        command("no API and no configuration", vec![], &["--no-api"]),
        command("an id with an underscore", vec![], &["--id", "a_b"]),
        command("an id that is too long", vec![], &["--id", long]),
        command("an unknown level", vec![], &["--level", "Loud"]),
        command(
            "an API socket that exists",
            vec![Step::File("api", 0)],
            &["--api-sock", "DIR/api"],
        ),
        command("an API socket in no directory", vec![], &["--api-sock", "DIR/none/api"]),
        command("an API socket at a path too long", vec![], &["--api-sock", far]),
    ];
    rows.extend(jailer_rows(long));
    rows
}

/// Whether or not they come to a jail, they need a base directory, a program and ids.
fn jailer_rows(long: &'static str) -> Vec<Row> {
    const BASE: [&str; 8] =
        ["--exec-file", "PROGRAM", "--uid", "1234", "--gid", "4321", "--chroot-base-dir", "DIR"];
    const API: [&str; 3] = ["--", "--api-sock", "/run/api"];
    let with = |id: &'static str, more: &[&'static str]| [&["--id", id], &BASE[..], more].concat();
    let but = |name: &str, value: &'static str| {
        let mut arguments = with("table", &[]);
        let place = arguments.iter().position(|it| *it == name).unwrap_or(0);
        arguments[place + 1] = value;
        arguments
    };
    let jailed = |more: &[&'static str]| with("table", &[more, &API[..]].concat());
    vec![
        jailer("the jailer's version", vec!["--version"], 1),
        jailer("a jail without an id", BASE.to_vec(), 1),
        jailer("a jail without anything", vec![], 1),
        jailer("a jail with an unknown argument", with("table", &["--nonsense"]), 1),
        jailer("a jail with an id with an underscore", with("a_b", &[]), 1),
        jailer("a jail with an id too long", with(long, &[]), 1),
        jailer("a jail for no program", but("--exec-file", "DIR/none"), 1),
        jailer("a jail for a directory", but("--exec-file", "DIR"), 1),
        jailer("a jail in no directory", but("--chroot-base-dir", "DIR/none"), 1),
        jailer("a jail for a user by name", but("--uid", "nobody"), 1),
        jailer("a jail for a group by name", but("--gid", "nogroup"), 1),
        jailer("a jail with an absolute parent", with("table", &["--parent-cgroup", "/a"]), 1),
        jailer("a jail with a parent above", with("table", &["--parent-cgroup", "../a"]), 1),
        jailer("a jail with another version", with("table", &["--cgroup-version", "v2"]), 1),
        jailer(
            "a jail with a version to come",
            with("table", &["--cgroup-version", "3", "--cgroup", "cpu.shares=2"]),
            1,
        ),
        jailer("a jail with a limit of nothing", with("table", &["--resource-limit", "fsize"]), 1),
        jailer("a jail with an unknown limit", with("table", &["--resource-limit", "cpu=1"]), 1),
        jailer("a jail with a limit in words", with("table", &["--resource-limit", "fsize=a"]), 1),
        jailer("a jail in no network", with("table", &["--netns", "DIR/none"]), 1),
        of_this_host(jailer(
            "a jail with a group value missing",
            with("table", &["--cgroup", "cpu.shares"]),
            1,
        )),
        of_this_host(jailer(
            "a jail with a group file above",
            with("table", &["--cgroup", "../cpu.shares=2"]),
            1,
        )),
        of_this_host(jailer(
            "a jail with an unknown controller",
            with("table", &["--cgroup", "nothing.shares=2"]),
            1,
        )),
        of_root(jailer("a jail", jailed(&[]), 1)),
        of_root(jailer("a jail with limits", jailed(&["--resource-limit", "no-file=512"]), 1)),
        of_root(jailer("a jail of other process ids", jailed(&["--new-pid-ns"]), 1)),
        of_root(jailer("a jail of a daemon", jailed(&["--daemonize"]), 1)),
        of_root(jailer("a jail that was used", jailed(&[]), 2)),
    ]
}

fn command(name: &'static str, steps: Vec<Step>, arguments: &[&'static str]) -> Row {
    let kind = Kind::Command(steps, arguments.to_vec());
    Row { name, kind, needs_root: false, is_of_this_host: false }
}

fn jailer(name: &'static str, arguments: Vec<&'static str>, runs: usize) -> Row {
    let kind = Kind::Jailer(Jailer { arguments, runs });
    Row { name, kind, needs_root: false, is_of_this_host: false }
}

fn of_root(row: Row) -> Row {
    Row { needs_root: true, ..row }
}

fn of_this_host(row: Row) -> Row {
    Row { is_of_this_host: true, ..row }
}
