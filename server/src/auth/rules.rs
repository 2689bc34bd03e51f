//! What each method takes: the one table.
//!
//! A method that is served and has no line here keeps the server from starting, and so fails every
//! test; a test walks the descriptors that are served, too.

use super::{Role, Roles};

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, known or not.
    Anyone,
    /// Whoever is known.
    Known,
    /// Who sees something: a tenant its own, a viewer and an operator everybody's.
    Read,
    /// Who sees what is the node's: a viewer and an operator.
    Inspect,
    /// Who uses VMs: a tenant its own, an operator everybody's.
    Use,
    /// Who manages the node: an operator.
    Manage,
}

/// What of a method's reach is the caller's tenant's only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing: it is about the node, or about nobody's.
    Node,
    /// What its tenant has; another's is not found.
    Own,
    /// Pools that its tenant was granted; others are not found.
    Granted,
}

/// What one method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) access: Access,
    pub(crate) scope: Scope,
}

/// Of a method that there is not: strangers do not even learn that.
pub(crate) const UNKNOWN: Rule = Rule { access: Access::Known, scope: Scope::Node };

macro_rules! rules {
    ($($service:literal { $($method:ident: $access:ident $scope:ident,)* })*) => {
        &[$($((
            concat!("/", $service, "/", stringify!($method)),
            Rule { access: Access::$access, scope: Scope::$scope },
        ),)*)*]
    };
}

/// Every method, by its path.
pub(crate) const RULES: &[(&str, Rule)] = rules! {
    "hearth.v1.VmService" {
        AcquireVm: Use Granted,
        ReleaseVm: Use Own,
        RenewLease: Use Own,
        CreateVm: Use Own,
        GetVm: Read Own,
        ListVms: Read Own,
        StartVm: Use Own,
        StopVm: Use Own,
        RenameVm: Use Own,
        DestroyVm: Use Own,
        SnapshotVm: Use Own,
        GetSnapshot: Read Own,
        ListSnapshots: Read Own,
        DeleteSnapshot: Use Own,
        FreezeVm: Use Own,
        ResumeVm: Use Own,
        WatchVms: Read Own,
        // What a VM says and is told is its tenant's, and no viewer's.
        ReadConsole: Use Own,
        ConnectVm: Use Own,
        ExecVm: Use Own,
    }
    "hearth.v1.PoolService" {
        CreatePool: Manage Node,
        GetPool: Read Granted,
        ListPools: Read Granted,
        UpdatePool: Manage Node,
        DeletePool: Manage Node,
        PrewarmPool: Manage Node,
        CancelPrewarm: Manage Node,
        ExplainPool: Read Granted,
        ResolvePool: Read Granted,
        DrainPool: Manage Node,
        WatchPools: Read Granted,
    }
    "hearth.v1.TemplateService" {
        CreateTemplate: Manage Node,
        UpdateTemplate: Manage Node,
        ImportTemplate: Manage Node,
        GetTemplate: Inspect Node,
        ListTemplates: Inspect Node,
        ListGenerations: Inspect Node,
        DeleteTemplate: Manage Node,
        RollbackTemplate: Manage Node,
    }
    "hearth.v1.ArtifactService" {
        GetArtifact: Read Own,
        ListArtifacts: Read Own,
        DeleteArtifact: Use Own,
        ExportArtifact: Use Own,
    }
    "hearth.v1.NodeService" {
        GetNode: Read Node,
        Drain: Manage Node,
        Undrain: Manage Node,
        SetLogLevel: Manage Node,
    }
    "google.longrunning.Operations" {
        ListOperations: Read Own,
        GetOperation: Read Own,
        DeleteOperation: Use Own,
        CancelOperation: Use Own,
        WaitOperation: Read Own,
    }
    "grpc.health.v1.Health" {
        // Probes have no token; a stream is for whoever is known.
        Check: Anyone Node,
        Watch: Known Node,
    }
    "grpc.reflection.v1.ServerReflection" {
        ServerReflectionInfo: Known Node,
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        ServerReflectionInfo: Known Node,
    }
};

impl Access {
    /// Whoever has `roles` may.
    pub(crate) const fn allows(self, roles: Roles) -> bool {
        let (tenant, operator) = (roles.has(Role::Tenant), roles.has(Role::Operator));
        match self {
            Self::Anyone | Self::Known => true,
            Self::Read => tenant || operator || roles.has(Role::Viewer),
            Self::Inspect => operator || roles.has(Role::Viewer),
            Self::Use => tenant || operator,
            Self::Manage => operator,
        }
    }

    /// A viewer sees everybody's by it.
    pub(crate) const fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Inspect)
    }

    /// What is done by it is kept in the audit.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Self::Use | Self::Manage)
    }

    /// What it takes, for whoever lacks it.
    pub(crate) const fn takes(self) -> &'static str {
        match self {
            Self::Anyone | Self::Known => "no role",
            Self::Read => "the role tenant, viewer or operator",
            Self::Inspect => "the role viewer or operator",
            Self::Use => "the role tenant or operator",
            Self::Manage => "the role operator",
        }
    }
}

/// The method at `path`, and its rule.
pub(crate) fn rule(path: &str) -> Option<(&'static str, Rule)> {
    RULES.iter().find(|(known, _)| *known == path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_is_there_once() {
        let paths: BTreeSet<_> = RULES.iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), RULES.len());
    }

    #[test]
    fn roles_give_what_they_are_for_and_no_more() {
        let allowed = |roles: &[Role]| {
            let roles = Roles::of(roles);
            [Access::Known, Access::Read, Access::Inspect, Access::Use, Access::Manage]
                .map(|access| access.allows(roles))
        };
        assert_eq!(allowed(&[]), [true, false, false, false, false]);
        assert_eq!(allowed(&[Role::Tenant]), [true, true, false, true, false]);
        assert_eq!(allowed(&[Role::Viewer]), [true, true, true, false, false]);
        assert_eq!(allowed(&[Role::Operator]), [true, true, true, true, true]);
    }
}
