//! Containers that are frozen, released and resumed, by the command line and by gRPC.

use hearth_proto::v1::vm::{Origin, State};
use hearth_providers::env::{Env as _, SystemEnv};
use tonic::Code;

use crate::containers::{has_image, kill, name, remove, remove_image, run_stranger, stands};
use crate::docker_engine::EngineHost;
use crate::hearth::Hearth;
use crate::site::{BOTH, Case, DOCKER, Site, assert_runs, refusal, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("frozen_released_and_resumed_by_the_command_line", frozen_by_the_command_line, BOTH),
    ("an_artifact_without_its_image_begins_from_its_template", without_its_image, DOCKER),
    ("the_hint_to_export_names_an_image_of_the_engine", the_hint_to_export_names_an_image, DOCKER),
    ("what_cannot_be_frozen_is_refused_and_left_alone", what_cannot_be_frozen, DOCKER),
];

fn frozen_by_the_command_line(engine: &EngineHost) {
    let site = Site::new(engine, 1);
    let hearth = site.start();
    let (before, template) = (hearth.acquire("demo-1"), site.images());
    site.exec(&before, "echo kept > /etc/note; echo gone > /tmp/note; echo gone > /var/tmp/note");
    assert_eq!(site.exec(&before, "cat /tmp/note /var/tmp/note"), "gone\ngone\n");
    let script = "hearth freeze demo-1 && hearth release demo-1 && hearth resume demo-1";
    let ended = hearth.shell(script);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<_> = ended.out.lines().collect();
    let [frozen, hint, released, resumed] = lines[..] else { panic!("{ended:?}") };
    let artifact = frozen.strip_prefix("frozen demo-1 into artifacts/").expect(frozen).to_owned();
    assert_eq!(hint, format!("hearth resume {artifact}"));
    assert_eq!(released, "released vms/demo-1");
    assert_eq!(resumed, "resumed vms/demo-1 from the artifact");
    let image = site.new_image(&template);

    let vm = hearth.get("vms/demo-1").unwrap();
    assert_eq!(vm.origin(), Origin::Artifact);
    assert_ne!(vm.uid, before.uid);
    assert_runs(&site, &vm);
    assert_eq!(site.exec(&vm, "cat /etc/note"), "kept\n");
    for note in ["/tmp/note", "/var/tmp/note"] {
        let said = site.exec(&vm, &format!("cat {note}"));
        assert!(said.contains("No such file"), "{note}: {said}");
    }
    let listed = hearth.json(&["artifacts", "list"]);
    assert_eq!(listed["artifacts"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["artifacts"][0]["vm"], "vms/demo-1", "{listed}");
    assert_eq!(listed["artifacts"][0]["has_memory"], false, "{listed}");

    let refused = hearth.error(&["artifacts", "delete", &artifact]);
    assert_eq!(refused["reason"], "ARTIFACT_IN_USE", "{refused}");
    hearth.ok(&["release", "demo-1"]);
    hearth.delete_when_unused(&artifact);
    wait_until("its image is gone", || !has_image(engine, &image));
    site.assert_nothing_left(&hearth);
}

/// Freezes a new VM that has a note on its disk, and releases it; answers the artifact's name and
/// its image.
fn frozen(site: &Site<'_>, hearth: &Hearth) -> (String, String) {
    let (vm, template) = (hearth.acquire("mine"), site.images());
    site.exec(&vm, "echo kept > /etc/note");
    let artifact = hearth.freeze("vms/mine", "").unwrap();
    hearth.release(&vm);
    wait_until("its container is gone", || stands(site.engine, &name(&vm.uid)).is_none());
    (artifact.name, site.new_image(&template))
}

fn without_its_image(engine: &EngineHost) {
    let site = Site::new(engine, 0);
    let hearth = site.start();
    let (artifact, image) = frozen(&site, &hearth);
    remove_image(engine, &image);

    let id = artifact.trim_start_matches("artifacts/");
    let said = hearth.ok(&["resume", id]);
    let expected =
        "resumed vms/mine anew from templates/default: the artifact's data is gone\n".to_owned();
    assert_eq!(said, expected);
    let vm = hearth.get("vms/mine").unwrap();
    assert_eq!((vm.origin(), vm.template.as_str()), (Origin::Template, "templates/default"));
    assert_runs(&site, &vm);
    assert!(site.exec(&vm, "cat /etc/note").contains("No such file"), "it begins anew");

    let again = hearth.resume(&artifact).unwrap();
    assert_eq!(again.origin(), Origin::Template);
    assert_runs(&site, &again);
    hearth.release(&vm);
    hearth.release(&again);
    hearth.delete_when_unused(id);
    site.assert_nothing_left(&hearth);
}

fn the_hint_to_export_names_an_image(engine: &EngineHost) {
    let site = Site::new(engine, 0);
    let hearth = site.start();
    let (artifact, image) = frozen(&site, &hearth);
    let found = hearth.artifacts().remove(0);
    let named = found.export_hint.split(' ').next_back().unwrap_or_default();
    assert!(has_image(engine, named), "{:?}; it is {image}", found.export_hint);
    hearth.delete_when_unused(artifact.trim_start_matches("artifacts/"));
    site.assert_nothing_left(&hearth);
}

fn what_cannot_be_frozen(engine: &EngineHost) {
    let site = Site::new(engine, 0);
    let hearth = site.start();
    let dead = hearth.acquire("dead");
    kill(engine, &dead.uid).unwrap();
    wait_until("it is FAILED", || hearth.get("vms/dead").unwrap().state() == State::Failed);
    let refused = refusal(hearth.freeze("vms/dead", ""));
    assert_eq!(refused, (Code::FailedPrecondition, "INVALID_TRANSITION".to_owned()));
    let unknown = (Code::NotFound, "VM_NOT_FOUND".to_owned());
    assert_eq!(refusal(hearth.freeze("vms/nobody", "")), unknown);

    // Neither one that looks like ours nor one that does not.
    let lookalike = name(&SystemEnv.uid().to_string());
    let stranger = format!("stranger-{}", SystemEnv.uid());
    let strangers = [lookalike, stranger];
    strangers.iter().for_each(|name| run_stranger(engine, name));
    let before = strangers.clone().map(|name| stands(engine, &name).unwrap());
    for stranger in &strangers {
        assert_eq!(refusal(hearth.freeze(&format!("vms/{stranger}"), "")), unknown);
    }
    assert!(hearth.artifacts().is_empty());
    assert_eq!(site.images().len(), 1, "only the template's");
    hearth.kill();
    let hearth = site.start();
    hearth.release(&dead);
    site.assert_nothing_left(&hearth);
    assert_eq!(strangers.clone().map(|name| stands(engine, &name).unwrap()), before);
    strangers.iter().for_each(|name| remove(engine, name));
}
