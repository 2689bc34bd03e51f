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

/// Defines a type of names that are others' to choose. Clones are the same text.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
        #[serde(from = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The one that is written so.
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// As it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

text_type! {
    /// Who asks.
    Tenant
}

text_type! {
    /// What a caller calls a request of its own, so that it can ask again and be known.
    RequestId
}

impl Tenant {
    /// Whoever has not been told apart.
    pub fn anonymous() -> Self {
        Self::new("default")
    }
}
