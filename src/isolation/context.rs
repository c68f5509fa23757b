//! [`Context`]: what a server connection is told so that it belongs to one tenant, and what must
//! read back.

use std::borrow::Cow;

use crate::isolation::{Isolation, quote};

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1). A longer one would be cut short
/// and could become another tenant's (measured: a longer name read the shorter one's schema).
pub const NAME_BYTES_MAX: usize = 63;

/// Settings that hold a list of names: SET takes each name as a value of its own (guc.c,
/// GUC_LIST_QUOTE), where it takes the text of any other list as it is.
const LISTS: [&str; 4] =
    ["local_preload_libraries", "search_path", "session_preload_libraries", "temp_tablespaces"];

/// What makes a server connection one tenant's: settings the bind makes, each of which must read
/// back as it was set. A silo sets nothing unless it names a role or a schema; its identity is the
/// database, verified when the server connection is opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Context {
    settings: Vec<Setting>,
    /// The statements that make these settings; empty if there are none.
    sql: String,
    /// Whom a seal is signed for: row tenants only.
    tenant: Option<String>,
}

/// A setting the bind makes, as SHOW would answer.
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
        let tenant = (plan.isolation == Isolation::Row).then(|| plan.tenant.to_owned());
        Ok(Self { settings, sql, tenant })
    }

    /// The context of a service that has chosen no tenant: PostgreSQL's own schema, to be read.
    pub fn of_service() -> Self {
        let own = [("search_path", "pg_catalog"), ("default_transaction_read_only", "on")];
        let mut sql = String::new();
        own.iter().for_each(|(name, value)| put_setting(&mut sql, name, value));
        let setting = |(name, value): (&str, &str)| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Self { settings: own.into_iter().map(setting).collect(), sql, tenant: None }
    }

    /// The setting that keeps transactions from writing unless they ask for it themselves.
    pub const READ_ONLY: &str = "default_transaction_read_only";

    /// The same with transactions that do not write.
    pub fn without_writes(&self) -> Self {
        let setting =
            |name: &str, value: &str| Setting { name: name.to_owned(), value: value.to_owned() };
        let own = self.settings.iter().map(|it| setting(&it.name, &it.value));
        let settings: Vec<Setting> = own.chain([setting(Self::READ_ONLY, "on")]).collect();
        let mut sql = self.sql.clone();
        put_setting(&mut sql, Self::READ_ONLY, "on");
        Self { settings, sql, tenant: self.tenant.clone() }
    }

    /// The statements that bind: the context's settings first, then what the session carries.
    /// `None` when there is nothing to set. SET and not set_config, because a login that may not
    /// call that function can do nothing with it either (and it costs PostgreSQL less).
    pub fn bind_sql(&self, carried: &[(&str, &str)]) -> Option<Cow<'_, str>> {
        let mut sql = Cow::Borrowed(self.sql.as_str());
        for (name, value) in carried {
            put_setting(sql.to_mut(), name, value);
        }
        (!sql.is_empty()).then_some(sql)
    }

    /// How many statements the context has of its own; each must be confirmed.
    pub fn statements(&self) -> usize {
        self.settings.len()
    }

    /// The tenant that a seal must be signed for; `None` where the login is the tenant's own.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
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
    sql.push_str(if sql.is_empty() { "SET " } else { "; SET " });
    sql.push_str(&set_sql(name, value));
}

/// A setting's name, quoted part by part.
pub fn name_sql(name: &str) -> String {
    name.split('.').map(quote::identifier).collect::<Vec<_>>().join(".")
}

/// What stands behind SET so that a setting gets this value, as SHOW would answer it: the name and
/// the value, both quoted.
pub fn set_sql(name: &str, value: &str) -> String {
    let mut sql = name_sql(name);
    sql.push_str(" TO ");
    if LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
        let names = quote::names(value);
        let quoted: Vec<String> = names.iter().map(|name| quote::literal(name)).collect();
        sql.push_str(&quoted.join(", "));
    } else {
        sql.push_str(&quote::literal(value));
    }
    sql
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
        assert_eq!((context.statements(), context.tenant()), (3, Some("acme")));
        let sql = context.bind_sql(&[("TimeZone", "UTC")]).unwrap();
        let wanted = "SET \"app\".\"tenant_id\" TO E'acme'; SET \"role\" TO E'tg_rw'; \
                      SET \"search_path\" TO E'public'; SET \"TimeZone\" TO E'UTC'";
        assert_eq!(sql, wanted);
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
        let wanted = r#"SET "application_name" TO E'x'', false); DROP TABLE t; --\\'"#;
        assert_eq!(sql.unwrap(), wanted);
        let sql = context.bind_sql(&[("search_path", "\"$user\", \"a\"\"', b\", Plain")]);
        let wanted = r#"SET "search_path" TO E'$user', E'a"'', b', E'plain'"#;
        assert_eq!(sql.unwrap(), wanted);
    }
}
