//! Snapshots of VMs that tenants have.

use hearth_proto::v1;
use hearth_providers::{SnapshotId, VmRuntimeError};

use super::Services;
use crate::call::Call;
use crate::check::Fields;
use crate::convert;
use crate::filter::{Field, Filter};
use crate::paging::Page;
use crate::status::Refusal;

const FILTER: &[Field] = &[Field::OneOf("has_memory", "", &["TRUE", "FALSE"])];

impl Services {
    pub(super) async fn take_snapshot(
        self,
        call: Call,
        request: v1::SnapshotVmRequest,
    ) -> Result<v1::Snapshot, Refusal> {
        use v1::snapshot_vm_request::Type;
        let mut fields = Fields::default();
        let vm_id = fields.vm("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let snapshot_id = match request.snapshot_id.as_str() {
            "" => SnapshotId::parse(&format!("snapshot-{}", self.env.uid())).ok(),
            id => fields.id("snapshot_id", id, SnapshotId::parse),
        };
        let kind = fields.one_of("type", request.r#type);
        let ((vm_id, snapshot_id), kind) = fields.required(vm_id.zip(snapshot_id).zip(kind))?;
        let (tenant, allow_stop) = (call.caller.scope(), request.allow_stop);
        let lease = self.manager.lease_of(&vm_id, uid, tenant)?;
        let has_memory = lease.provider.runtime.capabilities().memory_in_snapshots;
        let lacks = match (kind, has_memory) {
            (Type::Unspecified, _) | (Type::Full, true) | (Type::Disk, false) => None,
            (Type::Full, false) => Some("memory in snapshots (TYPE_FULL)"),
            (Type::Disk, true) => Some("snapshots without memory (TYPE_DISK)"),
            (Type::Diff, _) => Some("snapshots of what has changed (TYPE_DIFF)"),
        };
        if let Some(what) = lacks {
            return Err(VmRuntimeError::Unsupported { what: what.to_owned() }.into());
        }
        let view = self.manager.snapshot_vm(&vm_id, uid, tenant, snapshot_id, allow_stop).await?;
        Ok(convert::vm::snapshot(&view, vm_id.as_str()))
    }

    pub(super) async fn snapshot(
        &self,
        call: Call,
        request: v1::GetSnapshotRequest,
    ) -> Result<v1::Snapshot, Refusal> {
        let mut fields = Fields::default();
        let name = fields.snapshot("name", &request.name);
        let (vm_id, snapshot_id) = fields.required(name)?;
        let view = self.manager.snapshot(&vm_id, call.caller.scope(), &snapshot_id)?;
        Ok(convert::vm::snapshot(&view, vm_id.as_str()))
    }

    pub(super) async fn snapshots(
        &self,
        call: Call,
        request: v1::ListSnapshotsRequest,
    ) -> Result<v1::ListSnapshotsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let mut fields = Fields::default();
        let vm_id = fields.vm("parent", &request.parent);
        let vm_id = fields.required(vm_id)?;
        let list = format!("{vm_id}/snapshots");
        let page = Page::of(&list, &request.filter, request.page_size, &request.page_token)?;
        let mut views = self.manager.snapshots(&vm_id, call.caller.scope())?;
        views.retain(|view| {
            filter.matches(|_| Some(if view.has_memory { "TRUE" } else { "FALSE" }.into()))
        });
        let (views, next_page_token) = page.cut_in_order(views);
        let snapshots =
            views.iter().map(|view| convert::vm::snapshot(view, vm_id.as_str())).collect();
        Ok(v1::ListSnapshotsResponse { snapshots, next_page_token })
    }

    pub(super) async fn remove_snapshot(
        self,
        call: Call,
        request: v1::DeleteSnapshotRequest,
    ) -> Result<(), Refusal> {
        let mut fields = Fields::default();
        let name = fields.snapshot("name", &request.name);
        let uid = fields.uid("uid", &request.uid);
        fields.request_id(&request.request_id);
        let ((vm_id, snapshot_id), tenant) = (fields.required(name)?, call.caller.scope());
        self.manager.lease_of(&vm_id, uid, tenant)?;
        Ok(self.manager.delete_snapshot(&vm_id, tenant, snapshot_id).await?)
    }
}
