//! What a login may do, asked of the server itself before the connection is ever used. A login that
//! could step around the isolation is refused: better no service than a leak.

use std::io;

use crate::isolation::carrier::CARRIER;
use crate::isolation::{Isolation, Level};
use crate::net::Connection;
use crate::server::BindError;
use crate::server::simple::{Reply, reply};
use crate::wire::frontend;

/// What the check needs to know of the route.
#[derive(Clone, Copy, Debug)]
pub struct CheckPlan<'plan> {
    pub isolation: Isolation,
    pub tenant_setting: &'plan str,
    pub allow_superuser: bool,
    pub dbname: &'plan str,
    pub greeting: &'plan [(String, String)],
    pub level: Level,
    /// Whether tenants are to be sealed.
    pub sealing: bool,
    /// Whether the login must have no rights at all: it is a service's.
    pub bystander: bool,
}

/// Whether a login can do anything before it is bound to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It may call `set_config` or uses a membership's privileges by itself.
    With,
    /// It can do nothing until the bind gives it a role.
    Without,
}

impl Rights {
    /// The words in `SHOW SERVERS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::With => "with rights",
            Self::Without => "without rights",
        }
    }
}

/// Why a login is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the check of the login's rights failed: {0}")]
    Failed(String),
    #[error("login is {0}, which would step around tenant isolation")]
    Dangerous(String),
    #[error("connected to database \"{found}\" instead of \"{wanted}\"")]
    WrongDatabase { found: String, wanted: String },
    #[error("logged in as \"{found}\" instead of \"{wanted}\"")]
    WrongLogin { found: String, wanted: String },
    #[error("level \"{}\" is not in force: {shortfall}", .level.name())]
    Level { level: Level, shortfall: String },
    #[error("tenants cannot be sealed, is the key of seal_key_file installed? {0}")]
    Seal(BindError),
    #[error("server version {found} is older than {wanted}, which fixes row security leaks")]
    TooOld { found: String, wanted: &'static str },
}

/// Settings that a login or database must not carry, because they would outlive every RESET ALL
/// (measured: `ALTER ROLE CURRENT_USER SET …` succeeds for any login and poisons its next
/// connection), or because they would end pooled connections behind the gate's back.
pub const POISON: [&str; 9] = [
    "role",
    CARRIER,
    "session_authorization",
    "row_security",
    "session_replication_role",
    "session_preload_libraries",
    "local_preload_libraries",
    "idle_session_timeout",
    "client_connection_check_interval",
];

/// One row: what the login is. Names are qualified and the path is fixed for its transaction, since
/// nothing the login may have set for itself is to be trusted yet.
const SQL: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
SET LOCAL search_path TO pg_catalog; \
SELECT current_database(), r.rolsuper, r.rolbypassrls, r.rolreplication, r.rolcreaterole, \
(SELECT string_agg(m.rolname, ', ') FROM pg_roles m WHERE m.oid <> r.oid \
  AND pg_has_role(r.oid, m.oid, 'MEMBER') AND (m.rolsuper OR m.rolbypassrls \
  OR m.rolreplication OR m.rolcreaterole OR m.rolname IN ('pg_execute_server_program', \
  'pg_read_server_files', 'pg_write_server_files'))), \
(SELECT min(format('%I.%I', n.nspname, c.relname)) FROM pg_class c \
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
  AND pg_has_role(r.oid, c.relowner, 'MEMBER')), \
(SELECT string_agg(s.setting, E'\\n') FROM (SELECT unnest(setconfig) AS setting \
  FROM pg_db_role_setting WHERE setrole IN (0, r.oid) AND setdatabase IN (0, \
  (SELECT oid FROM pg_database WHERE datname = current_database()))) s), \
has_function_privilege(r.oid, 'pg_catalog.set_config(text,text,boolean)', 'EXECUTE') \
OR EXISTS (SELECT FROM pg_roles m WHERE m.oid <> r.oid AND pg_has_role(r.oid, m.oid, 'USAGE')), \
(SELECT string_agg(m.rolname, ', ') FROM pg_roles m WHERE m.oid <> r.oid \
  AND pg_has_role(r.oid, m.oid, 'MEMBER')) \
FROM pg_roles r WHERE r.rolname = session_user; COMMIT";

/// Asks and judges. Any answer that is not understood is a refusal.
pub async fn check(connection: &mut Connection, plan: CheckPlan<'_>) -> Result<Rights, CheckError> {
    version(plan.greeting)?;
    judge(&ask(connection, SQL).await?, plan)
}

/// The one row that answers a question about the login.
pub(super) async fn ask(connection: &mut Connection, sql: &str) -> Result<Reply, CheckError> {
    frontend::put_query(&mut connection.output, sql.as_bytes());
    connection.send().await?;
    let reply = reply(connection).await?;
    if let Some(error) = &reply.error {
        return Err(CheckError::Failed(format!("{} {}", error.sqlstate, error.message)));
    }
    if reply.status != b'I' || reply.rows != 1 {
        return Err(CheckError::Failed("the server's answer was not one row".to_owned()));
    }
    Ok(reply)
}

fn judge(reply: &Reply, plan: CheckPlan<'_>) -> Result<Rights, CheckError> {
    let text = |column| reply.text(column);
    let unread = || CheckError::Failed("a column of the answer is missing".to_owned());
    let found = text(0).ok_or_else(unread)?;
    if found != plan.dbname {
        let (found, wanted) = (found.to_owned(), plan.dbname.to_owned());
        return Err(CheckError::WrongDatabase { found, wanted });
    }
    let may_be_superuser = plan.allow_superuser && plan.isolation == Isolation::Silo;
    let flags = [(1, "a superuser"), (2, "BYPASSRLS"), (3, "REPLICATION"), (4, "CREATEROLE")];
    for (column, what) in flags {
        match text(column).ok_or_else(unread)? {
            "f" => {}
            _ if may_be_superuser => return Ok(Rights::With),
            _ => return Err(CheckError::Dangerous(what.to_owned())),
        }
    }
    if let Some(roles) = text(5) {
        return Err(CheckError::Dangerous(format!("a member of powerful roles ({roles})")));
    }
    if let (true, Some(roles)) = (plan.bystander, text(9)) {
        return Err(CheckError::Dangerous(format!("a service's and a member of {roles}")));
    }
    let owns_nothing = plan.isolation == Isolation::Row || plan.bystander;
    if let (true, Some(table)) = (owns_nothing, text(6)) {
        return Err(CheckError::Dangerous(format!("an owner of tables ({table})")));
    }
    for setting in text(7).unwrap_or_default().lines() {
        poison(setting, plan.tenant_setting)?;
    }
    match text(8).ok_or_else(unread)? {
        "f" => Ok(Rights::Without),
        _ => Ok(Rights::With),
    }
}

fn poison(setting: &str, tenant_setting: &str) -> Result<(), CheckError> {
    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
    let tenant = name.eq_ignore_ascii_case(tenant_setting) && !value.is_empty();
    if tenant || POISON.iter().any(|poison| name.eq_ignore_ascii_case(poison)) {
        let what = format!("given the start-up setting {name} (pg_db_role_setting)");
        return Err(CheckError::Dangerous(what));
    }
    Ok(())
}

/// The minor releases with the fixes of CVE-2024-10976 and its forerunners.
fn version(greeting: &[(String, String)]) -> Result<(), CheckError> {
    let found = greeting.iter().find(|(name, _)| name == "server_version");
    let found = found.map(|(_, value)| value.as_str()).unwrap_or_default();
    let number = found.split([' ', 'b', 'r', 'd']).next().unwrap_or_default();
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let (major, minor) = (major.parse::<u32>(), minor.parse::<u32>().unwrap_or(0));
    let (floor, wanted) = match major {
        Ok(15) => (9, "15.9"),
        Ok(16) => (5, "16.5"),
        Ok(17) => (1, "17.1"),
        Ok(18..) => (0, "18"),
        _ => (u32::MAX, "15.9"),
    };
    match minor >= floor {
        true => Ok(()),
        false => Err(CheckError::TooOld { found: found.to_owned(), wanted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(version: &str) -> Result<(), CheckError> {
        self::version(&[("server_version".to_owned(), version.to_owned())])
    }

    #[test]
    fn versions_below_the_floor_and_unreadable_ones_are_refused() {
        assert!(reported("15.18 (Debian 15.18-0+deb12u1)").is_ok());
        assert!(reported("18.4").is_ok());
        assert!(reported("18beta1").is_ok());
        for old in ["15.8", "16.4", "17.0", "14.20", "9.6.24", "", "x"] {
            assert!(reported(old).is_err(), "{old}");
        }
    }

    #[test]
    fn a_login_that_carries_a_tenant_or_a_role_is_poisoned() {
        assert!(poison("role=boss", "app.tenant_id").is_err());
        assert!(poison("app.tenant_id=acme", "app.tenant_id").is_err());
        assert!(poison("app.tenant_id=", "app.tenant_id").is_ok());
        assert!(poison("work_mem=4MB", "app.tenant_id").is_ok());
    }
}
