//! [`Context`]: what a server connection is told so that it belongs to one tenant, and what must
//! read back.

use std::borrow::Cow;
use std::fmt::Write;

use crate::isolation::{Isolation, quote};

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1). A longer one would be cut short
/// and could become another tenant's (measured: a longer name read the shorter one's schema).
const NAME_BYTES_MAX: usize = 63;

/// What makes a server connection one tenant's: settings the bind makes, each of which must read
/// back as it was set. A silo sets nothing unless it names a role or a schema; its identity is the
/// database, verified when the server connection is opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Context {
    settings: Vec<Setting>,
    /// What makes these settings; empty if there are none.
    sql: String,
}

/// A setting the bind makes, and the value it must answer with.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    name: String,
    value: String,
}

/// The catalog's words for a context, before they are checked.
#[derive(Clone, Copy, Debug)]
pub struct ContextPlan<'plan> {
    pub isolation: Isolation,
    pub tenant: &'plan str,
    /// The setting that row security policies read; `app.tenant_id` unless the settings differ.
    pub tenant_setting: &'plan str,
    pub role: Option<&'plan str>,
    pub schema: Option<&'plan str>,
}

/// Why a context could not be made; the catalog shows it with the tenant's place in the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    #[error("{what} \"{name}\" is {bytes} bytes long, PostgreSQL keeps the first 63")]
    TooLong { what: &'static str, name: String, bytes: usize },
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} contains a NUL byte")]
    Nul { what: &'static str },
    #[error("isolation \"schema\" needs a schema")]
    SchemaMissing,
    #[error("role \"none\" stands for no role at all in PostgreSQL")]
    RoleNone,
}

impl Context {
    /// Checks the names and quotes them, once.
    pub fn new(plan: ContextPlan<'_>) -> Result<Self, ContextError> {
        let mut settings = Vec::new();
        if plan.isolation == Isolation::Row {
            let value = checked("tenant id", plan.tenant)?.to_owned();
            settings.push(Setting { name: plan.tenant_setting.to_owned(), value });
        }
        if let Some(role) = plan.role {
            let value = checked("role", role)?.to_owned();
            if value == "none" {
                return Err(ContextError::RoleNone);
            }
            settings.push(Setting { name: "role".to_owned(), value });
        }
        if let Some(path) = search_path(&plan)? {
            settings.push(Setting { name: "search_path".to_owned(), value: path });
        }
        let mut sql = String::new();
        for Setting { name, value } in &settings {
            put_setting(&mut sql, name, value);
        }
        Ok(Self { settings, sql })
    }

    /// The one statement that binds: the context's settings first, then what the session carries.
    /// `None` when there is nothing to set. Each column of its single row is a setting's value.
    pub fn bind_sql(&self, carried: &[(&str, &str)]) -> Option<Cow<'_, str>> {
        let mut sql = Cow::Borrowed(self.sql.as_str());
        for (name, value) in carried {
            put_setting(sql.to_mut(), name, value);
        }
        (!sql.is_empty()).then_some(sql)
    }

    /// What the first columns of the bind's row must be, in order.
    pub fn expected(&self) -> impl ExactSizeIterator<Item = &str> {
        self.settings.iter().map(|setting| setting.value.as_str())
    }

    /// Whether the context owns this setting, so that a client may not change it.
    pub fn owns(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.name.eq_ignore_ascii_case(name))
    }

    /// The value the context gives a setting it owns.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut own = self.settings.iter();
        own.find(|set| set.name.eq_ignore_ascii_case(name)).map(|set| set.value.as_str())
    }
}

fn put_setting(sql: &mut String, name: &str, value: &str) {
    sql.push_str(if sql.is_empty() { "SELECT " } else { ", " });
    let (name, value) = (quote::literal(name), quote::literal(value));
    // Writing to a String cannot fail.
    let _ = write!(sql, "pg_catalog.set_config({name}, {value}, false)");
}

fn search_path(plan: &ContextPlan<'_>) -> Result<Option<String>, ContextError> {
    match (plan.isolation, plan.schema) {
        (Isolation::Schema, None) => Err(ContextError::SchemaMissing),
        (Isolation::Row, None) => Ok(Some(quote::identifier("public"))),
        (Isolation::Silo, None) => Ok(None),
        (_, Some(schema)) => Ok(Some(quote::identifier(checked("schema", schema)?))),
    }
}

fn checked<'name>(what: &'static str, name: &'name str) -> Result<&'name str, ContextError> {
    if name.is_empty() {
        return Err(ContextError::Empty { what });
    }
    if name.contains('\0') {
        return Err(ContextError::Nul { what });
    }
    if name.len() > NAME_BYTES_MAX {
        let (name, bytes) = (name.to_owned(), name.len());
        return Err(ContextError::TooLong { what, name, bytes });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(isolation: Isolation) -> ContextPlan<'static> {
        let tenant_setting = "app.tenant_id";
        ContextPlan { isolation, tenant: "acme", tenant_setting, role: None, schema: None }
    }

    #[test]
    fn a_row_tenant_sets_its_id_role_and_path_in_this_order() {
        let context = Context::new(ContextPlan { role: Some("tg_rw"), ..plan(Isolation::Row) });
        let context = context.unwrap();
        let expected: Vec<&str> = context.expected().collect();
        assert_eq!(expected, ["acme", "tg_rw", "\"public\""]);
        let sql = context.bind_sql(&[("TimeZone", "UTC")]).unwrap();
        assert_eq!(sql.matches("set_config").count(), 4);
        assert!(sql.starts_with("SELECT pg_catalog.set_config(E'app.tenant_id', E'acme', false)"));
    }

    #[test]
    fn a_schema_tenant_without_a_schema_and_a_name_too_long_are_refused() {
        assert_eq!(Context::new(plan(Isolation::Schema)), Err(ContextError::SchemaMissing));
        let long = "t".repeat(64);
        let long = ContextPlan { schema: Some(&long), ..plan(Isolation::Schema) };
        assert!(matches!(Context::new(long), Err(ContextError::TooLong { bytes: 64, .. })));
    }

    #[test]
    fn a_silo_sets_nothing_of_its_own() {
        assert_eq!(Context::new(plan(Isolation::Silo)).unwrap().bind_sql(&[]), None);
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let context = Context::new(plan(Isolation::Silo)).unwrap();
        let sql = context.bind_sql(&[("application_name", "x', false); DROP TABLE t; --\\")]);
        let wanted = r"SELECT pg_catalog.set_config(E'application_name', E'x'', false); DROP TABLE t; --\\', false)";
        assert_eq!(sql.unwrap(), wanted);
    }
}
