//! W3C trace contexts: what a call is part of, told to the server in `traceparent` and `tracestate`.
//!
//! Whoever has a tracer enters [`TraceContext::scope`] with its span's context; whatever
//! [`HearthClient`](crate::HearthClient) calls within it carries that on.

use std::fmt;
use std::str::FromStr;

use tonic::codegen::http::{HeaderMap, HeaderValue};

/// The longest `tracestate` that is passed on, in bytes; what is longer may be left out.
const MAX_STATE_BYTES: usize = 512;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// What a call is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
    state: String,
}

/// The header that says what a call is part of, and the one with what vendors say of it.
const PARENT_HEADER: &str = "traceparent";
const STATE_HEADER: &str = "tracestate";

/// It is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is 00-<32 digits>-<16 digits>-<2 digits>, hexadecimal and not all zeros")]
pub struct NoTraceParent;

impl TraceContext {
    /// A part of the trace `trace_id`, below the span `parent_id`.
    #[must_use]
    pub const fn new(trace_id: u128, parent_id: u64, is_sampled: bool) -> Self {
        Self { trace_id, parent_id, flags: is_sampled as u8, state: String::new() }
    }

    /// The same, with what vendors say of it; what is no header, or too long, is left out.
    #[must_use]
    pub fn with_state(self, state: &str) -> Self {
        let fits = state.len() <= MAX_STATE_BYTES
            && state.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        Self { state: if fits { state.to_owned() } else { String::new() }, ..self }
    }

    /// Makes calls within `work` a part of this.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// What calls made here are a part of.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The span of whoever calls.
    #[must_use]
    pub const fn parent_id(&self) -> u64 {
        self.parent_id
    }

    /// Whether whoever calls keeps its trace.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What vendors say of it, or nothing.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Tells the server of a call what it is part of, unless it is told already.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if headers.contains_key(PARENT_HEADER) {
            return;
        }
        if let Ok(parent) = HeaderValue::try_from(self.to_string()) {
            headers.insert(PARENT_HEADER, parent);
        }
        if let Ok(state) = HeaderValue::try_from(&self.state)
            && !self.state.is_empty()
        {
            headers.insert(STATE_HEADER, state);
        }
    }

    /// What a call with these headers is part of. What is malformed says nothing, and what is said twice
    /// neither.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(PARENT_HEADER).iter();
        let (parent, None) = (parents.next()?, parents.next()) else { return None };
        let context: Self = parent.to_str().ok()?.parse().ok()?;
        let states: Result<Vec<_>, _> =
            headers.get_all(STATE_HEADER).iter().map(|it| it.to_str()).collect();
        Some(context.with_state(&states.unwrap_or_default().join(",")))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let is_hex = |part: &str| part.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.splitn(5, '-');
        let mut part = |length| {
            let part = parts.next().filter(|part| part.len() == length && is_hex(part));
            part.ok_or(NoTraceParent)
        };
        let (version, trace_id, parent_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may have more behind what this one has.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NoTraceParent);
        }
        let trace_id = u128::from_str_radix(trace_id, 16).map_err(|_| NoTraceParent)?;
        let parent_id = u64::from_str_radix(parent_id, 16).map_err(|_| NoTraceParent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NoTraceParent)?;
        match (trace_id, parent_id) {
            (0, _) | (_, 0) => Err(NoTraceParent),
            _ => Ok(Self { trace_id, parent_id, flags, state: String::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_comes_back_as_it_was_and_nonsense_is_refused() {
        let context: TraceContext = PARENT.parse().unwrap();
        assert_eq!(context.to_string(), PARENT);
        let made = TraceContext::new(
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            0xb7ad_6b71_6920_3331,
            true,
        );
        assert_eq!(made, context);
        assert!(context.is_sampled());
        let later = format!("{}-more", PARENT.replacen("00-", "01-", 1));
        assert_eq!(later.parse(), Ok(context), "a later version is read as far as it is known");
        for bad in [
            "",
            "00",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(NoTraceParent), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_called_within_a_scope_carries_it() {
        assert_eq!(TraceContext::current(), None);
        let context = PARENT.parse::<TraceContext>().unwrap().with_state("vendor=1");
        context
            .clone()
            .scope(async {
                let mut headers = HeaderMap::new();
                TraceContext::current().unwrap().inject(&mut headers);
                assert_eq!(headers.get("traceparent").unwrap(), PARENT);
                assert_eq!(headers.get("tracestate").unwrap(), "vendor=1");
                assert_eq!(TraceContext::extract(&headers), TraceContext::current());
                let other = TraceContext::new(1, 2, false);
                other.inject(&mut headers);
                assert_eq!(headers.get("traceparent").unwrap(), PARENT, "said already");
            })
            .await;
        let mut headers = HeaderMap::new();
        context.with_state("\n").inject(&mut headers);
        assert!(headers.get("tracestate").is_none(), "it is no header");
    }

    #[test]
    fn what_is_said_twice_or_badly_says_nothing() {
        let headers = |parents: &[&str], states: &[&str]| {
            let mut headers = HeaderMap::new();
            for (name, values) in [("traceparent", parents), ("tracestate", states)] {
                for value in values {
                    headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                }
            }
            headers
        };
        let extract =
            |parents: &[&str], states: &[&str]| TraceContext::extract(&headers(parents, states));
        let context = PARENT.parse::<TraceContext>().unwrap();
        assert_eq!(extract(&[], &["a=1"]), None);
        assert_eq!(extract(&[PARENT, PARENT], &[]), None);
        assert_eq!(extract(&["nonsense"], &[]), None);
        assert_eq!(extract(&["\u{e9}"], &[]), None);
        assert_eq!(extract(&[PARENT], &[]), Some(context.clone()));
        let stated = context.clone().with_state("a=1,b=2");
        assert_eq!(extract(&[PARENT], &["a=1", "b=2"]), Some(stated));
        assert_eq!(extract(&[PARENT], &["\u{e9}"]), Some(context));
    }
}
