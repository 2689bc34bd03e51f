//! VMs, as an operator's list has them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hearth_pool::changes::VmNote;
use hearth_pool::ids::Tenant;
use hearth_pool::manager::Manager;
use hearth_proto::v1;
use hearth_providers::model::VmStatus;

use super::feed::{Resource, Sighting};
use super::hub::Source;
use crate::auth::Caller;
use crate::convert;

/// How often all are looked at, for what nobody noted: a provider changes some things by itself.
const LOOK: Duration = Duration::from_secs(5);

/// Sees everything; what a watch shows of it is its own.
static EVERYTHING: LazyLock<Caller> = LazyLock::new(|| Caller::operator(Tenant::anonymous()));

/// Where VMs are looked at.
#[derive(Debug)]
pub(crate) struct VmSource(pub(crate) Arc<Manager>);

impl Resource for v1::Vm {
    fn key(&self) -> String {
        self.uid.clone()
    }

    /// A VM has one holder in its life.
    fn covers(&self, _: &Self) -> bool {
        self.lease.is_some()
    }
}

impl VmSource {
    fn sighting(&self, note: VmNote) -> Sighting<v1::Vm> {
        let uid = match &note {
            VmNote::Leased(lease) => lease.uid,
            VmNote::Vm(uid) => *uid,
        };
        match (self.0.vm_by_uid(uid), note) {
            (Some(info), _) => Sighting::Is(convert::vm::vm(&info, &EVERYTHING)),
            (None, VmNote::Vm(uid)) => Sighting::Gone(uid.to_string()),
            // Its lease has ended already. It is shown as it was handed over.
            (None, VmNote::Leased(lease)) => {
                let mut info = self.0.leased_info(&lease);
                info.view.status = match lease.pool {
                    Some(_) => VmStatus::Running,
                    None => VmStatus::Created,
                };
                info.view.failure = None;
                Sighting::Was(convert::vm::vm(&info, &EVERYTHING))
            }
        }
    }
}

impl Source for VmSource {
    type Item = v1::Vm;

    const LOOK: Duration = LOOK;

    fn begin(&self) {
        self.0.changes().vms.begin();
    }

    fn end(&self) {
        self.0.changes().vms.end();
    }

    async fn noted(&self) {
        self.0.changes().vms.noted().await;
    }

    fn take_noted(&self) -> (Vec<Sighting<v1::Vm>>, bool) {
        let taken = self.0.changes().vms.take();
        (taken.notes.into_iter().map(|note| self.sighting(note)).collect(), taken.has_lost)
    }

    fn all(&self) -> Vec<v1::Vm> {
        let all = self.0.vms(None);
        all.iter().map(|info| convert::vm::vm(info, &EVERYTHING)).collect()
    }

    fn one(&self, key: &str) -> Option<v1::Vm> {
        let info = self.0.vm_by_uid(key.parse().ok()?)?;
        Some(convert::vm::vm(&info, &EVERYTHING))
    }
}
