//! The fake as Apple's container, in the version and the shape of answers that it is told.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use super::Said;
use super::arguments::Arguments;
use super::store::{Fault, Machine, Settings, Store};

/// How often a stopped container is listed as "stopping" before it is stopped.
const STOPPING_LOOKS: u32 = 2;

pub(super) fn run(store: &Store, words: &[String]) -> Said {
    let settings = store.settings();
    match store.fault(words) {
        Some(Fault::Raves) => return Ok("ID  IMAGE  STATE\n".to_owned()),
        Some(Fault::DiskFull) => return Err("No space left on device".to_owned()),
        _ => {}
    }
    let _lock = store.lock();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => Ok(format!(
            "container CLI version {} (build: release, commit: unspeci)\n",
            settings.version
        )),
        ["create", rest @ ..] => create(store, &owned(rest)),
        ["start", name] => start(store, name),
        ["stop", "-t", _, name] => stop(store, name),
        ["delete", rest @ ..] => delete(store, &owned(rest)),
        ["list", "--all", "--format", "json"] => list(store, &settings),
        ["inspect", name] => {
            Ok(Value::from(vec![shown(&named(store, name)?, &settings)]).to_string())
        }
        ["logs", "-n", count, name] => {
            let output = named(store, name)?.output;
            let lines: Vec<_> = output.split_inclusive('\n').collect();
            let count: usize = count.parse().map_err(|_| "not a number".to_owned())?;
            Ok(lines[lines.len().saturating_sub(count)..].concat())
        }
        ["logs", name] => Ok(named(store, name)?.output),
        ["export", "-o", file, name] => export(&named(store, name)?, Path::new(file), &settings),
        ["build", "-t", tag, dir] => build(store, tag, Path::new(dir)),
        ["image", "delete", tag] => {
            let image = image_name(tag);
            store.machine(&image).ok_or_else(|| format!("image not found: {tag}"))?;
            if store.machines().iter().any(|machine| machine.image == *tag) {
                return Err(format!("image {tag} is in use"));
            }
            store.remove(&image);
            Ok(format!("{tag}\n"))
        }
        other => Err(format!("Unexpected argument {other:?}")),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Images are kept beside the containers, under names that no container can have.
fn image_name(tag: &str) -> String {
    format!("image={}", tag.replace('/', "_"))
}

fn is_image(machine: &Machine) -> bool {
    machine.name.starts_with("image=")
}

fn named(store: &Store, name: &str) -> Result<Machine, String> {
    store.machine(name).ok_or_else(|| format!("container not found: {name}"))
}

fn create(store: &Store, words: &[String]) -> Said {
    let with_value = ["--name", "-c", "-m", "-l", "--network"];
    let arguments = Arguments::parse(words, &with_value, &["--read-only"], true)?;
    let name = arguments.value("--name").ok_or("a name is wanted")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !(2..=63).contains(&name.len()) || !begins || !name.chars().all(fits) {
        return Err(format!("invalid container name {name}"));
    }
    if store.machine(name).is_some() {
        return Err(format!("container already exists: {name}"));
    }
    let (image, command) = arguments.rest.split_first().ok_or("Missing expected argument")?;
    let base = match store.machine(&image_name(image)) {
        Some(built) => built,
        None if image.starts_with("hearth-restored:") || image == "missing" => {
            return Err(format!("image not found: {image}"));
        }
        None => Machine::default(),
    };
    let memory = arguments.value("-m").and_then(|value| value.strip_suffix('M'));
    store.put(&Machine {
        name: name.to_owned(),
        state: "stopped".to_owned(),
        image: image.clone(),
        vcpu_count: arguments.value("-c").and_then(|value| value.parse().ok()).unwrap_or(4),
        mem_size_mib: memory.and_then(|value| value.parse().ok()).unwrap_or(1024),
        labels: arguments.labels("-l"),
        command: if command.is_empty() { base.command } else { command.to_vec() },
        disk: base.disk,
        ..Machine::default()
    });
    Ok(format!("{name}\n"))
}

fn start(store: &Store, name: &str) -> Said {
    let mut machine = named(store, name)?;
    if machine.state == "stopping" {
        return Err(format!("container {name} is stopping"));
    }
    if machine.state != "running" {
        machine.state = "running".to_owned();
        machine.was_started = true;
        machine.output += "READY\n";
        store.put(&machine);
    }
    Ok(format!("{name}\n"))
}

fn stop(store: &Store, name: &str) -> Said {
    let mut machine = named(store, name)?;
    if machine.state == "running" {
        machine.state = "stopping".to_owned();
        machine.looks = STOPPING_LOOKS;
        store.put(&machine);
    }
    Ok(format!("{name}\n"))
}

fn delete(store: &Store, words: &[String]) -> Said {
    let arguments = Arguments::parse(words, &[], &["-f", "--force"], false)?;
    let name = arguments.rest.first().ok_or("Missing expected argument")?;
    let machine = named(store, name)?;
    if machine.state == "stopping" || (machine.state == "running" && !arguments.has("-f")) {
        return Err(format!("container {name} is {} and can not be deleted", machine.state));
    }
    store.remove(name);
    Ok(format!("{name}\n"))
}

fn list(store: &Store, settings: &Settings) -> Said {
    let mut lines = Vec::new();
    for mut machine in store.machines().into_iter().filter(|machine| !is_image(machine)) {
        lines.push(shown(&machine, settings));
        if machine.state == "stopping" {
            machine.looks = machine.looks.saturating_sub(1);
            if machine.looks == 0 {
                machine.state = "stopped".to_owned();
            }
            store.put(&machine);
        }
    }
    Ok(Value::from(lines).to_string())
}

fn shown(machine: &Machine, settings: &Settings) -> Value {
    let (executable, arguments) = machine.command.split_first().map_or_else(
        || ("/bin/sh".to_owned(), Vec::new()),
        |(first, rest)| (first.clone(), rest.to_vec()),
    );
    let process = json!({
        "executable": executable, "arguments": arguments, "environment": ["PATH=/bin", "A=b c"],
        "workingDirectory": "/srv", "terminal": false, "supplementalGroups": [], "rlimits": [],
        "user": {"id": {"uid": 7, "gid": 8}},
    });
    let configuration = json!({
        "id": machine.name, "labels": machine.labels, "image": {"reference": machine.image},
        "resources": {"cpus": machine.vcpu_count, "memoryInBytes": machine.mem_size_mib << 20},
        "initProcess": process,
    });
    if settings.old_shape {
        return json!({
            "status": machine.state, "configuration": configuration, "networks": [],
        });
    }
    let mut status = json!({"state": machine.state, "networks": []});
    if machine.was_started {
        status["startedDate"] = json!(1_795_360_409.5);
    }
    json!({"id": machine.name, "configuration": configuration, "status": status})
}

fn export(machine: &Machine, file: &Path, settings: &Settings) -> Said {
    if machine.state != "stopped" && settings.version != "1.2.1" {
        return Err(format!("container {} is not stopped", machine.name));
    }
    let failed = |error: std::io::Error| error.to_string();
    let mut builder = tar::Builder::new(File::create(file).map_err(failed)?);
    for (path, text) in [
        ("note", machine.disk.as_str()),
        ("tmp/junk", "left out"),
        ("var/tmp/junk", "left out"),
        ("etc/name", "a name"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, text.as_bytes()).map_err(failed)?;
    }
    builder.into_inner().map_err(failed)?;
    Ok(String::new())
}

fn build(store: &Store, tag: &str, dir: &Path) -> Said {
    let text =
        std::fs::read_to_string(dir.join("Dockerfile")).map_err(|error| error.to_string())?;
    let mut lines = text.lines();
    let (from, add) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Some(("FROM scratch", archive)) =
        add.strip_prefix("ADD ").and_then(|add| add.strip_suffix(" /")).map(|add| (from, add))
    else {
        return Err(format!("cannot build {text:?}"));
    };
    let mut disk = None;
    let file = File::open(dir.join(archive)).map_err(|error| error.to_string())?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let path = entry.path().map_err(|error| error.to_string())?.into_owned();
        if path.ends_with("junk") {
            return Err("the export was not cut down".to_owned());
        }
        if path == Path::new("note") {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|error| error.to_string())?;
            disk = Some(text);
        }
    }
    let array = |instruction: &str| -> Vec<String> {
        let found = text.lines().find_map(|line| line.strip_prefix(instruction));
        found.and_then(|words| serde_json::from_str(words).ok()).unwrap_or_default()
    };
    store.put(&Machine {
        name: image_name(tag),
        disk: disk.ok_or("there is no disk")?,
        command: [array("ENTRYPOINT "), array("CMD ")].concat(),
        output: text,
        ..Machine::default()
    });
    Ok("built\n".to_owned())
}
