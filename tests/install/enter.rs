//! What holds once a database is sealed, on every version: only a right signature enters, what
//! entered stays, and nothing that SQL can say changes it.

use tenantgate::demo::{Cluster, Plan};
use tenantgate::isolation::carrier::carried;
use tokio_postgres::Client;

use crate::harness::cluster::{of, superuser, versions};
use crate::install::tools::{
    NEW, OLD, Setup, call, code, enter, login, now, pid, rows, state, tenant_id,
};

/// Policies of `app.notes` call `tenantgate.tenant_id()`, and two tenants have rows.
pub const POLICIES: &str = "ALTER POLICY own_rows ON app.notes \
    USING (tenant_id = (SELECT tenantgate.tenant_id())) \
    WITH CHECK (tenant_id = (SELECT tenantgate.tenant_id())); \
    ALTER TABLE app.notes ALTER tenant_id SET DEFAULT tenantgate.tenant_id(); \
    INSERT INTO app.notes SELECT t, n, t || ' ' || n FROM unnest(ARRAY['acme', 'globex']) t, \
    generate_series(1, 3) n";

/// A cluster of a version at level sealed, with the key `OLD`.
async fn sealed(template: &tenantgate::demo::Template) -> (Cluster, Setup) {
    let plan = Plan { settings: "max_parallel_workers = 4\n".to_owned(), ..Plan::default() };
    let cluster = of(template, &plan).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    let said = setup.install(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    superuser(&cluster, "app").await.batch_execute(POLICIES).await.unwrap();
    setup.write("sealed", OLD);
    let said = setup.install(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.of("tenantgate.tenant_id()"), "replaced", "another body: {said:?}");
    assert_eq!(said.of("as tg_login"), "tenants enter", "{said:?}");
    (cluster, setup)
}

#[tokio::test]
async fn on_every_version_only_a_right_signature_enters_and_nothing_changes_it_afterwards() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        let (cluster, setup) = sealed(template).await;
        wrong_signatures(&cluster, &setup).await;
        every_escape(&cluster, &setup).await;
        ids(&cluster, &setup).await;
        a_parallel_worker(&cluster, &setup).await;
    }
}

async fn wrong_signatures(cluster: &Cluster, setup: &Setup) {
    let (client, other) = (login(cluster).await, login(cluster).await);
    let seal = setup.seal(OLD);
    let (now, own) = (now(&client).await, pid(&client).await);
    let good = seal.sign("acme", now + 30, own);
    let elsewhere = tenantgate::isolation::SealKeys::parse(OLD).unwrap().seal("postgres").unwrap();
    let mut bent = good;
    bent[31] ^= 1;
    let cases: [(&str, &str, i64, Vec<u8>); 12] = [
        ("globex", "old", now + 30, good.to_vec()),
        ("acme", "old", now + 31, good.to_vec()),
        ("acme", "new", now + 30, good.to_vec()),
        ("acme", "", now + 30, good.to_vec()),
        ("acme", "old", now + 30, bent.to_vec()),
        ("acme", "old", now + 30, Vec::new()),
        ("acme", "old", now + 30, good[..31].to_vec()),
        ("acme", "old", now + 30, seal.sign("acme", now + 30, pid(&other).await).to_vec()),
        ("acme", "old", now + 30, elsewhere.sign("acme", now + 30, own).to_vec()),
        ("acme", "old", now - 1, seal.sign("acme", now - 1, own).to_vec()),
        ("acme", "old", now + 600, seal.sign("acme", now + 600, own).to_vec()),
        ("acme", "old", now + 30, setup.seal(NEW).sign("acme", now + 30, own).to_vec()),
    ];
    for (tenant, kid, expires, signature) in cases {
        let error = call(&client, tenant, kid, expires, &signature).await.unwrap_err();
        assert_eq!(code(&error), "28000", "{tenant} {kid} {expires}");
    }
    // What is no tenant's id is not entered, with a right signature either; nor is a missing value.
    for bad in ["", "a'b", "a|b", "é", "a b", ".a", "-a", "_a", &"a".repeat(64)] {
        assert_eq!(code(&enter(&client, &seal, bad).await.unwrap_err()), "28000", "{bad:?}");
    }
    let sql = "SELECT tenantgate.enter(NULL, 'old', 9999999999, NULL)";
    assert_eq!(state(&client, sql).await, "28000");
    assert_eq!(tenant_id(&client).await, None);
    assert_eq!(call(&client, "acme", "old", now + 30, &good).await.unwrap(), "acme");
    // A second one, its own again or another's, cannot replace the first.
    for tenant in ["acme", "globex"] {
        assert_eq!(code(&enter(&client, &seal, tenant).await.unwrap_err()), "28000");
    }
    assert_eq!(tenant_id(&client).await.as_deref(), Some("acme"));
}

/// What a tenant may try, from inside its role and after leaving it.
const ESCAPES: [&str; 35] = [
    "SET backtrace_functions = '0globex'",
    "SET LOCAL backtrace_functions = '0globex'",
    "SET SESSION backtrace_functions TO DEFAULT",
    "RESET backtrace_functions",
    "SELECT set_config('backtrace_functions', '0globex', false)",
    "SELECT pg_catalog.set_config('app.tenant_id', 'globex', false)",
    "WITH s AS (SELECT set_config('backtrace_functions', '0globex', true)) SELECT * FROM s",
    "UPDATE pg_settings SET setting = '0globex' WHERE name = 'backtrace_functions'",
    "DO $$ BEGIN EXECUTE 'SET backtrace_functions = ''0globex'''; END $$",
    "DO LANGUAGE plpgsql $$ BEGIN PERFORM set_config('backtrace_functions', '0', false); END $$",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END' \
     SET backtrace_functions = '0globex'",
    "CREATE TEMP TABLE notes (tenant_id text)",
    "ALTER ROLE CURRENT_USER SET backtrace_functions = '0globex'",
    "ALTER DATABASE app SET backtrace_functions = '0globex'",
    "ALTER SYSTEM SET backtrace_functions = '0globex'",
    "CREATE OR REPLACE FUNCTION tenantgate.tenant_id() RETURNS text LANGUAGE sql AS 'SELECT 1'",
    "SELECT * FROM tenantgate.keys",
    "INSERT INTO tenantgate.keys VALUES ('x', '', '')",
    "SET ROLE tenantgate_owner",
    "SET SESSION AUTHORIZATION postgres",
    "GRANT SET ON PARAMETER backtrace_functions TO tg_login",
    "SELECT tenantgate.set_config('backtrace_functions', '0globex', false)",
    "SELECT tenantgate.set_config('BACKTRACE_Functions', '0globex', true)",
    "SELECT tenantgate.set_config('backtrace' || '_functions', NULL, false)",
    "SELECT tenantgate.set_config('App.Tenant_ID', 'globex', false)",
    "SELECT tenantgate.set_config('role', 'tenantgate_owner', false)",
    "SELECT tenantgate.set_config('ROLE', 'none', true)",
    "SELECT tenantgate.set_config('session_authorization', 'postgres', false)",
    "SELECT tenantgate.set_config('row_security', 'off', false)",
    "SELECT tenantgate.set_config('search_path', 'app, public', false)",
    "SELECT tenantgate.set_config('search_path', NULL, false)",
    "SELECT tenantgate.set_config('seed', '0.5', false)",
    "SELECT tenantgate.set_config('session_replication_role', 'replica', false)",
    "CREATE OR REPLACE FUNCTION tenantgate.set_config(setting_name text, new_value text, \
     is_local bool) RETURNS text LANGUAGE sql AS 'SELECT 1'",
];

/// What is taken for a fault of another kind, and changes nothing.
const DEAD_ENDS: [(&str, &str); 3] = [
    ("PREPARE p AS SELECT set_config('backtrace_functions', '0globex', false); EXECUTE p", "42501"),
    ("COPY (SELECT set_config('backtrace_functions', '0globex', false)) TO STDOUT", "42501"),
    ("EXPLAIN ANALYZE SELECT set_config('backtrace_functions', '0globex', false)", "42501"),
];

async fn every_escape(cluster: &Cluster, setup: &Setup) {
    let client = login(cluster).await;
    enter(&client, &setup.seal(OLD), "acme").await.unwrap();
    for role in ["SET ROLE app_rw", "RESET ROLE"] {
        client.batch_execute(&format!("DEALLOCATE ALL; {role}")).await.unwrap();
        let escapes = ESCAPES.iter().map(|sql| (*sql, "42501")).chain(DEAD_ENDS);
        for (sql, wanted) in escapes {
            assert_eq!(state(&client, sql).await, wanted, "{role}: {sql}");
            assert_eq!(tenant_id(&client).await.as_deref(), Some("acme"), "{role}: {sql}");
        }
    }
    client.batch_execute("SET ROLE app_rw").await.unwrap();
    // What changes no context it changes, as PostgreSQL's own function would.
    let ordinary = "SELECT tenantgate.set_config('TimeZone', 'Asia/Tokyo', false)";
    assert_eq!(rows(&client, ordinary).await.concat(), ["Asia/Tokyo"]);
    assert_eq!(rows(&client, "SHOW timezone").await.concat(), ["Asia/Tokyo"]);
    let own = "BEGIN; SELECT tenantgate.set_config('my.own', 'x', true), \
               pg_catalog.current_setting('my.own'); COMMIT";
    assert_eq!(rows(&client, own).await.concat(), ["x", "x"]);
    for (name, wanted) in [("nothing", "42501"), ("work_mem", "22023")] {
        let sql = format!("SELECT tenantgate.set_config('{name}', 'x', false)");
        assert_eq!(state(&client, &sql).await, wanted, "{name}");
    }
    // A transaction that is rolled back takes the tenant neither away nor elsewhere.
    client.batch_execute("BEGIN; SAVEPOINT s; ROLLBACK TO s; ROLLBACK").await.unwrap();
    // The setting that SQL may change is not what counts.
    client.batch_execute("SET app.tenant_id = 'globex'").await.unwrap();
    assert_eq!(bodies(&client).await, ["acme 1", "acme 2", "acme 3"]);
    let insert = "INSERT INTO app.notes (tenant_id, id, body) VALUES ('globex', 9, 'planted')";
    assert_eq!(state(&client, insert).await, "42501");
    // What clears it closes the door behind itself.
    for clear in ["RESET ALL", "DISCARD ALL"] {
        client.batch_execute("RESET ROLE").await.unwrap();
        let _ = enter(&client, &setup.seal(OLD), "acme").await;
        client.batch_execute(clear).await.unwrap();
        client.batch_execute("SET ROLE app_rw").await.unwrap();
        assert_eq!(tenant_id(&client).await, None, "{clear}");
        assert_eq!(bodies(&client).await, [""; 0], "{clear}");
    }
    // At start-up as well.
    let options = cluster.conninfo("tg_login", crate::harness::tenants::LOGIN_PASSWORD, "app")
        + " options='-c backtrace_functions=0globex'";
    let error = crate::harness::cluster::connect(&options).await.map(drop).unwrap_err();
    assert_eq!(code(&error), "42501");
}

async fn bodies(client: &Client) -> Vec<String> {
    rows(client, "SELECT body FROM app.notes ORDER BY id").await.concat()
}

async fn ids(cluster: &Cluster, setup: &Setup) {
    let client = login(cluster).await;
    let seal = setup.seal(OLD);
    let mut ids: Vec<String> = "0Az_.-".chars().map(|one| format!("a{one}{one}b{one}")).collect();
    let all = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain("_.-".chars());
    let all: String = all.collect();
    ids.extend([all[..63].to_owned(), format!("x{}", &all[all.len() - 62..])]);
    ids.extend(["3f1c0a52-7f5e-4c7d-9a57-1b3c5d7e9f00".to_owned(), "palloc".to_owned()]);
    // What would read the same if one were written as the other's encoding.
    ids.extend(["a0b", "a.b", "a-b", "a-0b", "a.0b", "a00b"].map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    for id in &ids {
        assert_eq!(enter(&client, &seal, id).await.unwrap(), *id);
        assert_eq!(tenant_id(&client).await.as_ref(), Some(id));
        let value = rows(&client, "SHOW backtrace_functions").await.concat().concat();
        assert_eq!(value, carried(id));
        assert!(seen.insert(value), "{id} reads as another one");
        client.batch_execute("RESET ALL").await.unwrap();
    }
}

async fn a_parallel_worker(cluster: &Cluster, setup: &Setup) {
    let client = login(cluster).await;
    enter(&client, &setup.seal(OLD), "acme").await.unwrap();
    client
        .batch_execute(
            "SET ROLE app_rw; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; \
             SET parallel_tuple_cost = 0; SET max_parallel_workers_per_gather = 2",
        )
        .await
        .unwrap();
    let sql = "SELECT count(*) FROM app.notes WHERE tenantgate.tenant_id() = tenant_id";
    let plan = rows(&client, &format!("EXPLAIN (ANALYZE, COSTS off) {sql}")).await.concat();
    assert!(plan.iter().any(|line| line.contains("Workers Launched: ")), "{plan:#?}");
    assert_eq!(rows(&client, sql).await.concat(), ["3"]);
}
