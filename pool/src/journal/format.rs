//! Whose journal it is, and in which format: the first record of all.
//!
//! The format's number changes when a reader of the former one would be wrong, and then [`STEPS`]
//! has a line that leads from the former to the new one. A field that readers may miss
//! (`#[serde(default)]`) changes nothing.

use hearth_providers::Uid;
use hearth_providers::env::Env;
use serde::{Deserialize, Serialize};

use super::add;
use super::frame::Frame;
use super::log::Log;
use super::trouble::{parse, storage};
use crate::error::Result;

/// The format that this version writes.
pub(super) const FORMAT: u32 = 2;

/// What the first record's key is.
pub(super) const KEY: &[u8] = b"meta";

/// Leads the records of one format to the next. It may be cut short and begin anew, so it must
/// leave what it has done already.
pub(super) type Step = fn(&Log) -> Result<()>;

/// The steps, by the format that they lead on from. Every format since the first has one.
pub(super) const STEPS: &[(u32, Step)] = &[
    // Leases were JSON, and are read as that as long as they are not written anew.
    (1, |_| Ok(())),
];

/// Whose state this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) format: u32,
    pub(super) state_uuid: Uid,
}

impl Meta {
    /// What the journal says, `None` before it says anything. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when that cannot be read.
    pub(super) fn read(log: &Log) -> Result<Option<Self>> {
        let text = log.get(KEY).map_err(storage)?;
        text.map(|text| parse("meta", &text)).transpose()
    }

    /// That of a new journal, written. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage`.
    pub(super) fn create(log: &Log, env: &dyn Env) -> Result<Self> {
        let fresh = Self { format: FORMAT, state_uuid: env.uid() };
        fresh.write(log)?;
        Ok(fresh)
    }

    fn write(&self, log: &Log) -> Result<()> {
        let mut frame = Frame::durable();
        add(&mut frame, KEY, self)?;
        log.append_durably(&mut frame).map_err(storage)
    }

    /// Leads the records on to the format `to`, step by step. Blocks on the disk.
    ///
    /// # Errors
    /// `Storage` when a newer hearth wrote them, no step leads on, or one fails.
    pub(super) fn migrate(&mut self, log: &Log, steps: &[(u32, Step)], to: u32) -> Result<()> {
        if self.format > to {
            return Err(storage(format!(
                "the journal is of format {}, and this hearth knows formats up to {to}: a newer \
                 hearth wrote this; start that version",
                self.format
            )));
        }
        while self.format < to {
            let from = self.format;
            let Some((_, step)) = steps.iter().find(|(it, _)| *it == from) else {
                return Err(storage(format!(
                    "the journal is of format {from}, which this hearth cannot read any more: \
                     start a version between, once"
                )));
            };
            step(log)?;
            self.format += 1;
            // Each step counts when it is done: one cut short begins anew.
            self.write(log)?;
            tracing::info!(from, to = self.format, "the journal has a new format");
        }
        Ok(())
    }
}
