//! When the storm is over: everybody is served, nothing is held that nobody uses, every row was
//! written by whom it says, what was committed is there, what was not is not.

use std::collections::{BTreeSet, HashSet};

use tokio_postgres::Client;

use crate::console::{ADMIN, Row, show};
use crate::harness::cluster::superuser;
use crate::harness::eventually;
use crate::harness::messages::transcript;
use crate::harness::tenants::jwt;
use crate::harness::wire::{Login, Wire};
use crate::torture::stage::{Ground, Stage};
use crate::torture::town::{Kind, Tenant};
use crate::torture::watch::foreign_mark;

pub async fn check(stage: &Stage, mut ground: Ground) {
    let replay = stage.plan.replay();
    for tenant in stage.tenants.iter() {
        is_served(stage, tenant).await;
    }
    let admin = superuser(&ground.cluster, "postgres").await;
    nothing_is_held(&ground, &admin).await;
    for tenant in stage.tenants.iter() {
        rows_are_right(stage, &ground, tenant).await;
    }
    let log = ground.gate.log();
    assert!(!log.contains("panicked"), "the gate panicked; replay: {replay}");
    ground.gate.terminate();
    assert!(ground.gate.exit().await.success(), "the gate ended badly; replay: {replay}");
    eventually("no server connection outlives the gate", async || {
        backends(&admin).await.is_empty().then_some(())
    })
    .await;
}

async fn is_served(stage: &Stage, tenant: &Tenant) {
    let token = jwt(&tenant.id, 3600);
    let login = Login { user: "app", dbname: tenant.dbname(), password: &token, more: &[] };
    let mut wire = Wire::connect(stage.doors.port).await;
    let said = transcript(&wire.authenticate(&login).await);
    assert!(said.ends_with("Z(I)"), "{}: {said}; replay: {}", tenant.id, stage.plan.replay());
    let (id, replay) = (&tenant.id, stage.plan.replay());
    let heard = eventually("its cluster, if it was down a moment ago, is up", async || {
        let heard = wire.query("SELECT body FROM notes WHERE id = 1").await;
        (heard != "E(08001) Z(I)").then_some(heard)
    })
    .await;
    assert_eq!(heard, format!("T D({id}_1) C(SELECT 1) Z(I)"), "replay: {replay}");
}

/// Clients, leases and waiters are gone from the console's tables, and its servers are exactly
/// those that the cluster knows.
async fn nothing_is_held(ground: &Ground, admin: &Client) {
    let mut console = Wire::login(ground.gate.port, &ADMIN).await;
    eventually("nothing is held", async || {
        let clients = show(&mut console, "CLIENTS").await;
        let pools = show(&mut console, "POOLS").await;
        let budgets = show(&mut console, "BUDGETS").await;
        let none = |rows: &[Row], columns: &[&str]| {
            rows.iter().all(|row| columns.iter().all(|column| row[*column] == "0"))
        };
        let waits = ["cl_waiting", "cl_active_cancel_req", "sv_active", "sv_being_canceled"];
        let held = |row: &Row| ["clients", "queries_at_once"].contains(&row["kind"].as_str());
        let held: Vec<Row> = budgets.into_iter().filter(held).collect();
        let quiet = none(&pools, &waits) && none(&held, &["used"]);
        (clients.is_empty() && quiet).then_some(())
    })
    .await;
    eventually("the gate's servers are the cluster's", async || {
        let servers = show(&mut console, "SERVERS").await;
        let known: BTreeSet<String> =
            servers.iter().map(|server| server["remote_pid"].clone()).collect();
        let states = servers.iter().all(|server| server["state"] != "active");
        (states && known == backends(admin).await).then_some(())
    })
    .await;
}

/// Process ids of the gate's servers, as the cluster has them.
async fn backends(admin: &Client) -> BTreeSet<String> {
    let sql = "SELECT pid::text FROM pg_stat_activity WHERE usename LIKE 'tg\\_%'";
    let rows = admin.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn rows_are_right(stage: &Stage, ground: &Ground, tenant: &Tenant) {
    let (id, schema, replay) = (&tenant.id, tenant.schema(), stage.plan.replay());
    let admin = superuser(&ground.cluster, tenant.dbname()).await;
    let own = match tenant.kind {
        Kind::Row => format!("WHERE tenant_id = '{id}'"),
        Kind::Schema | Kind::Silo => String::new(),
    };
    let column = async |sql: &str| -> Vec<String> {
        let rows = admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let notes = column(&format!("SELECT body FROM {schema}.notes {own}")).await;
    assert_eq!(notes.len(), 12, "rows of {id}; replay: {replay}");
    let ledger = column(&format!("SELECT nonce FROM {schema}.ledger {own}")).await;
    for body in notes.iter().chain(&ledger) {
        let foreign = foreign_mark(id, body.as_bytes());
        assert!(foreign.is_none() && body.starts_with(id.as_str()), "{id} has {body}; {replay}");
    }
    let ledger: HashSet<&str> = ledger.iter().map(String::as_str).collect();
    let books = stage.books.lock().unwrap();
    let of_tenant = |all: &[(usize, String)]| -> Vec<String> {
        let own = all.iter().filter(|(number, _)| *number == tenant.number);
        own.map(|(_, nonce)| nonce.clone()).collect()
    };
    for nonce in of_tenant(&books.committed) {
        assert!(ledger.contains(nonce.as_str()), "{nonce} was acknowledged and lost; {replay}");
    }
    for nonce in of_tenant(&books.never) {
        assert!(!ledger.contains(nonce.as_str()), "{nonce} was undone and is there; {replay}");
    }
}
