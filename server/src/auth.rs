//! Who calls. Until callers are authenticated everybody is one tenant and an operator as well:
//! this is the only place that says so.

use std::sync::LazyLock;

use hearth_pool::ids::Tenant;

/// Whoever has not been told apart.
static ANYBODY: LazyLock<Tenant> = LazyLock::new(Tenant::anonymous);

/// Who calls, and what it may see.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Whose VMs it gets.
    pub(crate) tenant: Tenant,
    /// It sees everybody's VMs, those that wait in pools too, and the processes behind them.
    pub(crate) is_operator: bool,
}

impl Caller {
    /// The caller of a request, as far as its connection and metadata tell.
    pub(crate) fn of(_metadata: &tonic::metadata::MetadataMap) -> Self {
        Self { tenant: ANYBODY.clone(), is_operator: true }
    }

    /// Whose VMs it may touch: `None` for everybody's.
    pub(crate) fn scope(&self) -> Option<&Tenant> {
        (!self.is_operator).then_some(&self.tenant)
    }
}
