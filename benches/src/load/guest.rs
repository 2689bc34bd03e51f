//! The time until a guest answers: what a tenant waits for, after the answer of its acquire.
//!
//! A guest that was handed out may still have to fault in its memory, or be busy with what it did
//! when its snapshot was taken. So it is asked something over its channel, and the time runs until
//! its answer is there.

use std::time::Duration;

use hearth_proto::HearthClient;
use hearth_proto::v1::ConnectVmRequest;
use hearth_proto::v1::connect_vm_request::{Message as Sent, Open};
use hearth_proto::v1::connect_vm_response::Message as Said;
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::given::Named;
use super::hearth::reason_of;

/// What stands for the number of the call, in what is asked and in what is answered.
const NUMBER: &str = "{}";
/// Bytes of an answer that are looked through, at most.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What each guest is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The line that is sent. `{}` in it is the number of the call.
    pub ask: String,
    /// What the answer has in it, `{}` as in `ask`; empty: anything is an answer.
    pub answer: String,
    /// Vsock port of the guest; 0: its provider's channel.
    pub port: u32,
}

impl Question {
    /// Asks the guest of `vm`, and waits for its answer, both within `deadline`.
    ///
    /// # Errors
    /// The reason of the server's, or what the guest did in place of answering.
    pub(super) async fn put(
        &self,
        client: &HearthClient,
        vm: &Named,
        number: u64,
        deadline: Duration,
    ) -> Result<(), String> {
        let number = number.to_string();
        let asking = self.until_answered(client, vm, &number);
        match tokio::time::timeout(deadline, asking).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the guest closed its channel".to_owned()),
            Ok(Err(status)) => Err(reason_of(&status)),
            Err(_) => Err("the guest did not answer in time".to_owned()),
        }
    }

    /// Whether there was an answer before the guest's end of the channel was closed.
    async fn until_answered(
        &self,
        client: &HearthClient,
        vm: &Named,
        number: &str,
    ) -> Result<bool, Status> {
        let (name, uid) = (vm.name.clone(), vm.uid.clone());
        let line = format!("{}\n", self.ask.replace(NUMBER, number));
        let sent =
            [Sent::Open(Open { name, uid, port: self.port }), Sent::Data(line.into_bytes().into())];
        let sent = sent.map(|message| ConnectVmRequest { message: Some(message) });
        // The stream does not end: a channel that is half closed may be closed by the guest.
        let sent = tokio_stream::iter(sent).chain(tokio_stream::pending());
        let mut said = client.vms.clone().connect_vm(sent).await?.into_inner();
        let expected = self.answer.replace(NUMBER, number).into_bytes();
        let mut answer = Vec::new();
        while let Some(message) = said.message().await? {
            let Some(Said::Data(data)) = message.message else { continue };
            answer.extend_from_slice(&data);
            if contains(&answer, &expected) {
                return Ok(true);
            }
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Status::resource_exhausted("the guest says other things without end"));
            }
        }
        Ok(false)
    }
}

/// Whether `part` is in `whole`, which has something; an empty one is in all that has.
fn contains(whole: &[u8], part: &[u8]) -> bool {
    !whole.is_empty() && (part.is_empty() || whole.windows(part.len()).any(|it| it == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_when_it_has_all_that_is_expected() {
        assert!(contains(b"junk\necho 7\n", b"echo 7"));
        assert!(!contains(b"junk\necho ", b"echo 7"));
        assert!(contains(b"x", b"") && !contains(b"", b""));
    }
}
