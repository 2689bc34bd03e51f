//! What is not ours is never touched, and what is ours and in no record is reaped.

use std::collections::HashMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, StartContainerOptions,
};
use hearth_providers::{Uid, VmProvider as _};

use crate::docker_engine::{BASE, EngineHost};
use crate::rig::{Case, Rig, id, inspect, snapshot_id};

pub(crate) const ALL: &[Case] = &[
    ("strangers_are_untouched", strangers_are_untouched),
    ("what_is_in_no_record_is_reaped", what_is_in_no_record_is_reaped),
    ("a_half_made_instance_is_reaped_with_its_container", a_half_made_instance_is_reaped),
];

fn strangers_are_untouched(host: &EngineHost) {
    let mut rig = Rig::new(host);
    let state = rig.config.state.clone();
    let uid = rig.run("vm");
    let labels = |state: &str, uid: Uid| {
        HashMap::from([
            ("dev.hearth.state".to_owned(), state.to_owned()),
            ("dev.hearth.uid".to_owned(), uid.to_string()),
        ])
    };
    let other = Uid::from_random([9; 16]);
    let plain = format!("stranger-{state}");
    // One that copied our labels, one of another hearth's, one that only looks like ours.
    let copied = format!("copied-{state}");
    let foreign = format!("hearth-{}", Uid::from_random([8; 16]));
    let lookalike = format!("hearth-{other}");
    let foreign_labels = labels("another state", Uid::from_random([8; 16]));
    run(host, &plain, HashMap::new());
    run(host, &copied, labels(&state, other));
    run(host, &foreign, foreign_labels);
    run(host, &lookalike, HashMap::new());
    // An image that somebody made of ours carries our labels, and so does what is made from it.
    let stolen = "stolen".to_owned();
    host.ask(|client| async move {
        let options = CommitContainerOptionsBuilder::new()
            .container(&format!("hearth-{uid}"))
            .repo(&stolen)
            .pause(true)
            .build();
        client.commit_container(options, bollard::models::ContainerConfig::default()).await
    })
    .unwrap();

    rig.restart();
    rig.provider().destroy_vm(&id("vm")).unwrap();
    rig.restart();
    for name in [&plain, &copied, &foreign, &lookalike] {
        let state = inspect(host, name).and_then(|seen| seen.state);
        assert_eq!(state.and_then(|state| state.running), Some(true), "{name}");
    }
    for name in [plain, copied, foreign, lookalike] {
        remove(host, &name);
    }
    host.ask(|client| async move {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        client.remove_image("stolen", Some(options), None).await
    })
    .unwrap();
    rig.assert_nothing_left();
}

fn what_is_in_no_record_is_reaped(host: &EngineHost) {
    let mut rig = Rig::new(host);
    let (lost, kept) = (rig.run("lost"), rig.run("kept"));
    rig.provider().snapshot_vm(&id("lost"), &snapshot_id("snap")).unwrap();
    assert_eq!(rig.on_engine(), (2, 1));
    rig.close();
    // As if the disk had been set back, or hearth had been killed between two steps.
    std::fs::remove_dir_all(rig.instance_dir(lost)).unwrap();
    std::fs::remove_dir_all(rig.paths().state.join("snapshots")).unwrap();
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (1, 1), "{report:?}");
    assert_eq!(report.reaped_snapshots, 1, "{report:?}");
    assert_eq!(rig.on_engine(), (1, 0));
    assert_eq!(rig.uid("kept"), kept);
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_half_made_instance_is_reaped(host: &EngineHost) {
    let mut rig = Rig::new(host);
    let uid = rig.run("half");
    rig.close();
    std::fs::remove_file(rig.instance_dir(uid).join("instance.json")).unwrap();
    let report = rig.restart();
    assert_eq!((report.adopted, report.reaped_instances), (0, 1), "{report:?}");
    assert!(rig.inspect(uid).is_none());
    rig.assert_nothing_left();
}

fn run(host: &EngineHost, name: &str, labels: HashMap<String, String>) {
    let name = name.to_owned();
    host.ask(|client| async move {
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let request = ContainerCreateBody {
            image: Some(BASE.to_owned()),
            cmd: Some(vec!["sleep".to_owned(), "1000000".to_owned()]),
            network_disabled: Some(true),
            stop_timeout: Some(0),
            labels: Some(labels),
            host_config: Some(bollard::models::HostConfig {
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..ContainerCreateBody::default()
        };
        client.create_container(Some(options), request).await?;
        client.start_container(&name, None::<StartContainerOptions>).await
    })
    .unwrap();
}

fn remove(host: &EngineHost, name: &str) {
    let name = name.to_owned();
    host.ask(|client| async move {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        client.remove_container(&name, Some(options)).await
    })
    .unwrap();
}
