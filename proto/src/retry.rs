//! Retries, as `service_config.json` has them: the policy that any gRPC client can be given, for this one.
//!
//! The code says whether a call may be tried again. How long to wait the server says, in `RetryInfo`; where it
//! says nothing and the error is its own, waiting does not help and nothing is tried again. What never
//! reached it backs off. Every wait is longer by a random part, so that many callers do not come back at once.
//!
//! A call that changes something is to carry a `request_id`: what arrives twice is then done once.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::reason::ApiError;

/// The policy, as gRPC clients take it.
pub const SERVICE_CONFIG: &str = include_str!("../service_config.json");

/// A wait is longer by at most this share of it.
const JITTER: f64 = 0.25;

/// When, and how often, a call is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Tries in all, the first one included.
    pub max_attempts: u32,
    /// The wait before the second try, where the server does not say.
    pub initial_backoff: Duration,
    /// The longest such wait.
    pub max_backoff: Duration,
    /// Each such wait is so many times the one before it.
    pub backoff_multiplier: f64,
    /// Codes that let it be tried again.
    pub retryable: Vec<Code>,
}

/// Why a call is not tried again although it failed.
enum Verdict {
    /// It is tried again after this.
    Again(Duration),
    /// Its error stands.
    Final,
}

impl RetryPolicy {
    /// The policy of a method, as `hearth.v1.VmService/GetVm`; `None` for one that is never tried again.
    #[must_use]
    pub fn of(method: &str) -> Option<&'static Self> {
        let (service, name) = method.split_once('/')?;
        let config = &*CONFIG;
        match config.by_name.get(&(service.to_owned(), name.to_owned())) {
            Some(place) => config.policies[*place].as_ref(),
            None => {
                let place = config.by_name.get(&(service.to_owned(), String::new()))?;
                config.policies[*place].as_ref()
            }
        }
    }

    /// Tries `call` until it succeeds, an error stands, or `deadline` has passed. Each try is told how long is
    /// left.
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// As for `call`.
    pub async fn run<A, F>(
        &self,
        deadline: Instant,
        mut call: impl FnMut(Duration) -> F,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let mut backoff = self.initial_backoff;
        let mut tries = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match call(left).await {
                Ok(answer) => return Ok(answer),
                Err(status) => ApiError::from(status),
            };
            tries += 1;
            match self.verdict(&error, tries, backoff) {
                Verdict::Again(wait) if Instant::now() + wait < deadline => {
                    tokio::time::sleep(wait).await;
                    backoff = backoff.mul_f64(self.backoff_multiplier).min(self.max_backoff);
                }
                Verdict::Again(_) | Verdict::Final => return Err(error),
            }
        }
    }

    fn verdict(&self, error: &ApiError, tries: u32, backoff: Duration) -> Verdict {
        let may = tries < self.max_attempts && self.retryable.contains(&error.code());
        match (may, error.retry_after, &error.reason) {
            (false, ..) | (true, None, Some(_)) => Verdict::Final,
            (true, Some(after), _) => Verdict::Again(longer(after)),
            // It did not come from the server.
            (true, None, None) => Verdict::Again(longer(backoff)),
        }
    }
}

/// A request that has so long.
pub(crate) fn request<Q>(message: Q, left: Duration) -> Request<Q> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}

/// Calls `method` with `message` until `deadline`, as its policy says.
pub(crate) async fn call<Q: Clone, A, F>(
    method: &str,
    message: Q,
    deadline: Duration,
    mut call: impl FnMut(Request<Q>) -> F,
) -> Result<A, ApiError>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut once = |left| {
        let answer = call(request(message.clone(), left));
        async move { answer.await.map(Response::into_inner) }
    };
    match RetryPolicy::of(method) {
        Some(policy) => policy.run(Instant::now() + deadline, once).await,
        None => once(deadline).await.map_err(ApiError::from),
    }
}

/// `wait`, and a random part of it.
fn longer(wait: Duration) -> Duration {
    wait + wait.mul_f64(random() * JITTER)
}

/// Between 0 and 1: enough that callers do not keep step.
fn random() -> f64 {
    f64::from(u32::try_from(random_bits() >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Random enough for waits and ids, and no more.
pub(crate) fn random_bits() -> u64 {
    // Each state has keys of its own, from the system's random source at first.
    RandomState::new().hash_one(0)
}

struct Config {
    policies: Vec<Option<RetryPolicy>>,
    by_name: HashMap<(String, String), usize>,
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    // A test reads it, too: it is ours.
    let wire: WireConfig = serde_json::from_str(SERVICE_CONFIG).unwrap_or_default();
    let mut config = Config { policies: Vec::new(), by_name: HashMap::new() };
    for (place, method) in wire.method_config.into_iter().enumerate() {
        for name in method.name {
            config.by_name.insert((name.service, name.method), place);
        }
        config.policies.push(method.retry_policy.and_then(WirePolicy::into_policy));
    }
    config
});

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireConfig {
    method_config: Vec<WireMethod>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMethod {
    name: Vec<WireName>,
    retry_policy: Option<WirePolicy>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireName {
    service: String,
    method: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePolicy {
    max_attempts: u32,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<String>,
}

impl WirePolicy {
    fn into_policy(self) -> Option<RetryPolicy> {
        let seconds = |text: &str| {
            let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        };
        let code = |name: &String| match name.as_str() {
            "UNAVAILABLE" => Some(Code::Unavailable),
            "RESOURCE_EXHAUSTED" => Some(Code::ResourceExhausted),
            "DEADLINE_EXCEEDED" => Some(Code::DeadlineExceeded),
            "ABORTED" => Some(Code::Aborted),
            _ => None,
        };
        Some(RetryPolicy {
            max_attempts: self.max_attempts,
            initial_backoff: seconds(&self.initial_backoff)?,
            max_backoff: seconds(&self.max_backoff)?,
            backoff_multiplier: self.backoff_multiplier,
            retryable: self.retryable_status_codes.iter().map(code).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn refused(code: Code, retry_after: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info("X", crate::details::ERROR_DOMAIN, []).set_retry_info(retry_after);
        Status::with_error_details(code, "", details)
    }

    /// How often it was tried, how long that took, and with which code it ended.
    async fn tried(method: &str, status: Status) -> (u32, Duration, Code) {
        let (begun, mut tries) = (Instant::now(), 0);
        let minute = Duration::from_secs(60);
        let ended = call(method, (), minute, |_| {
            tries += 1;
            let status = status.clone();
            async move { Err::<Response<()>, _>(status) }
        });
        let code = ended.await.unwrap_err().code();
        (tries, begun.elapsed(), code)
    }

    #[test]
    fn every_method_has_a_place_in_the_policy() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let name = format!("{service_name}/{}", method.name());
                    let policy = RetryPolicy::of(&name);
                    // A stream that both sides write cannot be repeated.
                    let is_repeated = !matches!(method.name(), "ConnectVm" | "ExecVm");
                    assert_eq!(policy.is_some(), is_repeated, "{name}");
                }
            }
        }
        let acquire = RetryPolicy::of("hearth.v1.VmService/AcquireVm").unwrap();
        assert!(acquire.retryable.contains(&Code::ResourceExhausted));
        let read = RetryPolicy::of("hearth.v1.VmService/GetVm").unwrap();
        assert_eq!((read.max_attempts, &*read.retryable), (5, &[Code::Unavailable][..]));
        assert!(RetryPolicy::of("grpc.health.v1.Health/Check").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_delay_is_heeded_with_a_random_part() {
        let second = Duration::from_secs(1);
        let (acquire, get) = ("hearth.v1.VmService/AcquireVm", "hearth.v1.VmService/GetVm");
        let (tries, took, code) =
            tried(acquire, refused(Code::ResourceExhausted, Some(second))).await;
        assert_eq!((tries, code), (5, Code::ResourceExhausted));
        assert!(took >= 4 * second && took <= 5 * second, "{took:?}");
        // Where the server does not say when, it does not help.
        assert_eq!(tried(acquire, refused(Code::ResourceExhausted, None)).await.0, 1);
        assert_eq!(tried(get, refused(Code::ResourceExhausted, Some(second))).await.0, 1);
        assert_eq!(tried(get, refused(Code::NotFound, Some(second))).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_arrived_backs_off_and_ends_by_the_deadline() {
        let lost = Status::unavailable("connection refused");
        let (tries, took, _) = tried("hearth.v1.VmService/GetVm", lost.clone()).await;
        assert_eq!(tries, 5);
        let pauses = Duration::from_millis(100 + 200 + 400 + 800);
        assert!(took >= pauses && took <= pauses.mul_f64(1.0 + JITTER) + pauses / 100, "{took:?}");
        let policy = RetryPolicy::of("hearth.v1.VmService/GetVm").unwrap();
        let mut tries = 0;
        let deadline = Instant::now() + Duration::from_millis(250);
        let ended = policy.run(deadline, |left| {
            tries += 1;
            assert!(left <= Duration::from_millis(250));
            let lost = lost.clone();
            async move { Err::<(), _>(lost) }
        });
        assert!(ended.await.is_err());
        assert_eq!(tries, 2, "there is no time for a third");
    }
}
