//! Answers of calls that whoever serves them remembers by their request ids: kept in the journal, so that a
//! retry after a crash gets them again.
//!
//! Acquires, creates and resumes are not among these: their leases are their answers.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::manager::Manager;

/// A call, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Names the call: who made it, of which method, with which request id.
    pub key: String,
    /// What it asked for, hashed.
    pub fingerprint: u64,
    /// What it was answered, as the server encodes it, in hexadecimal digits.
    pub answer: String,
    /// When it was answered, by the wall clock.
    pub time: SystemTime,
}

impl Manager {
    /// Keeps an answer. Blocks for microseconds.
    ///
    /// # Errors
    /// `Storage`.
    pub fn keep_reply(&self, reply: &Reply) -> Result<()> {
        self.journal.write_reply(&reply.key, reply)
    }

    /// Forgets an answer, if it was kept. Blocks for microseconds.
    ///
    /// # Errors
    /// `Storage`.
    pub fn forget_reply(&self, key: &str) -> Result<()> {
        self.journal.forget_reply(key)
    }

    /// Every answer that is kept. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a record cannot be read; it is named.
    pub fn replies(&self) -> Result<Vec<Reply>> {
        self.journal.replies()
    }
}
