//! Rows on the state machine and on what requests may say.

use serde_json::json;

use crate::row::{Row, Step, get, patch, put, row};
use crate::states::{
    configured, create, drive, interface, kernel, load, load_with, loaded, machine, pause, paused,
    resume, running, start, vsock, with,
};

pub(crate) fn rows() -> Vec<Row> {
    [machine_states(), configuration(), devices(), metadata(), bodies()]
        .into_iter()
        .flatten()
        .collect()
}

fn machine_states() -> Vec<Row> {
    vec![
        row("a fresh process has not started", vec![], get("/")),
        row("the version of a fresh process", vec![], get("/version")),
        row("a configured machine has not started", configured(), get("/")),
        row("a start runs the guest", configured(), start()),
        row("a running machine says so", running(), get("/")),
        row("a second start", running(), start()),
        row("a pause of a running machine", running(), pause()),
        row("a pause of a paused machine", paused(), pause()),
        row("a paused machine says so", paused(), get("/")),
        row("a resume of a paused machine", paused(), resume()),
        row("a resume of a running machine", running(), resume()),
        row("a pause before the boot", configured(), pause()),
        row("a resume before the boot", vec![], resume()),
        row("a snapshot before the boot", vec![], create()),
        row("a flush of metrics before the boot", vec![], flush()),
        row("a flush of metrics after the boot", running(), flush()),
        row("ctrl-alt-del before the boot", vec![], action("SendCtrlAltDel")),
        row("an action that does not exist", vec![], action("Reboot")),
        row("a start without a kernel", vec![Step::Do(machine())], start()),
        row("a start of what is no kernel", no_kernel(), start()),
        row("a start after a bad kernel was replaced", replaced_kernel(), start()),
        row("machine configuration after the boot", running(), machine()),
        row("a boot source after the boot", running(), kernel()),
        row("a vsock device after the boot", running(), vsock()),
        row("an entropy device after the boot", running(), put("/entropy", json!({}))),
        row("a balloon after the boot", running(), balloon(8)),
        row("a logger after the boot", running(), put("/logger", json!({}))),
        row("metrics after the boot", running(), metrics("DIR/metrics")),
        row("a load after the boot", running(), load()),
        row("a load after a load", loaded(), load()),
        row("a boot source after a load", loaded(), kernel()),
        row("a pause after a load", loaded(), pause()),
        row("GET /vm does not exist", running(), get("/vm")),
    ]
}

fn configuration() -> Vec<Row> {
    let source = |path: &str, initrd: &str| {
        let body = json!({ "kernel_image_path": path, "initrd_path": initrd });
        put("/boot-source", body)
    };
    let size = |vcpus: u32, mem_size_mib: u32| {
        put("/machine-config", json!({ "vcpu_count": vcpus, "mem_size_mib": mem_size_mib }))
    };
    let smt = json!({ "vcpu_count": 3, "mem_size_mib": 32, "smt": true });
    vec![
        row("the configuration of a fresh process", vec![], get("/vm/config")),
        row("the machine of a fresh process", vec![], get("/machine-config")),
        row("the machine as it was configured", configured(), get("/machine-config")),
        row("the configuration of a running machine", running(), get("/vm/config")),
        row("the configuration of a loaded machine", loaded(), get("/vm/config")),
        row("a change of the machine", configured(), change(json!({ "vcpu_count": 2 }))),
        row("a change of nothing", configured(), change(json!({}))),
        row(
            "a change of the machine after the boot",
            running(),
            change(json!({ "vcpu_count": 2 })),
        ),
        row("no vcpu", vec![], size(0, 32)),
        row("too many vcpus", vec![], size(33, 32)),
        row("an odd number of vcpus with SMT", vec![], put("/machine-config", smt)),
        row("no memory", vec![], size(1, 0)),
        row("a kernel that is not there", vec![], source("DIR/none", "DIR/none")),
        row("an initrd that is not there", vec![], source("DIR/guest.elf", "DIR/none")),
        row("a processor template", vec![], put("/cpu-config", json!({}))),
        row("an unknown processor modifier", vec![], put("/cpu-config", json!({ "foo": 1 }))),
        row("metrics", vec![], metrics("DIR/metrics")),
        row("metrics twice", vec![Step::Do(metrics("DIR/metrics"))], metrics("DIR/more")),
        row("metrics in a directory that is not there", vec![], metrics("DIR/none/metrics")),
        row("a logger", vec![], put("/logger", json!({ "log_path": "DIR/log", "level": "Info" }))),
        row("a logger with an unknown level", vec![], put("/logger", json!({ "level": "Loud" }))),
        row("a logger in a missing directory", vec![], log("DIR/none/log")),
        row(
            "a serial port in a file",
            vec![],
            put("/serial", json!({ "serial_out_path": "DIR/s" })),
        ),
    ]
}

fn devices() -> Vec<Row> {
    let disk = || vec![Step::File("disk", 1 << 20)];
    let data = || [disk(), vec![Step::Do(drive("data", "DIR/disk"))]].concat();
    let root = |path: &'static str, id: &str| {
        let body = json!({ "drive_id": id, "path_on_host": "DIR/disk", "is_root_device": true });
        put(path, body)
    };
    let moved = |id: &str, to: &str| {
        let path = if id == "data" { "/drives/data" } else { "/drives/other" };
        patch(path, json!({ "drive_id": id, "path_on_host": to }))
    };
    let with_data = || crate::states::started(with(data()));
    let interface_update = patch("/network-interfaces/eth0", json!({ "iface_id": "eth0" }));
    let mac = json!({ "iface_id": "eth0", "host_dev_name": "tap", "guest_mac": "zz" });
    let deprecated = json!({ "guest_cid": 3, "uds_path": "DIR/vsock", "vsock_id": "vsock" });
    vec![
        row("a drive", disk(), drive("data", "DIR/disk")),
        row("the same drive again", data(), drive("data", "DIR/disk")),
        row("the configuration with a drive", data(), get("/vm/config")),
        row("a drive whose file is not there", vec![], drive("data", "DIR/none")),
        row("a drive that is a directory", vec![], drive("data", "DIR")),
        row("a drive without a path", vec![], put("/drives/data", pathless())),
        row("a second root drive", root_drive(), root("/drives/other", "other")),
        row("a drive by another id than its path", disk(), root("/drives/other", "data")),
        row("a drive by an id with a hyphen", disk(), root("/drives/da-ta", "da-ta")),
        row("a drive by no id", disk(), root("/drives/", "data")),
        row("a drive after the boot", [running(), disk()].concat(), drive("data", "DIR/disk")),
        row("a change of a drive before the boot", data(), moved("data", "DIR/disk")),
        row("a change of a drive", with_data(), moved("data", "DIR/disk")),
        row("a change of a drive to nothing", with_data(), moved("data", "DIR/none")),
        row("a change of an unknown drive", with_data(), moved("other", "DIR/disk")),
        row(
            "an empty change of a drive",
            with_data(),
            patch("/drives/data", json!({ "drive_id": "data" })),
        ),
        row("an interface after the boot", running(), interface("taken0")),
        row("an interface with a name too long", vec![], interface("a-name-of-a-tap-too-long")),
        row("an interface with a bad MAC address", vec![], put("/network-interfaces/eth0", mac)),
        row("an interface by another id", vec![], put("/network-interfaces/eth1", named("eth0"))),
        row("a change of an unknown interface", running(), interface_update),
        row("a vsock device", vec![], vsock()),
        row("a vsock device with a deprecated id", vec![], put("/vsock", deprecated)),
        row("a vsock socket that exists", vec![Step::File("vsock", 0)], vsock()),
        row("a vsock socket whose directory is not there", vec![], nowhere()),
        row("a second vsock device", vec![Step::Do(vsock())], vsock()),
        row("an entropy device", vec![], put("/entropy", json!({}))),
        row("a balloon", configured(), balloon(8)),
        row("a balloon larger than memory", configured(), balloon(64)),
        row(
            "memory smaller than the balloon",
            small_memory(),
            change(json!({ "mem_size_mib": 4 })),
        ),
        row("the balloon that there is not, before", vec![], get("/balloon")),
        row("the balloon that there is not, after", running(), get("/balloon")),
        row("the balloon that there is", with(vec![Step::Do(balloon(8))]), get("/balloon")),
    ]
}

fn metadata() -> Vec<Row> {
    let data = || put("/mmds", json!({ "latest": { "a": 1, "b": 2 } }));
    let merged = || patch("/mmds", json!({ "latest": { "a": null, "c": [3] } }));
    let config = |interfaces: &[&str]| {
        put("/mmds/config", json!({ "version": "V2", "network_interfaces": interfaces }))
    };
    let large = put("/mmds", json!({ "text": "x".repeat(51_180) }));
    vec![
        row("no metadata", vec![], get("/mmds")),
        row("metadata before the boot", vec![], data()),
        row(
            "metadata as they were merged",
            vec![Step::Do(data()), Step::Do(merged())],
            get("/mmds"),
        ),
        row("a merge into no metadata", vec![], merged()),
        row("metadata at the limit", vec![], large),
        row("metadata of a machine without them", running(), get("/mmds")),
        row("metadata for a machine without them", running(), data()),
        row("metadata for no interface", vec![], config(&[])),
        row("metadata for an unknown interface", vec![], config(&["eth9"])),
        row("metadata by the deprecated version", vec![], {
            put("/mmds/config", json!({ "network_interfaces": ["eth9"] }))
        }),
        row("an unknown path of metadata", vec![], put("/mmds/other", json!({}))),
    ]
}

fn bodies() -> Vec<Row> {
    let text =
        |path, body: &str| crate::row::Request { method: "PUT", path, body: Some(body.into()) };
    let both = load_with(json!({ "mem_file_path": "DIR/memory" }));
    let neither = put("/snapshot/load", json!({ "snapshot_path": "DIR/state" }));
    let lower = json!({ "backend_type": "file", "backend_path": "DIR/memory" });
    let state = patch("/vm", json!({ "state": "paused" }));
    vec![
        row("a body that is no JSON", vec![], text("/machine-config", "{")),
        row("a body that is a list", vec![], text("/machine-config", "[]")),
        row("a body that is a number", vec![], text("/machine-config", "3")),
        row("a text for a number", vec![], text("/machine-config", r#"{"vcpu_count":"1"}"#)),
        row("a number too large", vec![], text("/machine-config", r#"{"vcpu_count":300}"#)),
        row("a field that is missing", vec![], put("/machine-config", json!({ "vcpu_count": 1 }))),
        row("an unknown field of a boot source", vec![], put("/boot-source", json!({ "foo": 1 }))),
        row("an unknown field of a drive", vec![], put("/drives/data", json!({ "foo": 1 }))),
        row("an unknown field of vsock", vec![], put("/vsock", json!({ "foo": 1 }))),
        row("an unknown field of a snapshot", vec![], put("/snapshot/create", json!({ "foo": 1 }))),
        row("an unknown field of a load", vec![], load_with(json!({ "foo": 1 }))),
        row("an unknown field of a balloon", vec![], put("/balloon", json!({ "foo": 1 }))),
        row("an unknown field of an interface", vec![], {
            put("/network-interfaces/eth0", json!({ "foo": 1 }))
        }),
        row("an unknown field of the logger", vec![], put("/logger", json!({ "foo": 1 }))),
        row("a state in small letters", running(), state),
        row("a backend in small letters", vec![], load_with(json!({ "mem_backend": lower }))),
        row("a load with two memories", vec![], both),
        row("a load with no memory", vec![], neither),
        row("an unknown kind of snapshot request", vec![], put("/snapshot/save", json!({}))),
        row("a snapshot request of no kind", vec![], put("/snapshot", json!({}))),
        row("a path that does not exist", vec![], put("/nothing", json!({}))),
    ]
}

fn no_kernel() -> Vec<Step> {
    let source = put("/boot-source", json!({ "kernel_image_path": "DIR/junk" }));
    vec![Step::Do(machine()), Step::File("junk", 4096), Step::Do(source)]
}

fn replaced_kernel() -> Vec<Step> {
    [no_kernel(), vec![Step::Refused(start()), Step::Do(kernel())]].concat()
}

fn root_drive() -> Vec<Step> {
    let body = json!({ "drive_id": "data", "path_on_host": "DIR/disk", "is_root_device": true });
    vec![Step::File("disk", 1 << 20), Step::Do(put("/drives/data", body))]
}

fn small_memory() -> Vec<Step> {
    with(vec![Step::Do(balloon(8))])
}

fn pathless() -> serde_json::Value {
    json!({ "drive_id": "data", "is_root_device": false })
}

fn named(id: &str) -> serde_json::Value {
    json!({ "iface_id": id, "host_dev_name": "tap" })
}

fn nowhere() -> crate::row::Request {
    put("/vsock", json!({ "guest_cid": 3, "uds_path": "DIR/none/vsock" }))
}

fn balloon(amount_mib: u32) -> crate::row::Request {
    put("/balloon", json!({ "amount_mib": amount_mib, "deflate_on_oom": false }))
}

fn metrics(path: &str) -> crate::row::Request {
    put("/metrics", json!({ "metrics_path": path }))
}

fn log(path: &str) -> crate::row::Request {
    put("/logger", json!({ "log_path": path }))
}

fn change(body: serde_json::Value) -> crate::row::Request {
    patch("/machine-config", body)
}

fn flush() -> crate::row::Request {
    action("FlushMetrics")
}

fn action(name: &str) -> crate::row::Request {
    put("/actions", json!({ "action_type": name }))
}
