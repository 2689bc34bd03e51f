//! Warm VMs that are kept for tenants.

use std::collections::HashMap;

use crate::ids::Tenant;

/// Warm VMs that are kept for tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    by_tenant: HashMap<Tenant, usize>,
    total: usize,
}

impl Floors {
    /// So many for each.
    pub fn new(by_tenant: HashMap<Tenant, usize>) -> Self {
        let total = by_tenant.values().sum();
        Self { by_tenant, total }
    }

    /// How many are kept in all.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// How many of the warm VMs are kept from `tenant`.
    pub(super) fn kept_from(&self, tenant: &Tenant) -> usize {
        self.total - self.by_tenant.get(tenant).copied().unwrap_or_default()
    }
}
