//! The guest behind the VM: its channel, its console, and what a stop keeps of it.

use std::io::{Read as _, Write as _};

use super::case::cases;
use super::outcome::{ensure, refused, same};
use crate::capabilities::StopKeeps;
use crate::provider::Probe;
use crate::readiness::{Readiness, wait_ready};

cases! {
    /// The guest's agent answers, and a probe finds that out.
    fn a_running_guest_answers(p) if (p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        p.probe(&vm.id, Probe::Alive, p.patience())?;
        p.probe(&vm.id, Probe::AgentAnswers, p.patience())?;
        same("the answer", p.ask(&vm.id, "echo hello there")?, "echo hello there".to_owned())?;
        same("the answer", p.ask(&vm.id, "name me")?, "ok name=me".to_owned())?;
        let pong = p.agent(&vm.id)?.ping(p.patience())?;
        same("the name", pong.name, Some("me".to_owned()))?;
        ensure!(!pong.boot_id.is_empty(), "the guest has no boot id");
        p.agent(&vm.id)?.ask("nonsense", p.patience()).err().map_or_else(
            || Err(super::Broken::new("the guest understood nonsense")),
            |error| same("the refusal", error.kind(), "backend"),
        )?;
    }

    /// One at a time talks to a guest; the channel is free again when that one is done.
    fn a_guest_channel_is_exclusive(p) if (p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        let first = p.guest_channel(&vm.id)?;
        refused(p.guest_channel(&vm.id).map(drop), "exhausted")?;
        let other = p.running("other")?;
        p.ask(&other.id, "echo another VM's")?;
        drop(first);
        p.ask(&vm.id, "echo free again")?;
    }

    /// What one holder of the channel left half said does not reach the next.
    fn a_conversation_begins_afresh(p) if (p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        let mut channel = p.guest_channel(&vm.id)?;
        let said = channel.write_all(b"echo never hea");
        said.map_err(|error| super::Broken::new(format!("the channel broke: {error}")))?;
        drop(channel);
        same("the answer", p.ask(&vm.id, "echo afresh")?, "echo afresh".to_owned())?;
    }

    /// Whoever has a VM can talk to it, alone, and until its end.
    fn a_connection_carries_bytes_both_ways(p)
    if (p.capabilities().connect && p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        let stream = p.connect_vm(&vm.id, None)?;
        refused(p.connect_vm(&vm.id, None).map(drop), "exhausted")?;
        refused(p.guest_channel(&vm.id).map(drop), "exhausted")?;
        let half_closes = stream.half_closes;
        let (mut socket, held) = stream.into_parts();
        let broke = |error: std::io::Error| super::Broken::new(format!("the connection broke: {error}"));
        socket.set_read_timeout(Some(p.patience())).map_err(broke)?;
        socket.write_all(b"\necho one and all\n").map_err(broke)?;
        let mut heard = String::new();
        while !heard.ends_with("echo one and all\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).map_err(broke)?;
            heard.push(char::from(byte[0]));
        }
        if half_closes {
            socket.shutdown(std::net::Shutdown::Write).map_err(broke)?;
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).map_err(broke)?;
            ensure!(rest.is_empty(), "a guest that is told of the end said {rest:?}");
        }
        drop((socket, held));
        p.ask(&vm.id, "echo free again")?;
        let (mut socket, _held) = p.connect_vm(&vm.id, None)?.into_parts();
        socket.set_read_timeout(Some(p.patience())).map_err(broke)?;
        p.destroy_vm(&vm.id)?;
        let ended = socket.read(&mut [0]);
        ensure!(!matches!(ended, Ok(1..)), "a VM that is destroyed said something");
        let is_silent = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(!is_silent, "a connection outlived its VM");
    }

    /// What a guest writes to its console can be read, and read again from any offset.
    fn the_console_is_read_from_offsets(p) if (p.capabilities().console) {
        let vm = p.booted("vm")?;
        if let Readiness::ConsoleMarker(_) = &p.fixture().readiness {
            wait_ready(&**p, &vm.id, &p.fixture().readiness, p.patience())?;
        }
        let whole = p.console(&vm.id, 0, 1 << 20)?;
        ensure!(!whole.bytes.is_empty(), "a VM that has booted has written nothing");
        same("where it begins", whole.offset, 0)?;
        same("where it ends", whole.next_offset, whole.bytes.len() as u64)?;
        let (mut offset, mut pieces) = (0, Vec::new());
        while pieces.len() < whole.bytes.len() {
            let piece = p.console(&vm.id, offset, 4)?;
            ensure!(!piece.bytes.is_empty() && piece.bytes.len() <= 4, "a piece is {piece:?}");
            same("where a piece begins", piece.offset, offset)?;
            offset = piece.next_offset;
            pieces.extend(piece.bytes);
        }
        ensure!(pieces.starts_with(&whole.bytes), "the pieces are not the whole");
        let beyond = p.console(&vm.id, 1 << 40, 7)?;
        ensure!(beyond.bytes.is_empty(), "there is something beyond the end");
    }

    /// Where stop keeps memory, it is a pause: the guest goes on where it stood.
    fn a_stop_keeps_memory(p)
    if (p.capabilities().stop_keeps == StopKeeps::Memory && p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        p.ask(&vm.id, "name kept")?;
        let before = p.agent(&vm.id)?.ping(p.patience())?;
        p.stop_vm(&vm.id)?;
        p.start_vm(&vm.id)?;
        let after = p.agent(&vm.id)?.ping(p.patience())?;
        same("the boot id", after.boot_id, before.boot_id)?;
        same("the name", after.name, Some("kept".to_owned()))?;
        ensure!(after.counter >= before.counter, "the counter fell to {}", after.counter);
    }

    /// Where stop is a power-off, disks are kept and the guest boots again.
    fn a_stop_keeps_disks(p)
    if (p.capabilities().stop_keeps == StopKeeps::Disk && p.can_fail() && p.capabilities().disks) {
        let vm = p.running("vm")?;
        p.ask(&vm.id, "write note kept")?;
        let before = p.agent(&vm.id)?.ping(p.patience())?;
        p.stop_vm(&vm.id)?;
        p.start_vm(&vm.id)?;
        wait_ready(&**p, &vm.id, &Readiness::AgentAnswers, p.patience())?;
        let after = p.agent(&vm.id)?.ping(p.patience())?;
        ensure!(after.boot_id != before.boot_id, "the guest did not boot");
        same("the note", p.ask(&vm.id, "read note")?, "data kept".to_owned())?;
    }

    /// A paused VM reads Stopped, and is resumed where it stood.
    fn pause_and_resume_keep_memory(p)
    if (p.capabilities().stop_keeps == StopKeeps::Memory && p.capabilities().guest_channel) {
        use crate::model::VmStatus::{Running, Stopped};
        let vm = p.running("vm")?;
        let before = p.agent(&vm.id)?.ping(p.patience())?;
        p.pause_vm(&vm.id)?;
        same("the status", p.status(&vm.id), Some(Stopped))?;
        refused(p.pause_vm(&vm.id), "invalid_transition")?;
        p.resume_vm(&vm.id)?;
        same("the status", p.status(&vm.id), Some(Running))?;
        refused(p.resume_vm(&vm.id), "invalid_transition")?;
        let after = p.agent(&vm.id)?.ping(p.patience())?;
        same("the boot id", after.boot_id, before.boot_id)?;
    }

    /// Where the provider promises it, a conversation goes on after a pause.
    fn a_pause_keeps_conversations(p)
    if (p.capabilities().pause_keeps_channels && p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        let mut agent = p.agent(&vm.id)?;
        agent.ask("echo before", p.patience())?;
        p.pause_vm(&vm.id)?;
        p.resume_vm(&vm.id)?;
        same("the answer", agent.ask("echo after", p.patience())?, "echo after".to_owned())?;
    }

    /// A rename reaches neither the guest nor who talks to it.
    fn a_rename_keeps_conversations(p)
    if (p.capabilities().rename && p.capabilities().guest_channel) {
        let vm = p.running("vm")?;
        let mut agent = p.agent(&vm.id)?;
        p.rename_vm(&vm.id, &p.id("renamed"))?;
        same("the answer", agent.ask("echo after", p.patience())?, "echo after".to_owned())?;
        refused(p.guest_channel(&p.id("renamed")).map(drop), "exhausted")?;
        drop(agent);
        p.ask(&p.id("renamed"), "echo again")?;
    }
}
