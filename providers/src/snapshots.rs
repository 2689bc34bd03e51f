//! The snapshots of one provider: names, pins, and when the files may go.
//!
//! A snapshot is found by its VM's uid and its own name, and lives as long as its VM, a pin
//! (a template, an artifact) or a clone that maps its memory. On disk it is
//! `<state>/snapshots/<uid>/` with `snapshot.json`, written last: a directory without one was
//! never finished. All of it is bookkeeping under one short lock; files are written and removed
//! outside it, a snapshot's record by one at a time.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::id::{SnapshotId, Uid, VmId};
use crate::model::{SnapshotRef, SnapshotSource, SnapshotView};

const RECORD: &str = "snapshot.json";

/// What [`SnapshotView::pinned_by`] says of one that is being exported.
pub const EXPORT: &str = "export";

/// What is written beside a snapshot's files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) provider: String,
    pub(crate) uid: Uid,
    pub(crate) snapshot_id: SnapshotId,
    pub(crate) vm_uid: Uid,
    pub(crate) vm_id: VmId,
    pub(crate) has_memory: bool,
    pub(crate) size_bytes: u64,
    pub(crate) made_with: std::collections::BTreeMap<String, String>,
    pub(crate) create_time: SystemTime,
    pub(crate) pins: BTreeSet<String>,
    /// Its files in its directory, beside this one.
    #[serde(default)]
    pub(crate) files: Vec<String>,
}

/// One snapshot that is kept.
#[derive(Debug)]
struct Snapshot<I> {
    record: Record,
    /// `None` when its files could not be read after a restart.
    image: Option<Arc<I>>,
    dir: Option<PathBuf>,
    clones: BTreeSet<Uid>,
    /// How many read it now.
    readers: usize,
    /// Its VM lives.
    owned: bool,
    /// Held by whoever changes its record on disk.
    writing: Arc<Mutex<()>>,
}

impl<I> Snapshot<I> {
    fn new(record: Record, image: Option<I>, dir: Option<PathBuf>, owned: bool) -> Self {
        let (image, clones) = (image.map(Arc::new), BTreeSet::new());
        Self { record, image, dir, clones, readers: 0, owned, writing: Arc::default() }
    }

    fn is_kept(&self) -> bool {
        let is_used = !self.clones.is_empty() || self.readers > 0;
        self.owned || !self.record.pins.is_empty() || is_used
    }

    fn pinned_by(&self) -> Vec<String> {
        let clones = self.clones.iter().map(|uid| format!("vm:{uid}"));
        let readers = (self.readers > 0).then(|| EXPORT.to_owned());
        self.record.pins.iter().cloned().chain(clones).chain(readers).collect()
    }

    fn view(&self) -> SnapshotView {
        SnapshotView { pinned_by: self.pinned_by(), ..self.record.clone().into_view() }
    }
}

impl Record {
    /// It is in the directory of the snapshot `uid`, and so are all the files that it names.
    pub(crate) fn is_of(&self, uid: Uid) -> bool {
        let is_name = |file: &String| Path::new(file).file_name() == Some(file.as_ref());
        self.uid == uid && self.files.iter().all(is_name)
    }

    /// The snapshot as it is shown; without the clones that pin it.
    pub(crate) fn into_view(self) -> SnapshotView {
        SnapshotView {
            uid: self.uid,
            snapshot_id: self.snapshot_id,
            vm_uid: self.vm_uid,
            vm_id: self.vm_id,
            has_memory: self.has_memory,
            size_bytes: self.size_bytes,
            made_with: self.made_with,
            pinned_by: self.pins.into_iter().collect(),
            create_time: self.create_time,
        }
    }
}

/// A snapshot held by a clone: what a restore reads.
pub(crate) struct Held<I> {
    /// Without the clones that pin it.
    pub(crate) view: SnapshotView,
    pub(crate) image: Arc<I>,
    pub(crate) dir: Option<PathBuf>,
    /// The names of its files.
    pub(crate) files: Vec<String>,
}

/// Every snapshot of one provider.
#[derive(Debug)]
pub(crate) struct Snapshots<I> {
    by_uid: Mutex<HashMap<Uid, Snapshot<I>>>,
}

impl<I> Default for Snapshots<I> {
    fn default() -> Self {
        Self { by_uid: Mutex::new(HashMap::new()) }
    }
}

impl<I> Snapshots<I> {
    /// Takes up what was captured of a living VM; writes the record, which makes it whole.
    pub(crate) fn add(&self, record: Record, image: I, dir: Option<PathBuf>) -> Result<()> {
        if let Some(dir) = &dir {
            write_record(dir, &record)?;
        }
        let snapshot = Snapshot::new(record, Some(image), dir, true);
        self.by_uid.lock().insert(snapshot.record.uid, snapshot);
        Ok(())
    }

    /// Takes up what a restart found on disk.
    pub(crate) fn adopt(&self, record: Record, image: Option<I>, dir: PathBuf) {
        let snapshot = Snapshot::new(record, image, Some(dir), false);
        self.by_uid.lock().insert(snapshot.record.uid, snapshot);
    }

    /// Its VM was found alive after a restart.
    pub(crate) fn own(&self, snapshot: Uid) {
        if let Some(found) = self.by_uid.lock().get_mut(&snapshot) {
            found.owned = true;
        }
    }

    /// Removes what nothing keeps, after a restart. Answers how many there were.
    pub(crate) fn sweep(&self) -> usize {
        let mut gone = Vec::new();
        self.by_uid.lock().retain(|_, snapshot| {
            if snapshot.is_kept() {
                return true;
            }
            gone.push(snapshot.dir.take());
            false
        });
        let count = gone.len();
        gone.into_iter().flatten().for_each(|dir| remove_files(&dir));
        count
    }

    /// Finds a snapshot; `holder` is the uid of the live VM that has the name asked for, if any.
    fn find<'a>(
        by_uid: &'a mut HashMap<Uid, Snapshot<I>>,
        wanted: &SnapshotRef,
        holder: Option<Uid>,
    ) -> Result<&'a mut Snapshot<I>> {
        let belongs = |record: &Record| match (&wanted.source, holder) {
            (SnapshotSource::VmUid(vm_uid), _) => record.vm_uid == *vm_uid,
            (SnapshotSource::Name(_), Some(holder)) => record.vm_uid == holder,
            (SnapshotSource::Name(name), None) => record.vm_id == *name,
        };
        by_uid
            .values_mut()
            .filter(|found| found.record.snapshot_id == wanted.snapshot_id)
            .filter(|found| belongs(&found.record))
            .max_by_key(|found| found.record.create_time)
            .ok_or_else(|| not_found(wanted, "there is none of that name"))
    }

    /// Holds a snapshot for the clone `clone` until [`Self::drop_clone`].
    pub(crate) fn hold(
        &self,
        wanted: &SnapshotRef,
        holder: Option<Uid>,
        clone: Uid,
    ) -> Result<Held<I>> {
        let mut by_uid = self.by_uid.lock();
        let found = Self::find(&mut by_uid, wanted, holder)?;
        let held = held(found, wanted)?;
        found.clones.insert(clone);
        Ok(held)
    }

    /// Lets `read` read a snapshot, which stays meanwhile.
    pub(crate) fn read<T>(
        &self,
        wanted: &SnapshotRef,
        holder: Option<Uid>,
        read: impl FnOnce(&Held<I>) -> Result<T>,
    ) -> Result<T> {
        let held = {
            let mut by_uid = self.by_uid.lock();
            let found = Self::find(&mut by_uid, wanted, holder)?;
            let held = held(found, wanted)?;
            found.readers += 1;
            held
        };
        let done = read(&held);
        self.end_reading(held.view.uid);
        done
    }

    fn end_reading(&self, snapshot: Uid) {
        self.change(snapshot, |found| {
            found.readers -= 1;
            true
        });
    }

    /// Notes a clone that a restart found alive.
    pub(crate) fn hold_adopted(&self, snapshot: Uid, clone: Uid) {
        if let Some(found) = self.by_uid.lock().get_mut(&snapshot) {
            found.clones.insert(clone);
        }
    }

    /// The clone is gone.
    pub(crate) fn drop_clone(&self, snapshot: Uid, clone: Uid) {
        self.change(snapshot, |found| found.clones.remove(&clone));
    }

    /// The VM is gone: its snapshots live on only where something pins them.
    pub(crate) fn drop_owner(&self, snapshots: impl IntoIterator<Item = Uid>) {
        for uid in snapshots {
            self.change(uid, |found| std::mem::replace(&mut found.owned, false));
        }
    }

    pub(crate) fn pin(
        &self,
        wanted: &SnapshotRef,
        holder: Option<Uid>,
        pin: &str,
    ) -> Result<SnapshotView> {
        let uid = self.read(wanted, holder, |held| {
            let uid = held.view.uid;
            let Some(writing) = self.writing(uid) else { return Ok(uid) };
            // What is pinned outlives VMs, which end with their host, so it must outlive the host.
            held.dir.as_deref().map_or(Ok(()), files::sync_tree)?;
            let _one_at_a_time = writing.lock();
            let record = self.by_uid.lock().get(&uid).map(|found| found.record.clone());
            if let (Some(mut record), Some(dir)) = (record, &held.dir)
                && record.pins.insert(pin.to_owned())
            {
                write_record(dir, &record)?;
            }
            self.change(uid, |found| found.record.pins.insert(pin.to_owned()));
            Ok(uid)
        })?;
        let view = self.by_uid.lock().get(&uid).map(Snapshot::view);
        view.ok_or_else(|| not_found(wanted, "it was unpinned at once"))
    }

    pub(crate) fn unpin(&self, snapshot: Uid, pin: &str) -> Result<()> {
        let Some(writing) = self.writing(snapshot) else { return Ok(()) };
        let _one_at_a_time = writing.lock();
        let mut kept = None;
        self.change(snapshot, |found| {
            let removed = found.record.pins.remove(pin);
            if removed && found.is_kept() {
                kept = found.dir.clone().map(|dir| (dir, found.record.clone()));
                // It stays until its record is written.
                found.readers += usize::from(kept.is_some());
            }
            removed
        });
        let Some((dir, record)) = kept else { return Ok(()) };
        let written = write_record(&dir, &record);
        self.end_reading(snapshot);
        written
    }

    fn writing(&self, snapshot: Uid) -> Option<Arc<Mutex<()>>> {
        self.by_uid.lock().get(&snapshot).map(|found| Arc::clone(&found.writing))
    }

    /// Removes an unpinned snapshot and answers its VM's uid.
    pub(crate) fn delete(&self, wanted: &SnapshotRef, holder: Option<Uid>) -> Result<Uid> {
        let mut by_uid = self.by_uid.lock();
        let found = Self::find(&mut by_uid, wanted, holder)?;
        let pinned_by = found.pinned_by();
        if !pinned_by.is_empty() {
            let snapshot_id = wanted.snapshot_id.clone();
            return Err(VmRuntimeError::SnapshotInUse { snapshot_id, pinned_by });
        }
        let (uid, vm_uid) = (found.record.uid, found.record.vm_uid);
        let removed = by_uid.remove(&uid);
        drop(by_uid);
        removed.and_then(|snapshot| snapshot.dir).iter().for_each(|dir| remove_files(dir));
        Ok(vm_uid)
    }

    pub(crate) fn view(&self, wanted: &SnapshotRef, holder: Option<Uid>) -> Result<SnapshotView> {
        Self::find(&mut self.by_uid.lock(), wanted, holder).map(|found| found.view())
    }

    /// How a restore refers to the snapshot of this uid.
    pub(crate) fn reference(&self, uid: Uid) -> Result<SnapshotRef> {
        let reference = |vm_uid, snapshot_id| SnapshotRef {
            source: SnapshotSource::VmUid(vm_uid),
            snapshot_id,
            resume_immediately: false,
            network_overrides: Vec::new(),
        };
        let known = self.by_uid.lock().get(&uid).map(|found| {
            let record = &found.record;
            reference(record.vm_uid, record.snapshot_id.clone())
        });
        match known {
            Some(known) => Ok(known),
            // Of one that is not known nothing is but its uid, which does for a name.
            None => {
                let unknown = reference(uid, SnapshotId::parse(&uid.to_string())?);
                Err(not_found(&unknown, "there is none of that uid"))
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<SnapshotView> {
        let mut all: Vec<_> = self.by_uid.lock().values().map(Snapshot::view).collect();
        all.sort_by_key(|view| (view.create_time, view.uid));
        all
    }

    /// Changes one snapshot and removes it if nothing keeps it any longer.
    fn change(&self, uid: Uid, change: impl FnOnce(&mut Snapshot<I>) -> bool) {
        let mut by_uid = self.by_uid.lock();
        let Some(found) = by_uid.get_mut(&uid) else { return };
        if !change(found) || found.is_kept() {
            return;
        }
        let removed = by_uid.remove(&uid);
        drop(by_uid);
        removed.and_then(|snapshot| snapshot.dir).iter().for_each(|dir| remove_files(dir));
    }
}

fn held<I>(found: &Snapshot<I>, wanted: &SnapshotRef) -> Result<Held<I>> {
    let image = found.image.clone();
    let image = image.ok_or_else(|| not_found(wanted, "its files cannot be read"))?;
    let (dir, files) = (found.dir.clone(), found.record.files.clone());
    // Who pins it matters to no restore, and there may be 100,000 clones to name.
    Ok(Held { view: found.record.clone().into_view(), image, dir, files })
}

fn not_found(wanted: &SnapshotRef, reason: &str) -> VmRuntimeError {
    VmRuntimeError::SnapshotNotFound {
        vm: match &wanted.source {
            SnapshotSource::Name(vm_id) => vm_id.to_string(),
            SnapshotSource::VmUid(uid) => uid.to_string(),
        },
        snapshot_id: wanted.snapshot_id.clone(),
        reason: reason.to_owned(),
    }
}

fn write_record(dir: &Path, record: &Record) -> Result<()> {
    files::write_json_through(&dir.join(RECORD), record)
}

/// Reads the record of the snapshot in `dir`; `None` when it was never finished.
pub(crate) fn read_record(dir: &Path) -> Option<Record> {
    files::read_json(&dir.join(RECORD)).ok()
}

fn remove_files(dir: &Path) {
    // Without its record it is not a snapshot any more, should the rest be interrupted.
    let _ = std::fs::remove_file(dir.join(RECORD));
    files::remove_dir(dir);
}
