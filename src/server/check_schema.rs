//! Whether the login of a schema tenant reaches that tenant's schema and nothing else, asked of the
//! server before the connection is ever used. The login is all that keeps such tenants apart, so
//! from level guard on what it may do is looked at, and what is too much is told by name.

use crate::isolation::quote;
use crate::net::Connection;
use crate::server::check::{CheckError, ask};

/// What a schema tenant's login may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub schema: String,
    /// The role it acts as, if it has one.
    pub role: Option<String>,
    /// Schemas that it may use beside its own.
    pub shared: Vec<String>,
}

/// Schemas that every login may use, beside `pg_…`.
const COMMON: [&str; 3] = ["public", "information_schema", "tenantgate"];

/// What a login has beyond its reach, in words; `None` if nothing. Another login than the one that
/// was asked for is an error: its rights say nothing about the one that is wanted.
pub async fn check_schema(
    connection: &mut Connection,
    login: &str,
    reach: &Reach,
) -> Result<Option<String>, CheckError> {
    let reply = ask(connection, &sql(reach)).await?;
    let found = reply.text(0).unwrap_or_default();
    if found != login {
        let (found, wanted) = (found.to_owned(), login.to_owned());
        return Err(CheckError::WrongLogin { found, wanted });
    }
    let told = [
        (1, "the login is a member of"),
        (2, "the login may use schema"),
        (3, "the login may create objects in schema"),
    ];
    let told = told.into_iter().filter_map(|(column, what)| {
        let names = reply.text(column).filter(|names| !names.is_empty())?;
        Some(format!("{what} {names}"))
    });
    let told: Vec<String> = told.collect();
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// One row: who is logged in; roles it should not be in; schemas it should not use; schemas in
/// which it should not create. A role that it can become counts as itself. Lists are cut short:
/// what is wrong once is often wrong a thousand times.
fn sql(reach: &Reach) -> String {
    let Reach { schema, role, shared } = reach;
    let known = COMMON.iter().copied().chain(shared.iter().map(String::as_str));
    let known: Vec<String> = known.chain([schema.as_str()]).map(quote::literal).collect();
    let known = known.join(", ");
    let own = quote::literal(schema);
    let role = quote::literal(role.as_deref().unwrap_or_default());
    let schemas = |privilege: &str, except: &str| {
        format!(
            "(SELECT string_agg(quote_ident(nspname), ', ') FROM (SELECT n.nspname \
             FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ({except}) \
             AND EXISTS (SELECT FROM mine WHERE has_schema_privilege(mine.oid, n.oid, \
             '{privilege}')) ORDER BY n.nspname LIMIT 5) s)"
        )
    };
    let (used, filled) = (schemas("USAGE", &known), schemas("CREATE", &own));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path TO pg_catalog; \
         WITH mine AS MATERIALIZED (SELECT r.oid, r.rolname FROM pg_roles r \
         WHERE pg_has_role(session_user, r.oid, 'MEMBER')) \
         SELECT session_user, (SELECT string_agg(quote_ident(rolname), ', ') FROM (SELECT rolname \
         FROM mine WHERE rolname NOT IN (session_user, {role}) ORDER BY rolname LIMIT 5) s), \
         {used}, {filled}; COMMIT"
    )
}
