//! [`Holds`]: what the console has paused or disabled, until it says otherwise or the gate ends; a
//! reload leaves it as it is. Names are those of tenants and databases of the catalog.

use std::collections::BTreeSet;

use crate::catalog::{Catalog, Tenant};
use crate::console::{Fault, Target};

/// A cluster and a database on it.
pub type Database = (String, String);

/// What is held back.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// Requests wait.
    pub paused: Names,
    /// Logins are refused, sessions end.
    pub disabled: Names,
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

/// The name a database has in the console: with its cluster behind it if others have one of it.
pub fn name_of(database: &Database, all: &BTreeSet<Database>) -> String {
    let (cluster, name) = database;
    match all.iter().filter(|(_, other)| other == name).count() {
        0 | 1 => name.clone(),
        _ => format!("{name}@{cluster}"),
    }
}

/// Every database that a tenant's route leads to.
pub fn databases(catalog: &Catalog) -> BTreeSet<Database> {
    catalog.tenants().map(|tenant| database_of(tenant)).collect()
}

/// Finds what a target means.
pub fn resolve(target: &Target, catalog: &Catalog) -> Result<Scope, Fault> {
    let (name, tenant, database) = match target {
        Target::All => return Ok(Scope::All),
        Target::Named(name) => (name, true, true),
        Target::Tenant(name) => (name, true, false),
        Target::Database(name) => (name, false, true),
    };
    let tenant = catalog.known(name).filter(|_| tenant);
    let fits = |it: &Database| it.1 == *name || *name == format!("{}@{}", it.1, it.0);
    let found = || databases(catalog).into_iter().filter(fits).collect::<Vec<_>>();
    let databases = if database { found() } else { Vec::new() };
    match (tenant, databases.is_empty()) {
        (None, true) => Err(Fault::UnknownTarget { name: name.clone() }),
        (None, false) => Ok(Scope::Databases(databases)),
        (Some(tenant), true) => Ok(Scope::Tenant(tenant.id.to_string())),
        (Some(tenant), false) => {
            // A silo's database often has its tenant's name, and then both mean the same.
            let scope = Scope::Databases(databases);
            let others = catalog.tenants().any(|it| it.id != tenant.id && scope.covers(it));
            match scope.covers(tenant) && !others {
                true => Ok(Scope::Tenant(tenant.id.to_string())),
                false => Err(Fault::AmbiguousTarget { name: name.clone() }),
            }
        }
    }
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
