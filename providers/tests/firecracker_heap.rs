//! How much heap the firecracker provider keeps for each VM that lives, by the allocator's count.
//!
//! The VMs are clones on our fake, each a process of its own, whose heap is not in the count:
//! what is measured is what this process keeps about them. That is the same for real ones.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a case fails by panicking")]

mod firecracker_fake;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use firecracker_fake::Settings;
use hearth_providers::directory::Paths;
use hearth_providers::env::{Deadline, SystemEnv};
use hearth_providers::firecracker::{FirecrackerBackend, FirecrackerConfig, FirecrackerProvider};
use hearth_providers::model::{SnapshotRef, SnapshotSource};
use hearth_providers::readiness::{Readiness, wait_ready};
use hearth_providers::{SnapshotId, VmId, VmProvider as _, VmQuery as _, VmSpec};
use libtest_mimic::{Arguments, Trial};

/// How many clones are counted.
const CLONES: usize = 64;
/// How many live and end before, so that tables have the size that they keep.
const WARM_UP: usize = 16;
/// The most that a VM may take.
const MAX_BYTES_PER_VM: usize = 16 << 10;
/// The most that is remembered of a VM that was destroyed; of some 1,000 of them, for minutes.
const MAX_BYTES_PER_TOMBSTONE: usize = 2 << 10;
/// A count that has not changed over so many looks is that of a process at rest.
const CALM_LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Passes everything on to the system's allocator and counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each call goes on unchanged to `System`, which keeps the trait's promises, and so does
// its answer; the counter is no part of what is allocated, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises about the layout are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller got the block from us with this layout, and we got it from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        IN_USE.fetch_add(size, Ordering::Relaxed);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as for `dealloc`, and the caller's promise about the size is what `System` asks.
        unsafe { System.realloc(block, layout, size) }
    }
}

fn main() -> ExitCode {
    firecracker_fake::run_if_asked();
    let case = Trial::test("a_vm_takes_little_heap", || {
        a_vm_takes_little_heap();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![case]).exit_code()
}

fn a_vm_takes_little_heap() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::with_template(dir.path());
    host.clone_all("warm-up", WARM_UP);
    host.destroy_all("warm-up", WARM_UP);

    let before = at_rest();
    host.clone_all("clone", CLONES);
    let with_clones = at_rest();
    host.destroy_all("clone", CLONES);
    let after = at_rest();

    let per_vm = with_clones.saturating_sub(before) / CLONES;
    let per_tombstone = after.saturating_sub(before) / CLONES;
    println!("heap per VM: {per_vm} bytes");
    println!("heap per VM that was destroyed: {per_tombstone} bytes");
    assert!(per_vm <= MAX_BYTES_PER_VM, "{per_vm} bytes per VM");
    assert!(per_tombstone <= MAX_BYTES_PER_TOMBSTONE, "{per_tombstone} bytes per destroyed VM");
    assert!(per_vm > 0, "a VM is not kept for nothing: the count is wrong");
}

/// The count once it no longer changes: threads of the provider may have something left to do.
fn at_rest() -> usize {
    let deadline = Deadline::after(LONG);
    let (mut count, mut looks) = (IN_USE.load(Ordering::Relaxed), 0);
    while looks < CALM_LOOKS {
        assert!(deadline.left().is_some(), "the heap does not come to rest");
        std::thread::sleep(BETWEEN_LOOKS);
        let now = IN_USE.load(Ordering::Relaxed);
        looks = if now == count { looks + 1 } else { 0 };
        count = now;
    }
    count
}

/// A provider on the fake, with a VM `template` and its snapshot `ready`.
struct Host(FirecrackerProvider);

impl Host {
    fn with_template(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name);
        fs::create_dir(at("bin")).unwrap();
        // Dozens of guests that count as fast as they can would keep each other waiting.
        let settings = Settings { count_every_millis: 200, ..Settings::default() };
        let fake = firecracker_fake::install(&at("bin"), &settings);
        fs::write(at("kernel"), b"\x7fELF, as far as the fake looks").unwrap();
        let env = Arc::new(SystemEnv);
        let config = FirecrackerConfig { binary: fake.firecracker, ..FirecrackerConfig::default() };
        let backend = FirecrackerBackend::new(config, Arc::clone(&env) as _).unwrap();
        let paths = Paths { state: at("state"), runtime: at("state") };
        let opened = FirecrackerProvider::open("firecracker", backend, env, paths);
        let host = Self(opened.unwrap().0);
        let template = VmId::parse("template").unwrap();
        let spec = VmSpec { kernel: Some(at("kernel")), ..VmSpec::default() };
        host.0.create_vm_with_spec(&template, &spec).unwrap();
        host.0.start_vm(&template).unwrap();
        let counts = Readiness::ConsoleMarker("count 1\n".to_owned());
        wait_ready(&host.0, &template, &counts, LONG).unwrap();
        host.0.stop_vm(&template).unwrap();
        host.0.snapshot_vm(&template, &SnapshotId::parse("ready").unwrap()).unwrap();
        host
    }

    fn clone_all(&self, name: &str, count: usize) {
        let restore_from = SnapshotRef {
            source: SnapshotSource::Name(VmId::parse("template").unwrap()),
            snapshot_id: SnapshotId::parse("ready").unwrap(),
            resume_immediately: true,
            network_overrides: Vec::new(),
        };
        let spec = VmSpec { restore_from: Some(restore_from), ..VmSpec::default() };
        for number in 0..count {
            self.0.create_vm_with_spec(&numbered(name, number), &spec).unwrap();
        }
    }

    fn destroy_all(&self, name: &str, count: usize) {
        for number in 0..count {
            self.0.destroy_vm(&numbered(name, number)).unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Processes outlive their provider: one that failed half-way leaves none.
        for vm in self.0.list_vms() {
            let _ = self.0.destroy_vm(&vm.vm_id);
        }
    }
}

fn numbered(name: &str, number: usize) -> VmId {
    VmId::parse(&format!("{name}-{number}")).unwrap()
}
