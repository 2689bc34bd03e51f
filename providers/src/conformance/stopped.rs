//! Holding VMs by stopping the process that runs them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::held::{Hold, Holder};
use crate::env::Deadline;
use crate::model::VmView;

/// Holds VMs of any provider that shows the processes of its VMs: a stopped process answers to
/// nothing but SIGKILL.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessHolder;

impl Holder for ProcessHolder {
    fn hold(&self, vm: &VmView, bound: Duration) -> Box<dyn Hold> {
        let pid = vm.process.as_ref().and_then(|process| i32::try_from(process.pid).ok());
        let pid = pid.and_then(Pid::from_raw).expect("a VM that is to be held has a process");
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("the VM to be held lives");
        pidfd_send_signal(&process, Signal::STOP).expect("the VM to be held lives");
        let stopped =
            Arc::new(Stopped { process, released: Mutex::new(false), told: Condvar::new() });
        let until = Deadline::after(bound);
        let watched = Arc::clone(&stopped);
        std::thread::spawn(move || watched.go_on_after(until));
        Box::new(StoppedHold { stopped, until })
    }
}

struct Stopped {
    process: OwnedFd,
    released: Mutex<bool>,
    told: Condvar,
}

impl Stopped {
    /// Lets the process go on when the hold is released, or when it has run out.
    fn go_on_after(&self, until: Deadline) {
        let mut released = self.released.lock();
        while !*released && let Some(left) = until.left() {
            self.told.wait_for(&mut released, left);
        }
        // It may be gone: then there is nothing to go on.
        let _ = pidfd_send_signal(&self.process, Signal::CONT);
    }
}

struct StoppedHold {
    stopped: Arc<Stopped>,
    until: Deadline,
}

impl Hold for StoppedHold {
    fn wait_for_a_call(&self) -> bool {
        true
    }

    fn release(self: Box<Self>) -> bool {
        self.until.left().is_some()
    }
}

impl Drop for StoppedHold {
    fn drop(&mut self) {
        *self.stopped.released.lock() = true;
        self.stopped.told.notify_all();
    }
}
