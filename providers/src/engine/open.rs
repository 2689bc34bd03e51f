//! Opening a provider: what a former life left is adopted or reaped.

use std::path::Path;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::RwLock;

use super::instance::{Instance, Record};
use super::tombstones::Tombstones;
use super::{Deaths, Engine, preserved};
use crate::backend::{Adopted, Backend};
use crate::directory::{Directory, Paths};
use crate::env::Env;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::{Uid, VmId};
use crate::snapshots::{self, Snapshots};

/// What opening a provider found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Instances taken up, dead ones among them.
    pub adopted: usize,
    /// Instances that were never finished or cannot be read, and were removed.
    pub reaped_instances: usize,
    /// Processes that ran in the directories of those.
    pub reaped_processes: usize,
    /// Snapshots that were never finished, or that nothing keeps.
    pub reaped_snapshots: usize,
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
        let directory = Directory::open(paths.clone())?;
        let names = directory.names_on_disk()?;
        let engine = Self::new(name, Arc::new(backend), env, directory);
        let mut report = OpenReport::default();
        engine.open_snapshots(&paths, &mut report)?;
        for uid in uids_in(&paths.state.join("instances"))? {
            let name = names.iter().find(|(_, holder)| *holder == uid).map(|(name, _)| name);
            engine.open_instance(uid, &paths.instance(uid), name, &mut report);
        }
        engine.own_snapshots();
        report.reaped_snapshots += engine.snapshots.sweep();
        Ok((engine, report))
    }

    fn new(name: &str, backend: Arc<B>, env: Arc<dyn Env>, directory: Directory) -> Self {
        let deaths = Deaths { instances: DashMap::new(), observer: RwLock::new(None) };
        Self {
            backend,
            name: name.to_owned(),
            env,
            directory,
            instances: DashMap::new(),
            snapshots: Snapshots::default(),
            tombstones: Tombstones::default(),
            deaths: Arc::new(deaths),
        }
    }

    fn open_instance(&self, uid: Uid, dir: &Path, name: Option<&VmId>, report: &mut OpenReport) {
        let adopted = match Record::read(dir) {
            Ok(record) if record.provider != self.name => return,
            Ok(_) if preserved::is_left_of_a_vm(dir) => {
                // Its destruction may have been cut short.
                preserved::remove(dir);
                return self.free_name(name, uid);
            }
            Ok(record) => self.adopt(record, name),
            // Providers are opened one after another, before any of them makes anything: what
            // has no record yet will never get one.
            Err(error) if Record::is_missing(dir) => Err(error),
            Err(error) => {
                tracing::error!(%uid, %error, "an instance's record cannot be read: it is left alone");
                return;
            }
        };
        match adopted {
            Ok(()) => report.adopted += 1,
            Err(error) => {
                tracing::warn!(%uid, %error, "an instance cannot be adopted and is reaped");
                report.reaped_processes += self.backend.reap(dir);
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

    fn adopt(&self, record: Record, name: Option<&VmId>) -> Result<()> {
        let place = self.place(record.uid);
        let Adopted { machine, status, failure } = self.backend.adopt(&place, &record.spec)?;
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

    fn open_snapshots(&self, paths: &Paths, report: &mut OpenReport) -> Result<()> {
        for uid in uids_in(&paths.state.join("snapshots"))? {
            let dir = paths.snapshot(uid);
            match snapshots::read_record(&dir) {
                Some(record) if record.provider != self.name => {}
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

fn uids_in(dir: &Path) -> Result<Vec<Uid>> {
    let failed = |error| VmRuntimeError::backend(format!("read {}", dir.display()), error);
    let mut uids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        uids.extend(name.to_str().and_then(|name| name.parse::<Uid>().ok()));
    }
    uids.sort();
    Ok(uids)
}
