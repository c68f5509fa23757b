//! SIGTERM: nobody new, the idle are told, transactions end, the process ends with 0.

use std::time::Duration;

use super::{backends, login_of, runs};
use crate::console::{ADMIN, verifier};
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{copy_data, copy_done, query, startup, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::Wire;

async fn is_told(wire: &mut Wire) {
    let frame = wire.frame().await;
    assert_eq!(
        (frame.to_string().as_str(), frame.field('S').as_deref()),
        ("E(57P01)", Some("FATAL"))
    );
    let message = frame.field('M').unwrap();
    assert_eq!(message, "terminating connection due to administrator command");
    assert_eq!(wire.until_closed().await, "");
}

#[tokio::test]
async fn the_idle_are_told_and_what_runs_is_finished() {
    let estate = Estate::new().await;
    let mut gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let mut idle = gate.wire(&estate.umbrella).await;
    let mut inside = gate.wire(&estate.stark).await;
    let mut running = gate.wire(&estate.stark).await;
    let mut copying = gate.wire(&estate.stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    inside.query("INSERT INTO notes VALUES (720, 'kept')").await;
    copying.send(query("COPY notes FROM STDIN")).await;
    assert_eq!(copying.frame().await.tag, b'G');
    running.send([query("SELECT pg_sleep(0.5), 1"), query("SELECT 2")].concat()).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep", true).await;
    gate.terminate();
    is_told(&mut idle).await;
    assert!(gate.try_connect(&estate.acme).await.is_err());
    // What the server has is answered.
    assert_eq!(transcript(&running.until_ready().await), "T D(,1) C(SELECT 1) Z(I)");
    assert_eq!(transcript(&running.until_ready().await), "T D(2) C(SELECT 1) Z(I)");
    is_told(&mut running).await;
    copying.send([copy_data(b"721\tkept\n"), copy_done()].concat()).await;
    assert_eq!(transcript(&copying.until_ready().await), "C(COPY 1) Z(I)");
    is_told(&mut copying).await;
    assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    is_told(&mut inside).await;
    assert_eq!(gate.exit().await.code(), Some(0));
    let sql = format!("DELETE FROM {}.notes WHERE id IN (720, 721)", estate.stark.id);
    assert_eq!(admin.execute(&sql, &[]).await.unwrap(), 2);
    assert_eq!(backends(&admin, &login_of(&estate.stark)).await, 0);
    gate.logs("stopped").await;
}

#[tokio::test]
async fn who_is_half_in_is_told_when_the_door_closes() {
    let estate = Estate::new().await;
    let mut gate = Gate::for_estate(&estate).await;
    let mut silent = Wire::connect(gate.port).await;
    let mut asked = Wire::connect(gate.port).await;
    let said = [("user", "app"), ("database", estate.acme.dbname.as_str())];
    asked.send(startup(&said)).await;
    assert_eq!(asked.frame().await.tag, b'R');
    gate.terminate();
    is_told(&mut asked).await;
    assert_eq!(silent.until_closed().await, "", "it never said who it is");
    assert_eq!(gate.exit().await.code(), Some(0));
    gate.logs("the door closes on those who are still on their way in connections=2").await;
}

#[tokio::test]
async fn who_is_half_in_at_the_console_is_told_at_once() {
    let estate = Estate::new().await;
    let admin = format!("[console.users]\nadmin = \"{}\"\n", verifier().await);
    let settings = estate.settings(&Tweaks { more: &admin, ..Tweaks::default() });
    let mut gate = Gate::start(&settings).await;
    let mut asked = Wire::connect(gate.port).await;
    asked.send(startup(&[("user", "admin"), ("database", "tenantgate")])).await;
    assert_eq!(asked.frame().await.tag, b'R');
    let mut inside = Wire::login(gate.port, &ADMIN).await;
    gate.terminate();
    is_told(&mut asked).await;
    is_told(&mut inside).await;
    assert_eq!(gate.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_deadline_ends_transactions_where_they_are() {
    let estate = Estate::new().await;
    let settings = Tweaks { gate: "drain_timeout = \"300ms\"", capacity: 1, ..Tweaks::default() };
    let mut gate = Gate::start(&estate.settings(&settings)).await;
    let admin = superuser(shared().await, "app").await;
    let mut waits = gate.wire(&estate.acme).await;
    let mut inside = gate.wire(&estate.stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    inside.send(query("SELECT pg_sleep(600)")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep", true).await;
    waits.send(query("SELECT 1")).await;
    gate.terminate();
    is_told(&mut waits).await;
    let said = inside.until_closed().await;
    assert!(said.ends_with("E(57P01)"), "{said}");
    assert_eq!(gate.exit().await.code(), Some(0));
    runs(&admin, &login_of(&estate.stark), "pg_sleep", false).await;
}

#[tokio::test]
async fn a_gate_without_clients_ends_at_once() {
    let estate = Estate::new().await;
    let mut gate = Gate::for_estate(&estate).await;
    gate.terminate();
    let started = std::time::Instant::now();
    assert_eq!(gate.exit().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3));
}
