//! Reaching for what is another's without forging anything: rows, objects, sessions, the machine;
//! and asking whether something of another's exists.

use super::Class::{Escape, Oracle};
use super::{
    ALL, Attack, HARMLESS, ONE_DATABASE, ROW, SCHEMA, SILO, apart, from_guard, refused_from_guard,
    sql, stopped,
};

pub const ATTACKS: [Attack; 32] = [
    sql(
        Escape,
        "reading a shared table in every way",
        ROW,
        HARMLESS,
        &[
            "TABLE app.notes",
            "SELECT * FROM ONLY notes TABLESAMPLE SYSTEM (100)",
            "SELECT body FROM notes WHERE ctid = ANY (SELECT format('(0,%s)', g)::tid \
         FROM generate_series(1, 50) g)",
            "COPY notes TO STDOUT",
            "COPY (SELECT * FROM notes) TO STDOUT WITH (FORMAT binary)",
            "SELECT body FROM notes FOR UPDATE",
            "SELECT string_agg(n::text, '') FROM notes n",
            "DELETE FROM notes RETURNING body",
            "UPDATE notes SET body = body RETURNING body",
            "SELECT body FROM app.owners_view",
            "BEGIN\nDECLARE c SCROLL CURSOR FOR SELECT body FROM notes\nFETCH ALL FROM c\nCOMMIT",
            "SET enable_seqscan TO off\nSET enable_indexscan TO off\nSELECT body FROM notes",
            "SET plan_cache_mode TO force_generic_plan\nSELECT body FROM notes WHERE id > 0",
        ],
    ),
    sql(
        Escape,
        "an error that tells of a row it met",
        ROW,
        stopped("22P02"),
        &[
            "SELECT body::int FROM notes",
            "SELECT * FROM notes WHERE body::int > 0",
            "SELECT body FROM notes WHERE CASE WHEN body > '' THEN body::int END > 0",
        ],
    ),
    sql(
        Escape,
        "a division that fails on another's row",
        ROW,
        stopped("22012"),
        &["SELECT 1 / (id - 2) FROM notes", "SELECT 1 FROM notes WHERE 1 / (id - 2) > 0"],
    ),
    sql(Escape, "COPY FROM into a shared table", ROW, stopped("0A000"), &["COPY notes FROM STDIN"]),
    sql(
        Escape,
        "taking row security off, or a policy away",
        ROW,
        stopped("42501"),
        &[
            "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
            "CREATE POLICY all_rows ON notes USING (true)",
            "ALTER POLICY own_rows ON notes USING (true)",
            "DROP POLICY own_rows ON notes",
            "ALTER TABLE notes OWNER TO app_rw",
            "TRUNCATE notes",
            "DROP TABLE notes",
            "CREATE TRIGGER t AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION app.serve_job()",
            "CREATE RULE r AS ON INSERT TO notes DO ALSO SELECT 1",
            "CREATE INDEX ON notes (body)",
            "CREATE TABLE app.child (tenant_id text, id int, FOREIGN KEY (tenant_id, id) \
         REFERENCES notes)",
            "CREATE STATISTICS s ON tenant_id, body FROM notes",
            "CREATE PUBLICATION p FOR TABLE notes",
        ],
    ),
    sql(
        Escape,
        "granting, taking and dropping rights",
        ALL,
        stopped("42501"),
        &[
            "GRANT pg_read_all_data TO CURRENT_USER",
            "CREATE ROLE evil SUPERUSER",
            "CREATE ROLE evil LOGIN IN ROLE app_owner",
            "REASSIGN OWNED BY app_owner TO CURRENT_USER",
            "DROP OWNED BY app_owner",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT ALL ON TABLES TO PUBLIC",
        ],
    ),
    sql(
        Escape,
        "dropping what one's own role was granted",
        ROW,
        HARMLESS,
        &[
            "REVOKE ALL ON notes FROM CURRENT_USER",
            "REVOKE SELECT ON ALL TABLES IN SCHEMA app FROM app_rw",
        ],
    ),
    sql(
        Escape,
        "statistics of a shared table's columns",
        ROW,
        HARMLESS,
        &[
            "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats \
         WHERE tablename = 'notes'",
            "SELECT statistics_name FROM pg_stats_ext",
        ],
    ),
    sql(
        Escape,
        "catalogs with values of rows in them",
        ALL,
        stopped("42501"),
        &[
            "SELECT * FROM pg_statistic",
            "SELECT * FROM pg_authid",
            "SELECT * FROM pg_largeobject",
            "SELECT * FROM pg_user_mapping",
            "SELECT * FROM pg_hba_file_rules",
        ],
    ),
    sql(
        Escape,
        "files, programs, extensions of the server",
        ALL,
        stopped("42501"),
        &[
            "COPY notes TO '/tmp/stolen'",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "CREATE TABLE pg_catalog.x ()",
            "SELECT pg_read_file('pg_hba.conf')",
            "SELECT pg_read_binary_file('PG_VERSION')",
            "SELECT pg_ls_dir('.')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT pg_reload_conf()",
            "SELECT pg_switch_wal()",
            "SELECT pg_create_logical_replication_slot('x', 'pgoutput')",
            "CREATE EXTENSION file_fdw",
            "CREATE EXTENSION dblink",
            "CREATE FUNCTION evil() RETURNS int LANGUAGE c AS 'x', 'y'",
            "CREATE DATABASE evil",
            "CREATE TABLESPACE evil LOCATION '/tmp'",
            "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION evil()",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
            "CREATE FOREIGN DATA WRAPPER f",
        ],
    ),
    sql(
        Escape,
        "a library loaded into the server",
        ALL,
        stopped("0A000"),
        &["LOAD 'auto_explain'"],
    ),
    sql(
        Escape,
        "another tenant's schema by its name",
        SCHEMA,
        stopped("42501"),
        &[
            "SELECT body FROM $OTHER.notes",
            "COPY $OTHER.notes TO STDOUT",
            "INSERT INTO $OTHER.notes VALUES (9, 'planted')",
            "DELETE FROM $OTHER.notes",
            "SELECT 'x'::$OTHER.notes",
            "CREATE TABLE $OTHER.mine (x int)",
            "CREATE VIEW v AS SELECT * FROM $OTHER.notes",
            "DROP TABLE $OTHER.notes",
            "DROP SCHEMA $OTHER CASCADE",
            "ALTER SCHEMA $OTHER RENAME TO mine",
            "GRANT USAGE ON SCHEMA $OTHER TO PUBLIC",
            "SELECT body FROM app.notes",
        ],
    ),
    sql(
        Escape,
        "a shared schema to put traps in",
        ONE_DATABASE,
        stopped("42501"),
        &[
            "CREATE TABLE public.notes (body text)",
            "CREATE FUNCTION public.now() RETURNS text RETURN 'x'",
            "CREATE SCHEMA evil",
        ],
    ),
    sql(
        Escape,
        "search_path of a schema tenant",
        SCHEMA,
        stopped("42501"),
        &[
            "SET search_path TO $OTHER",
            "SELECT set_config('search_path', '$OTHER', false)",
            "SET SCHEMA '$OTHER'",
        ],
    ),
    sql(
        Escape,
        "search_path of a schema tenant, computed",
        SCHEMA,
        SEES_NOTHING,
        &[
            "SELECT set_config('search_' || 'path', '$OTHER', false)",
            "BEGIN\nSELECT set_config('search_' || 'path', '$OTHER', true)\nSELECT body FROM notes",
        ],
    ),
    sql(
        Escape,
        "a security definer function of one's own",
        SCHEMA,
        refused_from_guard("42501"),
        &["CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT user$$\n\
         SELECT f()\nDROP FUNCTION f()"],
    ),
    sql(
        Escape,
        "another database by its name",
        SILO,
        stopped("0A000"),
        &["SELECT body FROM app.$OTHER.notes", "SELECT * FROM postgres.pg_catalog.pg_authid"],
    ),
    sql(
        Escape,
        "another tenant's tables, from a database of its own",
        SILO,
        stopped("42P01"),
        &["SELECT body FROM app.notes"],
    ),
    sql(
        Escape,
        "large objects of the role",
        ROW,
        from_guard("42501"),
        &[
            "victim: SELECT lo_from_bytea(4711, 'CANARY')\n\
         SELECT convert_from(lo_get(4711), 'UTF8')",
            "victim: SELECT lo_from_bytea(4711, 'CANARY')\nSELECT lo_put(4711, 0, 'x')",
            "victim: SELECT lo_from_bytea(4711, 'CANARY')\nSELECT lo_unlink(4711)",
            "victim: SELECT lo_from_bytea(4711, 'CANARY')\n\
         SELECT convert_from(loread(lo_open(4711, 262144), 6), 'UTF8')",
        ],
    ),
    sql(
        Escape,
        "large objects of another login",
        SCHEMA,
        stopped("42501"),
        &["dba: SELECT lo_unlink(oid) FROM pg_largeobject_metadata; \
               SELECT lo_from_bytea(4711, 'CANARY')\nSELECT lo_get(4711)"],
    ),
    sql(
        Escape,
        "notifications",
        ONE_DATABASE,
        stopped("0A000"),
        &["LISTEN $OTHER\nvictim: NOTIFY $OTHER, 'CANARY'\nSELECT 1"],
    ),
    apart(sql(
        Escape,
        "notifications of another database, in a silo",
        SILO,
        HARMLESS,
        &["LISTEN $OTHER\nvictim: NOTIFY $OTHER, 'CANARY'\nSELECT 1"],
    )),
    sql(
        Escape,
        "notifications, listened for in a DO block",
        ROW,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'LISTEN x'; END$$\nvictim: NOTIFY x, 'CANARY'\nSELECT 1",
            "BEGIN\nDO $$BEGIN EXECUTE 'LISTEN x'; END$$\nCOMMIT\ndba: NOTIFY x, \
             'CANARY'\nSELECT 1",
        ],
    ),
    apart(sql(
        Escape,
        "what others run, in pg_stat_activity",
        ROW,
        refused_from_guard("42501"),
        &[
            "victim: BEGIN; SELECT 'CANARY'\nSELECT string_agg(query, '') FROM \
             pg_stat_activity\nvictim: ROLLBACK",
            "victim: BEGIN; SELECT 'CANARY'\nSELECT query FROM \
             pg_stat_get_activity(NULL)\nvictim: ROLLBACK",
        ],
    )),
    apart(sql(
        Escape,
        "what others run, by pg_stat_get_backend_activity",
        ROW,
        REVOKED,
        &["victim: BEGIN; SELECT 'CANARY'\nSELECT pg_stat_get_backend_activity(b) \
         FROM generate_series(1, 100) b\nvictim: ROLLBACK"],
    )),
    apart(sql(
        Escape,
        "what others run, as statements and cursors",
        ROW,
        HARMLESS,
        &[
            "victim: BEGIN; DECLARE c CURSOR FOR SELECT 'CANARY'\nSELECT * FROM \
             pg_cursors\nvictim: ROLLBACK",
            "victim: BEGIN; SELECT 'CANARY'\nSELECT * FROM pg_prepared_statements\nvictim: \
             ROLLBACK",
        ],
    )),
    apart(sql(
        Escape,
        "what others run, as the login",
        ROW,
        from_guard("42501"),
        &["victim: BEGIN; SELECT 'CANARY'\nDO $$BEGIN RESET ROLE; RAISE NOTICE '%', \
         (SELECT string_agg(query, '') FROM pg_stat_activity); END$$\nvictim: ROLLBACK"],
    )),
    apart(sql(
        Escape,
        "what another login runs",
        SCHEMA,
        refused_from_guard("42501"),
        &["victim: BEGIN; SELECT 'CANARY'\nSELECT pg_stat_get_backend_activity(b) \
         FROM generate_series(1, 100) b\nvictim: ROLLBACK"],
    )),
    apart(sql(
        Escape,
        "ending or cancelling another's session, as the login",
        ROW,
        END,
        &["victim: BEGIN; SELECT 1\nDO $$BEGIN RESET ROLE; PERFORM pg_terminate_backend(pid) \
             FROM pg_stat_activity \
         WHERE usename = '$LOGIN' AND pid <> pg_backend_pid(); END$$\nvictim: ROLLBACK"],
    )),
    sql(
        Oracle,
        "a key of another's: INSERT, ON CONFLICT, foreign keys",
        ROW,
        HARMLESS,
        &[
            "INSERT INTO notes (id, body) VALUES (4, 'x'); DELETE FROM notes WHERE id = 4",
            "DELETE FROM notes WHERE id = 2\nINSERT INTO notes (id, body) VALUES (2, 'x') \
         ON CONFLICT (tenant_id, id) DO NOTHING",
        ],
    ),
    sql(
        Oracle,
        "whether another's schema has a table, by asking for it",
        SCHEMA,
        ASKED,
        &[
            "SELECT 'x' FROM $OTHER.notes LIMIT 0",
            "SELECT 'x' FROM $OTHER.nothing_of_that_name LIMIT 0",
            "SELECT has_table_privilege('$OTHER.notes', 'SELECT') FROM $OTHER.notes",
        ],
    ),
    sql(
        Oracle,
        "another's rows, by what a predicate costs or raises",
        ROW,
        HARMLESS,
        &[
            "SELECT count(*) FROM notes WHERE body LIKE 'note%' AND length(body) > 0",
            "SELECT exists(SELECT FROM notes WHERE tenant_id = '$OTHER')",
            "SELECT max(xmin::text::bigint) FROM notes WHERE tenant_id = '$OTHER'",
        ],
    ),
];

const SEES_NOTHING: super::Expected = [
    super::Verdict::Stopped("42P01"),
    super::Verdict::Stopped("42501"),
    super::Verdict::Stopped("42501"),
];

const ASKED: super::Expected = stopped("42501");

const END: super::Expected = from_guard("42501");

const REVOKED: super::Expected = refused_from_guard("42501");
