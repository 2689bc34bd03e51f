//! Opening a provider: what a former life left is adopted or reaped.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::instance::{Instance, Record};
use super::tombstones::Tombstones;
use super::{Deaths, Engine, evidence, parallel, preserved};
use crate::backend::{Adopted, Backend, Place, Reaped};
use crate::directory::{Directory, Paths};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::{Uid, VmId};
use crate::map::SharedIdMap;
use crate::model::{CONSOLE_TAIL_BYTES, Failure, VmStatus};
use crate::snapshots::{self, Snapshots};

/// Why a VM of another boot has failed.
pub(super) const HOST_RESTARTED: &str = "the host was restarted";
/// How much of a console is read at once.
const CONSOLE_PIECE_BYTES: usize = 64 << 10;

/// What opening a provider found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Instances taken up, dead ones among them.
    pub adopted: usize,
    /// Instances that were never finished or cannot be read, and were removed.
    pub reaped_instances: usize,
    /// Processes that ran in the directories of those.
    pub reaped_processes: usize,
    /// Containers that were called after those, or that were in no record.
    pub reaped_containers: usize,
    /// Control groups that were called after those.
    pub reaped_cgroups: usize,
    /// Sockets that were in the directories of those.
    pub reaped_sockets: usize,
    /// Snapshots that were never finished, or that nothing keeps.
    pub reaped_snapshots: usize,
}

/// What a look at an instance's directory finds.
enum Found<B: Backend> {
    /// Another provider's.
    Theirs,
    /// What an artifact keeps of a VM that is gone.
    Preserved,
    /// A VM, alive or dead.
    Whole(Box<(Record, Adopted<B::Machine>)>),
    /// It was never finished, or cannot be taken up.
    Lost(VmRuntimeError),
    /// It may be anything.
    Unreadable(VmRuntimeError),
}

impl<B: Backend> Engine<B> {
    /// A provider whose VMs and names live and die with this process.
    pub fn in_memory(name: &str, backend: B, env: Arc<dyn Env>) -> Self {
        Self::new(name, Arc::new(backend), env, Directory::in_memory())
    }

    /// The provider `name` on `paths`, with what it left there: whole instances are adopted,
    /// dead ones as Failed; half-made ones and their processes are reaped. What another provider
    /// made is not touched. Blocks on the disk.
    ///
    /// # Errors
    /// `Backend` when the directories cannot be made or read.
    pub fn open(
        name: &str,
        backend: B,
        env: Arc<dyn Env>,
        paths: Paths,
    ) -> Result<(Self, OpenReport)> {
        let paths = paths.resolved().map_err(|error| {
            VmRuntimeError::backend(format!("make {}", paths.state.display()), error)
        })?;
        let directory = Directory::open(paths.clone())?;
        let names = directory.names_on_disk()?;
        let engine = Self::new(name, Arc::new(backend), env, directory);
        let mut report = OpenReport::default();
        engine.open_snapshots(&paths, &mut report)?;
        let names: HashMap<_, _> = names.into_iter().map(|(name, holder)| (holder, name)).collect();
        let uids = uids_in(&paths.state.join("instances"))?;
        // Machines are asked how they stand, several at a time; what that means for names and books is
        // decided one after another.
        let found = parallel::look_at(&uids, |uid| engine.look(*uid, &paths.instance(*uid)));
        for (uid, found) in uids.into_iter().zip(found) {
            engine.open_instance(uid, &paths.instance(uid), names.get(&uid), found, &mut report);
        }
        engine.own_snapshots();
        report.reaped_snapshots += engine.snapshots.sweep();
        let quarantine = paths.state.join(evidence::DIR);
        evidence::sweep(&quarantine, engine.env.now(), evidence::MAX_VMS);
        Ok((engine, report))
    }

    fn new(name: &str, backend: Arc<B>, env: Arc<dyn Env>, directory: Directory) -> Self {
        let deaths = Deaths { instances: SharedIdMap::default(), observer: RwLock::new(None) };
        Self {
            backend,
            name: name.to_owned(),
            boot_id: env.boot_id(),
            env,
            directory,
            instances: SharedIdMap::default(),
            snapshots: Snapshots::default(),
            tombstones: Tombstones::default(),
            deaths: Arc::new(deaths),
        }
    }

    /// What there is of an instance.
    fn look(&self, uid: Uid, dir: &Path) -> Found<B> {
        match Record::read(dir) {
            Ok(record) if record.provider != self.name => Found::Theirs,
            Ok(_) if preserved::is_left_of_a_vm(dir) => Found::Preserved,
            Ok(record) => match self.backend.adopt(&self.place(uid), &record.spec) {
                Ok(adopted) => Found::Whole(Box::new((record, adopted))),
                Err(error) => Found::Lost(error),
            },
            // Providers are opened one after another, before any of them makes anything: what
            // has no record yet will never get one.
            Err(error) if Record::is_missing(dir) => Found::Lost(error),
            Err(error) => Found::Unreadable(error),
        }
    }

    fn open_instance(
        &self,
        uid: Uid,
        dir: &Path,
        name: Option<&VmId>,
        found: Found<B>,
        report: &mut OpenReport,
    ) {
        let adopted = match found {
            Found::Theirs => return,
            Found::Preserved => {
                // Its destruction may have been cut short.
                preserved::remove(dir);
                return self.free_name(name, uid);
            }
            Found::Whole(whole) => self.adopt(whole.0, whole.1, name),
            Found::Lost(error) => Err(error),
            Found::Unreadable(error) => {
                tracing::error!(%uid, %error, "an instance's record cannot be read: it is left alone");
                return;
            }
        };
        match adopted {
            Ok(()) => report.adopted += 1,
            Err(error) => {
                tracing::warn!(%uid, %error, "an instance cannot be adopted and is reaped");
                let Reaped { processes, containers, cgroups } = self.backend.reap(dir);
                report.reaped_processes += processes;
                report.reaped_containers += containers;
                report.reaped_cgroups += cgroups;
                report.reaped_sockets += sockets_in(dir);
                report.reaped_instances += 1;
                files::remove_dir(dir);
                self.free_name(name, uid);
            }
        }
    }

    /// Takes away the name that leads to what is no VM any more.
    fn free_name(&self, name: Option<&VmId>, uid: Uid) {
        name.inspect(|name| {
            let _ = self.directory.adopt(name, uid);
            self.directory.release(name, uid);
        });
    }

    fn adopt(
        &self,
        record: Record,
        adopted: Adopted<B::Machine>,
        name: Option<&VmId>,
    ) -> Result<()> {
        let place = self.place(record.uid);
        let Adopted { machine, status, failure } = adopted;
        let (status, failure) = match record.boot_id.is_empty() || record.boot_id == self.boot_id {
            true => (status, failure),
            false => (VmStatus::Failed, Some(self.end_of_its_boot(&place, &machine, failure))),
        };
        // A lost name is made again from the record; should another VM have it now, from the uid.
        let vm_id = match name {
            Some(name) => self.directory.adopt(name, record.uid).map(|()| name.clone())?,
            None => match self.directory.claim(&record.vm_id, record.uid) {
                Ok(()) => record.vm_id.clone(),
                Err(VmRuntimeError::AlreadyExists { .. }) => {
                    let vm_id = VmId::warm(record.uid);
                    self.directory.claim(&vm_id, record.uid).map(|()| vm_id)?
                }
                Err(error) => return Err(error),
            },
        };
        if let Some(from) = record.restored_from {
            self.snapshots.hold_adopted(from, record.uid);
        }
        let uid = record.uid;
        let instance = Arc::new(Instance::new(record, vm_id, machine, status));
        self.deaths.instances.insert(uid, Arc::downgrade(&instance));
        let failure = failure.or_else(|| self.backend.ended(instance.machine()));
        failure.into_iter().for_each(|failure| (place.ended)(failure));
        self.instances.insert(uid, instance);
        Ok(())
    }

    /// No VM outlives a restart of the host: what looks alive was started anew without what it had
    /// in memory, and goes. Its directory stays, for whoever asks what became of it.
    fn end_of_its_boot(
        &self,
        place: &Place,
        machine: &B::Machine,
        failure: Option<Failure>,
    ) -> Failure {
        let failure = failure.or_else(|| self.backend.ended(machine));
        let ended = failure.unwrap_or_else(|| {
            let console_tail = self.console_tail(machine);
            self.backend.kill(machine);
            if let Err(error) = self.backend.dispose(place, machine) {
                tracing::warn!(uid = %place.uid, %error, "a VM of another boot is not wholly gone");
            }
            let (reason, time) = (String::new(), self.env.now());
            Failure { reason, time, exit_status: None, console_tail }
        });
        Failure { reason: HOST_RESTARTED.to_owned(), ..ended }
    }

    fn console_tail(&self, machine: &B::Machine) -> String {
        let (mut offset, mut tail) = (0, Vec::new());
        while let Ok(chunk) = self.backend.console(machine, offset, CONSOLE_PIECE_BYTES)
            && !chunk.bytes.is_empty()
        {
            offset = chunk.next_offset;
            tail.extend(chunk.bytes);
            tail.drain(..tail.len().saturating_sub(CONSOLE_TAIL_BYTES));
        }
        String::from_utf8_lossy(&tail).into_owned()
    }

    fn open_snapshots(&self, paths: &Paths, report: &mut OpenReport) -> Result<()> {
        for uid in uids_in(&paths.state.join("snapshots"))? {
            let dir = paths.snapshot(uid);
            match snapshots::read_record(&dir) {
                Some(record) if record.provider != self.name => {}
                Some(record) if !record.is_of(uid) => {
                    tracing::warn!(%uid, "a snapshot whose record is another's is left alone");
                }
                Some(record) => {
                    let view = record.clone().into_view();
                    let image = self.backend.load_image(&dir, &view).inspect_err(|error| {
                        tracing::warn!(%uid, %error, "a snapshot cannot be read");
                    });
                    self.snapshots.adopt(record, image.ok(), dir);
                }
                None => {
                    report.reaped_snapshots += 1;
                    files::remove_dir(&dir);
                }
            }
        }
        Ok(())
    }

    /// Gives the snapshots found to the instances found.
    fn own_snapshots(&self) {
        for view in self.snapshots.all() {
            if let Some(owner) = self.instances.get(&view.vm_uid) {
                owner.snapshots.lock().push((view.snapshot_id, view.uid));
                self.snapshots.own(view.uid);
            }
        }
    }
}

/// How many sockets are in `dir` or below it.
fn sockets_in(dir: &Path) -> usize {
    let of = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => sockets_in(&entry.path()),
        Ok(kind) => usize::from(kind.is_socket()),
        Err(_) => 0,
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(of).sum()
}

fn uids_in(dir: &Path) -> Result<Vec<Uid>> {
    let failed = |error| VmRuntimeError::backend(format!("read {}", dir.display()), error);
    let mut uids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(uid) = name.to_str().and_then(|name| name.parse::<Uid>().ok()) else { continue };
        // A uid has other spellings, which are other names here, and a link leads away.
        let is_ours = name.to_str() == Some(&uid.to_string());
        match is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => uids.push(uid),
            false => tracing::warn!(path = %entry.path().display(), "a stranger is left alone"),
        }
    }
    uids.sort();
    Ok(uids)
}
