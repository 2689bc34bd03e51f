//! What the VMs and snapshots of this node take on disk.

use std::sync::Arc;

use hearth_providers::usage::{self, Usage};

use crate::error::Result;
use crate::jobs::Class;
use crate::manager::Manager;

impl Manager {
    /// What each provider has on disk, by its name, the default one first. It is looked at when it is
    /// asked for, which takes a walk over the state directory.
    ///
    /// # Errors
    /// Those of the providers; `Timeout` when that takes longer than a verb may.
    pub async fn usage(&self) -> Result<Vec<(String, Usage)>> {
        let mut all = Vec::new();
        for provider in self.providers() {
            let (asked, limit) = (Arc::clone(provider), self.limits.verb_timeout);
            let call = move || usage::usage(&*asked.runtime);
            let used = self.jobs.run(Class::Verb, "usage", limit, call, drop).await?;
            all.push((provider.name.to_string(), used));
        }
        Ok(all)
    }
}
