//! One call: who makes it, how it is named in the log, and until when its caller waits.

use std::fmt;
use std::num::NonZeroU128;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hearth_pool::follow::Mark;
use hearth_providers::env::{Env as _, SystemEnv};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::audit::Note;
use crate::auth::Caller;
use crate::status::Refusal;

/// We answer so much earlier than the transport would cut the call off, so that the caller
/// learns why: a tenth of its time, and at most this.
const MAX_MARGIN: Duration = Duration::from_millis(50);

/// Names a call in the log and in the `RequestInfo` of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId(u64);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Tells the calls of this process from those of the one before.
static LIFE: LazyLock<u32> = LazyLock::new(|| {
    let mut bits = [0; 4];
    SystemEnv.fill(&mut bits);
    u32::from_le_bytes(bits)
});

impl CallId {
    /// A name that no other call of this process has.
    pub(crate) fn next() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What the call is known by wherever something is done for it.
    pub(crate) fn mark(self, trace_id: Option<NonZeroU128>) -> Mark {
        Mark { life: *LIFE, number: self.0, trace_id }
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mark(None).fmt(f)
    }
}

/// What is known of a call beside its request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) id: CallId,
    /// When its caller stops waiting, a little early.
    pub(crate) deadline: Option<Instant>,
    /// Where it is noted what it is about, where that is kept.
    note: Option<Arc<Note>>,
}

impl Call {
    fn of<Q>(request: &Request<Q>) -> Self {
        let timeout = request.metadata().get("grpc-timeout");
        let timeout = timeout.and_then(|text| parse_timeout(text.to_str().ok()?));
        // What does not fit the clock is no deadline.
        let deadline = timeout.and_then(|timeout| {
            Instant::now().checked_add(timeout - (timeout / 10).min(MAX_MARGIN))
        });
        let id = request.extensions().get::<CallId>().copied();
        Self {
            caller: Caller::of(request.extensions()),
            id: id.unwrap_or_else(CallId::next),
            deadline,
            note: request.extensions().get::<Arc<Note>>().cloned(),
        }
    }

    /// Somebody wants to know what it is about.
    pub(crate) const fn is_noted(&self) -> bool {
        self.note.is_some()
    }

    /// It is about this resource, of this uid, under this request id; what is blank is not known.
    pub(crate) fn is_about(&self, resource: &str, uid: &str, request_id: &str) {
        if let Some(note) = &self.note {
            note.is_about(resource, uid, request_id);
        }
    }
}

/// As [`answer_in_its_time`], and refuses what is not done by the call's deadline: the transport would cut it
/// off without a word.
pub(crate) async fn answer<Q, A, F>(
    request: Request<Q>,
    handle: impl FnOnce(Call, Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Refusal>>,
{
    answer_in_its_time(request, |call, request| async move {
        let Some(deadline) = call.deadline else { return handle(call, request).await };
        match tokio::time::timeout_at(deadline, handle(call, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Late),
        }
    })
    .await
}

/// Answers `request` with what `handle` makes of it; what it refuses becomes a status here. `handle` heeds
/// the call's deadline itself.
pub(crate) async fn answer_in_its_time<Q, A, F>(
    request: Request<Q>,
    handle: impl FnOnce(Call, Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Refusal>>,
{
    let call = Call::of(&request);
    let id = call.id;
    match handle(call, request.into_inner()).await {
        Ok(answer) => Ok(Response::new(answer)),
        Err(refusal) => Err(refusal.into_status(id)),
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nonsense_is_none() {
        let cases = [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("5m", Some(Duration::from_millis(5))),
            ("6u", Some(Duration::from_micros(6))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        for nonsense in ["", "S", "5", "-5S", "+5S", "5X", "123456789S", "5 S", "5é"] {
            assert_eq!(parse_timeout(nonsense), None, "{nonsense:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_told_before_the_transport_cuts_it_off() {
        let mut request = Request::new(());
        request.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
        let begun = Instant::now();
        let late = answer(request, |_, ()| std::future::pending::<Result<(), Refusal>>()).await;
        let status = late.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::from_millis(950));
        let details = hearth_proto::StatusDetails::of(&status);
        assert_eq!(details.reason.as_deref(), Some("DEADLINE_TOO_SHORT"));
        assert!(details.retry_after.is_some());
    }

    #[test]
    fn a_deadline_is_a_little_early_and_an_endless_one_is_none() {
        let mut request = Request::new(());
        request.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
        let before = Instant::now();
        let deadline = Call::of(&request).deadline.unwrap();
        assert!(deadline < Instant::now() + Duration::from_secs(1));
        assert!(deadline >= before + Duration::from_millis(950));
        assert_eq!(Call::of(&Request::new(())).deadline, None);
    }
}
