//! Reading an artifact's data, to take it elsewhere.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use hearth_providers::VmRuntimeError;

use crate::error::Result;
use crate::ids::{ArtifactId, Tenant};
use crate::jobs::Class;
use crate::manager::Manager;

/// When to come again where too many read already.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Manager {
    /// Writes an artifact's data to `into`, in its provider's format, and flushes it. The artifact is
    /// not deleted meanwhile. Takes as long as `into` does, so `into` has to give up by itself when
    /// nobody takes what it gets.
    ///
    /// # Errors
    /// `NotFound`; `Exhausted` when as many are exported as may be at once; those of the provider's
    /// `export_snapshot`.
    ///
    /// # Cancel safety
    /// A dropped future leaves the export to run until `into` fails.
    pub async fn export_artifact(
        &self,
        id: &ArtifactId,
        tenant: Option<&Tenant>,
        mut into: impl Write + Send + 'static,
    ) -> Result<()> {
        let artifact = self.artifact(id, tenant)?;
        let provider = Arc::clone(self.provider(&artifact.provider)?);
        let call = move || {
            provider.runtime.export_snapshot(&artifact.reference(), &mut into)?;
            into.flush().map_err(|error| VmRuntimeError::backend("hand over an artifact", error))
        };
        let done = self.jobs.try_run(Class::Export, "export", call).await.unwrap_or_else(|| {
            let what = "the number of artifacts that are exported at once".to_owned();
            Err(VmRuntimeError::Exhausted { what, retry_after: Some(RETRY_AFTER) })
        });
        Ok(done?)
    }
}
