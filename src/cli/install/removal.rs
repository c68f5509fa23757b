//! What takes an installation out of a database again. Roles, logins and their rights on tables
//! stay: they may be older than the gate, and others may have given them.

use crate::cli::install::Place;
use crate::cli::install::step::Step;
use crate::cli::install::steps::{DROP_KEYS, drop_functions};
use crate::isolation::carrier::{CARRIER, OWNER};
use crate::isolation::{Level, pack, quote};

/// All of it, to be run in the database.
pub(super) fn steps(place: &Place) -> Vec<Step> {
    let mut steps = vec![unused()];
    let step = |what: &str, why| Step::new(what, Level::Plain, why).verb("removed");
    steps.push(
        step("schema tenantgate", "Its functions, its keys, and itself, if nothing else is in it.")
            .query(drop_functions("enter"))
            .query(drop_functions("set_config"))
            .query(drop_functions("tenant_id"))
            .query(DROP_KEYS)
            .query(
                "SELECT 'DROP SCHEMA tenantgate RESTRICT'\n  \
                 WHERE pg_catalog.to_regnamespace('tenantgate') IS NOT NULL",
            ),
    );
    steps.extend(pack::PACK.iter().map(|entry| {
        let why = "Back to what PostgreSQL gives everybody.";
        Step::new(format!("give back {}", entry.name), Level::Plain, why)
            .verb("given back")
            .query(entry.restore_sql())
    }));
    let dbname = quote::identifier(&place.dbname);
    let connect = "pg_catalog.has_database_privilege(0, (SELECT oid FROM pg_catalog.pg_database \
                   WHERE datname = pg_catalog.current_database()), 'CONNECT')";
    steps.push(
        step("give back CONNECT", "Back to what PostgreSQL gives everybody.")
            .verb("given back")
            .again(format!("GRANT CONNECT ON DATABASE {dbname} TO PUBLIC"), connect),
    );
    steps.push(owner());
    steps
}

/// Whatever depends on `tenantgate.tenant_id()` would go with it: policies above all.
fn unused() -> Step {
    // Names that others chose stand in the message, so each layer is quoted by PostgreSQL.
    let select = "SELECT pg_catalog.format('DO %L', pg_catalog.format(\n  \
        'BEGIN RAISE EXCEPTION USING ERRCODE = ''2BP01'', MESSAGE = %L; END',\n  \
        'tenantgate.tenant_id() is used by ' ||\n  \
        pg_catalog.string_agg(\n  \
        pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), ', '\n  \
        ORDER BY d.classid, d.objid)))\n  \
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid\n  \
        WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass\n  \
        AND p.pronamespace = pg_catalog.to_regnamespace('tenantgate')\n  \
        HAVING pg_catalog.count(*) > 0";
    Step::new(
        "use of tenantgate.tenant_id()",
        Level::Plain,
        "Nothing is taken from under a policy.",
    )
    .query(select)
    .first()
}

/// The owner goes when no other database needs it.
fn owner() -> Step {
    let oid = format!("(SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{OWNER}')");
    let set_config = format!(
        "SELECT 'REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean)\n  \
         FROM {OWNER}'\n  \
         WHERE EXISTS (SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a\n  \
         WHERE p.proname = 'set_config'\n  \
         AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND a.grantee = {oid})"
    );
    let elsewhere = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_shdepend WHERE refobjid = {oid}\n  \
         AND dbid NOT IN (0, (SELECT oid FROM pg_catalog.pg_database\n  \
         WHERE datname = pg_catalog.current_database())))"
    );
    let carrier = format!(
        "SELECT 'REVOKE SET ON PARAMETER {CARRIER} FROM {OWNER}'\n  \
         WHERE pg_catalog.has_parameter_privilege({oid}, '{CARRIER}', 'SET') AND NOT {elsewhere}"
    );
    let role = format!("SELECT 'DROP ROLE {OWNER}' WHERE {oid} IS NOT NULL AND NOT {elsewhere}");
    let why = "It stays while another database needs it.";
    Step::new(format!("role {OWNER}"), Level::Plain, why)
        .verb("removed")
        .query(set_config)
        .query(carrier)
        .query(role)
}
