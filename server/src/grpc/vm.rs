//! `VmService`.

use std::borrow::Cow;

use hearth_pool::manager::VmInfo;
use hearth_pool::verbs::StateVerb;
use hearth_proto::google::longrunning::Operation;
use hearth_proto::v1::vm_service_server::VmService;
use hearth_proto::{names, v1};
use hearth_providers::VmId;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use crate::call::{Call, answer, answer_in_its_time};
use crate::check::Fields;
use crate::convert;
use crate::filter::{Field, Filter};
use crate::paging::Page;
use crate::status::{Refusal, method_unimplemented};

type Answer<T> = Result<Response<T>, Status>;

pub(super) const FILTER: &[Field] = &[
    Field::OneOf("state", "STATE_", &["CREATED", "RUNNING", "STOPPED", "FAILED", "DESTROYED"]),
    Field::Text("pool"),
    Field::Text("tenant"),
    Field::Map("labels"),
];

impl Services {
    async fn get(&self, call: Call, request: v1::GetVmRequest) -> Result<v1::Vm, Refusal> {
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let vm_id = fields.required(vm_id)?;
        let info = self.manager.vm(&vm_id, call.caller.scope())?;
        Ok(convert::vm::vm(&info, &call.caller))
    }

    async fn list(
        &self,
        call: Call,
        request: v1::ListVmsRequest,
    ) -> Result<v1::ListVmsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let page = Page::of("vms", &request.filter, request.page_size, &request.page_token)?;
        let vms = self.manager.vms(call.caller.scope()).into_iter();
        let vms = vms.filter(|info| filter.matches(|field| field_of(info, field)));
        let (vms, next_page_token) = page.cut(vms, |info| info.view.vm_id.as_str());
        let vms = vms.iter().map(|info| convert::vm::vm(info, &call.caller)).collect();
        Ok(v1::ListVmsResponse { vms, next_page_token })
    }

    async fn release(&self, call: Call, request: v1::ReleaseVmRequest) -> Result<(), Refusal> {
        call.is_about(&request.name, &request.uid, &request.request_id);
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let vm_id = fields.required(vm_id)?;
        Ok(self.manager.release(&vm_id, uid, call.caller.scope()).await?)
    }

    async fn destroy(self, call: Call, request: v1::DestroyVmRequest) -> Result<v1::Vm, Refusal> {
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let (vm_id, tenant) = (fields.required(vm_id)?, call.caller.scope());
        let lease = self.manager.lease_of(&vm_id, uid, tenant)?;
        let mut last = convert::vm::vm(&self.manager.leased_info(&lease), &call.caller);
        self.manager.release(&vm_id, Some(lease.uid), tenant).await?;
        last.state = v1::vm::State::Destroyed.into();
        Ok(last)
    }

    async fn change_state(
        self,
        call: Call,
        verb: StateVerb,
        (name, uid, request_id): (String, String, String),
    ) -> Result<v1::Vm, Refusal> {
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &name);
        let uid = fields.uid("uid", &uid);
        fields.request_id(&request_id);
        let vm_id = fields.required(vm_id)?;
        let lease = self.manager.change_state(verb, &vm_id, uid, call.caller.scope()).await?;
        Ok(convert::vm::vm(&self.manager.leased_info(&lease), &call.caller))
    }

    async fn rename(self, call: Call, request: v1::RenameVmRequest) -> Result<v1::Vm, Refusal> {
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let new = fields.id("new_vm_id", &request.new_vm_id, VmId::parse);
        if new.as_ref().is_some_and(VmId::is_pools_own) {
            fields.wrong("new_vm_id", "ids that begin with \"warm-\" are the pools' own");
        }
        let (vm_id, new) = fields.required(vm_id.zip(new))?;
        let lease = self.manager.rename_vm(&vm_id, uid, call.caller.scope(), &new)?;
        Ok(convert::vm::vm(&self.manager.leased_info(&lease), &call.caller))
    }
}

fn field_of<'a>(info: &'a VmInfo, field: &str) -> Option<Cow<'a, str>> {
    let lease = info.lease.as_ref();
    match field {
        "state" => Some(convert::vm::state_name(info.view.status).into()),
        "pool" => info.pool.as_ref().map(|pool| names::POOLS.name(pool.as_str()).into()),
        "tenant" => lease.map(|lease| lease.tenant.as_str().into()),
        field => {
            let key = field.strip_prefix("labels.")?;
            lease?.labels.get(key).map(|value| value.as_str().into())
        }
    }
}

#[tonic::async_trait]
impl VmService for Services {
    async fn acquire_vm(
        &self,
        request: Request<v1::AcquireVmRequest>,
    ) -> Answer<v1::AcquireVmResponse> {
        answer_in_its_time(request, |call, request| self.acquire(call, request)).await
    }

    async fn release_vm(&self, request: Request<v1::ReleaseVmRequest>) -> Answer<()> {
        if request.get_ref().request_id.is_empty() {
            return answer(request, |call, request| self.release(call, request)).await;
        }
        let services = self.clone();
        let handle = move |call, request| async move { services.release(call, request).await };
        self.replays.answer("ReleaseVm", request, handle).await
    }

    async fn renew_lease(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::Vm> {
        let services = self.clone();
        let handle = move |call, request| services.renew(call, request);
        self.replays.answer("RenewLease", request, handle).await
    }

    async fn create_vm(&self, request: Request<v1::CreateVmRequest>) -> Answer<v1::Vm> {
        answer(request, |call, request| self.create(call, request)).await
    }

    async fn get_vm(&self, request: Request<v1::GetVmRequest>) -> Answer<v1::Vm> {
        answer(request, |call, request| self.get(call, request)).await
    }

    async fn list_vms(&self, request: Request<v1::ListVmsRequest>) -> Answer<v1::ListVmsResponse> {
        answer(request, |call, request| self.list(call, request)).await
    }

    async fn start_vm(&self, request: Request<v1::StartVmRequest>) -> Answer<v1::Vm> {
        let services = self.clone();
        let handle = move |call, it: v1::StartVmRequest| {
            services.change_state(call, StateVerb::Start, (it.name, it.uid, it.request_id))
        };
        self.replays.answer("StartVm", request, handle).await
    }

    async fn stop_vm(&self, request: Request<v1::StopVmRequest>) -> Answer<v1::Vm> {
        let services = self.clone();
        let handle = move |call, it: v1::StopVmRequest| {
            services.change_state(call, StateVerb::Stop, (it.name, it.uid, it.request_id))
        };
        self.replays.answer("StopVm", request, handle).await
    }

    async fn rename_vm(&self, request: Request<v1::RenameVmRequest>) -> Answer<v1::Vm> {
        let services = self.clone();
        let handle = move |call, request| services.rename(call, request);
        self.replays.answer("RenameVm", request, handle).await
    }

    async fn destroy_vm(&self, request: Request<v1::DestroyVmRequest>) -> Answer<v1::Vm> {
        let services = self.clone();
        let handle = move |call, request| services.destroy(call, request);
        self.replays.answer("DestroyVm", request, handle).await
    }

    async fn snapshot_vm(&self, request: Request<v1::SnapshotVmRequest>) -> Answer<v1::Snapshot> {
        let services = self.clone();
        let handle = move |call, request| services.take_snapshot(call, request);
        self.replays.answer("SnapshotVm", request, handle).await
    }

    async fn get_snapshot(&self, request: Request<v1::GetSnapshotRequest>) -> Answer<v1::Snapshot> {
        answer(request, |call, request| self.snapshot(call, request)).await
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Answer<v1::ListSnapshotsResponse> {
        answer(request, |call, request| self.snapshots(call, request)).await
    }

    async fn delete_snapshot(&self, request: Request<v1::DeleteSnapshotRequest>) -> Answer<()> {
        let services = self.clone();
        let handle = move |call, request| services.remove_snapshot(call, request);
        self.replays.answer("DeleteSnapshot", request, handle).await
    }

    async fn freeze_vm(&self, request: Request<v1::FreezeVmRequest>) -> Answer<Operation> {
        let services = self.clone();
        let handle = move |call, request| services.freeze(call, request);
        self.replays.answer("FreezeVm", request, handle).await
    }

    async fn resume_vm(&self, request: Request<v1::ResumeVmRequest>) -> Answer<v1::Vm> {
        answer(request, |call, request| self.resume(call, request)).await
    }

    type WatchVmsStream = BoxStream<v1::WatchVmsResponse>;

    async fn watch_vms(
        &self,
        request: Request<v1::WatchVmsRequest>,
    ) -> Answer<Self::WatchVmsStream> {
        answer(request, |call, request| self.vms_watched(call, request)).await
    }

    type ReadConsoleStream = BoxStream<v1::ReadConsoleResponse>;

    async fn read_console(
        &self,
        request: Request<v1::ReadConsoleRequest>,
    ) -> Answer<Self::ReadConsoleStream> {
        answer(request, |call, request| self.clone().console(call, request)).await
    }

    type ConnectVmStream = BoxStream<v1::ConnectVmResponse>;

    async fn connect_vm(
        &self,
        request: Request<Streaming<v1::ConnectVmRequest>>,
    ) -> Answer<Self::ConnectVmStream> {
        let services = self.clone();
        answer(request, |call, sent| services.connect(call, sent)).await
    }

    type ExecVmStream = BoxStream<v1::ExecVmResponse>;

    async fn exec_vm(&self, _: Request<v1::ExecVmRequest>) -> Answer<Self::ExecVmStream> {
        Err(method_unimplemented())
    }
}
