//! What is installed: on every PostgreSQL version here, by itself and as psql runs it; what the
//! tables take, what they note, and what the reader may do.

use std::process::Command;

use tenantgate::demo::Plan;

use super::Tables;
use crate::harness::cluster::{connect, of, shared, versions};

/// The SQLSTATE of a statement's error; empty if it has none.
async fn state(client: &tokio_postgres::Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => error.code().unwrap_or_else(|| panic!("{sql}: {error}")).code().to_owned(),
    }
}

/// The number of the last change.
async fn version(tables: &Tables) -> i64 {
    let sql = "SELECT number FROM tenantgate_catalog.version";
    tables.dba.query_one(sql, &[]).await.unwrap().get(0)
}

/// What changed behind a number, in the order of ids.
async fn since(tables: &Tables, number: i64) -> Vec<String> {
    let sql = "SELECT tenant FROM tenantgate_catalog.changes WHERE version > $1 ORDER BY tenant";
    let rows = tables.dba.query(sql, &[&number]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_tables_are_made_twice_and_by_psql_on_every_version() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        let cluster = of(template, &Plan::default()).await;
        let tables = Tables::new(&cluster).await;
        tables.add("acme").await;
        let said = tables.install(&[]);
        assert!(said.status.success(), "{said:?}");
        let printed = tables.install(&["--print"]);
        let sql = String::from_utf8(printed.stdout).unwrap();
        assert!(sql.contains("SCRAM-SHA-256$") && !sql.contains("login-password"), "{sql}");
        assert!(!sql.contains('@'), "a name was not filled in");
        let file = tables.folder.path().join("install.sql");
        std::fs::write(&file, sql).unwrap();
        let mut psql = Command::new(template.binaries().program("psql"));
        psql.args(["-X", "-q", "-f"]).arg(&file).arg(cluster.superuser_conninfo("postgres"));
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let reader = connect(&tables.conninfo).await.unwrap();
        let sql = "SELECT id FROM tenantgate_catalog.tenants";
        let id: String = reader.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(id, "acme");
        let sql = "SELECT credentials::int FROM tenantgate_catalog.overview WHERE id = 'acme'";
        assert_eq!(tables.dba.query_one(sql, &[]).await.unwrap().get::<_, i32>(0), 1);
    }
}

#[tokio::test]
async fn the_reader_reads_and_does_nothing_else() {
    let tables = Tables::new(shared().await).await;
    tables.add("acme").await;
    let reader = connect(&tables.conninfo).await.unwrap();
    for good in [
        "SELECT id, connection_string, overrides FROM tenantgate_catalog.tenants",
        "SELECT hash, scram_verifier FROM tenantgate_catalog.credentials",
        "SELECT * FROM tenantgate_catalog.changes, tenantgate_catalog.version",
        "LISTEN tenantgate_catalog",
    ] {
        assert_eq!(state(&reader, good).await, "", "{good}");
    }
    for bad in [
        "SELECT attributes FROM tenantgate_catalog.tenants",
        "UPDATE tenantgate_catalog.tenants SET state = 'disabled'",
        "INSERT INTO tenantgate_catalog.credentials (kind) VALUES ('token')",
        "DELETE FROM tenantgate_catalog.changes",
        "UPDATE tenantgate_catalog.version SET number = 0",
        "TRUNCATE tenantgate_catalog.tenants CASCADE",
        "SELECT * FROM tenantgate_catalog.overview",
        "CREATE TABLE tenantgate_catalog.mine ()",
        "DROP TABLE tenantgate_catalog.changes",
        "SELECT tenantgate_catalog.begin_change()",
    ] {
        assert_eq!(state(&reader, bad).await, "42501", "{bad}");
    }
    // A login that may do more is not made the reader.
    let sql = format!("ALTER ROLE {} CREATEDB", tables.reader);
    tables.dba.batch_execute(&sql).await.unwrap();
    let said = tables.install(&[]);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && words.contains("may do more than read"), "{words}");
}

#[tokio::test]
async fn rows_that_could_be_mistaken_are_not_taken() {
    let tables = Tables::new(shared().await).await;
    tables.add("Acme").await;
    let insert = |columns: &str, values: &str| {
        let columns = format!("id, isolation, cluster{columns}");
        format!("INSERT INTO tenantgate_catalog.tenants ({columns}) VALUES ({values})")
    };
    let long = "x".repeat(64);
    for (columns, values, code) in [
        ("", "'acme', 'row', 'main'", "23505"),
        ("", "'a b', 'row', 'main'", "23514"),
        ("", "E'a\\n', 'row', 'main'", "23514"),
        ("", "'TenantGate', 'row', 'main'", "23514"),
        ("", &format!("'{long}', 'row', 'main'"), "23514"),
        ("", "'b', 'column', 'main'", "23514"),
        (", state", "'b', 'row', 'main', 'sleepy'", "23514"),
        (", overrides", "'b', 'row', 'main', '[]'", "23514"),
        (", schema", &format!("'b', 'row', 'main', '{long}'"), "23514"),
    ] {
        let sql = insert(columns, values);
        assert_eq!(state(&tables.dba, &sql).await, code, "{sql}");
    }
    let zeros = "0".repeat(64);
    let hash = format!("abcdefgh2345:sha256:{zeros}");
    let insert = |columns: &str, values: &str| {
        format!("INSERT INTO tenantgate_catalog.credentials ({columns}) VALUES ({values})")
    };
    let good = insert("kind, tenant, hash", &format!("'token', 'Acme', '{hash}'"));
    assert_eq!(state(&tables.dba, &good).await, "");
    for (columns, values, code) in [
        ("kind, tenant, hash", format!("'token', 'Acme', '{hash}'"), "23505"),
        ("kind, tenant, hash", format!("'token', 'acme', 'b{hash}'"), "23514"),
        ("kind, tenant, hash", format!("'token', 'nobody', 'z{}'", &hash[1..]), "23503"),
        ("kind, tenant", "'token', 'Acme'".to_owned(), "23514"),
        ("kind, tenant, scram_verifier", "'scram', 'Acme', 'secret'".to_owned(), "23514"),
        ("kind, tenant, cert_name", "'certificate', 'Acme', 'x'".to_owned(), "23514"),
        ("kind, tenant, cert_name", "'token', 'Acme', 'cn:x'".to_owned(), "23514"),
    ] {
        let sql = insert(columns, &values);
        assert_eq!(state(&tables.dba, &sql).await, code, "{sql}");
    }
}

#[tokio::test]
async fn every_change_is_noted_once_with_what_it_concerns() {
    let tables = Tables::new(shared().await).await;
    tables.add("acme").await;
    tables.add("beta").await;
    let mut before = version(&tables).await;
    for (sql, noted) in [
        ("UPDATE tenants SET tier = 'x' WHERE id = 'acme'", &["acme"][..]),
        ("UPDATE tenants SET tier = 'y' WHERE id = 'nobody'", &[]),
        ("UPDATE credentials SET revoked_at = now() WHERE tenant = 'beta'", &["beta"]),
        ("UPDATE tenants SET id = 'gamma' WHERE id = 'beta'", &["beta", "gamma"]),
        ("DELETE FROM tenants WHERE id = 'gamma'", &["gamma"]),
        ("BEGIN; DELETE FROM tenants; ROLLBACK", &[]),
        ("COPY tenants (id, isolation, cluster) FROM PROGRAM 'printf \"a\\trow\\tm\\n\"'", &["a"]),
        ("TRUNCATE credentials", &["a", "acme", "beta", "gamma"]),
        (
            "BEGIN; INSERT INTO tenants (id, isolation, cluster)
               SELECT 't' || n, 'row', 'main' FROM generate_series(1, 3) n;
             SAVEPOINT s; UPDATE tenants SET tier = 'z' WHERE id = 't1'; ROLLBACK TO s;
             UPDATE tenants SET tier = 'z' WHERE id = 't2'; COMMIT",
            &["t1", "t2", "t3"],
        ),
    ] {
        tables.run(sql).await;
        assert_eq!(since(&tables, before).await, noted, "{sql}");
        let now = version(&tables).await;
        assert!(now <= before + 1, "{sql}: one transaction is one change");
        before = now;
    }
    // Who only changes limits keeps its place; who moves is the later one from then on.
    let placed = async |id: &str| -> i64 {
        let sql = "SELECT placed FROM tenantgate_catalog.tenants WHERE id = $1";
        tables.dba.query_one(sql, &[&id]).await.unwrap().get(0)
    };
    let place = placed("t1").await;
    tables.run("UPDATE tenants SET tier = 'q', placed = 0 WHERE id = 't1'").await;
    assert_eq!(placed("t1").await, place);
    tables.run("UPDATE tenants SET schema = 'q' WHERE id = 't1'").await;
    assert!(placed("t1").await > place);
}

#[tokio::test]
async fn writers_wait_for_each_other_so_no_number_comes_late() {
    let tables = Tables::new(shared().await).await;
    tables.add("acme").await;
    let other = connect(&tables.admin).await.unwrap();
    tables.run("BEGIN; UPDATE tenants SET tier = 'x'").await;
    let wait = "SET lock_timeout TO '200ms'; \
                INSERT INTO tenantgate_catalog.tenants (id, isolation, cluster) \
                VALUES ('b', 'row', 'main')";
    assert_eq!(state(&other, wait).await, "55P03");
    tables.run("COMMIT").await;
    assert_eq!(state(&other, wait).await, "");
}

#[tokio::test]
async fn the_manuals_example_runs() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalog.md"));
    let page = page.unwrap();
    let (_, sql) = page.split_once("```sql\n").unwrap();
    let (sql, _) = sql.split_once("```").unwrap();
    let tables = Tables::new(shared().await).await;
    tables.dba.batch_execute(sql).await.unwrap();
    let sql = "SELECT state, credentials::int, ended_credentials::int, overrides::text \
               FROM tenantgate_catalog.overview";
    let row = tables.dba.query_one(sql, &[]).await.unwrap();
    let (state, overrides): (String, String) = (row.get(0), row.get(3));
    assert_eq!((state.as_str(), row.get::<_, i32>(1), row.get::<_, i32>(2)), ("disabled", 0, 1));
    let limits = tenantgate::config::overrides(&overrides).unwrap();
    assert_eq!(limits.queries_per_second, Some(50));
    // The columns that are named are the columns there are.
    let sql = "SELECT column_name::text FROM information_schema.columns \
               WHERE table_schema = 'tenantgate_catalog' AND table_name IN ('tenants', \
               'credentials')";
    for row in tables.dba.query(sql, &[]).await.unwrap() {
        let column: String = row.get(0);
        assert!(page.contains(&format!("`{column}`")), "{column}");
    }
}
