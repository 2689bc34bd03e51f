//! What an acquire would get, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use hearth_proto::v1::acquire_vm_response::Source;
use serde::Serialize;

use super::{Span, value_name};
use crate::cli::output::{Show, facts};
use crate::cli::text::{id_of, wire_duration};

/// What an acquire would get.
#[derive(Debug, Serialize)]
pub(crate) struct Resolution {
    pub(crate) warm: bool,
    /// Empty: it would be refused.
    pub(crate) source: String,
    pub(crate) reason: String,
    pub(crate) differences: Vec<Difference>,
    pub(crate) predicted_wait: Option<Span>,
    pub(crate) template: String,
    pub(crate) template_generation: i64,
}

/// A field of the request that keeps it from a warm VM.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    pub(crate) field: String,
    pub(crate) requested: String,
    pub(crate) offered: String,
    pub(crate) description: String,
}

impl From<v1::ResolvePoolResponse> for Resolution {
    fn from(it: v1::ResolvePoolResponse) -> Self {
        let source = match it.source {
            0 => String::new(),
            source => value_name(source, Source::as_str_name, "SOURCE_"),
        };
        let difference = |it: v1::resolve_pool_response::Difference| Difference {
            field: it.field,
            requested: it.requested,
            offered: it.offered,
            description: it.description,
        };
        Self {
            warm: it.warm,
            source,
            reason: it.reason,
            differences: it.differences.into_iter().map(difference).collect(),
            predicted_wait: it.predicted_wait.map(Span),
            template: it.template,
            template_generation: it.template_generation,
        }
    }
}

impl Show for Resolution {
    const HEADINGS: &'static [&'static str] = &["SOURCE", "REASON", "TEMPLATE", "WAIT"];

    fn name(&self) -> &str {
        &self.template
    }

    fn row(&self, _: SystemTime) -> Vec<String> {
        vec![self.source.clone(), self.reason.clone(), self.template(), self.wait()]
    }
}

impl Resolution {
    /// All of it, for people.
    pub(crate) fn to_text(&self) -> String {
        let would = match (self.warm, self.source.as_str()) {
            (true, _) => "a warm VM, at once".to_owned(),
            (false, "") => "a refusal".to_owned(),
            (false, source) => format!("a VM that it waits for ({source})"),
        };
        let mut text = facts(&[
            ("it would get", would),
            ("reason", self.reason.clone()),
            ("wait", self.wait()),
            ("template", self.template()),
        ]);
        for it in &self.differences {
            let Difference { field, requested, offered, description } = it;
            text += &format!("{field}: {requested} in place of {offered}: {description}\n");
        }
        text
    }

    fn template(&self) -> String {
        format!("{}@{}", id_of(&self.template), self.template_generation)
    }

    fn wait(&self) -> String {
        wire_duration(self.predicted_wait.as_ref().map(|span| &span.0))
    }
}
