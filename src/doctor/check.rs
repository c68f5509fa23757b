//! [`Check`]: one question and what its answers mean; [`all`]: the list of them, which the manual's
//! table is compared with.

use crate::catalog::Cluster;
use crate::doctor::checks;
use crate::isolation::pack::Weight;
use crate::isolation::{Isolation, Level};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A tenant can reach what is another's.
    Leak,
    /// Nothing is reached yet, but one more mistake suffices, or it tells what another tenant has.
    Weak,
    /// Worth knowing; does not count for the exit code.
    Advice,
}

impl Severity {
    /// The word in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Weak => "weak",
            Self::Advice => "advice",
        }
    }
}

/// One question.
#[derive(Debug)]
pub struct Check {
    /// Never given to another question, once released.
    pub code: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    /// What a tenant could do, a sentence.
    pub why: &'static str,
    /// What to do about it, a sentence.
    pub fix: &'static str,
    /// Whose database is asked.
    pub scope: Scope,
    pub levels: Levels,
    pub source: Source,
    /// SQL that a superuser repairs it with. `{column}` stands for a column of the answer; with a
    /// NULL in it, or without a text, a person has to see to it.
    pub(super) repair: &'static str,
}

/// Databases that a question is for, by the tenants in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any.
    Any,
    Row,
    /// With a login of the tenant's own.
    Schema,
    Silo,
}

/// Levels of the cluster that a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    All,
    /// Not plain, where a plain SET does the same, and not sealed, where it does nothing.
    Guard,
    FromGuard,
    FromSealed,
    /// Sealed, and below it where the settings have keys to seal with.
    Sealing,
}

/// Where the answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A query behind `PRELUDE`. Its rows have a column `object`, a column `detail` that may be
    /// NULL, and those that `repair` names, all text.
    Catalogs(&'static str),
    /// The revoke pack's own question.
    Pack(Weight),
    /// What the gate itself says of the login when it connects.
    Gate,
    /// Looking at rows as one tenant and then as another.
    Probe,
}

/// All questions, in the order of their codes.
pub fn all() -> impl Iterator<Item = &'static Check> {
    checks::ALL.iter().copied().flatten()
}

/// The question with this code.
pub(super) fn find(code: &str) -> Option<&'static Check> {
    all().find(|check| check.code == code)
}

impl Check {
    /// Whether there is SQL that repairs it, at least in some cases.
    pub fn mends(&self) -> bool {
        !self.repair.is_empty()
    }
}

impl Scope {
    /// Whether it is for a database with these tenants.
    pub(super) fn covers(self, isolations: &[Isolation]) -> bool {
        match self {
            Self::Any => true,
            Self::Row => isolations.contains(&Isolation::Row),
            Self::Schema => isolations.contains(&Isolation::Schema),
            Self::Silo => isolations.contains(&Isolation::Silo),
        }
    }
}

impl Levels {
    /// Whether it is for this cluster.
    pub(super) fn cover(self, cluster: &Cluster) -> bool {
        let level = cluster.level;
        match self {
            Self::All => true,
            Self::Guard => level == Level::Guard,
            Self::FromGuard => level >= Level::Guard,
            Self::FromSealed => level >= Level::Sealed,
            Self::Sealing => level >= Level::Sealed || cluster.seal_keys.is_some(),
        }
    }
}
