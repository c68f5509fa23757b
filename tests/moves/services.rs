//! Services: what holds them back themselves, and that they go on while whom they act for changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ONE, Stage, is_silent};
use crate::harness::cluster::shared;
use crate::harness::messages::{query, transcript};
use crate::harness::services::Service;
use crate::harness::tenants::Tenant;
use crate::harness::wire::Wire;

/// A session in a transaction for a tenant.
async fn act_for(wire: &mut Wire, tenant: &Tenant) {
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    let choice = format!("SET LOCAL tenantgate.tenant = '{}'", tenant.id);
    assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
}

const COUNTED: &str = "T D(3) C(SELECT 1) Z(T)";

#[tokio::test]
async fn a_service_is_held_back_with_its_database_and_may_go_on_choosing() {
    let more = "acts_for = \"*\"\nacross_databases = true\n";
    let service = Service::new(shared().await, more).await;
    let stage = Stage::new(&service.table).await;
    let (acme, initech) = (&stage.estate.acme, &stage.estate.initech);
    let mut console = stage.console().await;
    // It has no such state of its own.
    for state in ["paused", "read_only"] {
        let table = format!("{}state = \"{state}\"\n", service.table.trim_end().to_owned() + "\n");
        stage.gate.write_settings(&stage.settings().replace(&service.table, &table));
        assert_eq!(console.query("RELOAD").await, "E(F0000) Z(I)");
    }
    stage.gate.logs("a service is \"active\" or \"disabled\"").await;
    for order in ["PAUSE", "READ_ONLY", "DISABLE"] {
        let order = format!("{order} TENANT \"service:{}\"", service.name);
        assert_eq!(console.query(&order).await, "E(3D000) Z(I)");
    }

    let mut home = service.wire(&stage.gate).await;
    let (mut here, mut there) = (service.wire(&stage.gate).await, service.wire(&stage.gate).await);
    for (target, elsewhere_too) in [(" DATABASE app", false), ("", true)] {
        assert_eq!(console.query(&format!("PAUSE{target}")).await, "C(PAUSE) Z(I)");
        home.send(query("SELECT 1")).await;
        act_for(&mut here, acme).await;
        act_for(&mut there, initech).await;
        let notes = query("SELECT count(*) FROM notes");
        here.send(notes.clone()).await;
        there.send(notes).await;
        assert!(is_silent(&mut home).await && is_silent(&mut here).await, "{target}");
        if elsewhere_too {
            assert!(is_silent(&mut there).await);
        } else {
            // Whose data is elsewhere does not wait, though the service's own login would.
            assert_eq!(transcript(&there.until_ready().await), COUNTED);
            assert_eq!(there.query("COMMIT").await, "C(COMMIT) Z(I)");
            there.send(query("SELECT 1")).await;
            assert!(is_silent(&mut there).await);
        }
        assert_eq!(console.query(&format!("RESUME{target}")).await, "C(RESUME) Z(I)");
        assert_eq!(transcript(&home.until_ready().await), ONE);
        assert_eq!(transcript(&here.until_ready().await), COUNTED);
        assert_eq!(here.query("COMMIT").await, "C(COMMIT) Z(I)");
        if elsewhere_too {
            assert_eq!(transcript(&there.until_ready().await), COUNTED);
            assert_eq!(there.query("COMMIT").await, "C(COMMIT) Z(I)");
        } else {
            assert_eq!(transcript(&there.until_ready().await), ONE);
        }
    }

    let insert = "INSERT INTO notes (id, body) VALUES (1000, 'x')";
    assert_eq!(console.query("READ_ONLY DATABASE app").await, "C(READ_ONLY) Z(I)");
    for (tenant, wanted) in [(acme, "E(25006) Z(E)"), (initech, "C(INSERT 0 1) Z(T)")] {
        act_for(&mut here, tenant).await;
        assert_eq!(here.query(insert).await, wanted);
        assert_eq!(here.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    }
    assert_eq!(home.query("SELECT 1").await, ONE);
    assert_eq!(console.query("READ_WRITE DATABASE app").await, "C(READ_WRITE) Z(I)");
    act_for(&mut here, acme).await;
    assert_eq!(here.query(insert).await, "C(INSERT 0 1) Z(T)");
    assert_eq!(here.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(console.query("DISABLE DATABASE app").await, "C(DISABLE) Z(I)");
    for wire in [&mut home, &mut here, &mut there] {
        assert_eq!(wire.until_closed().await, "E(57P01)");
    }
}

/// Sends these one after the other, again and again, until it is enough.
async fn goes_on(mut wire: Wire, script: Vec<(String, &'static str)>, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::Relaxed) {
        for (sql, wanted) in &script {
            assert_eq!(wire.query(sql).await, *wanted, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_service_goes_on_while_its_tenant_becomes_another() {
    let more = "acts_for = \"*\"\nsession_wide = true\n";
    let service = Service::new(shared().await, more).await;
    let stage = Stage::new(&service.table).await;
    let acme = &stage.estate.acme;
    let choice = format!("tenantgate.tenant = '{}'", acme.id);
    let block = [
        ("BEGIN".to_owned(), "C(BEGIN) Z(T)"),
        (format!("SET LOCAL {choice}"), "C(SET) Z(T)"),
        ("SELECT count(*) FROM notes".to_owned(), COUNTED),
        ("COMMIT".to_owned(), "C(COMMIT) Z(I)"),
    ];
    let enough = Arc::new(AtomicBool::new(false));
    let mut going = Vec::new();
    for number in 0..6 {
        let mut wire = service.wire(&stage.gate).await;
        let script = match number % 2 {
            0 => block.to_vec(),
            _ => {
                assert_eq!(wire.query(&format!("SET {choice}")).await, "C(SET) Z(I)");
                vec![("SELECT 1".to_owned(), ONE)]
            }
        };
        going.push(tokio::spawn(goes_on(wire, script, enough.clone())));
    }
    let mut console = stage.console().await;
    for state in ["read_only", "active"].repeat(30) {
        let table = format!("{}\nstate = \"{state}\"\n", acme.table().trim_end());
        stage.gate.write_settings(&stage.settings().replace(acme.table(), &table));
        assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
    }
    enough.store(true, Ordering::Relaxed);
    for one in going {
        one.await.unwrap();
    }
}
