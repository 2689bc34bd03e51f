//! Whether an acquire would find something warm, without taking it.

use std::sync::Arc;
use std::time::Duration;

use crate::acquire::AcquireRequest;
use crate::error::{Error, Result};
use crate::ids::TemplateId;
use crate::journal::Source;
use crate::manager::Manager;
use crate::pool::{Overflow, Pool};

/// What an acquire would get.
#[derive(Debug)]
pub struct Resolution {
    /// Where its VM would come from; `None`: it would be refused.
    pub source: Option<Source>,
    /// Why it would be refused, or why it would not get a warm one although nothing in the request
    /// keeps it from that.
    pub reason: Option<Error>,
    /// What in the request keeps it from a warm VM.
    pub differences: Vec<Difference>,
    /// When an answer can be expected; `None`: nothing is known.
    pub predicted_wait: Option<Duration>,
    /// What the VM would be of.
    pub template: (TemplateId, i64),
}

/// A field of a request that keeps it from a warm VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub field: &'static str,
    /// What is asked for.
    pub requested: String,
    /// What warm VMs have.
    pub offered: String,
    /// Why that matters.
    pub description: &'static str,
}

impl Manager {
    /// Says what would become of `request` now. Takes nothing, counts nothing.
    ///
    /// # Errors
    /// `NotFound` for its pool; `InvalidArgument` for a request that no pool could serve.
    pub fn resolve(self: &Arc<Self>, request: &AcquireRequest) -> Result<Resolution> {
        let pool = self.pool(&request.pool)?;
        let template = pool.template();
        let mut resolution = Resolution {
            source: None,
            reason: None,
            differences: differences(&pool, request),
            predicted_wait: None,
            template: (template.id.clone(), template.generation),
        };
        match self.would_refuse(&pool, request) {
            Some(error @ Error::InvalidArgument(_)) => return Err(error),
            Some(error) => {
                resolution.reason = Some(error);
                return Ok(resolution);
            }
            None => {}
        }
        let overflow = request.overflow.unwrap_or(pool.config().default_overflow);
        let tenant = &request.tenant;
        let is_warm = resolution.differences.is_empty() && pool.ledger.lock().would_serve(tenant);
        if is_warm {
            resolution.source = Some(Source::Warm);
            resolution.predicted_wait = Some(Duration::ZERO);
            return Ok(resolution);
        }
        let empty = || {
            let (pool, retry_after) = (pool.id.to_string(), pool.retry_after(tenant));
            Error::PoolEmpty { pool, retry_after }
        };
        if resolution.differences.is_empty() {
            resolution.reason = Some(empty());
        }
        let refusal = match overflow {
            Overflow::WarmOnly => Some(empty()),
            _ => template.refusal(),
        };
        match refusal {
            Some(refusal) => resolution.reason = Some(refusal),
            None => {
                resolution.source = Some(Source::Cold);
                resolution.predicted_wait = match resolution.differences.is_empty() {
                    true => pool.expected_wait(tenant),
                    // One of its own, at once.
                    false => pool.restore_time(),
                };
            }
        }
        Ok(resolution)
    }

    /// What would be wrong before a VM is looked for.
    fn would_refuse(&self, pool: &Arc<Pool>, request: &AcquireRequest) -> Option<Error> {
        let checked = self.check(pool, request).map(drop);
        let placed = || self.shared.tenants.take_place(&request.tenant).map(drop);
        let named = || self.reserve_name(request.vm_id.as_ref()).map(drop);
        checked
            .and_then(|()| self.journal.check_well())
            .and_then(|()| placed())
            .and_then(|()| named())
            .err()
    }
}

fn differences(pool: &Pool, request: &AcquireRequest) -> Vec<Difference> {
    let overflow = request.overflow.unwrap_or(pool.config().default_overflow);
    let mut differences = Vec::new();
    if overflow == Overflow::ColdOnly {
        differences.push(Difference {
            field: "overflow",
            requested: "OVERFLOW_COLD_ONLY".to_owned(),
            offered: "warm VMs".to_owned(),
            description: "it asks for a restore of its own",
        });
    }
    if !request.network_overrides.is_empty() {
        let names = request.network_overrides.iter().map(|it| it.iface_id.as_str());
        differences.push(Difference {
            field: "network_overrides",
            requested: names.collect::<Vec<_>>().join(", "),
            offered: "the snapshot's interfaces".to_owned(),
            description: "a warm VM has its network already",
        });
    }
    if !pool.provider.runtime.capabilities().rename {
        differences.push(Difference {
            field: "pool",
            requested: pool.id.to_string(),
            offered: "restores only".to_owned(),
            description: "its provider cannot rename, so nothing of it is warm",
        });
    }
    differences
}
