//! The verbs on one container, for callers that wait.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::blueprint::Blueprint;
use super::fault::Fault;
use super::image::{Content, Image};
use super::machine::{Machine, Record};
use super::shared::{Look, Shared, Stand};
use super::{DockerBackend, console, labels};
use crate::backend::{Captured, Place, Source};
use crate::error::{Result, VmRuntimeError};
use crate::id::Uid;

/// How many pieces of an image may wait for who reads them.
const PIECES: usize = 4;

impl DockerBackend {
    /// Makes a container; one that the engine makes although nobody waits for it any longer is
    /// swept.
    pub(super) fn make(&self, place: &Place, blueprint: Blueprint) -> Result<Arc<Machine>> {
        let _create = tracing::debug_span!("create").entered();
        let (shared, uid, from) = (Arc::clone(&self.shared), place.uid, blueprint.clone());
        let made = self.wait(async move {
            match shared.create(uid, &from).await {
                // Some engines fail in other words for want of the image.
                Err(Fault::Refused { message, .. }) if shared.has_no_image(&from.image).await => {
                    Err(Fault::Refused { status: 404, message })
                }
                made => made,
            }
        });
        let container = made.map_err(|fault| {
            if fault.is_unsettled() {
                self.shared.sweep.suspect();
            }
            not_made(fault, &blueprint.image)
        })?;
        let record = Record { container, blueprint };
        if let Err(error) = record.write(&place.dir) {
            let _ = self.remove(&record.container);
            return Err(error);
        }
        Ok(self.keep(place, record))
    }

    /// From now on the container's end is reported.
    pub(super) fn keep(&self, place: &Place, record: Record) -> Arc<Machine> {
        let machine = Arc::new(Machine::new(place, record, self.shared.config.console_max_bytes));
        self.shared.machines.insert(place.uid, Arc::downgrade(&machine));
        machine
    }

    pub(super) fn make_clone(
        &self,
        place: &Place,
        source: &Source<'_, Image>,
    ) -> Result<Arc<Machine>> {
        if !source.how.network_overrides.is_empty() {
            let what = "replacing network interfaces at a restore".to_owned();
            return Err(VmRuntimeError::Unsupported { what });
        }
        let gone = |reason: String| source.not_found(reason);
        check_files(source)?;
        let content = &source.image.content;
        let made = self.make(place, content.blueprint.with_image(content.id.clone()));
        let machine = made.map_err(|error| match error {
            VmRuntimeError::InvalidSpec { field: "image", reason } => gone(reason),
            error => error,
        })?;
        if source.how.resume_immediately
            && let Err(error) = self.boot(&machine)
        {
            machine.doom();
            self.shared.machines.remove(&place.uid);
            let _ = self.remove(machine.container());
            return Err(error);
        }
        Ok(machine)
    }

    /// What a restore finds out at once, and from the engine when it creates the container.
    pub(super) fn check(&self, source: &Source<'_, Image>) -> Result<()> {
        check_files(source)?;
        let (shared, id) = (Arc::clone(&self.shared), source.image.content.id.clone());
        let looked = self.wait(async move { shared.image_size_bytes(&id).await });
        looked.map(drop).map_err(|fault| match fault.is_absent() {
            true => source.not_found("its image is gone".to_owned()),
            false => fault.into_error("look at an image"),
        })
    }

    /// Starts a container that was never started.
    pub(super) fn boot(&self, machine: &Arc<Machine>) -> Result<()> {
        let _start = tracing::debug_span!("start").entered();
        let (shared, started) = (Arc::clone(&self.shared), Arc::clone(machine));
        let look = self.wait(async move {
            let asked = shared.start(&started).await;
            let look = shared.settle(&started, asked, Stand::Running).await?;
            started.note_process(look.pid);
            Ok(look)
        });
        let look = look.map_err(|fault| fault.into_error("start a container"))?;
        self.follow_console(machine, false);
        tracing::debug!(uid = %machine.uid, pid = look.pid, "a container runs");
        Ok(())
    }

    pub(super) fn follow_console(&self, machine: &Arc<Machine>, again: bool) {
        self.task(console::follow(Arc::clone(&self.shared), Arc::downgrade(machine), again));
    }

    pub(super) fn pause(&self, machine: &Arc<Machine>) -> Result<()> {
        let (shared, paused) = (Arc::clone(&self.shared), Arc::clone(machine));
        machine.set_must_go_on(false);
        let settled = self.wait(async move {
            match shared.pause(&paused).await {
                Ok(()) => Ok(()),
                asked => shared.settle(&paused, asked, Stand::Paused).await.map(drop),
            }
        });
        settled.map_err(|fault| fault.into_error("pause a container"))
    }

    pub(super) fn unpause(&self, machine: &Arc<Machine>) -> Result<()> {
        let (shared, unpaused) = (Arc::clone(&self.shared), Arc::clone(machine));
        let settled = self.wait(async move {
            match shared.unpause(&unpaused).await {
                Ok(()) => Ok(()),
                asked => shared.settle(&unpaused, asked, Stand::Running).await.map(drop),
            }
        });
        settled.map_err(|fault| fault.into_error("unpause a container"))
    }

    /// Commits a container to the image that is called after the directory `into`.
    pub(super) fn capture(
        &self,
        machine: &Arc<Machine>,
        runs: bool,
        into: &Path,
    ) -> Result<Captured<Image>> {
        let name = into.file_name().and_then(|name| name.to_str());
        let uid = name.and_then(|name| name.parse::<Uid>().ok());
        let uid = uid.ok_or_else(|| VmRuntimeError::Unsupported {
            what: "snapshots without a state directory".to_owned(),
        })?;
        let (shared, captured) = (Arc::clone(&self.shared), Arc::clone(machine));
        let committed = self.wait(async move {
            let committed = shared.commit(&captured, uid).await;
            if committed.is_err() && runs {
                shared.go_on(&captured).await;
            }
            let (id, size_bytes) = committed?;
            let id = with_digest(id);
            let below = captured.record.blueprint.image.clone();
            // What is below it belongs to somebody else, and may have no name any longer.
            let shared_bytes = shared.image_size_bytes(&below).await.unwrap_or(0);
            Ok((id, size_bytes.saturating_sub(shared_bytes)))
        });
        let (id, size_bytes) = committed.map_err(|fault| {
            // There may be an image although nobody has heard of it.
            self.shared.sweep.expect(uid);
            if fault.is_unsettled() {
                self.shared.sweep.suspect();
            }
            fault.into_error("commit a container")
        })?;
        let about = |key: &str| self.about.iter().find(|(known, _)| *known == key);
        let made_with = ["engine", "version", "storage"].into_iter().filter_map(about);
        let made_with: BTreeMap<_, _> =
            made_with.map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let blueprint = machine.record.blueprint.clone();
        let content = Content { id, blueprint, made_with: made_with.clone() };
        let image = Image::new(uid, content, Arc::clone(&self.shared.sweep));
        image.write(into)?;
        Ok(Captured { image, has_memory: false, size_bytes, made_with })
    }

    /// Writes what the engine saves of an image.
    pub(super) fn save(&self, source: &Source<'_, Image>, into: &mut dyn Write) -> Result<()> {
        let failed = |fault: Fault| match fault.is_absent() {
            true => source.not_found("its image is gone".to_owned()),
            false => fault.into_error("save an image"),
        };
        let (sender, mut pieces) = tokio::sync::mpsc::channel(PIECES);
        let (shared, name) = (Arc::clone(&self.shared), labels::image(source.view.uid));
        let (end, ended) = std::sync::mpsc::sync_channel(1);
        self.task(async move {
            let _ = end.send(shared.save(&name, sender).await);
        });
        while let Some(piece) = pieces.blocking_recv() {
            into.write_all(&piece)
                .map_err(|error| VmRuntimeError::backend("hand over an image", error))?;
        }
        ended.recv().unwrap_or_else(|_| Err(super::closed())).map_err(failed)
    }

    /// Looks at a container within `timeout`.
    pub(super) fn look(&self, machine: &Arc<Machine>, timeout: Duration) -> Result<Look> {
        let (shared, seen) = (Arc::clone(&self.shared), Arc::clone(machine));
        let looked = self.wait(async move {
            match tokio::time::timeout(timeout, shared.look(seen.container())).await {
                Ok(look) => look,
                Err(_) => Err(Fault::Late(timeout)),
            }
        });
        looked.map_err(|fault| fault.into_error("look at a container"))
    }

    /// Removes a container; where that fails it is swept later.
    pub(super) fn remove(&self, container: &str) -> Result<()> {
        let (shared, id) = (Arc::clone(&self.shared), container.to_owned());
        self.wait(async move { shared.remove(&id).await }).map_err(|fault| {
            self.shared.sweep.suspect();
            fault.into_error("remove a container")
        })
    }
}

impl Shared {
    /// After a verb was answered, or was not: whether the container stands where it was to be led.
    /// If it has ended, that is reported; if it cannot be told, the fault stands.
    async fn settle(
        &self,
        machine: &Machine,
        asked: Result<(), Fault>,
        wanted: Stand,
    ) -> Result<Look, Fault> {
        if let Err(Fault::Interrupted) = asked {
            return Err(Fault::Interrupted);
        }
        let look = self.examine(machine, None).await;
        match (asked, look) {
            (_, Ok(Some(look))) if look.stand == wanted => Ok(look),
            // It ran, if only for a moment: its end has been reported.
            (Ok(()), Ok(Some(look))) if look.stand == Stand::Ended => Ok(look),
            (Err(fault), _) | (Ok(()), Err(fault)) => Err(fault),
            // Somebody was quicker to see that it has ended.
            (Ok(()), Ok(None)) => Ok(Look::ended()),
            (Ok(()), Ok(Some(look))) => {
                let message = format!("the engine agreed, but it is {:?}", look.stand);
                Err(Fault::Refused { status: 500, message })
            }
        }
    }

    /// A running container goes on whatever became of its commit; later, when the engine is out of
    /// reach.
    pub(super) async fn go_on(&self, machine: &Machine) {
        let gone_on = match self.look(machine.container()).await {
            Ok(Look { stand: Stand::Paused, .. }) => self.unpause(machine).await,
            looked => looked.map(drop),
        };
        machine.set_must_go_on(gone_on.is_err());
        if let Err(fault) = gone_on {
            tracing::warn!(uid = %machine.uid, ?fault, "a commit may have left a container paused");
        }
    }
}

/// An id of an image that cannot be taken for its name: not all engines answer one.
fn with_digest(id: String) -> String {
    if id.contains(':') { id } else { format!("sha256:{id}") }
}

/// Which field the engine refused, where its words tell.
fn not_made(fault: Fault, image: &str) -> VmRuntimeError {
    let invalid = |field, reason| VmRuntimeError::InvalidSpec { field, reason };
    match fault {
        Fault::Refused { status: 404, message } => {
            let hint = "pull it first: images are not fetched when a VM is made";
            invalid("image", format!("{image}: {message}; {hint}"))
        }
        Fault::Refused { status: 400, message } if message.contains("CPUs") => {
            invalid("vcpu_count", message)
        }
        Fault::Refused { status: 400, message } if message.contains("emory") => {
            invalid("mem_size_mib", message)
        }
        Fault::Refused { status: 400, message } if message.contains("ommand") => {
            invalid("boot_args", message)
        }
        fault => fault.into_error("make a container"),
    }
}

/// That the engine's image is still known by its name.
fn check_files(source: &Source<'_, Image>) -> Result<()> {
    match Image::is_in(&source.dir) {
        true => Ok(()),
        false => Err(source.not_found(format!("there is no {}", source.dir.display()))),
    }
}
