//! Looks at an engine beside hearth, and an operator's hand in it.

use std::collections::{BTreeSet, HashMap};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HostConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt as _;

use crate::docker_engine::{BASE, EngineHost};

/// What the engine calls the container of a VM.
pub(crate) fn name(uid: &str) -> String {
    format!("hearth-{uid}")
}

/// The names of the containers of a state directory's VMs.
pub(crate) fn of_state(engine: &EngineHost, state: &str) -> BTreeSet<String> {
    let filter = labelled("dev.hearth.state", state);
    let found = engine.ask(|client| async move {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        client.list_containers(Some(options)).await
    });
    let names = found.unwrap().into_iter().filter_map(|found| found.names?.into_iter().next());
    names.map(|name| name.trim_start_matches('/').to_owned()).collect()
}

/// The images of a state directory's snapshots, by their names.
pub(crate) fn images_of_state(engine: &EngineHost, state: &str) -> BTreeSet<String> {
    let filter = labelled("dev.hearth.snapshot.state", state);
    let found = engine.ask(|client| async move {
        let options = ListImagesOptionsBuilder::new().filters(&filter).build();
        client.list_images(Some(options)).await
    });
    // One without a name counts, too.
    let names = found.unwrap().into_iter().flat_map(|image| match image.repo_tags.is_empty() {
        true => vec![image.id],
        false => image.repo_tags,
    });
    names.collect()
}

fn labelled(key: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{key}={value}")])])
}

/// Whether the engine has an image of this name.
pub(crate) fn has_image(engine: &EngineHost, image: &str) -> bool {
    engine.ask(|client| async move { client.inspect_image(image).await }).is_ok()
}

/// What the engine says of a container; `None` when it has none.
pub(crate) fn inspect(engine: &EngineHost, container: &str) -> Option<ContainerInspectResponse> {
    let options = None::<InspectContainerOptions>;
    engine.ask(|client| async move { client.inspect_container(container, options).await }).ok()
}

/// How a container stands, and its first process.
pub(crate) fn stands(
    engine: &EngineHost,
    container: &str,
) -> Option<(ContainerStateStatusEnum, i64)> {
    let state = inspect(engine, container)?.state?;
    Some((state.status?, state.pid.unwrap_or_default()))
}

/// Runs a command in the container of a VM and answers what it wrote.
pub(crate) fn exec(engine: &EngineHost, uid: &str, command: &str) -> String {
    let said = try_exec(engine, uid, command);
    said.unwrap_or_else(|error| panic!("{command:?} in {uid}: {error}"))
}

/// The same, in one that may end meanwhile: what it wrote may then be cut short.
pub(crate) fn try_exec(
    engine: &EngineHost,
    uid: &str,
    command: &str,
) -> Result<String, bollard::errors::Error> {
    let name = name(uid);
    engine.ask(|client| async move {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(vec!["sh", "-c", command]),
            ..CreateExecOptions::default()
        };
        let exec = client.create_exec(&name, options).await?.id;
        let started = client.start_exec(&exec, None::<StartExecOptions>).await?;
        // Its input is kept open: some engines end a command whose input ends.
        let StartExecResults::Attached { mut output, input: _input } = started else {
            panic!("it is not attached")
        };
        let mut said = String::new();
        while let Some(piece) = output.next().await {
            said += &piece?.to_string();
        }
        Ok(said)
    })
}

/// Ends the container of a VM from outside.
///
/// # Errors
/// When it does not run.
pub(crate) fn kill(engine: &EngineHost, uid: &str) -> Result<(), bollard::errors::Error> {
    let name = name(uid);
    let options = KillContainerOptionsBuilder::new().signal("KILL").build();
    engine.ask(|client| async move { client.kill_container(&name, Some(options)).await })
}

/// Pauses the container of a VM as a commit does.
pub(crate) fn pause(engine: &EngineHost, uid: &str) {
    let name = name(uid);
    engine.ask(|client| async move { client.pause_container(&name).await }).unwrap();
}

/// Removes an image, whoever needs it.
pub(crate) fn remove_image(engine: &EngineHost, image: &str) {
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    let removed =
        engine.ask(|client| async move { client.remove_image(image, Some(options), None).await });
    removed.unwrap();
}

/// Removes a container.
pub(crate) fn remove(engine: &EngineHost, container: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let removed =
        engine.ask(|client| async move { client.remove_container(container, Some(options)).await });
    removed.unwrap();
}

/// Runs a container that hearth has nothing to do with.
pub(crate) fn run_stranger(engine: &EngineHost, name: &str) {
    run_labelled(engine, name, HashMap::new());
}

/// Runs one that carries these labels.
pub(crate) fn run_labelled(engine: &EngineHost, name: &str, labels: HashMap<String, String>) {
    let ran = engine.ask(|client| async move {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let request = ContainerCreateBody {
            image: Some(BASE.to_owned()),
            labels: Some(labels),
            cmd: Some(vec!["sleep".to_owned(), "1000000".to_owned()]),
            stop_timeout: Some(0),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        client.create_container(Some(options), request).await?;
        client.start_container(name, None::<StartContainerOptions>).await
    });
    ran.unwrap();
}
