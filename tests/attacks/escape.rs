//! Forging the context: becoming another tenant, or nobody, by a statement.

use super::Class::Escape;
use super::{
    ALL, Attack, FROM_SEALED, HARMLESS, ONE_DATABASE, OWN_LOGIN, ROW, SCHEMA, SILO, from_guard,
    pins, play, refused_from_guard, sql, stopped,
};
use crate::harness::messages::{bind, execute, extended, parse, sync};

/// The statement reads and forges in one, or forges for the one that follows.
pub const ATTACKS: [Attack; 34] = [
    sql(
        Escape,
        "SET, SET LOCAL or RESET of the tenant's setting",
        ROW,
        stopped("42501"),
        &[
            "SET app.tenant_id = '$OTHER'",
            "SET SESSION \"app\".tenant_id TO '$OTHER'",
            "SET U&\"app\".U&\"tenant\\005fid\" = '$OTHER'",
            "SET/**/app/**/./**/tenant_id/**/=/**/$$$OTHER$$",
            "BEGIN\nSET LOCAL app.tenant_id = '$OTHER'\nSELECT body FROM notes\nCOMMIT",
            "BEGIN\nSAVEPOINT s\nSET app.tenant_id = '$OTHER'\nROLLBACK TO s\nCOMMIT",
            "SELECT 1; SET app.tenant_id = '$OTHER'; SELECT body FROM notes",
            "BEGIN; SET LOCAL app.tenant_id = '$OTHER'; SELECT body FROM notes; COMMIT",
            "SELECT E'\\''; SET app.tenant_id = '$OTHER' --'",
            "RESET app.tenant_id",
            "SET app.tenant_id TO DEFAULT",
        ],
    ),
    sql(
        Escape,
        "SET or RESET of role and session authorization",
        ALL,
        stopped("42501"),
        &[
            "SET ROLE $OTHERLOGIN",
            "SET ROLE app_owner",
            "BEGIN\nSET LOCAL ROLE postgres\nSELECT body FROM notes",
            "SET SESSION AUTHORIZATION $OTHERLOGIN",
            "SELECT set_config('role', 'none', false)",
            "SELECT set_config('session_authorization', 'postgres', false)",
            "SELECT set_config('session_replication_role', 'replica', true)",
        ],
    ),
    sql(Escape, "SET ROLE none, out of the context's", ROW, stopped("42501"), &["SET ROLE none"]),
    sql(
        Escape,
        "role and session authorization to what they are",
        ALL,
        HARMLESS,
        &["RESET ROLE", "SET SESSION AUTHORIZATION DEFAULT"],
    ),
    sql(
        Escape,
        "row_security and search_path as part of the context",
        ROW,
        stopped("42501"),
        &[
            "SET row_security TO off",
            "SELECT set_config('row_security', 'off', false)",
            "SET search_path TO pg_temp, app",
            "SET SCHEMA 'public'",
        ],
    ),
    sql(
        Escape,
        "session_replication_role, to switch triggers off",
        ALL,
        stopped("42501"),
        &["SET session_replication_role TO replica"],
    ),
    sql(
        Escape,
        "set_config with the name as a plain string",
        ROW,
        stopped("42501"),
        &[
            "SELECT set_config('app.tenant_id', '$OTHER', false)",
            "SELECT pg_catalog.set_config('App.Tenant_ID', '$OTHER', true), body FROM notes",
            "SELECT U&\"set\\005fconfig\"('app.tenant_id', '$OTHER', false)",
            "WITH x AS MATERIALIZED (SELECT set_config('app.tenant_id', '$OTHER', false)) \
         SELECT body FROM x, notes",
            "COPY (SELECT set_config('app.tenant_id', '$OTHER', false)) TO STDOUT",
            "EXPLAIN ANALYZE SELECT set_config('app.tenant_id', '$OTHER', false)",
            "BEGIN\nDECLARE c CURSOR FOR SELECT set_config('app.tenant_id', '$OTHER', false)\n\
         FETCH c\nSELECT body FROM notes",
            "INSERT INTO notes (id, body) VALUES (9, set_config('app.tenant_id', '$OTHER', false))",
        ],
    ),
    sql(
        Escape,
        "set_config with a computed name",
        ROW,
        from_guard("42501"),
        &[
            "SELECT set_config('app.' || 'tenant_id', '$OTHER', false)",
            "SELECT set_config(lower('APP.TENANT_ID'), '$OTHER', false)",
            "SELECT set_config(n, '$OTHER', false) FROM (VALUES ('app.tenant_id')) AS v (n)",
            "SELECT set_config(chr(97) || 'pp.tenant_id', '$OTHER', false)",
            "WITH x AS MATERIALIZED (SELECT set_config('app.tenant' || '_id', '$OTHER', false)) \
         SELECT body FROM x, notes",
            "SELECT body FROM (SELECT set_config('app.tenant_id' || '', '$OTHER', true) OFFSET \
             0) x, \
         LATERAL (SELECT body, x FROM notes) n",
            "COPY (SELECT set_config('app.' || 'tenant_id', '$OTHER', false)) TO STDOUT",
            "EXPLAIN ANALYZE SELECT set_config('app.' || 'tenant_id', '$OTHER', false)",
            "BEGIN\nDECLARE c CURSOR FOR SELECT set_config('app.' || 'tenant_id', '$OTHER', true)\n\
         FETCH c\nSELECT body FROM notes\nCOMMIT",
            "SELECT 1 WHERE set_config('app.tenant_id' || '', '$OTHER', false) > ''",
            "INSERT INTO notes (id) SELECT 9 WHERE set_config('app.' || 'tenant_id', '$OTHER', \
             false) \
         IS NULL",
        ],
    ),
    play(Escape, "set_config with the name as a bound value", ROW, from_guard("42501"), |scene| {
        Box::pin(async {
            let other = scene.victim.id.clone();
            let values = [Some("app.tenant_id"), Some(other.as_str())];
            scene.send(extended("SELECT set_config($1, $2, false)", &values)).await;
            scene.send(extended("SELECT body FROM notes", &[])).await;
        })
    }),
    play(
        Escape,
        "a statement prepared once, run with another name",
        ROW,
        from_guard("42501"),
        |scene| {
            Box::pin(async {
                let other = scene.victim.id.clone();
                let sql = "SELECT set_config($1, $2, false)";
                let fine = bind("", "s", &[Some("work_mem"), Some("2MB")]);
                scene.send([parse("s", sql), fine, execute("", 0), sync()].concat()).await;
                let forged = bind("", "s", &[Some("app.tenant_id"), Some(&other)]);
                scene.send([forged, execute("", 0), sync()].concat()).await;
                scene.send(extended("SELECT body FROM notes", &[])).await;
            })
        },
    ),
    sql(
        Escape,
        "a DO block that sets it",
        ROW,
        from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'se' || 't app.tenant_id = ''$OTHER'''; END$$",
            "DO $$BEGIN PERFORM set_config('app.tenant_id', '$OTHER', false); END$$",
            "DO LANGUAGE plpgsql 'BEGIN SET app.tenant_id TO ''$OTHER''; END'",
            "DO $x$BEGIN RESET ROLE; PERFORM set_config('app.tenant_id', '$OTHER', false); \
         SET ROLE app_rw; END$x$",
        ],
    ),
    sql(
        Escape,
        "a DO block of a schema tenant",
        SCHEMA,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'RESET ROLE'; END$$",
            "DO $$BEGIN PERFORM set_config('app.tenant_id', 'globex', false); END$$",
        ],
    ),
    sql(
        Escape,
        "a DO block of a silo tenant",
        SILO,
        HARMLESS,
        &[
            "DO $$BEGIN EXECUTE 'RESET ROLE'; END$$",
            "DO $$BEGIN PERFORM set_config('app.tenant_id', 'globex', false); END$$",
        ],
    ),
    sql(
        Escape,
        "a DO block that takes another tenant's role",
        SCHEMA,
        stopped("42501"),
        &[
            "DO $$BEGIN EXECUTE 'SET ROLE rw_$OTHER'; END$$",
            "DO $$BEGIN EXECUTE 'SET ROLE $OTHERLOGIN'; END$$",
            "DO $$BEGIN EXECUTE 'SET SESSION AUTHORIZATION $OTHERLOGIN'; END$$",
        ],
    ),
    sql(
        Escape,
        "PREPARE and EXECUTE in SQL",
        ALL,
        stopped("42501"),
        &[
            "PREPARE p AS SELECT set_config('app.tenant_id', '$OTHER', false)\nEXECUTE p",
            "PREPARE p AS SELECT set_config('app.tenant_id', '$OTHER', false)\n\
             EXPLAIN ANALYZE EXECUTE p",
            "PREPARE p AS WITH w AS (SELECT set_config('role', 'none', false)) SELECT * FROM w\n\
             CREATE TABLE x AS EXECUTE p",
            "PREPARE p AS UPDATE notes SET body = set_config('app.tenant_id', '$OTHER', true)\n\
             EXECUTE p",
        ],
    ),
    sql(
        Escape,
        "EXECUTE that gives the name of the setting",
        ROW,
        from_guard("42501"),
        &["PREPARE p AS SELECT set_config($1, $2, false)\nEXECUTE p('app.tenant_id', '$OTHER')"],
    ),
    sql(
        Escape,
        "a function of PostgreSQL's that runs SQL from text",
        ROW,
        from_guard("42501"),
        &[
            "SELECT query_to_xml('SELECT set_config(''app.tenant_id'', ''$OTHER'', false)', \
         true, true, '')",
            "SELECT query_to_xml_and_xmlschema('SELECT set_config(''app.tenant_id'', ''$OTHER'', \
         false)', true, true, '')",
            "SELECT * FROM ts_stat('SELECT to_tsvector(set_config(''app.tenant_id'', ''$OTHER'', \
         false))')",
            "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, to_tsquery(''simple'', \
         left(set_config(''app.tenant_id'', ''$OTHER'', false), 1))')",
        ],
    ),
    sql(
        Escape,
        "UPDATE of pg_settings",
        ROW,
        refused_from_guard("42501"),
        &["UPDATE pg_settings SET setting = '$OTHER' WHERE name = 'app.tenant_id'"],
    ),
    sql(
        Escape,
        "a function made for it",
        ROW,
        stopped("42501"),
        &[
            "CREATE FUNCTION app.f() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$",
            "CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $$BEGIN END$$",
            "CREATE PROCEDURE app.p() LANGUAGE plpgsql AS $$BEGIN END$$",
            "CREATE FUNCTION app.f() RETURNS text SET app.tenant_id = '$OTHER' RETURN 'x'",
            "CREATE AGGREGATE app.a(text) (SFUNC = textcat, STYPE = text)",
            "CREATE EXTENSION dblink",
        ],
    ),
    sql(
        Escape,
        "a temporary function, made in a DO block",
        ROW,
        from_guard("42501"),
        &["DO $$BEGIN EXECUTE 'CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE plpgsql AS \
         ''BEGIN RETURN set_config(''''app.tenant_id'''', ''''$OTHER'''', false); END'''; \
         PERFORM pg_temp.f(); END$$"],
    ),
    pins(sql(
        Escape,
        "a temporary object, named as such",
        ONE_DATABASE,
        refused_from_guard("42501"),
        &[
            "CREATE TEMP TABLE t (x int)",
            "CREATE TABLE pg_temp.t (x int)",
            "CREATE TEMP VIEW notes AS SELECT 0 AS id, 'x' AS body",
        ],
    )),
    pins(sql(
        Escape,
        "a temporary object in a silo",
        SILO,
        HARMLESS,
        &[
            "CREATE TEMP TABLE t (x int)",
            "CREATE TABLE pg_temp.t (x int)",
            "CREATE TEMP VIEW notes AS SELECT 0 AS id, 'x' AS body",
        ],
    )),
    sql(
        Escape,
        "defaults for the next session: ALTER ROLE, ALTER DATABASE",
        ROW,
        stopped("42501"),
        &[
            "ALTER ROLE $LOGIN SET app.tenant_id = '$OTHER'",
            "ALTER ROLE $LOGIN PASSWORD 'stolen'",
            "ALTER ROLE CURRENT_USER SET app.tenant_id = '$OTHER'",
            "ALTER ROLE ALL SET search_path = evil",
            "ALTER DATABASE app SET app.tenant_id = '$OTHER'",
            "ALTER SYSTEM SET search_path = evil",
        ],
    ),
    sql(
        Escape,
        "defaults for the login, behind RESET ROLE in a DO block",
        ROW,
        from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE CURRENT_USER PASSWORD \
             ''stolen'''; \
         END$$",
            "DO $$BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE CURRENT_USER SET search_path = \
             evil';\
         END$$",
            "DO $$BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE CURRENT_USER SET row_security \
             = off';\
         END$$",
        ],
    ),
    sql(
        Escape,
        "defaults of another login",
        OWN_LOGIN,
        stopped("42501"),
        &[
            "ALTER ROLE $OTHERLOGIN PASSWORD 'stolen'",
            "ALTER ROLE $OTHERLOGIN SET search_path = evil",
            "ALTER ROLE ALL SET search_path = evil",
            "ALTER SYSTEM SET search_path = evil",
        ],
    ),
    sql(
        Escape,
        "RESET ALL, DISCARD and their kin",
        ALL,
        HARMLESS,
        &[
            "RESET ALL",
            "DISCARD ALL",
            "DISCARD PLANS",
            "DISCARD TEMP",
            "DISCARD SEQUENCES",
            "DEALLOCATE ALL",
            "UNLISTEN *",
            "CLOSE ALL",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
        ],
    ),
    sql(
        Escape,
        "the end of a transaction, in every way",
        ALL,
        HARMLESS,
        &[
            "BEGIN\nSELECT body FROM notes\nCOMMIT AND CHAIN\nSELECT body FROM notes\nROLLBACK",
            "BEGIN\nSAVEPOINT a\nROLLBACK TO a\nRELEASE a\nCOMMIT",
            "BEGIN; COMMIT; SELECT body FROM notes",
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE\nCOMMIT",
        ],
    ),
    sql(
        Escape,
        "a prepared transaction left for, or taken from, another",
        ALL,
        stopped("0A000"),
        &[
            "BEGIN\nINSERT INTO notes (id, body) VALUES (9, 'x')\nPREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
        ],
    ),
    sql(
        Escape,
        "a function somebody left that sets by set_config",
        ROW,
        LEFT,
        &[
            "SELECT app.become('$OTHER')",
            "SELECT app.become('$OTHER'), body FROM notes",
            "CALL app.move_to('$OTHER')",
        ],
    ),
    sql(
        Escape,
        "a function somebody left that runs SET",
        ROW,
        FROM_SEALED,
        &[
            "SELECT app.become_by_set('$OTHER')",
            "SELECT body FROM (SELECT app.become_by_set('$OTHER') OFFSET 0) x, LATERAL (SELECT \
             body, x \
         FROM notes) n",
            "SELECT app.with_setting('$OTHER')",
        ],
    ),
    sql(
        Escape,
        "a trigger or rule somebody left that sets it",
        ROW,
        FROM_SEALED,
        &[
            "INSERT INTO app.jobs (tenant) VALUES ('$OTHER')",
            "UPDATE app.jobs SET tenant = '$OTHER'",
        ],
    ),
    sql(
        Escape,
        "a definer's function somebody left that reads by the setting",
        ROW,
        FROM_SEALED,
        &["SELECT app.become_by_set('$OTHER')\nSELECT app.count_notes(), app.first_note()"],
    ),
    sql(
        Escape,
        "set_config as the login, behind RESET ROLE in a function left",
        ROW,
        LEFT,
        &["SELECT app.run('RESET ROLE')\nSELECT set_config('app.' || 'tenant_id', '$OTHER', \
             false)\n\
         SELECT set_config('ro' || 'le', 'app_rw', false)\nSELECT body FROM app.notes"],
    ),
    sql(
        Escape,
        "a tenant's row written under another's name",
        ROW,
        stopped("42501"),
        &[
            "INSERT INTO notes (tenant_id, id, body) VALUES ('$OTHER', 9, 'planted')",
            "UPDATE notes SET tenant_id = '$OTHER'",
            "INSERT INTO notes (id, body) VALUES (1, 'x') ON CONFLICT (tenant_id, id) DO UPDATE \
         SET tenant_id = '$OTHER'",
            "MERGE INTO notes n USING (VALUES (1)) AS v (id) ON n.id = v.id WHEN MATCHED THEN \
         UPDATE SET tenant_id = '$OTHER'",
        ],
    ),
];

/// The pack's revoke reaches into functions that run with the caller's rights.
const LEFT: super::Expected = from_guard("42501");
