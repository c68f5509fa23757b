//! [`Checker`]: what the gate would say of a row, before it is in the table.

use std::pin::pin;

use futures::TryStreamExt;
use tokio_postgres::{Client, Error};

use super::format::{Row, Wrong};
use super::sheet::{Column, Sheet};
use crate::catalog::RowFault;
use crate::config::Config;
use crate::gate::{Alone, CredentialColumns, TenantColumns};

/// What the gate reads of a tenant's row.
const READ: [&str; 9] = [
    "id",
    "isolation",
    "cluster",
    "connection_string",
    "schema",
    "role",
    "tier",
    "state",
    "overrides",
];

/// Most faults that are told of.
const FAULTS_MAX: usize = 50;

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

    /// Whether the file has all that the gate reads. Otherwise rows are looked at when they are
    /// merged with those of the table.
    pub fn sees_all(&self) -> bool {
        match self.sheet {
            Sheet::Tenants => READ.iter().all(|name| self.names.contains(name)),
            Sheet::Credentials => {
                self.sheet.columns().iter().all(|it| self.names.contains(&it.name))
            }
        }
    }

    /// Looks at rows as they would be in the table: a line, and every column of the sheet as text.
    pub async fn check_merged(&mut self, client: &Client, sql: &str) -> Result<Vec<Wrong>, Error> {
        self.names = self.sheet.columns().iter().map(|column| column.name).collect();
        let mut wrongs = Vec::new();
        let mut rows = pin!(client.query_raw(sql, Vec::<String>::new()).await?);
        while let Some(row) = rows.try_next().await? {
            let line = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
            let values = (1..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
            if let Err(wrong) = self.check(&(line, values)) {
                wrongs.push(wrong);
            }
        }
        wrongs.truncate(FAULTS_MAX);
        Ok(wrongs)
    }

    /// What is wrong with a row, if it has all that the gate reads.
    pub fn check(&mut self, row: &Row) -> Result<(), Wrong> {
        let faults = match self.sheet {
            _ if !self.sees_all() => Vec::new(),
            Sheet::Tenants => self.tenant(row),
            Sheet::Credentials => self.credential(row).into_iter().collect(),
        };
        let told = |RowFault { column, message, hint, .. }: &RowFault| {
            let column = if column.is_empty() { "" } else { &format!("{column}: ") };
            let hint = if hint.is_empty() { "" } else { &format!(" ({hint})") };
            format!("{column}{message}{hint}")
        };
        if faults.is_empty() {
            return Ok(());
        }
        let message = faults.iter().map(told).collect::<Vec<_>>().join("; ");
        Err(Wrong { line: row.0, message })
    }

    fn tenant(&mut self, row: &Row) -> Vec<RowFault> {
        let text = |name: &str| self.value(row, name);
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
        self.alone.tenant(&id, columns)
    }

    fn credential(&self, row: &Row) -> Option<RowFault> {
        let text = |name: &str| self.value(row, name);
        let columns = CredentialColumns {
            id: 0,
            kind: text("kind").unwrap_or_default(),
            name: text("name"),
            hash: text("hash"),
            scram_verifier: text("scram_verifier"),
            cert_name: text("cert_name"),
            role: text("role"),
            read_only: text("read_only").as_deref() == Some("true"),
            // What the gate does not know yet may stand in the table.
            has_more: false,
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
