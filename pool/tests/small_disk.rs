//! A disk that fills up: nothing is handed out, everything can be given back, nothing is lost.
//!
//! Each case mounts a small disk of its own, a tmpfs or an ext4 image; without the right to mount
//! it is ignored with the reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use common::*;
use hearth_pool::env::{Env as _, SystemEnv};
use hearth_pool::ids::Tenant;
use hearth_pool::journal::{Control, Journal, LeaseRecord, RecordState, Source};
use hearth_pool::manager::Manager;
use hearth_providers::{Uid, VmId};
use libtest_mimic::{Arguments, Trial};

/// Larger than twice what the journal keeps back.
const DISK_BYTES: u64 = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let missing = Disk::mount(kind).err();
        let cases: [(&str, Case); 6] = [
            ("the_write_that_hits_the_end_is_the_last_promise", the_last_promise),
            ("a_full_disk_refuses_acquires_and_takes_releases", acquires_and_releases),
            ("a_start_on_a_full_disk_serves_releases", a_start_on_a_full_disk),
            ("what_is_kept_back_goes_to_nobody_else", nobody_else),
            ("many_who_hit_the_end_at_once_lose_nothing", many_at_once),
            ("records_survive_a_disk_that_fills_again_and_again", again_and_again),
        ];
        for (name, case) in cases {
            let run = move || {
                case(&Disk::mount(kind)?);
                Ok(())
            };
            let trial = Trial::test(format!("{kind:?}::{name}"), run);
            if let Some(why) = &missing {
                println!("ignored {kind:?}::{name}: {why}");
            }
            trials.push(trial.with_ignored_flag(missing.is_some()));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Case = fn(&Disk);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tmpfs,
    Ext4,
}

/// A small disk, unmounted when it is dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn mount(kind: Kind) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (at, image) = (dir.path().join("at"), dir.path().join("image"));
        std::fs::create_dir(&at).map_err(|error| error.to_string())?;
        match kind {
            Kind::Tmpfs => {
                let size = format!("size={DISK_BYTES}");
                run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at))?;
            }
            Kind::Ext4 => {
                let made = File::create(&image).and_then(|it| it.set_len(DISK_BYTES));
                made.map_err(|error| error.to_string())?;
                let mkfs = ["-q", "-F", "-m", "0", "-J", "size=4"];
                run(Command::new("mkfs.ext4").args(mkfs).arg(&image))?;
                run(Command::new("mount").args(["-o", "loop"]).args([&image, &at]))?;
            }
        }
        Ok(Self { dir })
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("at")
    }

    /// Takes every block that is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![1; size];
            while file.write_all(&bytes).is_ok() {}
        }
        // Blocks that were promised to pages in memory are taken for good.
        let _ = file.sync_all();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

fn open(disk: &Disk) -> Journal {
    Journal::open(&disk.path().join("journal"), &SystemEnv).unwrap()
}

fn record(number: u64, state: RecordState) -> LeaseRecord {
    let mut bytes = [7; 16];
    // The bytes behind have the version in them.
    bytes[..4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    let uid = Uid::from_random(bytes);
    LeaseRecord {
        uid,
        state,
        vm_id: VmId::parse(&format!("vm-{number}")).unwrap(),
        pool_vm_id: VmId::warm(uid),
        provider: "memory".into(),
        pool: None,
        template: None,
        generation: 1,
        tenant: Tenant::anonymous(),
        labels: std::iter::once(("l".to_owned(), "x".repeat(1000))).collect(),
        request_id: None,
        fingerprint: number,
        fence: 1,
        source: Source::Warm,
        boot_id: "b".into(),
        deadline: Duration::from_secs(1),
        expire_time: SystemTime::UNIX_EPOCH,
        acquire_time: SystemTime::UNIX_EPOCH,
    }
}

/// Promises VMs until the journal is unwell. How many were promised.
fn promise_until_full(journal: &Journal, from: u64) -> u64 {
    for number in from..from + 100_000 {
        if journal.check_well().is_err() {
            return number;
        }
        journal.write_lease(&record(number, RecordState::Leased)).unwrap();
    }
    panic!("the disk did not fill up");
}

/// A store that could not be opened is not tried again at once.
fn until_well(journal: &Journal) {
    for _ in 0..10_000 {
        if journal.check_well().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    journal.check_well().unwrap();
}

/// Every record up to `count` is there, in this state.
fn expect(journal: &Journal, count: u64, state: RecordState) {
    let mut found = journal.leases().unwrap();
    found.sort_by_key(|it| it.fingerprint);
    assert_eq!(found.len() as u64, count);
    for (number, found) in found.into_iter().enumerate() {
        assert_eq!(found, record(number as u64, state));
    }
}

fn the_last_promise(disk: &Disk) {
    let journal = open(disk);
    disk.fill();
    let count = promise_until_full(&journal, 0);
    assert!(count > 0);
    assert!(journal.check_well().is_err(), "it stays so while there is no room");
    let written = journal.write_control(Control::Pool, "p", &1).unwrap_err();
    assert_eq!(written.reason(), "storage");
    journal.write_control(Control::Node, "drains", &true).unwrap();
    for number in 0..count {
        journal.write_lease(&record(number, RecordState::Releasing)).unwrap();
    }
    drop(journal);
    let journal = open(disk);
    expect(&journal, count, RecordState::Releasing);
    disk.make_room();
    journal.check_well().unwrap();
    journal.write_control(Control::Pool, "p", &1).unwrap();
}

fn a_start_on_a_full_disk(disk: &Disk) {
    let journal = open(disk);
    journal.write_lease(&record(0, RecordState::Leased)).unwrap();
    drop(journal);
    // It was kept back by the former life.
    disk.fill();
    let journal = open(disk);
    let count = promise_until_full(&journal, 1);
    expect(&journal, count, RecordState::Leased);
    drop(journal);
    // Now nothing is, but what the log has got.
    disk.fill();
    let journal = open(disk);
    assert!(journal.check_well().is_err());
    for number in 0..count {
        journal.write_lease(&record(number, RecordState::Gone)).unwrap();
    }
    expect(&journal, count, RecordState::Gone);
}

fn nobody_else(disk: &Disk) {
    let journal = open(disk);
    disk.fill();
    let count = promise_until_full(&journal, 0);
    disk.fill();
    // Thousands of releases, of three records each.
    for number in 0..2_000 {
        for state in [RecordState::Releasing, RecordState::Gone] {
            journal.write_lease(&record(number % count, state)).unwrap();
        }
    }
    expect(&journal, count, RecordState::Gone);
    // Even when that is used up the journal says so, and forgets nothing.
    let mut refused = None;
    for number in 0..100_000 {
        if let Err(error) = journal.write_lease(&record(number % count, RecordState::Gone)) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.unwrap().reason(), "storage");
    disk.make_room();
    until_well(&journal);
    journal.write_lease(&record(0, RecordState::Gone)).unwrap();
    expect(&journal, count, RecordState::Gone);
}

fn again_and_again(disk: &Disk) {
    let mut journal = open(disk);
    let mut count = 0;
    for turn in 0..4 {
        disk.fill();
        count = promise_until_full(&journal, count);
        expect(&journal, count, RecordState::Leased);
        if turn % 2 == 1 {
            drop(journal);
            journal = open(disk);
            expect(&journal, count, RecordState::Leased);
        }
        disk.make_room();
        journal.check_well().unwrap();
    }
}

fn many_at_once(disk: &Disk) {
    const WRITERS: u64 = 8;
    let mut journal = open(disk);
    for turn in 0..3 {
        disk.fill();
        let promised: Vec<u64> = std::thread::scope(|scope| {
            let write = |writer: u64| {
                let journal = &journal;
                move || {
                    let numbers = (0..).map(|it| (turn * 100_000 + it) * WRITERS + writer);
                    let promise = |number: &u64| {
                        journal.check_well().is_ok()
                            && journal.write_lease(&record(*number, RecordState::Leased)).is_ok()
                    };
                    numbers.take_while(promise).collect::<Vec<_>>()
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|it| scope.spawn(write(it))).collect();
            writers.into_iter().flat_map(|it| it.join().unwrap()).collect()
        });
        assert!(!promised.is_empty());
        if turn == 1 {
            drop(journal);
            journal = open(disk);
        }
        let found: std::collections::HashSet<u64> =
            journal.leases().unwrap().iter().map(|it| it.fingerprint).collect();
        assert!(promised.iter().all(|number| found.contains(number)));
        disk.make_room();
        until_well(&journal);
    }
}

fn acquires_and_releases(disk: &Disk) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
        let host = Host { dir: tempfile::tempdir_in(disk.path()).unwrap(), ..Host::new(1) };
        let node = host.with_pool(4).await;
        disk.fill();
        let mut taken = Vec::new();
        let refused = loop {
            assert!(taken.len() < 1000, "the disk did not fill up");
            match node.take(request()).await {
                Ok(acquired) => taken.push(acquired.lease.held().vm_id),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.reason(), "storage");
        node.settle("default").await;
        // No VM was lost, none was renamed: as many as were promised, and those that are warm.
        assert_eq!(host.live(), taken.len() + 4);
        let named = node.take(named("mine")).await.unwrap_err();
        assert_eq!(named.reason(), "storage");
        assert_eq!(host.provider.runtime.status(&id("mine")), None);
        assert_eq!(host.live(), taken.len() + 4);
        let half = taken.split_off(taken.len() / 2);
        release(&node, &half).await;
        node.until("half are gone", || host.live() == taken.len() + 4).await;
        disk.make_room();
        let late = node.take(identified("r")).await.unwrap().lease.held().vm_id;
        node.settle("default").await;
        node.crash().await;
        let node = host.start().await;
        node.settle("default").await;
        assert_eq!(host.live(), taken.len() + 5, "{}", host.env.boot_time().as_secs());
        taken.push(late);
        release(&node, &taken).await;
        node.until("all are gone", || host.live() == 4).await;
        node.crash().await;
    });
}

async fn release(node: &std::sync::Arc<Manager>, names: &[VmId]) {
    for name in names {
        node.release(name, None, None).await.unwrap();
    }
}
