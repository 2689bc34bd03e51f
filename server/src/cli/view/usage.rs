//! What is on disk, as it is shown.

use std::time::SystemTime;

use hearth_proto::v1;
use serde::Serialize;

use crate::cli::output::Show;

/// What one provider has of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) provider: String,
    pub(crate) kind: String,
    pub(crate) count: i64,
    pub(crate) size_bytes: i64,
}

impl From<v1::Usage> for Usage {
    fn from(usage: v1::Usage) -> Self {
        let v1::Usage { provider, kind, count, size_bytes } = usage;
        Self { provider, kind, count, size_bytes }
    }
}

impl Show for Usage {
    const HEADINGS: &'static [&'static str] = &["KIND", "PROVIDER", "COUNT", "BYTES", "SIZE"];

    fn name(&self) -> &str {
        &self.kind
    }

    fn row(&self, _: SystemTime) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.provider.clone(),
            self.count.to_string(),
            self.size_bytes.to_string(),
            format!("{:.1} MiB", self.size_bytes as f64 / f64::from(1 << 20)),
        ]
    }
}
