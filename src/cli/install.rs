//! `tenantgate install --print`: the SQL that makes a login without rights for row tenants. The
//! carrier and the revoke pack of the higher levels are not in it yet.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Failure;
use crate::config::Config;
use crate::isolation::{Isolation, quote};
use crate::spelling;

/// The app role of tenants that name none.
const APP_ROLE_DEFAULT: &str = "app_rw";

/// One login in one database, and the role its tenants act as.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Grant<'config> {
    dbname: &'config str,
    login: &'config str,
    role: Option<&'config str>,
}

/// The SQL for every login that row tenants of a cluster use.
pub(super) fn sql(config: &Config, cluster: &str) -> Result<String, Failure> {
    let known = || config.catalog.clusters().map(|cluster| cluster.name.as_str());
    if !known().any(|name| name == cluster) {
        let meant = spelling::nearest(cluster, known());
        let meant = meant.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
        return Err(Failure::Usage(format!("there is no [clusters.{cluster}]{meant}")));
    }
    let mut grants = BTreeSet::new();
    for tenant in config.catalog.tenants() {
        if tenant.route.cluster.name == cluster && tenant.isolation == Isolation::Row {
            let conninfo = &tenant.route.conninfo;
            let (dbname, login) = (conninfo.dbname.as_str(), conninfo.user.as_str());
            grants.insert(Grant { dbname, login, role: tenant.context.value("role") });
        }
    }
    if grants.is_empty() {
        let message = format!("cluster \"{cluster}\" has no row tenant, so there is nothing to do");
        return Err(Failure::Usage(message));
    }
    // Comments and the bodies of DO blocks are not quoted, so names must not be able to end them.
    let plain = |name: &str| !name.contains("$do$") && !name.chars().any(char::is_control);
    let carried = |grant: &Grant<'_>| {
        plain(grant.dbname) && plain(grant.login) && grant.role.is_none_or(plain)
    };
    if !grants.iter().all(carried) {
        let message = "a name has control characters or $do$ in it, which this SQL cannot carry";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mut sql = format!(
        "-- Prepares cluster {cluster} for row tenants. Run it with psql as a superuser, or as a\n\
         -- role with CREATEROLE that owns the databases. Works on PostgreSQL 15 to 18, and may\n\
         -- be run again.\n\
         \\set ON_ERROR_STOP on\n"
    );
    for grant in &grants {
        write_grant(&mut sql, grant);
    }
    Ok(sql)
}

fn write_grant(sql: &mut String, grant: &Grant<'_>) {
    let name = grant.role.unwrap_or(APP_ROLE_DEFAULT);
    let (role, login) = (quote::identifier(name), quote::identifier(grant.login));
    let dbname = quote::identifier(grant.dbname);
    // Writing to a String cannot fail.
    let _ = writeln!(sql, "\n-- ---- login {login} in database {dbname}");
    if grant.role.is_none() {
        let _ = writeln!(
            sql,
            "-- The tenants of this login name no role. Add role = \"{APP_ROLE_DEFAULT}\" to each: \
             without it\n-- they act as the login, which has no rights."
        );
    }
    write_roles(sql, grant, &role, &login);
    write_rights(sql, &dbname, &role, &login);
}

/// The role, the login and the membership between them: they belong to the whole cluster.
fn write_roles(sql: &mut String, grant: &Grant<'_>, role: &str, login: &str) {
    let role_text = quote::literal(grant.role.unwrap_or(APP_ROLE_DEFAULT));
    let login_text = quote::literal(grant.login);
    let dbname = quote::identifier(grant.dbname);
    let membership = format!("GRANT {role} TO {login}").replace('\'', "''");
    let _ = write!(
        sql,
        r#"
-- 1. The role that tenants act as. It holds the rights on tables and owns none of them, so row
--    security applies to it. Nobody logs in as it.
DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {role_text}) THEN
    CREATE ROLE {role} NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {login_text}) THEN
    CREATE ROLE {login} LOGIN;
  END IF;
END
$do$;

-- 2. The login of the gate. NOINHERIT: between two tenants it can do nothing, because a
--    membership counts only after SET ROLE. Its settings are cleared, since a default that sits
--    on a role would come back with every RESET. Set its password with \password {login}
ALTER ROLE {login} LOGIN NOINHERIT;
ALTER ROLE {login} RESET ALL;
ALTER ROLE {login} IN DATABASE {dbname} RESET ALL;

-- Neither of the two may be above row security; roles that were there before are only checked.
DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname IN ({role_text}, {login_text})
      AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)) THEN
    RAISE EXCEPTION 'a role of the gate may do more than its tenants'
      USING DETAIL = 'SUPERUSER, BYPASSRLS, CREATEROLE, CREATEDB or REPLICATION is set.';
  END IF;
END
$do$;

-- 3. Membership that can be SET and is not inherited. PostgreSQL 15 knows the property of the
--    login only (NOINHERIT above); from 16 on it belongs to the grant.
DO $do$
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
    EXECUTE '{membership} WITH INHERIT FALSE, SET TRUE';
  ELSE
    EXECUTE '{membership}';
  END IF;
END
$do$;
"#
    );
}

/// What the two may do in the database.
fn write_rights(sql: &mut String, dbname: &str, role: &str, login: &str) {
    let _ = write!(
        sql,
        r#"
-- 4. Who may connect, and where. PUBLIC loses what every login would have otherwise.
REVOKE ALL ON DATABASE {dbname} FROM PUBLIC;
GRANT CONNECT ON DATABASE {dbname} TO {login};
\connect {dbname}
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {role};

-- 5. Rights on the tables of tenants, table by table, after their row security is in place
--    (config/rls.sql). Not TRUNCATE, REFERENCES or TRIGGER: row security does not hold them.
-- GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE … TO {role};
-- GRANT USAGE ON SEQUENCE … TO {role};
"#
    );
}
