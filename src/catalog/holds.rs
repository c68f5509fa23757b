//! [`Holds`]: what the console has paused, disabled or made read-only, until it says otherwise or
//! the gate ends; a reload leaves it as it is. Names are those of tenants and databases of the
//! catalog.

use std::collections::BTreeSet;

use crate::catalog::Tenant;

/// A cluster and a database on it.
pub type Database = (String, String);

/// What is held back.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// Requests wait.
    pub paused: Names,
    /// Logins are refused, sessions end.
    pub disabled: Names,
    /// Nothing is written.
    pub read_only: Names,
    /// Requests wait while their tenant moves to another route.
    pub moving: Names,
}

impl Holds {
    /// Whether the tenant's requests wait, for all that the console says.
    pub fn wait(&self, tenant: &Tenant) -> bool {
        self.paused.covers(tenant) || self.moving.covers(tenant)
    }
}

/// A set of tenants.
#[derive(Clone, Debug, Default)]
pub struct Names {
    all: bool,
    tenants: BTreeSet<String>,
    databases: BTreeSet<Database>,
}

/// What a target turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Tenant(String),
    Databases(Vec<Database>),
}

impl Scope {
    /// Whether the tenant is meant.
    pub fn covers(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(id) => tenant.id.as_str() == id,
            Self::Databases(databases) => databases.contains(&database_of(tenant)),
        }
    }
}

/// Where a tenant's data is.
pub fn database_of(tenant: &Tenant) -> Database {
    (tenant.route.cluster.name.clone(), tenant.route.conninfo.dbname.clone())
}

impl Names {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.all && self.tenants.is_empty() && self.databases.is_empty()
    }

    /// Whether the tenant is in it, by itself or with its database.
    pub fn covers(&self, tenant: &Tenant) -> bool {
        if self.is_empty() {
            return false;
        }
        self.all
            || self.tenants.contains(tenant.id.as_str())
            || self.covers_database(&database_of(tenant))
    }

    /// Whether a whole database is in it.
    pub fn covers_database(&self, database: &Database) -> bool {
        self.all || self.databases.contains(database)
    }

    /// Tenants that were named one by one.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().map(String::as_str)
    }

    /// Puts a scope in.
    pub fn add(&mut self, scope: &Scope) {
        match scope {
            Scope::All => self.all = true,
            Scope::Tenant(id) => drop(self.tenants.insert(id.clone())),
            Scope::Databases(databases) => self.databases.extend(databases.iter().cloned()),
        }
    }

    /// Takes out what was put in under this very name; with `All` everything. False if it was not
    /// in.
    pub fn remove(&mut self, scope: &Scope) -> bool {
        match scope {
            Scope::All => !std::mem::take(self).is_empty(),
            Scope::Tenant(id) => self.tenants.remove(id),
            Scope::Databases(databases) => {
                databases.iter().fold(false, |any, it| self.databases.remove(it) | any)
            }
        }
    }
}
