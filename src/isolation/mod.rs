//! How tenants are kept apart, and the context that makes a server connection belong to one.
//! Data and SQL text only: nothing here does I/O.

pub mod carrier;
mod context;
mod level;
pub mod pack;
pub mod quote;
mod seal;
pub mod tenancy;

pub use context::{Context, ContextError, ContextPlan, NAME_BYTES_MAX, name_sql, set_sql};
pub use level::Level;
pub use seal::{Seal, SealKeyError, SealKeys, StoredKey};

/// How a tenant's data is kept apart from the others'. AWS's names for the same three: pool,
/// bridge, silo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Shared tables; row security policies compare a setting with the tenant's id.
    Row,
    /// A schema per tenant, reached by `search_path`, with a login per tenant.
    Schema,
    /// A database per tenant.
    Silo,
}

impl Isolation {
    const ALL: [Self; 3] = [Self::Row, Self::Schema, Self::Silo];

    /// The word used in settings, console and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Schema => "schema",
            Self::Silo => "silo",
        }
    }

    /// The one of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == word)
    }
}
