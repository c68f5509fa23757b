//! What the console's targets mean: tenants and databases of the catalog, by name.

use std::collections::BTreeSet;

use crate::catalog::{Catalog, Database, Scope, database_of};
use crate::console::{Fault, Target};

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
