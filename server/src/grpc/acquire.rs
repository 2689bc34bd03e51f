//! `AcquireVm` and `CreateVm`: the two ways to a VM.

use hearth_pool::acquire::{AcquireRequest, Expiration};
use hearth_pool::error::{Error, Kind};
use hearth_pool::ids::RequestId;
use hearth_pool::pool::Overflow;
use hearth_pool::verbs::CreateRequest;
use hearth_proto::{names, v1};
use hearth_providers::VmRuntimeError;
use hearth_providers::model::{SnapshotSource, VmSpec};

use super::Services;
use crate::call::Call;
use crate::check::Fields;
use crate::convert::{self, pool, spec};
use crate::status::Refusal;

impl Services {
    pub(super) async fn acquire(
        &self,
        call: Call,
        request: v1::AcquireVmRequest,
    ) -> Result<v1::AcquireVmResponse, Refusal> {
        let refused = |error| Refusal::Acquire { error, allocated: false };
        let denied = |denial| Refusal::Denied { denial, is_acquire: true };
        super::may_name_host(&call, !request.network_overrides.is_empty()).map_err(denied)?;
        let request = self.acquire_request(&call, request).map_err(refused)?;
        let may_linger = self.may_linger(&request);
        if call.is_noted() {
            let request_id = request.request_id.as_ref().map_or("", RequestId::as_str);
            call.is_about(&names::POOLS.name(request.pool.as_str()), "", request_id);
        }
        match self.manager.acquire(request).await {
            Ok(Some(acquired)) => {
                let info = self.manager.leased_info(&acquired.lease);
                let answer = convert::vm::acquired(&acquired, &info, &call.caller);
                answer.vm.iter().for_each(|vm| call.is_about(&vm.name, &vm.uid, ""));
                Ok(answer)
            }
            Ok(None) => Ok(v1::AcquireVmResponse::default()),
            Err(error) => {
                let allocated = match &error {
                    // Its restore goes on, and the VM waits for whoever can name it.
                    Error::DeadlineTooShort { .. } => may_linger,
                    // Of our own mistakes nothing is known.
                    Error::Internal(_) => true,
                    _ => false,
                };
                Err(Refusal::Acquire { error, allocated })
            }
        }
    }

    /// Whether a VM may be waiting for a retry when this acquire runs out of time: only a restore
    /// of its own goes on without its caller, and only for one that can find the VM again.
    fn may_linger(&self, request: &AcquireRequest) -> bool {
        let Ok(pool) = self.manager.pool(&request.pool) else { return false };
        let overflow = request.overflow.unwrap_or(pool.config().default_overflow);
        let is_dedicated = overflow == Overflow::ColdOnly
            || !request.network_overrides.is_empty()
            || !pool.provider.runtime.capabilities().rename;
        is_dedicated && (request.vm_id.is_some() || request.request_id.is_some())
    }

    /// Reads what an acquire asks for.
    ///
    /// # Errors
    /// `InvalidArgument`; `Unimplemented` for what is asked for and not built.
    pub(super) fn acquire_request(
        &self,
        call: &Call,
        request: v1::AcquireVmRequest,
    ) -> Result<AcquireRequest, Error> {
        use v1::acquire_vm_request::Expiration as Asked;
        if request.identity.is_some() {
            return Err(Error::Unimplemented { what: "identity" });
        }
        let mut fields = Fields::default();
        let pool = fields.pool("pool", &request.pool);
        let vm_id = fields.new_vm_id("vm_id", &request.vm_id);
        let request_id = fields.request_id(&request.request_id);
        let expiration = match request.expiration {
            Some(Asked::Ttl(ttl)) => fields.duration("ttl", Some(ttl)).map(Expiration::After),
            Some(Asked::ExpireTime(time)) => {
                fields.until("expire_time", &time, self.env.now()).map(Expiration::At)
            }
            None => None,
        };
        let overflow = pool::overflow(&mut fields, "overflow", request.overflow);
        fields.labels(&request.labels);
        let overrides = request.network_overrides;
        let network_overrides = spec::interfaces_of(&mut fields, "network_overrides", overrides)?;
        let pool = fields.required(pool)?;
        if !call.caller.may_use(&pool) {
            return Err(Error::NotFound { kind: Kind::Pool, name: pool.to_string() });
        }
        Ok(AcquireRequest {
            pool,
            tenant: call.caller.tenant.clone(),
            vm_id,
            request_id,
            expiration,
            overflow,
            labels: request.labels,
            network_overrides,
            deadline: call.deadline,
            validate_only: request.validate_only,
        })
    }

    pub(super) async fn create(
        &self,
        call: Call,
        request: v1::CreateVmRequest,
    ) -> Result<v1::Vm, Refusal> {
        let mut fields = Fields::default();
        call.is_about(&request.vm_id, "", &request.request_id);
        let vm_id = fields.new_vm_id("vm_id", &request.vm_id);
        let request_id = fields.request_id(&request.request_id);
        let ttl = fields.duration("ttl", request.ttl);
        fields.labels(&request.labels);
        let spec = spec::spec(&mut fields, "spec", request.spec.unwrap_or_default())?;
        fields.done()?;
        let spec = self.own_spec(&call, spec)?;
        let provider = self.manager.provider(&request.provider)?.name.to_string();
        // What it would look like, for a request that is only to be checked.
        let planned = v1::Vm {
            name: vm_id.as_ref().map(convert::vm::name).unwrap_or_default(),
            state: v1::vm::State::Created.into(),
            tenant: call.caller.tenant.as_str().to_owned(),
            provider: provider.clone(),
            labels: request.labels.clone(),
            origin: v1::vm::Origin::Spec.into(),
            ..Default::default()
        };
        let made = self.manager.create_vm(CreateRequest {
            template: None,
            fingerprint: None,
            tenant: call.caller.tenant.clone(),
            vm_id,
            provider,
            spec,
            ttl,
            labels: request.labels,
            request_id,
            validate_only: request.validate_only,
        });
        let made = made.await.map_err(|error| super::in_field("spec", error))?;
        Ok(match made {
            Some(acquired) => {
                let info = self.manager.leased_info(&acquired.lease);
                let vm = convert::vm::vm(&info, &call.caller);
                call.is_about(&vm.name, &vm.uid, "");
                vm
            }
            None => planned,
        })
    }

    /// What a VM is to be made from, where who calls may have it: a tenant begins from a snapshot of
    /// a VM that it has, and whatever else there is to begin from is the host's.
    fn own_spec(&self, call: &Call, mut spec: VmSpec) -> Result<VmSpec, Refusal> {
        let from = spec.restore_from.as_mut();
        let names_host = from.as_ref().is_none_or(|from| !from.network_overrides.is_empty());
        super::may_name_host(call, names_host)?;
        let (Some(from), Some(tenant)) = (from, call.caller.scope()) else { return Ok(spec) };
        let lease = match &from.source {
            SnapshotSource::Name(vm_id) => self.manager.lease_of(vm_id, None, Some(tenant)).ok(),
            SnapshotSource::VmUid(uid) => self.manager.lease_by_uid(*uid, Some(tenant)),
        };
        let Some(lease) = lease else {
            let vm = match &from.source {
                SnapshotSource::Name(vm_id) => vm_id.to_string(),
                SnapshotSource::VmUid(uid) => uid.to_string(),
            };
            let (snapshot_id, reason) =
                (from.snapshot_id.clone(), "there is no such VM".to_owned());
            return Err(VmRuntimeError::SnapshotNotFound { vm, snapshot_id, reason }.into());
        };
        // It may have another holder by the time that it is looked for by name.
        from.source = SnapshotSource::VmUid(lease.uid);
        Ok(spec)
    }

    pub(super) async fn renew(
        self,
        call: Call,
        request: v1::RenewLeaseRequest,
    ) -> Result<v1::Vm, Refusal> {
        use v1::renew_lease_request::Expiration as Asked;
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let until = match request.expiration {
            Some(Asked::Ttl(ttl)) => fields.duration("ttl", Some(ttl)).map(Expiration::After),
            Some(Asked::ExpireTime(time)) => {
                fields.until("expire_time", &time, self.env.now()).map(Expiration::At)
            }
            None => None,
        };
        let (vm_id, tenant) = (fields.required(vm_id)?, call.caller.scope());
        let default = || -> Result<Expiration, Error> {
            let lease = self.manager.lease_of(&vm_id, uid, tenant)?;
            let pool = lease.pool.as_ref();
            let ttl = pool.map_or(pool::DEFAULT_TTL, |pool| pool.config().default_ttl);
            Ok(Expiration::After(ttl))
        };
        let renewed = until.map_or_else(default, Ok).and_then(|until| {
            self.manager.renew(&vm_id, tenant, uid, until, request.allow_shorten)
        });
        match renewed {
            Ok(lease) => Ok(convert::vm::vm(&self.manager.leased_info(&lease), &call.caller)),
            Err(Error::NotFound { .. }) if self.manager.has_ended(&vm_id, tenant) => {
                Err(Refusal::LeaseNotHeld { vm: vm_id.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }
}
