//! [`Level`]: how much a cluster's tenants are protected from each other's SQL.

use crate::isolation::Isolation;

/// The levels of protection a cluster may have, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Residue and mistakes.
    #[default]
    Plain,
    /// Also statements that, read as text, reach for what is not the tenant's, in a database where
    /// the revoke pack has taken away what would hide them from reading.
    Guard,
    /// Also everything else that SQL can say: the context cannot be forged inside the database.
    Sealed,
    /// A login per tenant: what PostgreSQL itself calls another user.
    Strict,
}

impl Level {
    /// The word used in settings, console and log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Guard => "guard",
            Self::Sealed => "sealed",
            Self::Strict => "strict",
        }
    }

    /// What is in force for a tenant of a cluster at this level. Row tenants share a login, so
    /// sealed is as far as they get; schema and silo tenants have one of their own, so whatever
    /// is above plain is strict.
    pub fn in_force(self, isolation: Isolation) -> Self {
        match (self, isolation) {
            (Self::Plain, _) => Self::Plain,
            (level, Isolation::Row) => level.min(Self::Sealed),
            (_, Isolation::Schema | Isolation::Silo) => Self::Strict,
        }
    }

    /// What a level leaves open, in a few words for log and console; the manual says it in full.
    pub fn leaves_open(self, isolation: Isolation) -> &'static str {
        match (self, isolation) {
            (Self::Plain, Isolation::Row) => "SQL that sets the tenant's setting on purpose",
            (Self::Plain, _) => "statements of others in pg_stat_activity, settings without caps",
            (Self::Guard, _) => "functions, views and triggers that set the tenant's setting",
            (Self::Sealed, _) => "policies, views and functions that do not ask for the tenant",
            (Self::Strict, Isolation::Silo) => "names of databases and roles, load",
            (Self::Strict, _) => "names in shared catalogs, load, grants to PUBLIC",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_tenants_reach_sealed_and_others_strict() {
        assert_eq!(Level::Strict.in_force(Isolation::Row), Level::Sealed);
        assert_eq!(Level::Guard.in_force(Isolation::Row), Level::Guard);
        assert_eq!(Level::Guard.in_force(Isolation::Schema), Level::Strict);
        assert_eq!(Level::Plain.in_force(Isolation::Silo), Level::Plain);
    }
}
