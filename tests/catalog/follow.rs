//! Rows that change while clients are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Tables, kept_out, let_in, login, notes};
use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::services::Service;
use crate::harness::tenants::Estate;
use crate::harness::{eventually, http, unique};

#[tokio::test]
async fn rows_come_and_go_while_the_gate_runs() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = Gate::start(&tables.settings(&estate, "")).await;
    let id = format!("row_{}", unique());
    let token = tables.add(&id).await;
    let client = let_in(&gate, &token).await;
    assert_eq!(notes(&client).await, [0; 0], "it has no notes yet");
    client.batch_execute("INSERT INTO notes (id, body) VALUES (1, 'mine')").await.unwrap();
    let file = gate.connect(&estate.acme).await;
    assert_eq!(notes(&file).await.len(), estate.acme.notes.len());

    // Its session ends and nobody else's.
    tables.run("UPDATE tenants SET state = 'disabled'").await;
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, &token).await;
    tables.run("UPDATE tenants SET state = 'active'").await;
    let client = let_in(&gate, &token).await;
    assert_eq!(notes(&client).await, [1]);
    notes(&file).await;

    // A route to its own schema: the session sees other notes from its next transaction on.
    let (stark, port) = (&estate.stark, shared().await.port());
    let schema = format!("own_{}", unique());
    let app = crate::harness::cluster::superuser(shared().await, "app").await;
    let password = crate::harness::tenants::LOGIN_PASSWORD;
    let make = format!(
        "CREATE ROLE tg_{schema} LOGIN NOINHERIT PASSWORD '{password}';
         CREATE SCHEMA {schema} AUTHORIZATION app_owner; SET ROLE app_owner;
         CREATE TABLE {schema}.notes (id integer); INSERT INTO {schema}.notes VALUES (7);
         GRANT USAGE ON SCHEMA {schema} TO tg_{schema};
         GRANT SELECT ON {schema}.notes TO tg_{schema}; RESET ROLE"
    );
    app.batch_execute(&make).await.unwrap();
    let url = format!("postgresql://tg_{schema}:{password}@127.0.0.1:{port}/app");
    tables
        .run(&format!(
            "UPDATE tenants SET isolation = 'schema', schema = '{schema}', role = NULL,
             connection_string = '{url}'"
        ))
        .await;
    eventually("it sees the other table", async || (notes(&client).await == [7]).then_some(()))
        .await;
    assert_eq!(notes(&gate.connect(stark).await).await.len(), stark.notes.len());

    tables.run("UPDATE credentials SET revoked_at = now()").await;
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, &token).await;
    tables.run("UPDATE credentials SET revoked_at = NULL").await;
    let client = let_in(&gate, &token).await;
    tables.run("DELETE FROM tenants").await;
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, &token).await;
    notes(&file).await;
    let log = gate.log();
    assert!(!log.contains(password) && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn a_rows_limits_hold_on_live_sessions() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = Gate::start(&tables.settings(&estate, "")).await;
    let id = format!("row_{}", unique());
    let token = tables.add(&id).await;
    let client = let_in(&gate, &token).await;
    notes(&client).await;
    tables.run(r#"UPDATE tenants SET overrides = '{"query_time": "100ms", "clients": 1}'"#).await;
    let cancelled = async || {
        let error = client.batch_execute("SELECT pg_sleep(1)").await.err()?;
        (error.code()?.code() == "57014").then_some(())
    };
    eventually("a long query is cancelled", cancelled).await;
    let error = login(&gate, &token).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "53300");
}

#[tokio::test]
async fn a_hundred_tenants_change_at_once_and_no_request_of_others_fails() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let mark = unique();
    tables
        .run(&format!(
            "INSERT INTO tenants (id, isolation, cluster, schema, role, tier)
             SELECT 'crowd_{mark}_' || n, 'row', 'main', 'app', 'app_rw', 'free'
             FROM generate_series(1, 100) n"
        ))
        .await;
    let gate = Gate::start(&tables.settings(&estate, "")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut busy = Vec::new();
    for tenant in estate.tenants() {
        let client = gate.connect(tenant).await;
        let (stop, done, wanted) = (stop.clone(), done.clone(), tenant.notes.len());
        busy.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(notes(&client).await.len(), wanted);
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let figure = async |name: &str| -> f64 {
        let (_, page) = http::get(gate.http, "/metrics").await;
        let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for round in 0..5 {
        let before = done.load(Ordering::Relaxed);
        let version = figure("tenantgate_catalog_version").await;
        let state = if round % 2 == 0 { "disabled" } else { "active" };
        tables.run(&format!("UPDATE tenants SET state = '{state}', tier = 'free'")).await;
        eventually("the change is read", async || {
            (figure("tenantgate_catalog_version").await > version).then_some(())
        })
        .await;
        eventually("others go on", async || {
            (done.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in busy {
        task.await.expect("no request failed");
    }
    let changed = gate.log().matches("changed=100").count();
    assert!(changed >= 5, "each of five was taken over as one: {changed}");
}

#[tokio::test]
async fn a_reload_of_the_file_keeps_the_tables_tenants() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let settings = tables.settings(&estate, "");
    let gate = Gate::start(&settings).await;
    let id = format!("row_{}", unique());
    let token = tables.add(&id).await;
    let client = let_in(&gate, &token).await;
    notes(&client).await;
    // A tier that the row names goes: the row is at fault, and nothing else.
    gate.write_settings(
        &settings.replace("[tiers.free]", "[tiers.other]").replace("\"free\"", "\"other\""),
    );
    gate.reload();
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, &token).await;
    gate.logs("column=\"tier\"").await;
    notes(&gate.connect(&estate.acme).await).await;
    gate.write_settings(&settings);
    gate.reload();
    notes(&let_in(&gate, &token).await).await;
}

#[tokio::test]
async fn a_service_stops_acting_for_a_rows_tenant_that_ends() {
    let cluster = shared().await;
    let (estate, tables) = (Estate::new().await, Tables::new(cluster).await);
    let service = Service::new(cluster, "acts_for = \"*\"").await;
    let settings = tables.settings(&estate, &format!("\n{}", service.table));
    let gate =
        Gate::start(&settings.replace("[gate]\n", "[gate]\ncredential_grace = \"0s\"\n")).await;
    let id = format!("row_{}", unique());
    let token = tables.add(&id).await;
    let_in(&gate, &token).await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    let choice = format!("SET LOCAL tenantgate.tenant = '{id}'");
    assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    tables.run("UPDATE tenants SET state = 'disabled'").await;
    assert_eq!(wire.until_closed().await, "E(57P01)");
}
