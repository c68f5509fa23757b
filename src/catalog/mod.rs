//! Who the tenants are and where their data lives: one immutable value, replaced as a whole.
//! Sources hand in a [`CatalogPlan`]; only a plan without faults becomes a [`Catalog`].

mod apart;
mod bounded;
mod build;
mod credential;
mod face;
mod holds;
mod hosts;
mod lazy;
mod live;
mod names;
mod plan;
mod roles;
mod rows;
mod service;
mod spread;
mod table;
mod tenant;
#[cfg(test)]
pub(crate) mod tests;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

pub use credential::{
    CertificateName, CertificateRecord, CredentialPlan, CredentialRecord, Credentials, ScramRecord,
    TenantName,
};
pub use face::Face;
pub use holds::{Database, Holds, Scope, database_of};
pub use hosts::Hosts;
pub use lazy::{CannotTell, Key, LOOKUP_TIME, Lookups, Pin, Whose};
pub use live::Live;
pub use plan::{
    CatalogPlan, ClusterPlan, Fault, LimitsPlan, NamesPlan, Place, RolePlan,
    TENANT_SETTING_DEFAULT, TIER_DEFAULT, TenantPlan, TokenPlan,
};
pub use rows::{Change, Composer, Found, Moved, Relocated, RoutePlan, Row, RowFault, Survey};
pub use service::{ActsFor, Service, ServicePlan, Services};
pub use table::TableSettings;
pub use tenant::{Cluster, Pooling, Route, Tenant, TenantId, TenantState};
pub use token::{
    NewToken, TOKEN_PREFIX, TokenRecord, new_token, token_id, token_line, token_sha256,
};

/// A map of which a changed copy shares all but the changed with the one it was made of.
type Map<K, V> = RedBlackTreeMapSync<K, V>;

/// All tenants, their tokens and clusters. A copy costs next to nothing, and so does a change.
#[derive(Clone, Default)]
pub struct Catalog {
    tenants: Map<TenantId, Arc<Tenant>>,
    services: Services,
    tokens: Map<String, Arc<TokenRecord>>,
    credentials: Credentials,
    clusters: Arc<BTreeMap<String, Arc<Cluster>>>,
    /// What is wrong with rows of a table, by the tenant's id.
    faults: Map<String, Arc<[RowFault]>>,
    /// Rows at fault, of which not all may be told.
    faulty: usize,
    /// What it was made of, but the tenants.
    words: Arc<CatalogPlan>,
    /// Ids of the file's tenants, once there are others.
    of_file: Arc<BTreeSet<String>>,
    /// Who is asked for tenants of the tables that are not in here, if that is not all of them.
    lookups: Option<Arc<Lookups>>,
    is_partial: bool,
    version: u64,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tenants, version) = (self.tenants.size(), self.version);
        write!(out, "Catalog {{ tenants: {tenants}, version: {version} }}")
    }
}

impl Catalog {
    /// Checks a plan and makes a catalog of it, at version 1.
    ///
    /// # Errors
    ///
    /// Every fault that was found, in the order of the plan.
    pub fn build(plan: &CatalogPlan) -> Result<Self, Vec<Fault>> {
        build::build(plan)
    }

    /// This catalog as the successor of another: its version is one higher, and so is that of
    /// every tenant that changed; a tenant that did not change stays the very same value.
    ///
    /// A tenant that is new gets the catalog's version, so that one who was removed and comes
    /// back later does not meet its own old number.
    pub fn next(mut self, previous: &Self) -> Self {
        self.version = previous.version + 1;
        let mut clusters = BTreeMap::clone(&self.clusters);
        for (name, cluster) in &mut clusters {
            keep_equal(cluster, previous.clusters.get(name));
        }
        self.clusters = Arc::new(clusters);
        let version = self.version;
        let next = |(id, tenant): (&TenantId, &Arc<Tenant>)| {
            (id.clone(), tenant.clone().follow(previous.tenants.get(id), version))
        };
        self.tenants = self.tenants.iter().map(next).collect();
        for (id, service) in &mut self.services {
            *service = service.clone().follow(previous.services.get(id), version);
        }
        self
    }

    /// Takes a tenant's tokens out.
    fn forget_tokens(&mut self, tenant: &TenantId, tokens: &[TokenPlan]) {
        for (id, _) in tokens.iter().filter_map(|token| token::parse_line(&token.line)) {
            if self.tokens.get(&id).is_some_and(|record| record.tenant == *tenant) {
                self.tokens.remove_mut(&id);
            }
        }
    }

    /// The tenant of this id, if it is known already; see [`Catalog::seek`].
    pub fn known(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// Whom a token stands for: a tenant that is known, or what a service has in its place.
    pub fn known_of_token(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.services.get(id).or_else(|| self.known(id))
    }

    /// What the service known by this id has in a tenant's place.
    pub fn service(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.services.get(id)
    }

    /// What is kept of the token with this id.
    pub fn token(&self, token_id: &str) -> Option<&Arc<TokenRecord>> {
        self.tokens.get(token_id)
    }

    /// What there is to log in with beside tokens.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// All tenants that are known, by id, for people.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// What services have in a tenant's place.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.services.values()
    }

    /// What is wrong with rows of a table, by the tenant's id.
    pub fn faults(&self) -> impl ExactSizeIterator<Item = (&str, &[RowFault])> {
        self.faults.iter().map(|(id, faults)| (id.as_str(), &**faults))
    }

    /// How many tenants of the tables are at fault.
    pub fn faulty(&self) -> usize {
        self.faulty.max(self.faults.size())
    }

    /// What is wrong with one tenant's rows.
    pub fn faults_of(&self, id: &str) -> &[RowFault] {
        self.faults.get(id).map_or(&[], |faults| faults)
    }

    /// What spreads stand for, by their names.
    pub fn spreads(&self) -> &BTreeMap<String, Vec<String>> {
        &self.words.spreads
    }

    /// All clusters by name.
    pub fn clusters(&self) -> impl ExactSizeIterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    /// Rises with every change; 1 at the start, 0 for the empty catalog.
    pub fn version(&self) -> u64 {
        self.version
    }
}

/// Tenants differ only where facts do, so equal clusters are worth sharing again.
fn keep_equal(cluster: &mut Arc<Cluster>, previous: Option<&Arc<Cluster>>) {
    if let Some(previous) = previous.filter(|previous| *previous == cluster) {
        *cluster = Arc::clone(previous);
    }
}
