//! W3C trace contexts: what a call is part of, told to the server in `traceparent` and `tracestate`.
//!
//! Whoever has a tracer enters [`TraceContext::scope`] with its span's context; calls that
//! [`HearthClient`](crate::HearthClient) makes with retries, or for leases, within it carry that on.

use std::fmt;
use std::str::FromStr;

use tonic::metadata::{MetadataMap, MetadataValue};

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

/// It is no `traceparent` of version 00.
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

    /// Tells the server of a call what it is part of.
    pub fn inject(&self, metadata: &mut MetadataMap) {
        if let Ok(parent) = MetadataValue::try_from(self.to_string()) {
            metadata.insert("traceparent", parent);
        }
        if let Ok(state) = MetadataValue::try_from(&self.state)
            && !self.state.is_empty()
        {
            metadata.insert("tracestate", state);
        }
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
        let parts: Vec<_> = text.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts[..] else { return Err(NoTraceParent) };
        let lengths = (version.len(), trace_id.len(), parent_id.len(), flags.len());
        if lengths != (2, 32, 16, 2) || version != "00" || !parts.iter().all(|it| is_hex(it)) {
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
        for bad in [
            "",
            "00",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &PARENT.replace("00-", "01-"),
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
                let mut metadata = MetadataMap::new();
                TraceContext::current().unwrap().inject(&mut metadata);
                assert_eq!(metadata.get("traceparent").unwrap(), PARENT);
                assert_eq!(metadata.get("tracestate").unwrap(), "vendor=1");
            })
            .await;
        let mut metadata = MetadataMap::new();
        context.with_state("\n").inject(&mut metadata);
        assert!(metadata.get("tracestate").is_none(), "it is no header");
    }
}
