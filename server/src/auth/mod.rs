//! Who calls. Whatever authenticates a call puts its [`Caller`] into the request's extensions,
//! which nothing on the wire can reach; until something does, everybody is one tenant and an
//! operator as well. This is the only place that says so.

use std::sync::LazyLock;

use hearth_pool::ids::Tenant;

/// Whoever has not been told apart.
static ANYBODY: LazyLock<Tenant> = LazyLock::new(Tenant::anonymous);

/// Who calls, and what it may see.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose VMs it gets.
    pub tenant: Tenant,
    /// It sees everybody's VMs, those that wait in pools too, and the processes behind them.
    pub is_operator: bool,
}

impl Caller {
    /// The caller of a request, as a layer before us has it; anybody where none has said.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        let anybody = || Self { tenant: ANYBODY.clone(), is_operator: true };
        extensions.get::<Self>().cloned().unwrap_or_else(anybody)
    }

    /// Whose VMs it may touch: `None` for everybody's.
    pub(crate) fn scope(&self) -> Option<&Tenant> {
        (!self.is_operator).then_some(&self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_who_a_layer_says_and_else_anybody() {
        let mut extensions = http::Extensions::new();
        let anybody = Caller::of(&extensions);
        assert!(anybody.is_operator && anybody.scope().is_none());
        let tenant = Tenant::new("t1");
        extensions.insert(Caller { tenant: tenant.clone(), is_operator: false });
        assert_eq!(Caller::of(&extensions).scope(), Some(&tenant));
    }
}
