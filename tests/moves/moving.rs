//! Moves that succeed: who has begun ends on the old route, who comes later begins on the new one.

use super::{ONE, Silo, Stage, is_silent, place, waits};
use crate::console::show;
use crate::harness::cluster::{connect, shared};
use crate::harness::messages::{query, transcript};
use crate::harness::services::Service;
use crate::harness::{eventually, unique};

const MOVED: &str = "C(MOVE) Z(I)";

#[tokio::test]
async fn what_has_begun_ends_on_the_old_route_and_the_rest_goes_to_the_new_one() {
    let service = Service::new(shared().await, "acts_for = \"*\"\nacross_databases = true").await;
    let stage = Stage::new(&service.table).await;
    let (id, silo) = (format!("moves_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    let mut inside = stage.let_in(&token).await;
    let (mut idle, mut pinned) = (stage.login(&token).await, stage.login(&token).await);
    let mut neighbour = stage.gate.wire(&stage.estate.acme).await;
    let mut console = stage.console().await;
    assert_eq!(pinned.query("CREATE TEMP TABLE own ()").await, "C(CREATE TABLE) Z(I)");
    let mut acts = service.wire(&stage.gate).await;
    for sql in ["BEGIN", &format!("SET LOCAL tenantgate.tenant = '{id}'")] {
        assert!(acts.query(sql).await.ends_with("Z(T)"), "{sql}");
    }
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    let insert = "INSERT INTO notes (id, body) VALUES (1, 'old')";
    assert_eq!(inside.query(insert).await, "C(INSERT 0 1) Z(T)");
    console.send(query(&format!("{} WITHIN '60s'", silo.order(&id)))).await;
    for wire in [&mut idle, &mut pinned] {
        waits(wire).await;
    }
    acts.send(query("SELECT current_database()")).await;
    assert!(is_silent(&mut acts).await);
    assert_eq!(place(&mut neighbour).await, "app", "nobody else waits");
    // A second move, and a reload, wait for their time.
    let mut other = stage.console().await;
    assert_eq!(other.query(&silo.order(&id)).await, "E(55000) Z(I)");
    assert_eq!(other.query("RELOAD").await, "E(F0000) Z(I)");
    assert!(is_silent(&mut console).await, "the move did not wait for what had begun");
    assert_eq!(inside.query("SELECT body FROM notes").await, "T D(old) C(SELECT 1) Z(T)");
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&console.until_ready().await), MOVED);
    assert_eq!(transcript(&idle.until_ready().await), ONE);
    let there = format!("T D({}) C(SELECT 1) Z(T)", silo.name);
    assert_eq!(transcript(&acts.until_ready().await), there);
    assert_eq!(acts.query("COMMIT").await, "C(COMMIT) Z(I)");
    for wire in [&mut idle, &mut inside, &mut stage.login_to(&silo.name, &token).await] {
        assert_eq!(place(wire).await, silo.name);
    }
    // What it held is not where it goes.
    assert_eq!(pinned.until_closed().await, "E(57P01)");
    assert_eq!(inside.query("SELECT count(*) FROM notes").await, "T D(0) C(SELECT 1) Z(I)");
    let (from, to) = ("from row in app@main as tg_login", format!("to silo in {}", silo.name));
    stage.audited(&["\"state\"", &id, from, &to]).await;
    stage.audited(&["\"console\"", &id, "MOVE TENANT", "(hidden)", "done"]).await;
    let row = "SELECT isolation || connection_string FROM tenantgate_catalog.tenants";
    let row: String = stage.tables.dba.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(row, format!("silo{}", silo.conninfo));
    // And back again, to the schema and role of before.
    let back = format!("MOVE TENANT {id} TO row ON main SCHEMA app ROLE app_rw");
    // But not while somebody waits for what it leaves there.
    let heir = format!("heir_{}", unique());
    let row = format!("'{heir}', 'silo', 'main', '{}', 'free'", silo.conninfo);
    let columns = "id, isolation, cluster, connection_string, tier";
    stage.tables.run(&format!("INSERT INTO tenants ({columns}) VALUES ({row})")).await;
    stage.gate.logs(&heir).await;
    console.send(query(&back)).await;
    let frames = console.until_ready().await;
    assert_eq!(transcript(&frames), "E(55000) Z(I)");
    assert!(frames[0].field('M').unwrap().ends_with(&heir), "{frames:?}");
    assert_eq!(place(&mut idle).await, silo.name);
    stage.tables.run(&format!("DELETE FROM tenants WHERE id = '{heir}'")).await;
    eventually("it goes back", async || (console.query(&back).await == MOVED).then_some(())).await;
    assert_eq!(idle.query("SELECT body FROM notes").await, "T D(old) C(SELECT 1) Z(I)");
    let servers = show(&mut console, "SERVERS").await;
    assert!(servers.iter().all(|row| row["database"] != silo.name), "{servers:?}");
    assert_eq!(console.query(&back).await, "E(55000) Z(I)");
    let log = stage.gate.log();
    assert!(!log.contains("login-password"), "a password is in the log");
}

#[tokio::test]
async fn a_tenant_of_the_file_takes_the_route_that_stands_there_now() {
    let stage = Stage::new("").await;
    let (acme, silo) = (&stage.estate.acme, Silo::new().await);
    let table = acme.table();
    let elsewhere = table
        .replace("isolation = \"row\"", "isolation = \"silo\"")
        .replace("schema = \"app\"\nrole = \"app_rw\"", "")
        + &format!("connection_string = \"{}\"\n", silo.conninfo);
    let moved = stage.settings().replace(table, &elsewhere);
    let mut idle = stage.gate.wire(acme).await;
    let mut inside = stage.gate.wire(acme).await;
    let mut console = stage.console().await;
    let order = format!("MOVE TENANT {}", acme.id);
    let filed = format!("filed_{}", unique());
    drop(stage.let_in(&stage.tables.add(&filed).await).await);
    let usurped = format!(
        "[tenants.{filed}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"other\"\n\
         role = \"app_rw\"\ntier = \"free\"\n"
    );
    for (settings, code) in [
        (stage.settings().to_owned(), "E(55000) Z(I)"),
        (moved.clone() + "[nonsense]\n", "E(F0000) Z(I)"),
        // Nobody holds the other one back.
        (moved.replace(stage.estate.globex.table(), ""), "E(55000) Z(I)"),
        // Nor one of the tables.
        (moved.clone() + &usurped, "E(55000) Z(I)"),
        (moved.replace(&silo.name, &stage.estate.initech.id), "E(F0000) Z(I)"),
        (moved.replace("dbname=silo", "dbname=lost"), "E(55000) Z(I)"),
    ] {
        stage.gate.write_settings(&settings);
        assert_eq!(console.query(&order).await, code);
        assert_eq!(place(&mut idle).await, "app");
    }
    stage.gate.write_settings(&moved);
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    console.send(query(&order)).await;
    waits(&mut idle).await;
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&console.until_ready().await), MOVED);
    assert_eq!(transcript(&idle.until_ready().await), ONE);
    assert_eq!(place(&mut idle).await, silo.name);
    stage.audited(&["\"state\"", &acme.id, "by the settings file"]).await;
    assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
    assert_eq!(place(&mut inside).await, silo.name);
}

#[tokio::test]
async fn the_login_that_moves_can_do_nothing_else() {
    let stage = Stage::new("").await;
    let id = format!("moves_{}", unique());
    stage.tables.add(&id).await;
    let mover = connect(&stage.mover).await.unwrap();
    let reader = connect(&stage.tables.conninfo).await.unwrap();
    let denied = async |client: &tokio_postgres::Client, sql: &str| {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    };
    let function = "tenantgate_catalog.move_tenant";
    denied(&reader, &format!("SELECT {function}('{id}', '{{}}', '{{}}')")).await;
    for sql in ["SELECT FROM tenantgate_catalog.tenants", "DELETE FROM tenantgate_catalog.tenants"]
    {
        denied(&mover, sql).await;
    }
    let row = r#"{"isolation": "row", "cluster": "main", "schema": "app", "role": "app_rw"}"#;
    let to = r#"{"isolation": "row", "cluster": "main", "schema": "other", "role": "app_rw"}"#;
    let call =
        |id: &str, from: &str, to: &str| format!("SELECT {function}('{id}', '{from}', '{to}')");
    for (id, from) in [(id.as_str(), to.replace("other", "x")), ("nobody", row.to_owned())] {
        let error = mover.batch_execute(&call(id, &from, to)).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "40001");
    }
    let wrong = to.replace("\"row\"", "\"lost\"");
    assert_eq!(
        mover.batch_execute(&call(&id, row, &wrong)).await.unwrap_err().code().unwrap().code(),
        "23514"
    );
    for _ in 0..2 {
        mover.batch_execute(&call(&id, row, to)).await.unwrap();
    }
    let schema = "SELECT schema FROM tenantgate_catalog.tenants";
    let schema: String = stage.tables.dba.query_one(schema, &[]).await.unwrap().get(0);
    assert_eq!(schema, "other");
    // A login that may do more is not made the mover.
    let tables = &stage.tables;
    tables.run(&format!("GRANT {} TO mover_{}", tables.reader, tables.dbname)).await;
    let said = tables.install(&[]);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && words.contains("to move tenants, may do"), "{words}");
}
