//! The providers that the cases are run on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::conformance::Fixture;
use hearth_providers::directory::Paths;
use hearth_providers::env::SystemEnv;
use hearth_providers::faulty::Faulty;
use hearth_providers::limit::{Bounds, Limit};
use hearth_providers::provider::VmRuntime;
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

/// A provider under test.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Or what its host lacks.
    pub(crate) fixture: Result<Arc<Fixture>, String>,
    /// How many of its cases run at once.
    pub(crate) permits: Permits,
    /// Where its files are.
    pub(crate) dir: Option<TempDir>,
}

/// Every suite, the quick ones first.
pub(crate) fn all() -> Vec<Suite> {
    vec![
        memory(),
        faulty(),
        limit(),
        memory_on_disk(),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        crate::firecracker::fake(),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        crate::firecracker::fake_with_agent(),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        crate::firecracker::fake_in_jails(),
        #[cfg(feature = "apple-container")]
        crate::apple_container::fake(),
        #[cfg(feature = "apple-container")]
        crate::apple_container::old_fake(),
        #[cfg(feature = "smolvm")]
        crate::smolvm::fake(),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        crate::firecracker::real(),
        #[cfg(all(feature = "qemu", target_os = "linux"))]
        crate::qemu::suite(),
        #[cfg(all(feature = "docker", target_os = "linux"))]
        crate::docker::docker(),
        #[cfg(all(feature = "docker", target_os = "linux"))]
        crate::docker::podman(),
    ]
}

impl Suite {
    /// The environment says that this host has to have what the provider needs.
    pub(crate) fn is_required(&self) -> bool {
        let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
        required.split([',', ' ']).any(|word| word == self.name)
    }

    /// Nothing is left of all the cases: neither VMs nor snapshots nor files.
    pub(crate) fn left_nothing(&self) -> bool {
        let Ok(fixture) = &self.fixture else { return true };
        if let Err(broken) = fixture.finish() {
            println!("conformance {}: {broken}", self.name);
            for vm in fixture.provider.list_vms() {
                let _ = fixture.provider.destroy_vm(&vm.vm_id);
            }
            return false;
        }
        let dirs = ["state/instances", "state/snapshots", "run/names"];
        let left: Vec<_> = self
            .dir
            .iter()
            .flat_map(|dir| dirs.map(|name| dir.path().join(name)))
            .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect();
        if !left.is_empty() {
            println!("conformance {}: files are left: {left:?}", self.name);
        }
        left.is_empty()
    }
}

fn memory() -> Suite {
    of_memory("memory", None, |provider| provider)
}

fn faulty() -> Suite {
    of_memory("faulty", None, |provider| Arc::new(Faulty::new(provider, Arc::new(SystemEnv)).0))
}

fn limit() -> Suite {
    of_memory("limit", None, |provider| {
        // Wide enough that the cases themselves, and what they hold, do not fill it.
        let bounds = Bounds { concurrent: 12, waiting: 256, wait: Duration::from_secs(60) };
        Arc::new(Limit::new(provider, bounds))
    })
}

fn memory_on_disk() -> Suite {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    of_memory("memory-on-disk", Some(dir), |provider| provider)
}

fn of_memory(
    name: &'static str,
    dir: Option<TempDir>,
    wrap: impl FnOnce(Arc<dyn VmRuntime>) -> Arc<dyn VmRuntime>,
) -> Suite {
    let paths = dir.as_ref().map(|dir| paths(dir.path()));
    let fixture = Fixture::of_memory(name, paths, wrap).map(Arc::new);
    Suite {
        name,
        fixture: fixture.map_err(|error| error.to_string()),
        permits: Permits::new(64),
        dir,
    }
}

pub(crate) fn paths(dir: &Path) -> Paths {
    Paths { state: dir.join("state"), runtime: dir.join("run") }
}

/// So many at once.
pub(crate) struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// One of them.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    pub(crate) fn take(&self) -> Permit<'_> {
        let mut free = self.free.lock();
        while *free == 0 {
            self.given_back.wait(&mut free);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.given_back.notify_one();
    }
}
