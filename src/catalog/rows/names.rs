//! What names mean that operators say, of all tenants there are, whether or not they are known: as
//! far as that follows from what all of them take up. Nobody is asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Composer, Database, Tenant, TenantId, database_of};
use crate::isolation::Isolation;

impl Composer {
    /// Whether there is a tenant of this id, or may be one while not all rows are held against each
    /// other.
    pub fn has(&self, id: &str) -> bool {
        let may_be = || self.position.is_none() && TenantId::new(id).is_some();
        self.catalog.known(id).is_some()
            || self.is_partial && (self.claims.standing(id).is_some() || may_be())
    }

    /// Databases of this name, with or without their clusters' behind it, that tenants lead to.
    pub fn databases(&self, name: &str) -> Vec<Database> {
        let fits = |it: &Database| it.1 == name || *name == format!("{}@{}", it.1, it.0);
        let known = self.catalog.tenants().map(|tenant| database_of(tenant)).filter(fits);
        let mut found: BTreeSet<Database> = known.collect();
        if self.is_partial {
            for cluster in self.catalog.clusters() {
                let cluster = cluster.name.as_str();
                let bare = name.strip_suffix(cluster).and_then(|it| it.strip_suffix('@'));
                let named = [Some(name), bare].into_iter().flatten();
                let named = named.filter(|it| self.claims.in_database(cluster, it) > 0);
                found.extend(named.map(|it| (cluster.to_owned(), it.to_owned())));
            }
        }
        found.into_iter().collect()
    }

    /// Whether others than this tenant lead to a database.
    pub fn is_shared(&self, database: &Database, tenant: &Arc<Tenant>) -> bool {
        let is_there = |it: &&Arc<Tenant>| database_of(it) == *database;
        if !self.is_partial {
            return self.catalog.tenants().filter(is_there).any(|it| it.id != tenant.id);
        }
        let own = tenant.faces().filter(is_there).map(|face| face.isolation == Isolation::Silo);
        let own = own.collect::<BTreeSet<bool>>().len();
        self.claims.in_database(&database.0, &database.1) > own
    }
}
