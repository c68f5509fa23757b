//! Moves that fail: everything is as it was, and goes on.

use std::time::Duration;

use super::{ONE, Silo, Stage, is_silent, place, waits};
use crate::catalog::{kept_out, login};
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{query, transcript};
use crate::harness::wire::Wire;
use crate::harness::{eventually, unique};

const FAILED: &str = "E(55000) Z(I)";

#[tokio::test]
async fn whatever_fails_the_tenant_stays_where_it_is_and_goes_on() {
    let stage = Stage::new("").await;
    let (id, silo) = (format!("stays_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    let mut idle = stage.let_in(&token).await;
    let mut inside = stage.login(&token).await;
    let mut console = stage.console().await;
    let order = silo.order(&id);
    let (initech, acme) = (&stage.estate.initech.id, &stage.estate.acme.id);
    let (own, empty) = (format!("dbname={}", silo.name), format!("empty_{}", unique()));
    let postgres = superuser(shared().await, "postgres").await;
    postgres.batch_execute(&format!("CREATE DATABASE {empty}")).await.unwrap();
    for (order, code, why) in [
        (order.replace(&own, "dbname=lost"), FAILED, "cannot be used"),
        (order.replace(&own, &format!("dbname={empty}")), FAILED, "has no table there"),
        (order.replace("password=", "password=x"), FAILED, "cannot be used"),
        // Where it leads somebody else is at home.
        (order.replace(&silo.name, initech), FAILED, "is tenant"),
        (order.replace("127.0.0.1", "169.254.169.254"), FAILED, "link-local"),
        (order.replace("ON main", "ON lost"), FAILED, "does not exist"),
        (order.replace("TO silo", "TO nowhere"), FAILED, "is no isolation"),
        (format!("MOVE TENANT {id} TO row ON main SCHEMA app ROLE app_rw"), FAILED, "already"),
        (format!("MOVE TENANT {id}"), FAILED, "catalog's tables"),
        (order.replace(&id, acme), FAILED, "settings file"),
        (format!("{order} WITHIN '1h'"), FAILED, "10 min"),
        (order.replace(&id, "nobody"), "E(3D000) Z(I)", "nobody"),
    ] {
        console.send(query(&order)).await;
        let frames = console.until_ready().await;
        assert_eq!(transcript(&frames), code, "{order}");
        let message = frames[0].field('M').unwrap();
        assert!(message.contains(why), "{order}: {message}");
        assert_eq!(place(&mut idle).await, "app", "{order}");
    }

    // Transactions that do not end.
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    console.send(query(&format!("{order} WITHIN '700ms'"))).await;
    let frames = console.until_ready().await;
    assert!(frames[0].field('M').unwrap().contains("did not end within 0.7 s"));
    assert_eq!(place(&mut idle).await, "app");
    stage.audited(&["\"console\"", &id, "MOVE TENANT", "failed: the tenant was not moved"]).await;

    // Somebody calls it off.
    let mut other = stage.console().await;
    console.send(query(&order)).await;
    waits(&mut idle).await;
    let resume = format!("RESUME TENANT {id}");
    assert_eq!(other.query(&resume).await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&console.until_ready().await), FAILED);
    assert_eq!(transcript(&idle.until_ready().await), ONE);
    assert_eq!(place(&mut idle).await, "app");
    assert_eq!(other.query(&resume).await, FAILED, "there is nothing to call off");

    // The new route goes bad while it waits.
    let admin = superuser(shared().await, "postgres").await;
    console.send(query(&order)).await;
    waits(&mut idle).await;
    admin.batch_execute(&format!("ALTER ROLE tg_{} NOLOGIN", silo.name)).await.unwrap();
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&console.until_ready().await), FAILED);
    assert_eq!(transcript(&idle.until_ready().await), ONE);
    assert_eq!(place(&mut idle).await, "app");
    admin.batch_execute(&format!("ALTER ROLE tg_{} LOGIN", silo.name)).await.unwrap();

    // So does the tenant's row.
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    console.send(query(&order)).await;
    waits(&mut idle).await;
    stage.tables.run("UPDATE tenants SET tier = 'lost'").await;
    assert_eq!(idle.until_closed().await, "E(57P01)");
    inside.send(query("COMMIT")).await;
    assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
    assert_eq!(transcript(&console.until_ready().await), FAILED);
    stage.tables.run("UPDATE tenants SET tier = 'free'").await;
    let mut back = stage.let_in(&token).await;
    assert_eq!(place(&mut back).await, "app");
    let row = "SELECT isolation FROM tenantgate_catalog.tenants";
    let row: String = stage.tables.dba.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(row, "row");
}

/// A move that waits to write its route, and is killed over that.
async fn lose(stage: &Stage, console: &mut Wire, order: &str) {
    // Whoever changes the tables has to wait for this.
    stage.tables.run("BEGIN; UPDATE version SET number = number").await;
    console.send(query(order)).await;
    let admin = superuser(shared().await, "postgres").await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = $1 AND application_name = 'tenantgate move' \
                AND wait_event_type = 'Lock'";
    let killed = async || {
        let rows = admin.query(kill, &[&stage.tables.dbname]).await.unwrap();
        (!rows.is_empty()).then_some(())
    };
    eventually("the mover is killed", killed).await;
    stage.gate.logs("cannot know yet whether a tenant moved").await;
}

#[tokio::test]
async fn when_nobody_can_know_whether_it_was_written_requests_wait_until_it_is_known() {
    let stage = Stage::new("").await;
    let (id, silo) = (format!("lost_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    let mut idle = stage.let_in(&token).await;
    let mut console = stage.console().await;
    lose(&stage, &mut console, &silo.order(&id)).await;
    idle.send(query("SELECT current_database()")).await;
    assert!(is_silent(&mut idle).await, "it went on without knowing where");
    stage.tables.run("COMMIT").await;
    assert_eq!(transcript(&console.until_ready().await), "C(MOVE) Z(I)");
    let there = format!("T D({}) C(SELECT 1) Z(I)", silo.name);
    assert_eq!(transcript(&idle.until_ready().await), there);
}

#[tokio::test]
async fn a_move_in_doubt_can_be_ended_and_its_requests_wait_until_that_is_said_once_more() {
    let stage = Stage::new("").await;
    let (id, silo) = (format!("doubt_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    let mut idle = stage.let_in(&token).await;
    let (mut console, mut other) = (stage.console().await, stage.console().await);
    lose(&stage, &mut console, &silo.order(&id)).await;
    idle.send(query("SELECT 1")).await;
    assert_eq!(other.query("RELOAD").await, "E(F0000) Z(I)");
    let resume = format!("RESUME TENANT {id}");
    assert_eq!(other.query(&resume).await, "C(RESUME) Z(I)");
    let frames = console.until_ready().await;
    assert_eq!(transcript(&frames), FAILED);
    assert!(frames[0].field('M').unwrap().contains("nobody knows yet"), "{frames:?}");
    assert_eq!(other.query("RELOAD").await, "C(RELOAD) Z(I)");
    assert!(is_silent(&mut idle).await, "it went on without knowing where");
    assert_eq!(other.query(&resume).await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&idle.until_ready().await), ONE);
    stage.tables.run("COMMIT").await;
}

#[tokio::test]
async fn a_gate_that_is_killed_in_the_middle_begins_on_one_side_or_on_none() {
    let stage = Stage::new("").await;
    let (id, silo) = (format!("split_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    drop(stage.let_in(&token).await);
    let copy = stage.gate.folder().join("catalog.copy");
    let kept = async || std::fs::read_to_string(&copy).ok().filter(|it| it.contains(&id));
    eventually("the copy has the tenant", kept).await;
    stage.tables.run("BEGIN; UPDATE version SET number = number").await;
    let mut console = stage.console().await;
    console.send(query(&silo.order(&id))).await;
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = $1 \
                   AND application_name = 'tenantgate move' AND wait_event_type = 'Lock'";
    let (admin, dbname) =
        (superuser(shared().await, "postgres").await, stage.tables.dbname.clone());
    let waiting = async || admin.query_opt(waiting, &[&dbname]).await.unwrap();
    eventually("the route is being written", waiting).await;
    let kept = std::fs::read_to_string(&copy).unwrap();
    let Stage { mut gate, tables, settings, .. } = stage;
    gate.kill().await;
    // Without the tables nobody knows where the tenant is, and so it is nowhere.
    let port = format!("port={}", shared().await.port());
    let away = tables.conninfo.replace(&port, "port=1");
    assert_ne!(away, tables.conninfo);
    let blind = settings.replace(&tables.conninfo, &away);
    let blind = Gate::start_with(&blind, &[("catalog.copy", &kept)]).await;
    blind.logs("begins with the last good copy").await;
    kept_out(&blind, &token).await;
    drop(blind);
    tables.run("COMMIT").await;
    let moved = "SELECT isolation = 'silo' FROM tenantgate_catalog.tenants";
    let there = "SELECT FROM pg_stat_activity WHERE datname = $1 \
                 AND application_name = 'tenantgate move'";
    let moved: bool = eventually("its row is written or not", async || {
        let busy = admin.query_opt(there, &[&dbname]).await.unwrap();
        let row = tables.dba.query_one(moved, &[]).await.unwrap();
        busy.is_none().then(|| row.get(0))
    })
    .await;
    let gate = Gate::start_with(&settings, &[("catalog.copy", &kept)]).await;
    let client = eventually("it is let in", async || {
        // Either name is taken where it is the database's.
        match login(&gate, &token).await {
            Ok(client) => Some(client),
            Err(_) => {
                let (port, dbname) = (gate.port, &silo.name);
                let conninfo = format!("host=127.0.0.1 port={port} user=app dbname={dbname}");
                let conninfo = format!("{conninfo} password={token}");
                crate::harness::cluster::connect(&conninfo).await.ok()
            }
        }
    })
    .await;
    let there: String =
        client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    assert_eq!(there, if moved { silo.name.as_str() } else { "app" });
    tokio::time::timeout(Duration::from_secs(30), client.batch_execute("SELECT"))
        .await
        .unwrap()
        .unwrap();
}
