//! Rows on snapshots: making them, loading them, and what dies of a load.

use serde_json::json;

use crate::row::{Api, Asked, Change, Row, Step, fatal, get, patch, put, row, row_of};
use crate::states::{
    captured, captured_and, captured_diff, captured_with_devices, create, create_diff, drive,
    interface, load, load_with, machine, pause, paused, resume, running, start, vsock, with,
};

pub(crate) fn rows() -> Vec<Row> {
    [making(), loading(), deaths(), spent(), devices(), interfaces()]
        .into_iter()
        .flatten()
        .collect()
}

fn making() -> Vec<Row> {
    let create_at = |state: &str, memory: &str| {
        put("/snapshot/create", json!({ "snapshot_path": state, "mem_file_path": memory }))
    };
    let then = |more: Vec<Step>| [paused(), more].concat();
    vec![
        row("a snapshot of a running machine", running(), create()),
        row("a snapshot of a paused machine", paused(), create()),
        row("a second snapshot of a pause", then(vec![Step::Do(create())]), create()),
        row("a snapshot over files that are there", then(vec![Step::File("memory", 7)]), create()),
        row("a diff of a paused machine", paused(), create_diff("DIR/memory.diff")),
        row("a diff over its base", then(vec![Step::Do(create())]), create_diff("DIR/memory")),
        row("a state into a missing directory", paused(), create_at("DIR/none/state", "DIR/m")),
        row("a memory into a missing directory", paused(), create_at("DIR/state", "DIR/none/m")),
    ]
}

fn loading() -> Vec<Row> {
    let former = json!({ "snapshot_path": "DIR/state", "mem_file_path": "DIR/memory" });
    let diffs = load_with(json!({ "enable_diff_snapshots": true }));
    let paused = load_with(json!({ "resume_vm": false }));
    let resumed = captured_and(vec![Step::Do(paused.clone())]);
    let count = |name, steps| row_of(name, Api::new(steps, Asked::CountsOn));
    let merged = || {
        let body = json!({
            "snapshot_path": "DIR/state.diff", "resume_vm": true,
            "mem_backend": { "backend_type": "File", "backend_path": "DIR/memory" },
        });
        put("/snapshot/load", body)
    };
    vec![
        fatal("a load that resumes", captured(), load()),
        fatal("a load that does not resume", captured(), paused),
        row("a resume after a load", resumed.clone(), resume()),
        row("a machine that was loaded and not resumed", resumed, get("/")),
        fatal("a load by the deprecated field", captured(), put("/snapshot/load", former)),
        fatal("a load by another deprecated field", captured(), diffs),
        fatal(
            "a load with null for an override",
            captured(),
            load_with(json!({ "vsock_override": null })),
        ),
        fatal(
            "a load with a realtime clock",
            captured(),
            load_with(json!({ "clock_realtime": true })),
        ),
        fatal("a load of a merged diff", captured_diff("DIR/memory"), merged()),
        count("the guest goes on where it stood", captured_and(vec![Step::Do(load())])),
        count("two clones count on by themselves", clones()),
    ]
}

fn deaths() -> Vec<Row> {
    let changed = |file, change| captured_and(vec![Step::Change(file, change)]);
    let missing = |file| captured_and(vec![Step::Remove(file)]);
    let uffd = json!({ "backend_type": "Uffd", "backend_path": "DIR/none" });
    let net = json!([{ "iface_id": "eth9", "host_dev_name": "tap", "foo": 1 }]);
    let unbased = json!({
        "snapshot_path": "DIR/state.diff", "resume_vm": true,
        "mem_backend": { "backend_type": "File", "backend_path": "DIR/memory.diff" },
    });
    vec![
        fatal("a load of no state", missing("state"), load()),
        fatal("a load of no memory", missing("memory"), load()),
        fatal("a load of a state with another byte", changed("state", Change::FlipMiddle), load()),
        fatal("a load of a state with another sum", changed("state", Change::FlipLast), load()),
        fatal("a load of an empty state", changed("state", Change::Empty), load()),
        fatal("a load of a short state", changed("state", Change::Shorten(100)), load()),
        fatal("a load of a state with another version", changed("state", Change::Version), load()),
        fatal("a load of a state with another magic", changed("state", Change::Magic), load()),
        fatal("a load of a short memory", changed("memory", Change::Shorten(4096)), load()),
        fatal("a load of an empty memory", changed("memory", Change::Empty), load()),
        fatal(
            "a load from nobody who serves faults",
            captured(),
            load_with(json!({ "mem_backend": uffd })),
        ),
        fatal(
            "a load that overrides no interface",
            captured(),
            load_with(json!({ "network_overrides": net })),
        ),
        fatal("a load that overrides no vsock", captured(), {
            load_with(json!({ "vsock_override": { "uds_path": "DIR/vsock" } }))
        }),
        row_of(
            "a load of a diff alone",
            Api {
                may_die: true,
                exit_varies: true,
                ..Api::new(
                    captured_diff("DIR/memory.diff"),
                    Asked::Request(put("/snapshot/load", unbased)),
                )
            },
        ),
    ]
}

/// What makes a process unfit for a load, and what does not.
fn spent() -> Vec<Row> {
    let after = |step| captured_and(vec![step]);
    let bad_source = put("/boot-source", json!({ "kernel_image_path": "DIR/none" }));
    let bad_body = put("/boot-source", json!({ "foo": 1 }));
    let metadata = put("/mmds", json!({ "a": 1 }));
    vec![
        fatal("a load after a machine was configured", after(Step::Do(machine())), load()),
        fatal("a load after a refused boot source", after(Step::Refused(bad_source)), load()),
        fatal("a load after a body that made no sense", after(Step::Refused(bad_body)), load()),
        fatal("a load after a refused pause", after(Step::Refused(pause())), load()),
        fatal("a load after a refused start", after(Step::Refused(start())), load()),
        fatal("a load after metadata", after(Step::Do(metadata)), load()),
        fatal("a load after a logger", after(Step::Do(put("/logger", json!({})))), load()),
        fatal(
            "a load after a processor template",
            after(Step::Do(put("/cpu-config", json!({})))),
            load(),
        ),
        fatal(
            "a load after a refused load",
            after(Step::Refused(load_with(json!({ "a": 1 })))),
            load(),
        ),
    ]
}

fn devices() -> Vec<Row> {
    let and = |step| [captured_with_devices(), vec![step]].concat();
    let elsewhere = |path: &str| load_with(json!({ "vsock_override": { "uds_path": path } }));
    let long = format!("/{}", "x".repeat(120));
    let loaded = |request| [captured_with_devices(), vec![Step::Do(request)]].concat();
    let moved = patch("/drives/data", json!({ "drive_id": "data", "path_on_host": "DIR/copy" }));
    let paused = load_with(json!({ "resume_vm": false }));
    let copied = [loaded(paused), vec![Step::File("copy", 1 << 20)]].concat();
    vec![
        fatal("a load with devices", captured_with_devices(), load()),
        row(
            "the configuration of a loaded machine with devices",
            loaded(load()),
            get("/vm/config"),
        ),
        fatal("a load whose drive is not there", and(Step::Remove("disk")), load()),
        fatal(
            "a load whose drive is shorter",
            and(Step::Change("disk", Change::Shorten(4096))),
            load(),
        ),
        fatal("a load whose vsock socket exists", and(Step::File("vsock", 0)), load()),
        fatal("a load with vsock elsewhere", and(Step::File("vsock", 0)), elsewhere("DIR/moved")),
        row(
            "the configuration with vsock elsewhere",
            loaded(elsewhere("DIR/moved")),
            get("/vm/config"),
        ),
        fatal("a load with vsock at a path too long", captured_with_devices(), elsewhere(&long)),
        row("another drive before the resume", copied.clone(), moved.clone()),
        row(
            "the configuration with another drive",
            [copied, vec![Step::Do(moved)]].concat(),
            get("/vm/config"),
        ),
    ]
}

/// TAPs, in a network namespace that the row has for itself.
fn interfaces() -> Vec<Row> {
    let device = || Step::Do(interface("table0"));
    let captured = || crate::states::captured_from(with(vec![device()]));
    let held = || {
        let end = [Step::Do(pause()), Step::Do(create()), Step::Another];
        [crate::states::started(with(vec![device()])), end.to_vec()].concat()
    };
    let elsewhere = || {
        let overrides = json!([{ "iface_id": "eth0", "host_dev_name": "table1" }]);
        load_with(json!({ "network_overrides": overrides }))
    };
    let mmds = put("/mmds/config", json!({ "version": "V2", "network_interfaces": ["eth0"] }));
    let with_mmds = || {
        let data = put("/mmds", json!({ "a": 1 }));
        with(vec![device(), Step::Do(mmds.clone()), Step::Do(data)])
    };
    let loaded_mmds = {
        let load = vec![Step::Do(load())];
        [crate::states::captured_from(with_mmds()), load].concat()
    };
    let rows = vec![
        row("an interface", vec![], interface("table0")),
        row("the configuration with an interface", vec![device()], get("/vm/config")),
        row("an interface whose TAP is taken", vec![device(), Step::Another], interface("table0")),
        fatal("a load with its TAP", captured(), load()),
        fatal("a load whose TAP is taken", held(), load()),
        fatal("a load with another TAP", held(), elsewhere()),
        row(
            "the configuration with another TAP",
            [held(), vec![Step::Do(elsewhere())]].concat(),
            get("/vm/config"),
        ),
        row("metadata for an interface", vec![device()], mmds.clone()),
        row("the configuration with metadata", with_mmds(), get("/vm/config")),
        row("metadata of a running machine", crate::states::started(with_mmds()), get("/mmds")),
        row("metadata of a loaded machine", loaded_mmds, get("/mmds")),
    ];
    rows.into_iter().map(|row| Row { needs_root: true, ..row }).collect()
}

/// A clone runs already when another is loaded; the count that is looked at is the second's.
fn clones() -> Vec<Step> {
    let disk = [Step::File("disk", 1 << 20), Step::Do(drive("data", "DIR/disk"))];
    let one = [Step::Do(load()), Step::Counts, Step::Another];
    let elsewhere = load_with(json!({ "vsock_override": { "uds_path": "DIR/second" } }));
    let devices = [disk.to_vec(), vec![Step::Do(vsock())]].concat();
    let captured = crate::states::captured_from(with(devices));
    [captured, vec![Step::Remove("vsock")], one.to_vec(), vec![Step::Do(elsewhere)]].concat()
}
