//! Whom a freeze is of.

use std::sync::Arc;

use hearth_providers::capabilities::RunningSnapshot;
use hearth_providers::{Uid, VmId, VmStatus};

use super::FreezeRequest;
use crate::error::{Error, Kind, Result};
use crate::ids::{TemplateId, Tenant};
use crate::lease::Lease;
use crate::manager::Manager;
use crate::pool::Provider;

/// A VM that is frozen.
#[derive(Clone)]
pub(super) enum Subject {
    /// A tenant has it, under whatever name.
    Leased(Arc<Lease>),
    /// A provider has it, and nothing else is known of it.
    Unrecorded(Arc<Provider>, VmId),
}

impl Subject {
    pub(super) fn provider(&self) -> &Arc<Provider> {
        match self {
            Self::Leased(lease) => &lease.provider,
            Self::Unrecorded(provider, _) => provider,
        }
    }

    /// What it is called at this moment.
    pub(super) fn vm_id(&self) -> VmId {
        match self {
            Self::Leased(lease) => lease.held().vm_id,
            Self::Unrecorded(_, vm_id) => vm_id.clone(),
        }
    }

    /// Whose it is; the blank tenant is nobody, and what is nobody's is seen by operators.
    pub(super) fn tenant(&self) -> Tenant {
        match self {
            Self::Leased(lease) => lease.tenant.clone(),
            Self::Unrecorded(..) => Tenant::new(""),
        }
    }

    pub(super) fn template(&self) -> Option<(TemplateId, i64)> {
        match self {
            Self::Leased(lease) => lease.template.clone(),
            Self::Unrecorded(..) => None,
        }
    }

    /// Its provider cannot capture it while it runs.
    pub(super) fn must_stop(&self) -> bool {
        let runtime = &self.provider().runtime;
        runtime.capabilities().snapshot_running == RunningSnapshot::StopRequired
            && runtime.status(&self.vm_id()) == Some(VmStatus::Running)
    }
}

impl Manager {
    /// The VM that is asked for.
    pub(super) fn subject(&self, request: &FreezeRequest) -> Result<Subject> {
        let FreezeRequest { vm_id, uid, tenant, .. } = request;
        match self.lease_of(vm_id, *uid, tenant.as_ref()) {
            Ok(lease) => Ok(Subject::Leased(lease)),
            Err(missing @ Error::NotFound { kind: Kind::Vm, .. }) if tenant.is_none() => {
                self.unrecorded(vm_id, *uid)?.ok_or(missing)
            }
            Err(error) => Err(error),
        }
    }

    /// A VM that a provider has under this name, and that no lease is of.
    fn unrecorded(&self, vm_id: &VmId, uid: Option<Uid>) -> Result<Option<Subject>> {
        for provider in self.providers() {
            let Some(view) = provider.runtime.get_vm(vm_id) else { continue };
            let is_ours = self.leases.by_uid(view.uid).is_some();
            if view.status == VmStatus::Destroyed || is_ours {
                continue;
            }
            if let Some(uid) = uid.filter(|uid| *uid != view.uid) {
                return Err(Error::UidMismatch {
                    vm: vm_id.to_string(),
                    expected: uid.to_string(),
                    actual: view.uid.to_string(),
                });
            }
            return Ok(Some(Subject::Unrecorded(Arc::clone(provider), vm_id.clone())));
        }
        Ok(None)
    }
}
