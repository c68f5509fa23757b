//! Whether the level of protection that the settings promise is in force in a row tenant's
//! database, asked of the server before the connection is ever used. What is missing is told by
//! name; whoever wants the level gets no connection then.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::isolation::carrier::{CARRIER, ENTER_BODY, OWNER, set_config_body, tenant_id_body};
use crate::isolation::{Level, pack, quote};
use crate::net::Connection;
use crate::server::check::{CheckError, CheckPlan, ask};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many seconds the server's clock is ahead of this machine's.
    pub ahead: i64,
    /// Why tenants cannot enter; `None` if they can.
    pub carrier: Option<String>,
    /// The OID of the function that lets them in; 0 if there is none.
    pub enter: u32,
    /// What the level wants and the database lacks; `None` if nothing.
    pub shortfall: Option<String>,
}

/// Asks and judges. Any answer that is not understood is a refusal.
pub async fn check_level(
    connection: &mut Connection,
    plan: CheckPlan<'_>,
) -> Result<Standing, CheckError> {
    let reply = ask(connection, &sql(plan)).await?;
    let text = |column| reply.text(column).filter(|text| !text.is_empty()).map(str::to_owned);
    let now: f64 = text(0).and_then(|text| text.parse().ok()).ok_or_else(unread)?;
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ahead = (now - here.as_secs_f64()).round() as i64;
    let carrier = text(2).filter(|_| plan.sealing);
    let enter = text(4).and_then(|text| text.parse().ok()).unwrap_or_default();
    let lacking = shortfalls(plan.tenant_setting, [text(1), carrier.clone(), text(3)]);
    let wanted = lacking.into_iter().filter(|(level, _)| plan.level >= *level);
    let missing: Vec<String> = wanted.map(|(_, words)| words).collect();
    let shortfall = (!missing.is_empty()).then(|| missing.join("; "));
    Ok(Standing { ahead, carrier, enter, shortfall })
}

/// Whether nobody the login can become may call `set_config`, and the function that stands in for
/// it is there, letter by letter.
pub async fn has_stand_in(
    connection: &mut Connection,
    tenant_setting: &str,
) -> Result<bool, CheckError> {
    let body = quote::literal(&set_config_body(tenant_setting));
    let sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path TO pg_catalog; \
         SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
         WHERE p.oid = to_regprocedure('tenantgate.set_config(text,text,boolean)') \
         AND p.prosrc = {body} AND p.prosecdef AND p.proconfig IS NULL \
         AND p.proowner = to_regrole('{OWNER}') AND l.lanname = 'plpgsql') \
         AND NOT EXISTS (SELECT FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER') \
         AND has_function_privilege(r.oid, 'set_config(text,text,boolean)', 'EXECUTE')); COMMIT"
    );
    let reply = ask(connection, &sql).await?;
    Ok(reply.text(0).ok_or_else(unread)? == "t")
}

/// What the columns of [`standing_sql`] behind the first say, in words, and the lowest level that
/// does without.
pub fn shortfalls(tenant_setting: &str, found: [Option<String>; 3]) -> Vec<(Level, String)> {
    let [pack, carrier, policies] = found.map(|text| text.filter(|text| !text.is_empty()));
    let pack = pack.map(|entries| format!("the revoke pack lacks: {entries}"));
    let policies = policies
        .map(|tables| format!("policies read {tenant_setting}, which SQL can forge, on {tables}"));
    let all = [(Level::Guard, pack), (Level::Sealed, carrier), (Level::Sealed, policies)];
    all.into_iter().filter_map(|(level, words)| Some((level, words?))).collect()
}

fn unread() -> CheckError {
    CheckError::Failed("a column of the answer about the level is missing".to_owned())
}

fn sql(plan: CheckPlan<'_>) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path TO pg_catalog; {}; COMMIT",
        standing_sql(plan.level, plan.tenant_setting)
    )
}

/// A SELECT of one row about the session's login: the time, what the pack lacks, what the carrier
/// lacks, tables with forgeable policies, and which function `tenantgate.enter` is. Run it where
/// `search_path` is `pg_catalog`.
pub fn standing_sql(level: Level, tenant_setting: &str) -> String {
    let pack = pack::missing_sql(&[pack::Weight::Essential, pack::Weight::Exposure]);
    format!(
        "SELECT extract(epoch FROM clock_timestamp()), ({pack}), ({}), ({}), \
         to_regprocedure('tenantgate.enter(text,text,bigint,bytea)')::oid",
        carrier_sql(level, tenant_setting),
        policies_sql(tenant_setting)
    )
}

/// What is not as `tenantgate install` makes it, in words; empty if everything is.
fn carrier_sql(level: Level, tenant_setting: &str) -> String {
    let enter = "p.prosecdef AND p.provolatile = 'v'";
    let enter = function("enter", "25 25 20 17", &[ENTER_BODY.to_owned()], enter);
    // Who enters at a lower level is served by the body of sealed as well: while a cluster is on
    // its way up, the database is there before the gate.
    let bodies = [level, Level::Sealed].map(|level| tenant_id_body(level, tenant_setting));
    let tenant_id = function("tenant_id", "", &bodies, "NOT p.prosecdef AND p.provolatile = 's'");
    let mine = "FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER')";
    let faults = [
        (format!("to_regrole('{OWNER}') IS NULL"), "there is no role tenantgate_owner"),
        (
            format!(
                "(SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'tenantgate') \
                 IS DISTINCT FROM to_regrole('{OWNER}')::oid"
            ),
            "schema tenantgate is missing or somebody else's",
        ),
        (
            format!(
                "EXISTS (SELECT {mine} AND has_schema_privilege(r.oid, \
                 to_regnamespace('tenantgate')::oid, 'CREATE'))"
            ),
            "the login may create objects in schema tenantgate",
        ),
        (enter, "tenantgate.enter() is missing or of another version"),
        (tenant_id, "tenantgate.tenant_id() is missing or made for another level or version"),
        (
            "(SELECT bool_and(has_function_privilege(session_user, p.oid, 'EXECUTE')) \
             FROM pg_proc p WHERE p.pronamespace = to_regnamespace('tenantgate') \
             AND p.proname = 'enter') IS NOT TRUE"
                .to_owned(),
            "the login may not call tenantgate.enter()",
        ),
        (
            format!(
                "(SELECT c.relowner FROM pg_class c WHERE c.oid = to_regclass('tenantgate.keys')) \
                 IS DISTINCT FROM to_regrole('{OWNER}')::oid OR EXISTS (SELECT {mine} AND \
                 (has_any_column_privilege(r.oid, to_regclass('tenantgate.keys')::oid, \
                 'SELECT, INSERT, UPDATE, REFERENCES') OR has_table_privilege(r.oid, \
                 to_regclass('tenantgate.keys')::oid, 'DELETE, TRUNCATE, TRIGGER')))"
            ),
            "table tenantgate.keys is missing, or open to the login",
        ),
        (
            format!(
                "EXISTS (SELECT {mine} AND has_parameter_privilege(r.oid, '{CARRIER}', 'SET'))"
            ),
            "the login may set the carrier itself",
        ),
        (
            format!("current_setting('{CARRIER}') <> ''"),
            "backtrace_functions has a value before anybody entered",
        ),
    ];
    let case = |(fault, words): (String, &str)| {
        format!("CASE WHEN {fault} THEN {} END", quote::literal(words))
    };
    let cases = faults.map(case);
    format!("SELECT concat_ws('; ', {})", cases.join(", "))
}

/// Whether a function of schema `tenantgate` is not exactly the one that this version installs.
fn function(name: &str, types: &str, bodies: &[String], rest: &str) -> String {
    let bodies: Vec<String> = bodies.iter().map(|body| quote::literal(body)).collect();
    let bodies = bodies.join(", ");
    format!(
        "1 <> (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = \
         to_regnamespace('tenantgate') AND p.proname = '{name}') OR NOT EXISTS \
         (SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
         WHERE p.pronamespace = to_regnamespace('tenantgate') AND p.proname = '{name}' \
         AND p.proargtypes::text = '{types}' AND p.prosrc IN ({bodies}) AND p.proconfig IS NULL \
         AND p.proowner = to_regrole('{OWNER}') AND l.lanname = 'plpgsql' AND {rest})"
    )
}

/// Tables that the login's roles can use, of which a permissive policy reads the tenant's setting,
/// unless a restrictive policy for everybody calls `tenantgate.tenant_id()`.
fn policies_sql(tenant_setting: &str) -> String {
    let setting = quote::literal(&quote::literal(tenant_setting).replacen('E', "", 1));
    // Also beside tenant_id(): whether the two are joined by AND or by OR is not for a text search.
    let forgeable = |expression: &str| {
        let text = format!("pg_get_expr({expression}, p.polrelid)");
        format!("strpos(lower({text}), lower({setting})) > 0")
    };
    let sealed = |expression: &str| {
        format!("strpos(pg_get_expr({expression}, s.polrelid), 'tenantgate.tenant_id()') > 0")
    };
    format!(
        "SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.relname), ', ') \
         FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relrowsecurity AND p.polpermissive AND ({} OR {}) \
         AND EXISTS (SELECT FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER') \
           AND (has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE') \
             OR has_table_privilege(r.oid, c.oid, 'DELETE')) \
           AND has_schema_privilege(r.oid, n.oid, 'USAGE')) \
         AND NOT EXISTS (SELECT FROM pg_policy s WHERE s.polrelid = p.polrelid \
           AND NOT s.polpermissive AND s.polcmd = '*' AND s.polroles = '{{0}}' \
           AND {} AND (s.polwithcheck IS NULL OR {}))",
        forgeable("p.polqual"),
        forgeable("p.polwithcheck"),
        sealed("s.polqual"),
        sealed("s.polwithcheck"),
    )
}
