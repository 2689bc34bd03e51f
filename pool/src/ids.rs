//! Typed names of what the pool manages.

use hearth_providers::id_type;

id_type! {
    /// The name of a pool.
    PoolId
}

id_type! {
    /// The name of a template.
    TemplateId
}

id_type! {
    /// The name of an artifact.
    ArtifactId
}

/// Who asks. Until callers are authenticated everybody is [`Tenant::anonymous`].
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(from = "String", into = "String")]
pub struct Tenant(std::sync::Arc<str>);

impl From<String> for Tenant {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl Tenant {
    /// The tenant called `name`.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Whoever has not been told apart.
    pub fn anonymous() -> Self {
        Self::new("default")
    }

    /// The tenant's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
