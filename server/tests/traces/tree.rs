//! The spans of one trace, as the tree that they are.

use std::fmt;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

/// A span and those below it, in the order in which they began.
pub(crate) struct Tree {
    pub(crate) span: Span,
    below: Vec<Self>,
}

impl Tree {
    /// The tree below `root`, of `spans`.
    pub(crate) fn of(root: Span, spans: &[Span]) -> Self {
        let is_below =
            |span: &&Span| span.trace_id == root.trace_id && span.parent_span_id == root.span_id;
        let mut below: Vec<_> =
            spans.iter().filter(is_below).map(|span| Self::of(span.clone(), spans)).collect();
        below.sort_by_key(|tree| tree.span.start_time_unix_nano);
        Self { span: root, below }
    }

    /// Its names, indented by what they are below of: `root(child child(grandchild))`.
    pub(crate) fn shape(&self) -> String {
        let name = &self.span.name;
        match self.below.is_empty() {
            true => name.clone(),
            false => {
                let below: Vec<_> = self.below.iter().map(Self::shape).collect();
                format!("{name}({})", below.join(" "))
            }
        }
    }

    /// The first span of this name, from the top down.
    pub(crate) fn find(&self, name: &str) -> Option<&Self> {
        match self.span.name == name {
            true => Some(self),
            false => self.below.iter().find_map(|tree| tree.find(name)),
        }
    }

    /// What a span says under `key`, as text; nothing where it does not.
    pub(crate) fn said(&self, key: &str) -> String {
        let is_it = |it: &&opentelemetry_proto::tonic::common::v1::KeyValue| it.key == key;
        let value = self.span.attributes.iter().find(is_it).and_then(|it| it.value.clone()?.value);
        match value {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// Whether everything below begins and ends within what it is below of.
    pub(crate) fn is_nested(&self) -> bool {
        let own = self.span.start_time_unix_nano..=self.span.end_time_unix_nano;
        self.below.iter().all(|tree| {
            own.contains(&tree.span.start_time_unix_nano)
                && own.contains(&tree.span.end_time_unix_nano)
                && tree.is_nested()
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize, zero: u64) -> fmt::Result {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let begun = micros(self.span.start_time_unix_nano.saturating_sub(zero));
        let took = self.span.end_time_unix_nano.saturating_sub(self.span.start_time_unix_nano);
        let name = format!("{}{}", "  ".repeat(depth), self.span.name);
        let said = ["pool", "provider", "source", "outcome", "rpc.grpc.status_code"];
        let said = said.map(|key| (key, self.said(key)));
        let said: Vec<_> = said.into_iter().filter(|(_, it)| !it.is_empty()).collect();
        let said: Vec<_> = said.into_iter().map(|(key, it)| format!("{key}={it}")).collect();
        let line = format!("{name:<36} {begun:>10.0} {:>10.0}  {}", micros(took), said.join(" "));
        writeln!(f, "{}", line.trim_end())?;
        self.below.iter().try_for_each(|tree| tree.write(f, depth + 1, zero))
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36} {:>10} {:>10}", "span", "begun (us)", "took (us)")?;
        self.write(f, 0, self.span.start_time_unix_nano)
    }
}
