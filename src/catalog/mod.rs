//! Who the tenants are and where their data lives: one immutable value, replaced as a whole.
//! Sources hand in a [`CatalogPlan`]; only a plan without faults becomes a [`Catalog`].

mod apart;
mod build;
mod credential;
mod face;
mod live;
mod names;
mod plan;
mod roles;
mod tenant;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use credential::{
    CertificateName, CertificateRecord, CredentialKind, CredentialPlan, CredentialRecord,
    Credentials, ScramRecord, TenantName,
};
pub use face::Face;
pub use live::Live;
pub use plan::{
    CatalogPlan, ClusterPlan, Fault, LimitsPlan, NamesPlan, Place, RolePlan,
    TENANT_SETTING_DEFAULT, TIER_DEFAULT, TenantPlan, TokenPlan,
};
pub use tenant::{Cluster, Pooling, Route, Tenant, TenantId, TenantState};
pub use token::{
    NewToken, TOKEN_PREFIX, TokenRecord, new_token, token_id, token_line, token_sha256,
};

/// All tenants, their tokens and clusters.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    tokens: HashMap<String, TokenRecord>,
    credentials: Credentials,
    clusters: BTreeMap<String, Arc<Cluster>>,
    version: u64,
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
        for (name, cluster) in &mut self.clusters {
            keep_equal(cluster, previous.clusters.get(name));
        }
        for (id, tenant) in &mut self.tenants {
            match previous.tenants.get(id) {
                Some(old) if old.same_facts(tenant) => *tenant = Arc::clone(old),
                // Servers are known to be bound to a context by its identity: one that did not
                // change stays the same, so that no reload has them bound anew for nothing.
                Some(old) if old.context == tenant.context => {
                    *tenant = Arc::new(tenant.copy(Arc::clone(&old.context), self.version));
                }
                _ => *tenant = Arc::new(tenant.copy(tenant.context.clone(), self.version)),
            }
        }
        self
    }

    /// The tenant of this id. Waits where a source has to be asked; this one never does.
    pub async fn find(&self, id: &str) -> Option<Arc<Tenant>> {
        self.tenants.get(id).map(Arc::clone)
    }

    /// The tenant of this id, if it is known already.
    pub fn known(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// What is kept of the token with this id.
    pub fn token(&self, token_id: &str) -> Option<&TokenRecord> {
        self.tokens.get(token_id)
    }

    /// What there is to log in with beside tokens.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// All tenants by id, for people.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.values()
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
