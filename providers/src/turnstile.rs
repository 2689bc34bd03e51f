//! Who has the channel to a guest: one at a time.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Result, VmRuntimeError};

/// Whether somebody has the channel of a machine: one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turnstile(Arc<Mutex<bool>>);

/// The right to have it; given back when dropped.
pub(crate) struct Taken(Arc<Mutex<bool>>);

impl Turnstile {
    /// # Errors
    /// `Exhausted` while another has it: a VMM would let others wait in silence.
    pub(crate) fn take(&self) -> Result<Taken> {
        if std::mem::replace(&mut *self.0.lock(), true) {
            let what = "the guest's channel".to_owned();
            return Err(VmRuntimeError::Exhausted { what, retry_after: None });
        }
        Ok(Taken(Arc::clone(&self.0)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.lock() = false;
    }
}
