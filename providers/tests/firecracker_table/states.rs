//! The states that rows begin in, and requests that many of them share.

use serde_json::{Value, json};

use crate::row::{Request, Step, patch, put};

pub(crate) fn machine() -> Request {
    put(
        "/machine-config",
        json!({ "vcpu_count": 1, "mem_size_mib": 32, "track_dirty_pages": true }),
    )
}

pub(crate) fn kernel() -> Request {
    put("/boot-source", json!({ "kernel_image_path": "DIR/guest.elf", "boot_args": "quiet" }))
}

pub(crate) fn start() -> Request {
    put("/actions", json!({ "action_type": "InstanceStart" }))
}

pub(crate) fn pause() -> Request {
    patch("/vm", json!({ "state": "Paused" }))
}

pub(crate) fn resume() -> Request {
    patch("/vm", json!({ "state": "Resumed" }))
}

pub(crate) fn create() -> Request {
    put("/snapshot/create", json!({ "snapshot_path": "DIR/state", "mem_file_path": "DIR/memory" }))
}

pub(crate) fn create_diff(memory: &str) -> Request {
    let body = json!({
        "snapshot_type": "Diff", "snapshot_path": "DIR/state.diff", "mem_file_path": memory,
    });
    put("/snapshot/create", body)
}

/// A load of `DIR/state` and `DIR/memory` that resumes, with these fields besides.
pub(crate) fn load_with(more: Value) -> Request {
    let mut body = json!({
        "snapshot_path": "DIR/state",
        "mem_backend": { "backend_type": "File", "backend_path": "DIR/memory" },
        "resume_vm": true,
    });
    let (Value::Object(body_fields), Value::Object(more)) = (&mut body, more) else {
        unreachable!("both are objects");
    };
    body_fields.extend(more);
    put("/snapshot/load", body)
}

pub(crate) fn load() -> Request {
    load_with(json!({}))
}

pub(crate) fn drive(id: &'static str, path: &'static str) -> Request {
    let body = json!({
        "drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": false,
    });
    let path = if id == "data" { "/drives/data" } else { "/drives/other" };
    put(path, body)
}

pub(crate) fn vsock() -> Request {
    put("/vsock", json!({ "guest_cid": 3, "uds_path": "DIR/vsock" }))
}

pub(crate) fn interface(device: &str) -> Request {
    let body = json!({
        "iface_id": "eth0", "guest_mac": "AA:FC:00:00:00:01", "host_dev_name": device,
    });
    put("/network-interfaces/eth0", body)
}

/// A machine that could be started.
pub(crate) fn configured() -> Vec<Step> {
    vec![Step::Do(machine()), Step::Do(kernel())]
}

/// The same, with these devices.
pub(crate) fn with(devices: Vec<Step>) -> Vec<Step> {
    [configured(), devices].concat()
}

pub(crate) fn running() -> Vec<Step> {
    started(configured())
}

pub(crate) fn started(steps: Vec<Step>) -> Vec<Step> {
    [steps, vec![Step::Do(start()), Step::Counts]].concat()
}

pub(crate) fn paused() -> Vec<Step> {
    [running(), vec![Step::Do(pause())]].concat()
}

/// A fresh process, and the snapshot of a machine that is gone.
pub(crate) fn captured() -> Vec<Step> {
    captured_from(configured())
}

pub(crate) fn captured_from(steps: Vec<Step>) -> Vec<Step> {
    let then = vec![Step::Do(pause()), Step::Do(create()), Step::Restart];
    [started(steps), then].concat()
}

/// Like [`captured`], and then these steps.
pub(crate) fn captured_and(steps: Vec<Step>) -> Vec<Step> {
    [captured(), steps].concat()
}

/// A machine that was loaded, and runs.
pub(crate) fn loaded() -> Vec<Step> {
    captured_and(vec![Step::Do(load())])
}

/// A snapshot with a drive and a vsock device, whose socket is out of the way.
pub(crate) fn captured_with_devices() -> Vec<Step> {
    let disk = Step::File("disk", 1 << 20);
    let devices = vec![disk, Step::Do(drive("data", "DIR/disk")), Step::Do(vsock())];
    [captured_from(with(devices)), vec![Step::Remove("vsock")]].concat()
}

/// A full snapshot and then a diff, each with its state file; the process is a fresh one.
pub(crate) fn captured_diff(memory: &str) -> Vec<Step> {
    let steps = vec![
        Step::Do(pause()),
        Step::Do(create()),
        Step::Do(resume()),
        Step::Counts,
        Step::Do(pause()),
        Step::Do(create_diff(memory)),
        Step::Restart,
    ];
    [running(), steps].concat()
}
