//! What cannot be made is refused before anything happens, by the name of the field.

use super::case::cases;
use super::outcome::{Outcome, refused, same};
use super::scene::Scene;
use crate::error::VmRuntimeError;
use crate::model::{Drive, MAX_MEM_SIZE_MIB, MAX_VCPU_COUNT, Tags, VmSpec};

cases! {
    /// A VM has at least one vCPU.
    fn a_spec_without_vcpus_is_refused(p) {
        is_invalid(p, "vcpu_count", |spec| spec.vcpu_count = 0)?;
    }

    /// There is an end to vCPUs.
    fn a_spec_with_absurdly_many_vcpus_is_refused(p) {
        is_invalid(p, "vcpu_count", |spec| spec.vcpu_count = MAX_VCPU_COUNT + 1)?;
    }

    /// A VM has memory.
    fn a_spec_without_memory_is_refused(p) {
        is_invalid(p, "mem_size_mib", |spec| spec.mem_size_mib = 0)?;
    }

    /// There is an end to memory.
    fn a_spec_with_absurdly_much_memory_is_refused(p) {
        is_invalid(p, "mem_size_mib", |spec| spec.mem_size_mib = MAX_MEM_SIZE_MIB + 1)?;
    }

    /// Boot arguments are one line: a second one would be somebody else's.
    fn boot_args_of_two_lines_are_refused(p) {
        is_invalid(p, "boot_args", |spec| spec.boot_args = "quiet\ninit=/bin/sh".to_owned())?;
    }

    /// A kernel that is not there is named.
    fn a_missing_kernel_is_refused(p) {
        is_invalid(p, "kernel", |spec| spec.kernel = Some("/nonexistent/kernel".into()))?;
    }

    /// An initial RAM disk that is not there is named.
    fn a_missing_initrd_is_refused(p) {
        is_invalid(p, "initrd", |spec| spec.initrd = Some("/nonexistent/initrd".into()))?;
    }

    /// A root disk that is not there is named.
    fn a_missing_rootfs_is_refused(p) {
        is_invalid(p, "rootfs", |spec| spec.rootfs = Some("/nonexistent/rootfs".into()))?;
    }

    /// A directory is not a disk.
    fn a_rootfs_that_is_no_file_is_refused(p) {
        is_invalid(p, "rootfs", |spec| spec.rootfs = Some("/".into()))?;
    }

    /// A further disk that is not there is named.
    fn a_missing_extra_drive_is_refused(p) {
        is_invalid(p, "extra_drives", |spec| {
            spec.extra_drives.push(Drive { path: "/nonexistent/disk".into(), ..Drive::default() });
        })?;
    }

    /// Tags come back, by every way of looking.
    fn tags_come_back(p) {
        let mut spec = p.fixture().spec.clone();
        std::sync::Arc::make_mut(&mut spec.tags).insert("owner".to_owned(), "somebody".to_owned());
        let vm = p.make("vm", &spec)?;
        same("the tags by name", p.view(&vm.id)?.tags, Tags::clone(&spec.tags))?;
        same("the tags by uid", p.get_vm_by_uid(vm.uid).map(|vm| vm.tags), Some(Tags::clone(&spec.tags)))?;
        let listed = p.list().into_iter().map(|vm| vm.tags).collect();
        same("the tags in the list", listed, vec![spec.tags])?;
    }
}

/// A spec that `change` spoiled is refused for `field`, and nothing is left of the VM.
fn is_invalid(p: &Scene, field: &str, change: impl FnOnce(&mut VmSpec)) -> Outcome {
    let mut spec = p.fixture().spec.clone();
    change(&mut spec);
    let vm_id = p.id("vm");
    let error = refused(p.create_vm_with_spec(&vm_id, &spec), "invalid_spec")?;
    if let VmRuntimeError::InvalidSpec { field: named, .. } = error {
        same("the field named", named, field)?;
    }
    same("the VM", p.get_vm(&vm_id), None)?;
    same("the case's VMs", p.list(), vec![])?;
    p.created("vm").map(drop)
}
