//! Where spans go.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;

/// Some gigabyte of spans.
const MAX_QUEUED: usize = 1 << 20;

/// The export of spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The collector that takes spans by OTLP over gRPC, as `http://127.0.0.1:4317`; unset: none.
    pub endpoint: Option<String>,
    /// Authorities that its certificate must come from, in PEM; `https://` needs them.
    pub ca: Option<PathBuf>,
    /// A file of headers that it is sent, `name: value` a line; unset: none.
    pub headers_file: Option<PathBuf>,
    /// Which share of traces is kept that callers have not decided about, from 0 to 1.
    pub sample_ratio: f64,
    /// How long one message may take, and the last ones at the end.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Spans that wait; more are dropped.
    pub max_queued: usize,
}

impl Default for Telemetry {
    fn default() -> Self {
        let (timeout, max_queued) = (Duration::from_secs(5), 8192);
        Self {
            endpoint: None,
            ca: None,
            headers_file: None,
            sample_ratio: 1.0,
            timeout,
            max_queued,
        }
    }
}

impl Config {
    pub(super) fn check_telemetry(&self) -> Result<(), (String, String)> {
        let settings = &self.telemetry;
        let wrong = |key: &str, why: &str| Err((format!("telemetry.{key}"), why.to_owned()));
        if !(0.0..=1.0).contains(&settings.sample_ratio) {
            return wrong("sample_ratio", "it must be between 0 and 1");
        }
        if settings.timeout.is_zero() {
            return wrong("timeout", "it must be positive");
        }
        if !(1..=MAX_QUEUED).contains(&settings.max_queued) {
            return wrong("max_queued", "it must be between 1 and 1048576");
        }
        let Some(endpoint) = &settings.endpoint else { return Ok(()) };
        let uri = endpoint.parse::<http::Uri>().ok().filter(|uri| uri.authority().is_some());
        match (uri.as_ref().and_then(http::Uri::scheme_str), &settings.ca) {
            (Some("http"), None) | (Some("https"), Some(_)) => Ok(()),
            (Some("http"), Some(_)) => wrong("ca", "it is for an endpoint that is https://"),
            (Some("https"), None) => wrong("endpoint", "https:// needs telemetry.ca"),
            _ => wrong("endpoint", "it must be http://HOST:PORT or https://HOST:PORT"),
        }
    }
}
