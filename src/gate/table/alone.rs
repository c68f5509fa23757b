//! [`Alone`]: what the gate would say of a row that is not in the tables yet, beside the settings
//! file and no other row.

use super::records::{CredentialColumns, TenantColumns, TenantRecord};
use crate::catalog::{Catalog, Change, Composer, RowFault};

/// Looks at one row after the other.
pub struct Alone(Composer);

impl Alone {
    /// Beside the tenants, clusters and tiers of a settings file.
    pub fn beside(file: Catalog) -> Self {
        Self(Composer::new(file))
    }

    /// What is wrong with a row of `tenants`.
    pub fn tenant(&mut self, id: &str, columns: TenantColumns) -> Vec<RowFault> {
        let tenant = Some(columns);
        let record = TenantRecord { id: id.to_owned(), tenant, ..TenantRecord::default() };
        self.0.apply(vec![Change::Put(record.row())]);
        let faults = self.0.catalog().faults_of(id).to_vec();
        self.0.apply(vec![Change::Gone(id.to_owned())]);
        faults
    }

    /// What is wrong with a row of `credentials`.
    pub fn credential(columns: &CredentialColumns) -> Option<RowFault> {
        columns.fault()
    }
}
