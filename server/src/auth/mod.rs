//! Who calls, and what it may do.
//!
//! [`identities`] says who a token, a certificate or a peer's user id is, [`rules`] what each method
//! takes, and [`guard`] holds every call to both before a service sees it. What it finds it puts into
//! the request's extensions as a [`Caller`], which nothing on the wire can reach: a program that has
//! a server in it says by the same extension who calls. Services ask a caller for its scope and its
//! grants, and for nothing else.
//!
//! Where nobody is told apart, everybody is one tenant and an operator as well. This is the only
//! place that says so.

pub(crate) mod guard;
pub(crate) mod identities;
pub(crate) mod jwt;
pub(crate) mod rules;
pub mod token;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};

use hearth_pool::ids::{PoolId, Tenant};
use serde::{Deserialize, Serialize};

/// Whoever has not been told apart.
static ANYBODY: LazyLock<Caller> = LazyLock::new(|| Caller::operator(Tenant::anonymous()));

/// What an identity may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Gets VMs of pools that its tenant has been granted, and uses what its tenant has.
    Tenant,
    /// Does everything, with everybody's.
    Operator,
    /// Sees everybody's, and changes nothing.
    Viewer,
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Those in `roles`.
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |set, role| set | 1 << *role as u8))
    }

    /// `role` is one of them.
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }
}

/// What a tenant may use beside what is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// Every pool.
    pub(crate) all_pools: bool,
    /// These pools.
    pub(crate) pools: BTreeSet<PoolId>,
    /// It may name what is the host's: files, images and network devices.
    pub(crate) host_names: bool,
}

/// One that can call.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// What it is called in the log and in the audit.
    pub(crate) name: Arc<str>,
    /// Whose VMs it gets.
    pub(crate) tenant: Tenant,
    /// What it may do.
    pub(crate) roles: Roles,
    /// What its tenant may use.
    pub(crate) grants: Arc<Grants>,
    /// Calls of its tenant that are under way.
    pub(crate) calls: Arc<AtomicUsize>,
}

/// Who makes a call, and what that may see.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose VMs it gets.
    pub tenant: Tenant,
    identity: Arc<Identity>,
    /// By the rule of the method that it calls it sees everybody's.
    sees_all: bool,
}

impl Caller {
    /// One that does everything, and gets VMs for `tenant`.
    pub fn operator(tenant: Tenant) -> Self {
        Self::with_role(tenant, Role::Operator)
    }

    /// One that uses what is `tenant`'s, every pool, and the names of the host: whoever has a server in
    /// it, and lets others say them, refuses them itself.
    pub fn tenant(tenant: Tenant) -> Self {
        Self::with_role(tenant, Role::Tenant)
    }

    fn with_role(tenant: Tenant, role: Role) -> Self {
        let (name, roles) = (Arc::from(tenant.as_str()), Roles::of(&[role]));
        let grants = Arc::new(Grants { all_pools: true, host_names: true, ..Grants::default() });
        let calls = Arc::default();
        Self::known(Arc::new(Identity { name, tenant, roles, grants, calls }))
    }

    /// One that may nothing, and has nothing.
    pub(crate) fn nobody() -> Self {
        static NOBODY: LazyLock<Arc<Identity>> = LazyLock::new(|| {
            let (roles, grants, calls) = Default::default();
            Arc::new(Identity { name: "".into(), tenant: Tenant::new(""), roles, grants, calls })
        });
        Self::known(Arc::clone(&NOBODY))
    }

    /// This one.
    pub(crate) fn known(identity: Arc<Identity>) -> Self {
        let (tenant, sees_all) = (identity.tenant.clone(), identity.roles.has(Role::Operator));
        Self { tenant, identity, sees_all }
    }

    /// The caller of a request, as a layer before us has it; anybody where none has said.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().unwrap_or_else(|| &ANYBODY).clone()
    }

    /// As it is for a method by whose rule it sees everybody's.
    pub(crate) const fn seeing_all(mut self) -> Self {
        self.sees_all = true;
        self
    }

    /// Whose VMs it may touch, and for a method that changes nothing: see. `None`: everybody's.
    pub(crate) fn scope(&self) -> Option<&Tenant> {
        (!self.sees_all).then_some(&self.tenant)
    }

    /// It manages the node.
    pub(crate) fn is_operator(&self) -> bool {
        self.roles().has(Role::Operator)
    }

    /// Calls of its tenant that are under way.
    pub(crate) fn calls(&self) -> &Arc<AtomicUsize> {
        &self.identity.calls
    }

    /// What it may do.
    pub(crate) fn roles(&self) -> Roles {
        self.identity.roles
    }

    /// What it is called in the audit.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    /// `pool` is there for it.
    pub(crate) fn may_use(&self, pool: &PoolId) -> bool {
        let grants = &self.identity.grants;
        self.sees_all || grants.all_pools || self.is_operator() || grants.pools.contains(pool)
    }

    /// It may name files, images and devices of the host.
    pub(crate) fn may_name_host(&self) -> bool {
        self.is_operator() || self.identity.grants.host_names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_who_a_layer_says_and_else_anybody() {
        let mut extensions = http::Extensions::new();
        let anybody = Caller::of(&extensions);
        assert!(anybody.is_operator() && anybody.scope().is_none());
        let tenant = Tenant::new("t1");
        extensions.insert(Caller::tenant(tenant.clone()));
        assert_eq!(Caller::of(&extensions).scope(), Some(&tenant));
    }

    #[test]
    fn nobody_may_nothing() {
        let nobody = Caller::nobody();
        assert_eq!(nobody.scope(), Some(&Tenant::new("")));
        assert!(!nobody.is_operator() && !nobody.may_name_host());
        assert!(!nobody.may_use(&PoolId::parse("web").unwrap()));
    }

    #[test]
    fn a_tenant_uses_what_it_was_granted() {
        let (web, other) = (PoolId::parse("web").unwrap(), PoolId::parse("other").unwrap());
        let grants = Grants { pools: BTreeSet::from([web.clone()]), ..Grants::default() };
        let identity = |roles: &[Role]| Identity {
            name: "ci".into(),
            tenant: Tenant::new("ci"),
            roles: Roles::of(roles),
            grants: Arc::new(grants.clone()),
            calls: Arc::default(),
        };
        let tenant = Caller::known(Arc::new(identity(&[Role::Tenant])));
        assert!(tenant.may_use(&web) && !tenant.may_use(&other) && !tenant.may_name_host());
        let operator = Caller::known(Arc::new(identity(&[Role::Tenant, Role::Operator])));
        assert!(operator.may_use(&other) && operator.may_name_host());
        // To see is not to use.
        let viewer = Caller::known(Arc::new(identity(&[Role::Tenant, Role::Viewer])));
        assert!(!viewer.may_use(&other) && viewer.scope().is_some());
        assert!(viewer.clone().seeing_all().may_use(&other));
        assert!(viewer.seeing_all().scope().is_none());
    }
}
