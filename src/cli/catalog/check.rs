//! [`Checker`]: what the gate would say of a row, before it is in the table.

use super::format::{Row, Wrong};
use super::sheet::{Column, Sheet};
use crate::catalog::RowFault;
use crate::config::Config;
use crate::gate::{Alone, CredentialColumns, TenantColumns};

/// Looks at rows of a file, each beside the settings and no other row.
pub(super) struct Checker {
    alone: Alone,
    sheet: Sheet,
    names: Vec<&'static str>,
}

impl Checker {
    /// For rows of these columns.
    pub fn new(config: Config, sheet: Sheet, columns: &[Column]) -> Self {
        let names = columns.iter().map(|column| column.name).collect();
        Self { alone: Alone::beside(config.catalog), sheet, names }
    }

    /// What is wrong with a row, as far as the file has all of it.
    pub fn check(&mut self, row: &Row) -> Result<(), Wrong> {
        let faults = match self.sheet {
            Sheet::Tenants => self.tenant(row).unwrap_or_default(),
            Sheet::Credentials => self.credential(row).into_iter().collect(),
        };
        match faults.first() {
            None => Ok(()),
            Some(RowFault { column, message, hint, .. }) => {
                let column = if column.is_empty() { "" } else { &format!("{column}: ") };
                let hint = if hint.is_empty() { "" } else { &format!(" ({hint})") };
                Err(Wrong { line: row.0, message: format!("{column}{message}{hint}") })
            }
        }
    }

    /// Nothing is said where the file leaves columns to what the table has.
    fn tenant(&mut self, row: &Row) -> Option<Vec<RowFault>> {
        let text = |name: &str| self.value(row, name);
        let whole = Sheet::Tenants.columns().iter().all(|column| self.names.contains(&column.name));
        let required = |name| text(name).unwrap_or_default();
        let columns = TenantColumns {
            isolation: required("isolation"),
            cluster: required("cluster"),
            connection_string: text("connection_string"),
            schema: text("schema"),
            role: text("role"),
            tier: text("tier"),
            state: required("state"),
            overrides: required("overrides"),
            placed: 0,
        };
        let id = required("id");
        whole.then(|| self.alone.tenant(&id, columns))
    }

    fn credential(&self, row: &Row) -> Option<RowFault> {
        let text = |name: &str| self.value(row, name);
        let has_more = text("acts_for").is_some() || text("options").is_some_and(|it| it != "{}");
        let columns = CredentialColumns {
            id: 0,
            kind: text("kind").unwrap_or_default(),
            name: text("name"),
            hash: text("hash"),
            scram_verifier: text("scram_verifier"),
            cert_name: text("cert_name"),
            role: text("role"),
            read_only: text("read_only").as_deref() == Some("true"),
            has_more,
            // When is PostgreSQL's to read; that there is a time is what counts here.
            expires_at: text("expires_at").map(|_| 0),
            revoked: text("revoked_at").is_some(),
        };
        Alone::credential(&columns)
    }

    fn value(&self, row: &Row, name: &str) -> Option<String> {
        let at = self.names.iter().position(|known| *known == name)?;
        row.1.get(at).cloned().flatten()
    }
}
