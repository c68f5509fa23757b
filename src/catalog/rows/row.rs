//! [`Row`]: a tenant of the tables, as it was read, how it changes, and what is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::lazy::{Key, Whose};
use crate::catalog::plan::{Fault, Place, TenantPlan, TokenPlan};
use crate::catalog::{CertificateName, Tenant};

/// Most letters of a fault's words: what stands in a row may be long.
const WORDS_MAX: usize = 400;

/// A tenant of the table with its credentials, as far as they could be read.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    /// Of two rows that cannot stand beside each other the one with the higher number is at fault.
    pub rank: i64,
    /// What the row says, or what is wrong with it.
    pub plan: Result<Box<TenantPlan>, Vec<RowFault>>,
    /// What is wrong with credentials that were left out.
    pub faults: Vec<RowFault>,
}

/// One change of the table.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Row),
    Gone(String),
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// `tenants`, or `credentials` with the number of the row.
    pub row: String,
    /// Empty stands for the whole row.
    pub column: &'static str,
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// What became of a tenant whose rows changed; where its facts did not, it is the same value.
#[derive(Clone, Debug)]
pub struct Moved {
    pub before: Option<Arc<Tenant>>,
    pub after: Option<Arc<Tenant>>,
}

impl Moved {
    /// The tenant's id.
    pub fn id(&self) -> Option<&str> {
        self.after.as_ref().or(self.before.as_ref()).map(|tenant| tenant.id.as_str())
    }
}

/// What tables said when they were asked for keys.
#[derive(Debug, Default)]
pub struct Found {
    pub rows: Vec<Row>,
    /// Up to which change the rows are right.
    pub version: i64,
    /// When each of them last changed.
    pub changed: HashMap<String, i64>,
    /// Who has the passwords of users.
    pub whose: HashMap<String, Whose>,
}

impl RowFault {
    pub(super) fn whole(message: &str, hint: &str) -> Self {
        Self::column("", message.to_owned(), hint)
    }

    pub(super) fn column(column: &'static str, message: String, hint: &str) -> Self {
        Self { row: "tenants".to_owned(), column, message, hint: hint.to_owned() }
    }

    pub(super) fn of_file() -> Self {
        let message = "the settings file has a tenant of this id, which is the one in force";
        Self::whole(message, "Take it out of the file, or the row out of the table.")
    }

    pub(super) fn credential(column: &'static str, message: String, hint: &str) -> Self {
        Self { row: "credentials".to_owned(), column, message, hint: hint.to_owned() }
    }

    /// A fault of a plan as one of a row.
    pub(super) fn of(fault: &Fault) -> Self {
        let key = fault.key.unwrap_or_default();
        let (row, column) = match (&fault.place, key) {
            (Place::TenantLimits(_), _) => ("tenants", "overrides"),
            (_, "tokens" | "credentials") => ("credentials", ""),
            _ => ("tenants", key),
        };
        let (message, hint) = (fault.message.clone(), fault.hint.clone().unwrap_or_default());
        Self { row: row.to_owned(), column, message, hint }
    }

    /// Printable and short, whatever the row has in it.
    pub(super) fn shorten(&mut self) {
        for text in [&mut self.message, &mut self.hint] {
            let unfit = text.chars().any(char::is_control) || text.len() > WORDS_MAX;
            if unfit {
                *text = text.chars().flat_map(char::escape_debug).take(WORDS_MAX).collect();
            }
        }
    }
}

/// Of several changes of one tenant the last.
pub(super) fn last_of_each(changes: Vec<Change>) -> impl Iterator<Item = (String, Change)> {
    let named = changes.into_iter().map(|change| {
        let (Change::Gone(id) | Change::Put(Row { id, .. })) = &change;
        (id.clone(), change)
    });
    named.collect::<BTreeMap<_, _>>().into_iter()
}

pub(super) fn keys_of_id(id: &str) -> Vec<Key> {
    vec![Key::Tenant(id.to_owned()), Key::Tenant(id.to_ascii_lowercase())]
}

/// What a row's credentials are looked up by.
pub(super) fn keys_of(plan: &TenantPlan, keys: &mut Vec<Key>) {
    let token = |plan: &TokenPlan| plan.line.split(':').next().map(str::to_owned);
    keys.extend(plan.tokens.iter().filter_map(token).map(Key::Token));
    for credential in &plan.credentials {
        keys.extend(credential.user.clone().map(Key::User));
        let san = credential.san.clone().map(CertificateName::San);
        let names = san.into_iter().chain(credential.cn.clone().map(CertificateName::Cn));
        keys.extend(names.map(|name| Key::of_certificate(&name)));
    }
}
