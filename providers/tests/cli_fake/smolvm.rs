//! The fake as smolvm 1.32.2, whose words these are.

use std::path::Path;

use serde_json::json;

use super::Said;
use super::arguments::Arguments;
use super::store::{Fault, Machine, Store};

/// Processors and memory of what is not told otherwise.
const DEFAULTS: (u32, u64) = (4, 8192);

pub(super) fn run(store: &Store, words: &[String]) -> Said {
    // The real one says this when it is not called by its own name.
    eprintln!("note: no packed assets found");
    let settings = store.settings();
    let fault = store.fault(words);
    if fault == Some(Fault::Raves) {
        return Ok("<html>not what you asked for</html>\n".to_owned());
    }
    if fault == Some(Fault::DiskFull) {
        return Err("io error: No space left on device (os error 28)".to_owned());
    }
    if fault == Some(Fault::NotOpen) {
        store.forget_fault(words);
        return Err("database operation failed: configure pragmas: database is locked".to_owned());
    }
    let _lock = store.lock();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let said = match words.as_slice() {
        ["--version"] => Ok(format!("smolvm {}\n", settings.version)),
        ["machine", "create", rest @ ..] => create(store, &owned(rest)),
        ["machine", "start", rest @ ..] => start(store, &owned(rest)),
        ["machine", "stop", rest @ ..] => stop(store, &owned(rest)),
        ["machine", "exec", rest @ ..] => exec(store, &owned(rest)),
        ["machine", "delete", rest @ ..] => delete(store, &owned(rest), settings.cancels_removals),
        ["machine", "ls", "--json"] => Ok(list(store)),
        ["machine", "logs", rest @ ..] => logs(store, &owned(rest)),
        ["pack", "create", rest @ ..] => pack(store, &owned(rest)),
        other => Err(format!("unrecognized subcommand {other:?}")),
    };
    match fault {
        Some(Fault::FailsAfterwards) => Err("agent operation failed: connection lost".to_owned()),
        _ => said,
    }
}

fn named<'a>(store: &Store, arguments: &'a Arguments) -> Result<(&'a str, Machine), String> {
    let name = arguments.value("--name").ok_or("the following arguments are required: --name")?;
    let machine = store.machine(name).ok_or_else(|| format!("vm not found: {name}"))?;
    Ok((name, machine))
}

fn create(store: &Store, words: &[String]) -> Said {
    let with_value = ["--name", "--image", "--from", "--cpus", "--mem", "--label", "--network"];
    let arguments = Arguments::parse(words, &with_value, &[], false)?;
    let name = arguments.value("--name").unwrap_or("default");
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
        return Err(format!("config operation failed: create machine: invalid name '{name}'"));
    }
    if store.machine(name).is_some() {
        let what = format!("machine '{name}' already exists or is being created");
        return Err(format!("config operation failed: create machine: {what}"));
    }
    let number = |flag: &str| arguments.value(flag).and_then(|value| value.parse().ok());
    let mut machine = match arguments.value("--from") {
        None => Machine {
            image: arguments.value("--image").unwrap_or_default().to_owned(),
            command: arguments.rest.clone(),
            vcpu_count: DEFAULTS.0,
            mem_size_mib: DEFAULTS.1,
            ..Machine::default()
        },
        Some(pack) => {
            let missing = || {
                format!("config operation failed: create from .smolmachine: file not found: {pack}")
            };
            let text = std::fs::read(pack).map_err(|_| missing())?;
            serde_json::from_slice(&text).map_err(|error| format!("read .smolmachine: {error}"))?
        }
    };
    machine.name = name.to_owned();
    machine.state = "created".to_owned();
    machine.labels = arguments.labels("--label");
    machine.vcpu_count =
        number("--cpus").map_or(machine.vcpu_count, |value: u64| value.try_into().unwrap_or(0));
    machine.mem_size_mib = number("--mem").unwrap_or(machine.mem_size_mib);
    store.put(&machine);
    Ok(format!("Created machine: {name}\n"))
}

fn start(store: &Store, words: &[String]) -> Said {
    let arguments = Arguments::parse(words, &["--name"], &[], false)?;
    let (name, mut machine) = named(store, &arguments)?;
    if machine.state == "running" {
        return Ok(format!("Machine '{name}' is already running\n"));
    }
    if machine.image == "missing" {
        return Err("agent operation failed: image-auth: manifest unknown".to_owned());
    }
    machine.was_started = true;
    machine.output += "READY\n";
    machine.state = "running".to_owned();
    if machine.image == "ends-at-once" {
        machine.output += "nothing to do\n";
        machine.state = "stopped".to_owned();
    }
    store.put(&machine);
    Ok(format!("Machine '{name}' started\n"))
}

fn stop(store: &Store, words: &[String]) -> Said {
    let arguments = Arguments::parse(words, &["--name"], &[], false)?;
    let (name, mut machine) = named(store, &arguments)?;
    if machine.state != "running" {
        return Ok(format!("Machine '{name}' is not running (state: {})\n", machine.state));
    }
    machine.state = "stopped".to_owned();
    store.put(&machine);
    Ok(format!("Stopped machine: {name}\n"))
}

/// It has no guest: what it is told to do is looked for in the words.
fn exec(store: &Store, words: &[String]) -> Said {
    let arguments = Arguments::parse(words, &["--name", "--user"], &[], false)?;
    let (name, mut machine) = named(store, &arguments)?;
    if machine.state != "running" {
        return Err(format!("machine '{name}' is not running"));
    }
    let script = arguments.rest.last().map(String::as_str).unwrap_or_default();
    if script.contains("cd /tmp && rm -rf") {
        machine.temporary.clear();
        store.put(&machine);
    }
    Ok(String::new())
}

fn delete(store: &Store, words: &[String], cancels: bool) -> Said {
    let arguments = Arguments::parse(words, &["--name"], &["-f", "--force"], false)?;
    let (name, _) = named(store, &arguments)?;
    if cancels || !(arguments.has("-f") || arguments.has("--force")) {
        return Ok("Cancelled\n".to_owned());
    }
    store.remove(name);
    Ok(format!("Deleted machine: {name}\n"))
}

fn list(store: &Store) -> String {
    let line = |machine: &Machine| {
        json!({
            "name": machine.name, "state": machine.state, "cpus": machine.vcpu_count,
            "memory_mib": machine.mem_size_mib, "pid": null, "created_at": 1_795_360_409,
            "image": machine.image, "labels": machine.labels, "state_reason": null,
        })
    };
    let lines: Vec<_> = store.machines().iter().map(line).collect();
    format!("{:#}\n", serde_json::Value::from(lines))
}

fn logs(store: &Store, words: &[String]) -> Said {
    let arguments = Arguments::parse(words, &["--name", "--tail"], &[], false)?;
    let (_, machine) = named(store, &arguments)?;
    let Some(tail) = arguments.value("--tail").and_then(|value| value.parse().ok()) else {
        return Ok(machine.output);
    };
    let lines: Vec<_> = machine.output.split_inclusive('\n').collect();
    Ok(lines[lines.len().saturating_sub(tail)..].concat())
}

fn pack(store: &Store, words: &[String]) -> Said {
    let with_value = ["--from-vm", "--output", "-o", "--cpus", "--mem"];
    let arguments = Arguments::parse(words, &with_value, &[], false)?;
    let output = arguments.value("--output").or_else(|| arguments.value("-o"));
    let output = output.ok_or("the following arguments are required: --output <PATH>")?;
    if output.ends_with(".smolmachine") {
        let what = "--output names the executable stub, not the .smolmachine sidecar";
        return Err(format!("config operation failed: pack create: {what}"));
    }
    let name = arguments.value("--from-vm").unwrap_or_default();
    let failed = |what: String| format!("agent operation failed: pack from VM: {what}");
    let machine = store.machine(name).ok_or_else(|| failed(format!("VM '{name}' not found")))?;
    if machine.state == "running" {
        return Err(failed(format!("VM '{name}' is running. Stop it first")));
    }
    if !machine.was_started {
        let what = format!("machine '{name}' has no storage disk yet: it has never been started");
        return Err(failed(what));
    }
    let number = |flag: &str| arguments.value(flag).and_then(|value| value.parse().ok());
    let packed = Machine {
        // Without being told it does not keep what the machine has.
        vcpu_count: number("--cpus").map_or(DEFAULTS.0, |value: u64| value.try_into().unwrap_or(0)),
        mem_size_mib: number("--mem").unwrap_or(DEFAULTS.1),
        image: machine.image,
        command: machine.command,
        disk: machine.disk,
        ..Machine::default()
    };
    let text = serde_json::to_vec(&packed).map_err(|error| error.to_string())?;
    let sidecar = format!("{output}.smolmachine");
    std::fs::write(Path::new(&sidecar), text).map_err(|error| failed(error.to_string()))?;
    std::fs::write(output, "a stub").map_err(|error| failed(error.to_string()))?;
    Ok("Packing VM snapshot...\n".to_owned())
}
