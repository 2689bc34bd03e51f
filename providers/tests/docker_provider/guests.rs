//! Connections to containers: their program's input and output.

use std::io::{Read as _, Write as _};

use hearth_providers::VmProvider as _;
use hearth_providers::model::EndpointKind;

use crate::docker_engine::{EngineHost, LONG};
use crate::rig::{Case, Rig, id};

pub(crate) const ALL: &[Case] = &[
    ("a_connection_leads_to_the_program", a_connection_leads_to_the_program),
    ("a_connection_ends_with_its_container", a_connection_ends_with_its_container),
];

/// Its program repeats what it reads.
fn repeats(host: &EngineHost) -> Rig<'_> {
    let mut config = Rig::new(host).config.clone();
    config.state += "-repeats";
    config.command = ["sh", "-c", "echo READY; exec cat"].map(str::to_owned).to_vec();
    Rig::with(host, config)
}

fn a_connection_leads_to_the_program(host: &EngineHost) {
    let rig = repeats(host);
    rig.run("vm");
    let texts = match host.kind {
        // The next one finds it as the first one did.
        "docker" => vec!["first\n", "second\n"],
        // Its programs find the end of their input where the first connection ends.
        _ => vec!["first\n"],
    };
    for text in texts {
        let stream = rig.provider().connect_vm(&id("vm"), None).unwrap();
        assert_eq!((stream.kind, stream.half_closes), (EndpointKind::Serial, false));
        let refused = rig.provider().connect_vm(&id("vm"), None).unwrap_err();
        assert_eq!(refused.kind(), "exhausted");
        let (mut socket, _held) = stream.into_parts();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        let mut heard = vec![0; text.len()];
        socket.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }
    let refused = rig.provider().connect_vm(&id("vm"), Some(7)).unwrap_err();
    assert_eq!(refused.kind(), "unsupported");
    rig.destroy_all();
    rig.assert_nothing_left();
}

fn a_connection_ends_with_its_container(host: &EngineHost) {
    let rig = repeats(host);
    rig.run("vm");
    let (mut socket, _held) = rig.provider().connect_vm(&id("vm"), None).unwrap().into_parts();
    socket.set_read_timeout(Some(LONG)).unwrap();
    rig.provider().destroy_vm(&id("vm")).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    rig.assert_nothing_left();
}
