//! The verbs on one machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backend::{CliBackend, Shared};
use super::machine::{Image, Machine, Record};
use super::{Making, Seen, Stand, Tool, name_of};
use crate::backend::{Captured, Place, Source};
use crate::env::Deadline;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::Uid;
use crate::model::{CONSOLE_TAIL_BYTES, Failure, VmStatus};

/// How many looks at a machine that is on its way may fail.
const MOST_ERRORS: u32 = 2;

/// The longest pause between two looks at a machine that is on its way.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl<T: Tool> CliBackend<T> {
    /// Makes the machine that `record` describes; `files` are those of its snapshot, if it has one.
    pub(super) fn make(
        &self,
        place: &Place,
        record: Record,
        files: Option<&Path>,
    ) -> Result<Arc<Machine>> {
        let _create = tracing::debug_span!("create").entered();
        let shared = &self.shared;
        let machine = Arc::new(Machine::new(place, record.clone()));
        machine.write(&record)?;
        let state = &shared.config.state;
        let making = Making { name: &machine.name, blueprint: &record.blueprint, state };
        shared.machines.insert(place.uid, Arc::downgrade(&machine));
        let made = match files {
            None => shared.tool.create(making),
            Some(files) => shared.tool.create_from(making, files),
        };
        if let Err(error) = made {
            // It may be there all the same, or half of it.
            self.discard(&machine);
            return Err(error);
        }
        Ok(machine)
    }

    /// Makes a machine from a snapshot and starts it where that is asked for.
    pub(super) fn make_clone(
        &self,
        place: &Place,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        if !source.how.network_overrides.is_empty() {
            let what = "replacing network interfaces at a restore".to_owned();
            return Err(VmRuntimeError::Unsupported { what });
        }
        check_files::<T>(source)?;
        let record = Record {
            blueprint: source.image.blueprint.clone(),
            led_to: VmStatus::Stopped,
            unstarted_from: Some(source.dir.clone()),
        };
        let machine = self.make(place, record, Some(&source.dir))?;
        if source.how.resume_immediately
            && let Err(error) = self.boot(&machine)
        {
            self.discard(&machine);
            return Err(error);
        }
        Ok(machine)
    }

    /// Removes what nobody will hear of.
    fn discard(&self, machine: &Machine) {
        machine.doomed.store(true, Ordering::Release);
        self.shared.machines.remove(&machine.uid);
        if let Err(error) = self.shared.remove(machine.uid) {
            tracing::warn!(name = machine.name, %error, "a machine is removed later");
        }
    }

    /// Starts a machine and sees that it runs.
    pub(super) fn boot(&self, machine: &Machine) -> Result<()> {
        let _start = tracing::debug_span!("start").entered();
        machine.turn();
        let shared = &self.shared;
        let asked = shared.tool.start(&machine.name, &machine.doomed);
        // What was refused is not on its way for long.
        let patience = match asked {
            Ok(()) => shared.config.start_timeout,
            Err(_) => shared.config.command_timeout,
        };
        let failed = match (asked, shared.settle(machine, patience)) {
            // Whatever was said of it: it runs.
            (_, Ok(Stand::Running)) => match machine.led_to(VmStatus::Running) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            (Err(error), _) | (Ok(()), Err(error)) => error,
            (Ok(()), Ok(_)) => {
                let failure = shared.failure_of(machine, "it ended as soon as it was started");
                let what = format!("{}: {}", failure.reason, failure.console_tail.trim());
                machine.report(failure);
                return Err(VmRuntimeError::Backend { what, source: None });
            }
        };
        // It must not begin to run when nobody expects it to.
        let _ = shared.tool.stop(&machine.name, &machine.doomed);
        machine.turn();
        Err(failed)
    }

    /// Stops a machine and sees that it does not run.
    pub(super) fn shut_down(&self, machine: &Machine) -> Result<()> {
        let shared = &self.shared;
        // Before it is done: what is then found stopped has not died.
        machine.led_to(VmStatus::Stopped)?;
        let asked = shared.tool.stop(&machine.name, &machine.doomed);
        match (asked, shared.settle(machine, shared.config.command_timeout)) {
            (_, Ok(Stand::Stopped | Stand::Created | Stand::Failed)) => {
                machine.turn();
                Ok(())
            }
            (asked, settled) => {
                let _ = machine.led_to(VmStatus::Running);
                asked?;
                settled?;
                let what = format!("the tool says that {} was stopped, but it runs", machine.name);
                Err(VmRuntimeError::Backend { what, source: None })
            }
        }
    }

    /// Captures a machine into the empty directory `into`.
    pub(super) fn capture(&self, machine: &Machine, into: &Path) -> Result<Captured<Image>> {
        if !into.is_absolute() {
            let what = "snapshots without a state directory".to_owned();
            return Err(VmRuntimeError::Unsupported { what });
        }
        let tool = &self.shared.tool;
        let record = machine.record();
        match &record.unstarted_from {
            Some(same) => link_files(same, into, T::FILES)?,
            None => tool.capture(&machine.name, &record.blueprint, into, &machine.doomed)?,
        }
        let mut size_bytes = 0;
        for file in T::FILES {
            let found = into.join(file).metadata().map_err(|error| {
                VmRuntimeError::backend(format!("the tool left no {file}"), error)
            })?;
            size_bytes += found.len();
        }
        let image = Image { blueprint: record.blueprint };
        image.write(into)?;
        let made_with = BTreeMap::from([("version".to_owned(), tool.version().to_owned())]);
        Ok(Captured { image, has_memory: false, size_bytes, made_with })
    }
}

impl<T: Tool> Shared<T> {
    /// The machine of this name, as the tool lists it now.
    pub(super) fn find(&self, name: &str) -> Result<Option<Seen>> {
        self.find_within(name, self.config.command_timeout)
    }

    /// The same, within `timeout`.
    pub(super) fn find_within(&self, name: &str, timeout: Duration) -> Result<Option<Seen>> {
        Ok(self.tool.list(timeout)?.into_iter().find(|seen| seen.name == name))
    }

    /// Waits until it can be told how the machine stands.
    fn settle(&self, machine: &Machine, timeout: Duration) -> Result<Stand> {
        let deadline = Deadline::after(timeout);
        let mut pause = Duration::from_millis(5);
        let mut errors = 0;
        loop {
            match self.find(&machine.name) {
                Ok(Some(Seen { stand: Stand::Unclear, .. })) => {}
                Ok(Some(seen)) => return Ok(seen.stand),
                Ok(None) => return Ok(Stand::Failed),
                // One may be passing, and much depends on the answer.
                Err(_) if errors < MOST_ERRORS => errors += 1,
                Err(error) => return Err(error),
            }
            let left = deadline.left().filter(|_| !machine.is_doomed());
            let Some(left) = left else {
                let what = format!("{}, on its way to another state,", machine.name);
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            };
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Removes a machine, and looks whether it is gone: until it is, within bounds. What is not
    /// removed then is swept.
    pub(super) fn remove(&self, uid: Uid) -> Result<()> {
        let name = name_of(uid);
        let timeout = self.config.remove_timeout;
        let deadline = Deadline::after(timeout);
        let mut pause = Duration::from_millis(5);
        loop {
            let deleted = self.tool.delete(&name);
            let found = self.find(&name);
            if matches!(found, Ok(None)) {
                return Ok(());
            }
            let Some(left) = deadline.left() else {
                self.suspect();
                deleted.and(found.map(drop))?;
                let what = format!("the tool, told to remove {name},");
                return Err(VmRuntimeError::Timeout { what, after: timeout });
            };
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What to say of a machine that ended by itself.
    pub(super) fn failure_of(&self, machine: &Machine, reason: &str) -> Failure {
        let words = self.tool.last_words(&machine.name).unwrap_or_default();
        let tail = &words[words.len().saturating_sub(CONSOLE_TAIL_BYTES)..];
        Failure {
            reason: reason.to_owned(),
            time: self.env.now(),
            exit_status: None,
            console_tail: String::from_utf8_lossy(tail).into_owned(),
        }
    }
}

/// The same files in another directory: nobody writes them.
fn link_files(from: &Path, into: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let (from, into) = (from.join(name), into.join(name));
        let linked = std::fs::hard_link(&from, &into);
        let linked = linked.or_else(|_| std::fs::copy(&from, &into).map(drop));
        linked.map_err(|error| files::io_error(format!("copy {}", from.display()), error))?;
    }
    Ok(())
}

/// That the files of a snapshot are there, which is all that a restore needs beside the tool.
pub(super) fn check_files<T: Tool>(source: &Source<'_, Image>) -> Result<()> {
    match T::FILES.iter().find(|file| !source.dir.join(file).is_file()) {
        Some(missing) => Err(source.not_found(format!("its file {missing} is gone"))),
        None => Ok(()),
    }
}
