//! Restores that do not go on where the snapshot stood, or not alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hearth_providers::VmRuntimeError::{AlreadyExists, NotFound};
use hearth_providers::error::Result;
use hearth_providers::model::SnapshotSource;
use hearth_providers::{SnapshotId, SnapshotRef, Uid, VmId, VmSpec, VmStatus};
use parking_lot::Mutex;

use crate::deviant::{Deviation, Inner};
use crate::guests::twisted;

pub(crate) const ALL: &[Deviation] = &[
    ("restore_from is ignored", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            inner.create_vm_with_spec(vm_id, &VmSpec { restore_from: None, ..spec.clone() })
        });
    }),
    ("a restore boots", |it| {
        let restored: Arc<Mutex<HashMap<VmId, Uid>>> = Arc::default();
        let shown = Arc::clone(&restored);
        it.create = Box::new(move |inner, vm_id, spec| {
            let Some(from) = &spec.restore_from else {
                return inner.create_vm_with_spec(vm_id, spec);
            };
            let snapshot = inner.snapshot(from)?.uid;
            inner.create_vm(vm_id)?;
            restored.lock().insert(vm_id.clone(), snapshot);
            inner.start_vm(vm_id)?;
            if from.resume_immediately { Ok(()) } else { inner.stop_vm(vm_id) }
        });
        it.view = Box::new(move |mut vm| {
            vm.restored_from = shown.lock().get(&vm.vm_id).copied();
            vm
        });
    }),
    ("a restore always resumes", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            inner.create_vm_with_spec(vm_id, &changed(spec, |from| from.resume_immediately = true))
        });
    }),
    ("a restore never resumes", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            inner.create_vm_with_spec(vm_id, &changed(spec, |from| from.resume_immediately = false))
        });
    }),
    ("a restore checks what is for a boot", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            VmSpec { restore_from: None, ..spec.clone() }.check()?;
            inner.create_vm_with_spec(vm_id, spec)
        });
    }),
    ("a restore ignores network overrides", |it| {
        it.create = Box::new(|inner, vm_id, spec| {
            inner.create_vm_with_spec(vm_id, &changed(spec, |from| from.network_overrides.clear()))
        });
    }),
    ("a restored VM does not say from what", |it| {
        it.view = Box::new(|mut vm| {
            vm.restored_from = None;
            vm
        });
    }),
    ("the counter begins anew with a restore", |it| {
        let first: Arc<Mutex<HashMap<VmId, u64>>> = Arc::default();
        it.channel = Box::new(move |inner, vm_id| {
            let first = Arc::clone(&first);
            let (vm_id, restored) =
                (vm_id.clone(), inner.get_vm(vm_id).is_some_and(|vm| vm.restored_from.is_some()));
            twisted(inner.guest_channel(&vm_id)?, move |line| {
                let counter = line.strip_prefix("pong counter=")?.split(' ').next()?;
                let count: u64 = counter.parse().ok()?;
                let base = *first.lock().entry(vm_id.clone()).or_insert(count - 1);
                restored.then(|| line.replacen(counter, &(count - base).to_string(), 1))
            })
        });
    }),
    ("every clone has a boot id of its own", |it| {
        it.channel = Box::new(|inner, vm_id| {
            let name = vm_id.to_string();
            let restored = inner.get_vm(vm_id).is_some_and(|vm| vm.restored_from.is_some());
            twisted(inner.guest_channel(vm_id)?, move |line| {
                let pong = line.starts_with("pong ") && restored;
                pong.then(|| line.replacen("boot_id=", &format!("boot_id={name}"), 1))
            })
        });
    }),
    ("memory of no VM is read in", |it| {
        it.prefault = Box::new(|inner, vm_id| match inner.prefault_vm(vm_id) {
            Err(NotFound { .. }) => Ok(0),
            done => done,
        });
    }),
    ("a VM runs once its memory is read in", |it| {
        it.prefault = Box::new(|inner, vm_id| {
            let touched = inner.prefault_vm(vm_id)?;
            let stands = inner.status(vm_id) == Some(VmStatus::Stopped);
            if stands { inner.start_vm(vm_id).map(|()| touched) } else { Ok(touched) }
        });
    }),
    ("clones share their guest", |it| {
        let first: Arc<Mutex<HashMap<Uid, Uid>>> = Arc::default();
        it.channel = Box::new(move |inner, vm_id| {
            let vm = inner.get_vm(vm_id).filter(|vm| vm.status == VmStatus::Running);
            let sibling = vm.and_then(|vm| {
                let mut first = first.lock();
                let sibling = *first.entry(vm.restored_from?).or_insert(vm.uid);
                let sibling = inner.get_vm_by_uid(sibling)?;
                (sibling.status == VmStatus::Running).then_some(sibling.vm_id)
            });
            inner.guest_channel(sibling.as_ref().unwrap_or(vm_id))
        });
    }),
    ("clones share their disk", |it| {
        let written: Arc<Mutex<HashMap<Uid, String>>> = Arc::default();
        it.channel = Box::new(move |inner, vm_id| {
            let (written, channel) = (Arc::clone(&written), inner.guest_channel(vm_id)?);
            let from = inner.get_vm(vm_id).and_then(|vm| vm.restored_from);
            crate::guests::overheard(channel, move |asked, answer| {
                let mut written = written.lock();
                let from = from?;
                if let Some(text) = asked.strip_prefix("write note ") {
                    written.insert(from, text.to_owned());
                }
                let note = written.get(&from).filter(|_| asked == "read note")?;
                answer.starts_with("data ").then(|| format!("data {note}"))
            })
        });
    }),
    ("a snapshot is of the moment it is restored", |it| {
        let count = AtomicU64::new(0);
        it.create = Box::new(move |inner, vm_id, spec| {
            let late = spec.restore_from.as_ref().and_then(|from| {
                let source = inner.get_vm_by_uid(inner.snapshot(from).ok()?.vm_uid)?;
                let number = count.fetch_add(1, Ordering::Relaxed);
                let late = SnapshotId::parse(&format!("late-{number}")).ok()?;
                inner.snapshot_vm(&source.vm_id, &late).ok()?;
                Some(SnapshotRef {
                    source: SnapshotSource::VmUid(source.uid),
                    snapshot_id: late,
                    ..from.clone()
                })
            });
            let spec = match late {
                Some(_) => VmSpec { restore_from: late, ..spec.clone() },
                None => spec.clone(),
            };
            inner.create_vm_with_spec(vm_id, &spec)
        });
        it.view = Box::new(|mut vm| {
            vm.snapshots.retain(|id| !id.as_str().starts_with("late-"));
            vm
        });
    }),
    ("a restore takes over a name", |it| {
        it.create = Box::new(take_over);
    }),
];

fn changed(spec: &VmSpec, change: impl FnMut(&mut SnapshotRef)) -> VmSpec {
    let mut spec = spec.clone();
    spec.restore_from.as_mut().into_iter().for_each(change);
    spec
}

fn take_over(inner: Inner<'_>, vm_id: &VmId, spec: &VmSpec) -> Result<()> {
    match inner.create_vm_with_spec(vm_id, spec) {
        Err(AlreadyExists { .. }) if spec.restore_from.is_some() => {
            inner.destroy_vm(vm_id)?;
            inner.create_vm_with_spec(vm_id, spec)
        }
        done => done,
    }
}
