//! The tables' database goes away: what is served meanwhile, how it catches up, and a start from
//! the copy on disk.

use std::os::unix::fs::MetadataExt;

use tenantgate::demo::Plan;

use super::{Tables, kept_out, let_in, notes};
use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::Estate;
use crate::harness::{eventually, http, unique};

#[tokio::test]
async fn an_outage_changes_nothing_and_what_was_missed_is_read_after_it() {
    let estate = Estate::new().await;
    let mut control = own(&Plan::default()).await;
    let tables = Tables::new(&control).await;
    let gate = Gate::start(&tables.settings(&estate, "")).await;
    let (one, two) = (format!("one_{}", unique()), format!("two_{}", unique()));
    let (first, second) = (tables.add(&one).await, tables.add(&two).await);
    let client = let_in(&gate, &first).await;
    let other = let_in(&gate, &second).await;
    control.crash();
    gate.logs("cannot follow the catalog's tables").await;
    assert_eq!(notes(&client).await, notes(&let_in(&gate, &first).await).await);
    let metrics = http::get(gate.http, "/metrics").await.1;
    assert!(metrics.contains("tenantgate_catalog_connected 0"), "{metrics}");

    // Changed before the gate is back: nobody was told.
    control.restart().unwrap();
    let dba = superuser(&control, &tables.dbname).await;
    let sql = "UPDATE tenantgate_catalog.tenants SET state = 'disabled' WHERE id = $1";
    dba.execute(sql, &[&two]).await.unwrap();
    eventually("the session ends", async || other.is_closed().then_some(())).await;
    kept_out(&gate, &second).await;
    notes(&client).await;
    let connected = async || {
        let metrics = http::get(gate.http, "/metrics").await.1;
        metrics.contains("tenantgate_catalog_connected 1").then_some(())
    };
    eventually("it is connected again", connected).await;
    let log = gate.log();
    let (_, after) = log.rsplit_once("cannot follow the catalog's tables").unwrap();
    assert!(after.contains("changed=1 tenants=7"), "only what changed was read: {log}");
}

#[tokio::test]
async fn a_gate_starts_from_the_copy_while_the_tables_are_away() {
    let estate = Estate::new().await;
    let mut control = own(&Plan::default()).await;
    let tables = Tables::new(&control).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("catalog.copy");
    let settings = tables.settings(&estate, &format!("cache_file = \"{}\"\n", copy.display()));
    let token = tables.add(&format!("one_{}", unique())).await;
    let mut gate = Gate::start(&settings).await;
    notes(&let_in(&gate, &token).await).await;
    eventually("the copy is written", async || copy.exists().then_some(())).await;
    assert_eq!(copy.metadata().unwrap().mode() & 0o7777, 0o600);
    gate.kill().await;
    control.crash();

    let gate = Gate::start(&settings).await;
    gate.logs("begins with the last good copy").await;
    let client = let_in(&gate, &token).await;
    notes(&client).await;
    notes(&gate.connect(&estate.acme).await).await;
    control.restart().unwrap();
    let dba = superuser(&control, &tables.dbname).await;
    dba.batch_execute("DELETE FROM tenantgate_catalog.tenants").await.unwrap();
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, &token).await;
}

#[tokio::test]
async fn without_tables_and_copy_the_files_tenants_are_served() {
    let estate = Estate::new().await;
    let mut control = own(&Plan::default()).await;
    let tables = Tables::new(&control).await;
    let token = tables.add(&format!("one_{}", unique())).await;
    control.crash();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("catalog.copy");
    std::fs::write(&copy, "{\"tenantgate_catalog\":1,\"version\":3,\"tenants\":1}\n").unwrap();
    let gate =
        Gate::start(&tables.settings(&estate, &format!("cache_file = \"{}\"\n", copy.display())))
            .await;
    gate.logs("the last good copy of the catalog is not used").await;
    notes(&gate.connect(&estate.acme).await).await;
    kept_out(&gate, &token).await;
    control.restart().unwrap();
    notes(&let_in(&gate, &token).await).await;
}
