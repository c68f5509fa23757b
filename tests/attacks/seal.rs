//! The seal itself: its carrier, its key, its functions, and signatures that are not for this
//! backend, this database or this moment. A function that runs any text helps the attacker along.

use std::time::{SystemTime, UNIX_EPOCH};

use tenantgate::isolation::SealKeys;

use super::Class::{Careless, Escape};
use super::{
    ALL, Attack, Expected, FROM_SEALED, HARMLESS, NOWHERE, ROW, Scene, Verdict, from_guard, play,
    sql, stopped,
};
use crate::harness::messages::query;
use crate::harness::tenants::SEAL_KEY;

/// Below sealed there is no schema `tenantgate`.
const NOT_THERE: Expected =
    [Verdict::Stopped("3F000"), Verdict::Stopped("3F000"), Verdict::Stopped("42501")];

const NO_KEYS: Expected =
    [Verdict::Stopped("42P01"), Verdict::Stopped("42P01"), Verdict::Stopped("42501")];

const NOT_SIGNED: Expected =
    [Verdict::Stopped("3F000"), Verdict::Stopped("3F000"), Verdict::Stopped("28000")];

pub const ATTACKS: [Attack; 16] = [
    sql(
        Escape,
        "SET or RESET of the carrier",
        ALL,
        stopped("42501"),
        &[
            "SET backtrace_functions TO '0$OTHER'",
            "RESET backtrace_functions",
            "SET backtrace_functions TO DEFAULT",
        ],
    ),
    sql(
        Escape,
        "the carrier for a transaction, by set_config, as a default",
        ALL,
        stopped("42501"),
        &[
            "BEGIN\nSET LOCAL backtrace_functions TO '0$OTHER'\nSELECT body FROM notes",
            "SELECT set_config('backtrace_functions', '0$OTHER', false)",
            "SELECT set_config('backtrace_' || 'functions', '0$OTHER', false)",
            "ALTER ROLE CURRENT_USER SET backtrace_functions = '0$OTHER'",
        ],
    ),
    sql(
        Escape,
        "the carrier, by a function that runs any text",
        ROW,
        stopped("42501"),
        &[
            "SELECT app.run('SET backtrace_functions TO $q$0$OTHER$q$')",
            "SELECT app.run('RESET backtrace_functions')",
            "SELECT app.run('RESET ROLE; SET backtrace_functions TO $q$0$OTHER$q$')",
        ],
    ),
    sql(
        Escape,
        "entering without the key",
        ROW,
        NOT_THERE,
        &[
            "SELECT tenantgate.enter('$OTHER', 'k1', 9999999999, 'x')",
            "EXPLAIN ANALYZE SELECT tenantgate.enter('$OTHER', 'k1', 9999999999, 'x')",
            "CREATE TABLE tenantgate.mine (x int)",
            "ALTER TABLE tenantgate.keys OWNER TO app_rw",
            "CREATE VIEW tenantgate.mine AS SELECT 1",
        ],
    ),
    sql(
        Escape,
        "reading or adding keys",
        ROW,
        NO_KEYS,
        &[
            "SELECT ikey, okey FROM tenantgate.keys",
            "INSERT INTO tenantgate.keys VALUES ('mine', 'x', 'x')",
        ],
    ),
    play(Escape, "a signature for another backend, time or database", ROW, NOT_SIGNED, |scene| {
        Box::pin(async {
            let pid = scene.send(query("SELECT pg_backend_pid()")).await;
            let pid: i32 = pid[4..pid.find(") C").unwrap()].parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let now = i64::try_from(now).unwrap();
            for (dbname, expires, signed) in [
                ("app", now + 30, pid ^ 1),
                ("app", now - 1, pid),
                ("app", now + 3600, pid),
                ("postgres", now + 30, pid),
            ] {
                let seal = SealKeys::parse(SEAL_KEY).unwrap().seal(dbname).unwrap();
                let signature = seal.sign(&scene.victim.id, expires, signed);
                enters(scene, expires, &signature).await;
            }
        })
    }),
    play(Escape, "a good signature, while bound to oneself", ROW, NOT_SIGNED, |scene| {
        Box::pin(async {
            let pid = scene.send(query("SELECT pg_backend_pid()")).await;
            let pid: i32 = pid[4..pid.find(") C").unwrap()].parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let expires = i64::try_from(now).unwrap() + 30;
            let seal = SealKeys::parse(SEAL_KEY).unwrap().seal("app").unwrap();
            let signature = seal.sign(&scene.victim.id, expires, pid);
            scene.send(query("BEGIN")).await;
            scene.send(query("SELECT app.run('RESET ROLE')")).await;
            entry(scene, expires, &signature).await;
            scene.send(query("ROLLBACK")).await;
            scene.send(query("SELECT body FROM notes")).await;
        })
    }),
    sql(
        Escape,
        "SET by a function that runs any text",
        ROW,
        FROM_SEALED,
        &[
            "SELECT app.run('SET app.tenant_id TO $q$$OTHER$q$')",
            "SELECT app.run('RESET ROLE; SET app.tenant_id TO $q$$OTHER$q$; SET ROLE app_rw')",
            "BEGIN\nSELECT app.run('SET LOCAL app.tenant_id TO $q$$OTHER$q$')\n\
         SELECT body FROM notes\nCOMMIT",
        ],
    ),
    sql(
        Escape,
        "the rights of the login, by a function that runs any text",
        ROW,
        stopped("42501"),
        &[
            "SELECT app.run('RESET ROLE')\nSELECT body FROM app.notes",
            "SELECT app.run('SET SESSION AUTHORIZATION postgres')",
            "SELECT app.run('SET ROLE app_owner')",
        ],
    ),
    sql(
        Escape,
        "no path, by a function that runs any text",
        ROW,
        stopped("42P01"),
        &["SELECT app.run('RESET ALL')"],
    ),
    sql(
        Escape,
        "no tenant at all, by a function that runs any text",
        ROW,
        HARMLESS,
        &[
            "BEGIN\nSELECT app.run('RESET ALL')\nSELECT body FROM app.notes\nROLLBACK",
            "BEGIN\nSAVEPOINT s\nSELECT app.run('RESET ALL')\nROLLBACK TO s\n\
         SELECT body FROM app.notes\nCOMMIT",
        ],
    ),
    sql(
        Escape,
        "temporary objects, by a function that runs any text",
        ROW,
        from_guard("42501"),
        &["SELECT app.run('CREATE FUNCTION pg_temp.become() RETURNS text LANGUAGE plpgsql AS \
         ''BEGIN SET app.tenant_id TO ''''$OTHER''''; RETURN NULL; END''')\n\
         SELECT app.run('SELECT pg_temp.become()')"],
    ),
    sql(
        Escape,
        "workers that read a shared table in parallel",
        ROW,
        HARMLESS,
        &["BEGIN\nSET LOCAL parallel_setup_cost TO 0\nSET LOCAL parallel_tuple_cost TO 0\n\
         SET LOCAL min_parallel_table_scan_size TO 0\nSELECT body FROM app.notes\nCOMMIT"],
    ),
    sql(
        Escape,
        "what the server prints of plans, values and calls",
        ROW,
        HARMLESS,
        &[
            "SET client_min_messages TO debug5\nBEGIN\nSET LOCAL debug_print_plan TO on\n\
         SELECT body FROM notes\nCOMMIT",
            "SET client_min_messages TO log\nBEGIN\nSET LOCAL debug_print_parse TO on\n\
         SET LOCAL log_parameter_max_length_on_error TO -1\nSELECT body FROM notes\nCOMMIT",
        ],
    ),
    sql(
        Careless,
        "a function that runs any text: the login's password",
        ROW,
        NOWHERE,
        &["SELECT app.run('RESET ROLE; ALTER ROLE CURRENT_USER PASSWORD $q$x$q$')"],
    ),
    sql(
        Careless,
        "a policy that reads the setting through a function",
        ROW,
        NOWHERE,
        &["SELECT app.become_by_set('$OTHER')\nSELECT body FROM app.by_wrapper"],
    ),
];

/// Goes back to the login, drops the context and calls `enter()`.
async fn enters(scene: &mut Scene<'_>, expires: i64, signature: &[u8]) {
    scene.send(query("BEGIN")).await;
    scene.send(query("SELECT app.run('RESET ALL; RESET ROLE')")).await;
    entry(scene, expires, signature).await;
    scene.send(query("ROLLBACK")).await;
    scene.send(query("SELECT body FROM notes")).await;
}

async fn entry(scene: &mut Scene<'_>, expires: i64, signature: &[u8]) {
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = &scene.victim.id;
    let call = format!("SELECT tenantgate.enter('{id}', 'k1', {expires}, '\\x{hex}')");
    scene.send(query(&call)).await;
    scene.send(query("SELECT body FROM app.notes")).await;
}
