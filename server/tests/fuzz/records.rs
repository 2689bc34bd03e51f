//! Records as a real service and a real provider write them.

use std::path::Path;
use std::sync::Arc;

use hearth_pool::env::SystemEnv;
use hearth_pool::fuzzing::text_of_lease;
use hearth_pool::journal::{Control, Journal};
use hearth_proto::v1;
use hearth_providers::directory::Paths;
use hearth_providers::engine::Engine;
use hearth_providers::fuzzing::Scratch;
use hearth_providers::memory::MemoryBackend;
use hearth_providers::model::RateLimits;
use hearth_providers::{SnapshotId, Uid, VmId, VmProvider as _, VmQuery as _};
use prost::Message as _;
use serde_json::{Value, json};

use crate::seeds::pieces;
use crate::targets::{service, world};

type Named = Vec<(String, Vec<u8>)>;

/// Of every kind some.
#[derive(Default)]
pub(crate) struct Real {
    pub(crate) journals: Named,
    pub(crate) logs: Named,
    pub(crate) states: Named,
    pub(crate) records: Named,
}

pub(crate) fn real() -> Real {
    let mut real = Real::default();
    journals(&mut real);
    states(&mut real);
    real
}

/// What a service has in its journal after some calls: whole, and its log as it is.
fn journals(real: &mut Real) {
    let copy = Scratch::new();
    world::run(1, Journal::open, async |world| {
        world.begin().await.unwrap();
        for vm_id in ["a", "b"] {
            let request = v1::AcquireVmRequest {
                pool: "pools/default".to_owned(),
                vm_id: vm_id.to_owned(),
                request_id: "0f8fad5b-d9cb-469f-a165-70867728950e"
                    .replace("950e", &format!("{vm_id}50e")),
                ..Default::default()
            };
            let path = "/hearth.v1.VmService/AcquireVm";
            service::call(world, path, 1, vec![request.encode_to_vec()]).await.unwrap();
        }
        let request = v1::StopVmRequest {
            name: "vms/b".to_owned(),
            request_id: "0f8fad5b-d9cb-469f-a165-708677289500".to_owned(),
            ..Default::default()
        };
        let path = "/hearth.v1.VmService/StopVm";
        service::call(world, path, 1, vec![request.encode_to_vec()]).await.unwrap();
        let request = v1::FreezeVmRequest {
            name: "vms/a".to_owned(),
            artifact_id: "f".to_owned(),
            ..Default::default()
        };
        let path = "/hearth.v1.VmService/FreezeVm";
        service::call(world, path, 1, vec![request.encode_to_vec()]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        copy_into(&world.journal(), &copy.0);
    });
    let log = std::fs::read(copy.0.join("1.log")).unwrap();
    for (name, cut) in [("begun", log.len().min(4096)), ("short", 700)] {
        real.logs.push((name.to_owned(), log[..cut].to_vec()));
    }
    let journal = Journal::open(&copy.0, &SystemEnv).unwrap();
    let mut all = Vec::new();
    let mut put = |kind: u8, name: &str, records: Vec<Vec<u8>>| {
        let records = records.into_iter().map(|record| [vec![kind], record].concat());
        let records: Vec<Vec<u8>> = records.take(2).collect();
        assert!(!records.is_empty(), "there is a record of kind {name}");
        all.extend(records.first().cloned());
        let records: Vec<_> = records.iter().map(Vec::as_slice).collect();
        real.journals.push((name.to_owned(), pieces(&records)));
    };
    let leases = journal.leases().unwrap();
    put(0, "leases", leases.iter().map(text_of_lease).collect());
    put(0, "leases-of-format-1", texts(leases.iter().map(|it| serde_json::to_value(it).unwrap())));
    let of = |kind| texts(journal.control(kind).unwrap());
    put(1, "templates", of(Control::Template));
    put(2, "pools", of(Control::Pool));
    put(3, "artifacts", of(Control::Artifact));
    put(4, "node", texts([json!(true)]));
    put(5, "operations", texts(journal.operations().unwrap()));
    put(6, "replies", texts(journal.replies().unwrap()));
    let all: Vec<_> = all.iter().map(Vec::as_slice).collect();
    real.journals.push(("all".to_owned(), pieces(&all)));
}

fn texts(records: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    records.into_iter().map(|record| record.to_string().into_bytes()).collect()
}

/// What a durable provider writes of a VM and a snapshot of it, with the uids that the target gives them.
fn states(real: &mut Real) {
    let root = Scratch::new();
    let paths = Paths { state: root.0.join("state"), runtime: root.0.join("run") };
    let backend = MemoryBackend::durable(Arc::new(SystemEnv));
    let engine = Engine::open("memory", backend, Arc::new(SystemEnv), paths.clone()).unwrap().0;
    let (vm, snapshot) = (VmId::parse("a").unwrap(), SnapshotId::parse("s").unwrap());
    engine.create_vm(&vm).unwrap();
    engine.start_vm(&vm).unwrap();
    engine.snapshot_vm(&vm, &snapshot).unwrap();
    let vm_uid = engine.get_vm(&vm).unwrap().uid;
    let snapshot_uid = engine.all_snapshots()[0].uid;
    let read = |dir: &Path, name: &str| {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let text = value.to_string().replace(&snapshot_uid.to_string(), &uid(1));
        text.replace(&vm_uid.to_string(), &uid(2)).into_bytes()
    };
    let (of_snapshot, of_vm) = (paths.snapshot(snapshot_uid), paths.instance(vm_uid));
    let [snapshot, kept] = ["snapshot.json", "guest.json"].map(|name| read(&of_snapshot, name));
    let [instance, guest] = ["instance.json", "guest.json"].map(|name| read(&of_vm, name));
    real.states.push(("snapshot".to_owned(), pieces(&[&snapshot, &kept])));
    real.states.push(("all".to_owned(), pieces(&[&snapshot, &kept, &instance, &guest])));
    let mut put = |kind: u8, name: &str, text: Vec<u8>| {
        real.records.push((name.to_owned(), [vec![kind], text].concat()));
    };
    put(0, "snapshot", snapshot);
    put(1, "instance", instance);
    put(1, "preserved", json!({ "artifacts": ["f"], "ended": true }).to_string().into_bytes());
    let process = json!({
        "pid": 7, "start_ticks": 70, "boot_id": "b", "executable": "/usr/bin/qemu", "cgroup": null,
    });
    put(2, "process", process.to_string().into_bytes());
    let time = json!({ "secs_since_epoch": 1_700_000_000, "nanos_since_epoch": 7 });
    let stamp = json!({ "length": 512, "modified": time });
    let limits = serde_json::to_value(RateLimits::default()).unwrap();
    let qemu = json!({ "made_with": { "qemu": "10.0.2" }, "blueprint": {
        "vcpu_count": 1, "mem_size_mib": 64, "memory": { "clone_of": "ram" }, "boot": null,
        "disks": [{ "serial": "", "size_bytes": 512, "read_only": false, "layers": [
            { "path": "disk-0.0", "format": "raw", "foreign": stamp } ] }],
        "interfaces": [], "vsock_cid": null, "rate_limits": limits,
    } });
    put(3, "qemu", qemu.to_string().into_bytes());
    let firecracker = json!({ "made_with": {}, "blueprint": {
        "vcpu_count": 1, "mem_size_mib": 64, "boot": null, "drives": [], "interfaces": [],
        "vsock_cid": null, "track_dirty_pages": false, "rate_limits": limits, "entropy": false,
        "mmds": null, "jail": null,
    }, "state_sum": "00", "memory": stamp });
    put(4, "firecracker", firecracker.to_string().into_bytes());
    let cli = json!({
        "image": "i", "vcpu_count": 1, "mem_size_mib": 64, "read_only": false, "command": [],
        "network": null,
    });
    put(5, "docker", json!({ "container": "c", "blueprint": cli }).to_string().into_bytes());
    let record = json!({ "blueprint": cli, "led_to": "Running", "unstarted_from": null });
    put(6, "cli", record.to_string().into_bytes());
}

fn uid(byte: u8) -> String {
    Uid::from_random([byte; 16]).to_string()
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy_into(&path, &to);
            }
            false => drop(std::fs::copy(&path, &to).unwrap()),
        }
    }
}
