//! [`Work`]: a catalog in the making.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::build::Builder;
use crate::catalog::plan::CatalogPlan;
use crate::catalog::rows::RowFault;
use crate::catalog::rows::compose::FAULTS_MAX;
use crate::catalog::{Catalog, Tenant};

/// A catalog in the making.
pub(super) struct Work<'plan> {
    pub builder: Builder<'plan>,
    pub next: Catalog,
    /// Who was there before, of those that are looked at.
    pub before: BTreeMap<String, Option<Arc<Tenant>>>,
    /// Who was asked for, and stays until the next time.
    pub arrived: BTreeSet<String>,
}

impl<'plan> Work<'plan> {
    pub fn begin(plan: &'plan CatalogPlan, catalog: &Catalog) -> Self {
        let mut next = catalog.clone();
        next.version += 1;
        let builder = Builder::over(plan, &next.clusters);
        Self { builder, next, before: BTreeMap::new(), arrived: BTreeSet::new() }
    }

    /// Notes what is wrong with a tenant's rows, as far as there is room for it.
    pub fn tell(&mut self, id: &str, mut faults: Vec<RowFault>) {
        faults.iter_mut().for_each(RowFault::shorten);
        if !faults.is_empty() && self.next.faults.size() < FAULTS_MAX {
            self.next.faults.insert_mut(id.to_owned(), faults.into());
        }
    }

    /// Takes over the credentials of the tenant that was built last, but those that stand somewhere
    /// else already.
    pub fn take_credentials(&mut self) -> Vec<RowFault> {
        let mut faults = Vec::new();
        for (id, record) in std::mem::take(&mut self.builder.tokens) {
            if let Some(other) = self.next.tokens.get(&id) {
                let message = format!("token {id} stands at tenant \"{}\" too", other.tenant);
                let hint = "Every token belongs to exactly one tenant.";
                faults.push(RowFault::credential("hash", message, hint));
                continue;
            }
            self.next.tokens.insert_mut(id, record);
        }
        let credentials = std::mem::take(&mut self.builder.credentials);
        let wrong = self.next.credentials.absorb(&credentials);
        let hint = "A certificate stands for exactly one tenant.";
        let told = |message| RowFault::credential("cert_name", message, hint);
        faults.extend(wrong.into_iter().map(told));
        faults.extend(self.builder.token_faults.iter().map(RowFault::of));
        faults
    }
}
