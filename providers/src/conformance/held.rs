//! Making one VM's backend slow, to see that nobody else has to wait for it.
//!
//! A hold lasts until it is released, or until its bound: a provider that makes others wait for
//! the held VM then goes on, and is told from a good one by the hold having run out.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::backend::{Adopted, Backend, Captured, Place, Reaped, Source};
use crate::capabilities::Capabilities;
use crate::env::Deadline;
use crate::error::Result;
use crate::id::Uid;
use crate::model::{Endpoint, Failure, SnapshotView, VmSpec, VmStatus, VmView, VmmProcess};
use crate::provider::{ConsoleChunk, GuestChannel, GuestStream, Probe};

/// Makes VMs slow.
pub trait Holder: Send + Sync {
    /// From now on `vm`'s backend answers to nobody but who kills it, until the hold is
    /// released or `bound` has passed.
    fn hold(&self, vm: &VmView, bound: Duration) -> Box<dyn Hold>;
}

/// A VM is slow while this is there.
pub trait Hold: Send {
    /// Waits, bounded, until a call waits for the held VM; at once where that cannot be seen.
    fn wait_for_a_call(&self) -> bool;

    /// Ends the hold; true when it has lasted until now.
    fn release(self: Box<Self>) -> bool;
}

/// Holds VMs whose backend is wrapped in [`Held`].
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<HashMap<Uid, Queue>>,
    changed: Condvar,
}

/// Who waits for one VM that is held, and until when.
#[derive(Debug)]
struct Queue {
    until: Deadline,
    waiting: usize,
}

impl Gate {
    /// Waits while the VM is held.
    fn pass(&self, uid: Uid) {
        let mut held = self.shared.held.lock();
        let mut counted = false;
        while let Some(hold) = held.get_mut(&uid) {
            let Some(left) = hold.until.left() else { return };
            hold.waiting += usize::from(!counted);
            counted = true;
            self.shared.changed.notify_all();
            self.shared.changed.wait_for(&mut held, left);
        }
    }

    fn open(&self, uid: Uid) -> Option<Queue> {
        let held = self.shared.held.lock().remove(&uid);
        self.shared.changed.notify_all();
        held
    }
}

impl Holder for Gate {
    fn hold(&self, vm: &VmView, bound: Duration) -> Box<dyn Hold> {
        let until = Deadline::after(bound);
        self.shared.held.lock().insert(vm.uid, Queue { until, waiting: 0 });
        Box::new(Closed { gate: self.clone(), uid: vm.uid, until })
    }
}

struct Closed {
    gate: Gate,
    uid: Uid,
    until: Deadline,
}

impl Hold for Closed {
    fn wait_for_a_call(&self) -> bool {
        let mut held = self.gate.shared.held.lock();
        while held.get(&self.uid).is_some_and(|hold| hold.waiting == 0) {
            let Some(left) = self.until.left() else { return false };
            self.gate.shared.changed.wait_for(&mut held, left);
        }
        true
    }

    fn release(self: Box<Self>) -> bool {
        self.until.left().is_some()
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.gate.open(self.uid);
    }
}

/// A backend whose start, stop and snapshot pass a [`Gate`].
#[derive(Debug)]
pub struct Held<B> {
    inner: B,
    gate: Gate,
}

/// A machine that knows whose it is.
#[derive(Debug)]
pub struct HeldMachine<M> {
    inner: M,
    uid: Uid,
}

impl<B: Backend> Held<B> {
    /// Puts `gate` before `inner`.
    pub fn new(inner: B, gate: Gate) -> Self {
        Self { inner, gate }
    }
}

impl<B: Backend> Backend for Held<B> {
    type Machine = HeldMachine<B::Machine>;
    type Image = B::Image;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self, place: &Place, spec: &VmSpec) -> Result<Self::Machine> {
        let inner = self.inner.create(place, spec)?;
        Ok(HeldMachine { inner, uid: place.uid })
    }

    fn restore(
        &self,
        place: &Place,
        spec: &VmSpec,
        source: &Source<'_, Self::Image>,
    ) -> Result<Self::Machine> {
        let inner = self.inner.restore(place, spec, source)?;
        Ok(HeldMachine { inner, uid: place.uid })
    }

    fn fits(&self, source: &Source<'_, Self::Image>) -> Result<()> {
        self.inner.fits(source)
    }

    fn start(&self, place: &Place, machine: &Self::Machine, status: VmStatus) -> Result<()> {
        self.gate.pass(place.uid);
        self.inner.start(place, &machine.inner, status)
    }

    fn stop(&self, place: &Place, machine: &Self::Machine) -> Result<()> {
        self.gate.pass(place.uid);
        self.inner.stop(place, &machine.inner)
    }

    fn snapshot(
        &self,
        place: &Place,
        machine: &Self::Machine,
        status: VmStatus,
        into: &Path,
    ) -> Result<Captured<Self::Image>> {
        self.gate.pass(place.uid);
        self.inner.snapshot(place, &machine.inner, status, into)
    }

    fn kill(&self, machine: &Self::Machine) {
        self.inner.kill(&machine.inner);
        self.gate.open(machine.uid);
    }

    fn dispose(&self, place: &Place, machine: &Self::Machine) -> Result<()> {
        self.inner.dispose(place, &machine.inner)
    }

    fn ended(&self, machine: &Self::Machine) -> Option<Failure> {
        self.inner.ended(&machine.inner)
    }

    fn adopt(&self, place: &Place, spec: &VmSpec) -> Result<Adopted<Self::Machine>> {
        let Adopted { machine, status, failure } = self.inner.adopt(place, spec)?;
        Ok(Adopted { machine: HeldMachine { inner: machine, uid: place.uid }, status, failure })
    }

    fn reap(&self, dir: &Path) -> Reaped {
        self.inner.reap(dir)
    }

    fn load_image(&self, dir: &Path, view: &SnapshotView) -> Result<Self::Image> {
        self.inner.load_image(dir, view)
    }

    fn export(
        &self,
        source: &Source<'_, Self::Image>,
        files: &[String],
        into: &mut dyn Write,
    ) -> Result<()> {
        self.inner.export(source, files, into)
    }

    fn bytes_elsewhere(&self, machine: &Self::Machine) -> Result<u64> {
        self.inner.bytes_elsewhere(&machine.inner)
    }

    fn prefault(&self, machine: &Self::Machine, snapshot_dir: &Path) -> Result<u64> {
        self.inner.prefault(&machine.inner, snapshot_dir)
    }

    fn probe(&self, machine: &Self::Machine, probe: Probe, timeout: Duration) -> Result<()> {
        self.inner.probe(&machine.inner, probe, timeout)
    }

    fn guest_channel(&self, machine: &Self::Machine) -> Result<Box<dyn GuestChannel>> {
        self.inner.guest_channel(&machine.inner)
    }

    fn connect(&self, machine: &Self::Machine, port: Option<u32>) -> Result<GuestStream> {
        self.inner.connect(&machine.inner, port)
    }

    fn console(&self, machine: &Self::Machine, offset: u64, max: usize) -> Result<ConsoleChunk> {
        self.inner.console(&machine.inner, offset, max)
    }

    fn endpoints(&self, machine: &Self::Machine) -> Vec<Endpoint> {
        self.inner.endpoints(&machine.inner)
    }

    fn process(&self, machine: &Self::Machine) -> Option<VmmProcess> {
        self.inner.process(&machine.inner)
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        self.inner.describe()
    }
}
