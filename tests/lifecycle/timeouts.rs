//! Clients that say nothing for too long, between two transactions and inside one.

use std::time::Duration;

use super::{backends, login_of};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, extended, query, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

async fn gate_with(estate: &Estate, tier: &str) -> Gate {
    Gate::start(&estate.settings(&Tweaks { tier, capacity: 1, ..Tweaks::default() })).await
}

/// The one message before the end of the connection, in PostgreSQL's words.
async fn ended(wire: &mut Wire) -> (String, String) {
    let frame = wire.frame().await;
    let (said, message) = (frame.to_string(), frame.field('M').unwrap());
    assert_eq!(frame.field('S').as_deref(), Some("FATAL"));
    assert_eq!(wire.until_closed().await, "");
    (said, message)
}

#[tokio::test]
async fn an_idle_client_is_disconnected_and_a_busy_one_is_not() {
    let estate = Estate::new().await;
    let gate = gate_with(&estate, "client_idle = \"500ms\"\nclients = 1").await;
    let mut wire = gate.wire(&estate.stark).await;
    // Neither work nor an open transaction is idleness.
    assert_eq!(wire.query("SELECT pg_sleep(0.8), 1").await, "T D(,1) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    let silent = tokio::time::timeout(Duration::from_millis(900), wire.frame());
    assert!(silent.await.is_err(), "an open transaction is another limit's");
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(wire.query("SELECT 1").await, ONE);
    let message = "terminating connection due to idle-session timeout".to_owned();
    assert_eq!(ended(&mut wire).await, ("E(57P05)".to_owned(), message));
    eventually("its place is free", async || gate.try_connect(&estate.stark).await.ok()).await;
}

#[tokio::test]
async fn a_session_limits_its_own_idleness_and_its_server_lives_on() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    const PID: &str = "SELECT pg_backend_pid()";
    let pid = gate.wire(&estate.stark).await.query(PID).await;
    let mut wire = gate.wire(&estate.stark).await;
    // What was undone is not in force.
    let undone = "BEGIN; SET idle_session_timeout = '100ms'; ROLLBACK";
    assert_eq!(wire.query(undone).await, "C(BEGIN) C(SET) C(ROLLBACK) Z(I)");
    let silent = tokio::time::timeout(Duration::from_millis(400), wire.frame());
    assert!(silent.await.is_err(), "nothing limits it");
    assert_eq!(wire.query("SET idle_session_timeout = '400ms'").await, "C(SET) Z(I)");
    assert_eq!(wire.query("SELECT pg_sleep(0.6), 1").await, "T D(,1) C(SELECT 1) Z(I)");
    let message = "terminating connection due to idle-session timeout".to_owned();
    assert_eq!(ended(&mut wire).await, ("E(57P05)".to_owned(), message.clone()));
    assert_eq!(gate.wire(&estate.stark).await.query(PID).await, pid);
    // Also of the start-up packet, and RESET ALL returns to that; also with a server kept.
    let more = [("options", "-c idle_session_timeout=300ms")];
    for sql in ["SET idle_session_timeout = 0; RESET ALL", "CREATE TEMP TABLE t (a int)"] {
        let mut wire = Wire::connect(gate.port).await;
        let (dbname, password) = (&*estate.initech.dbname, &*estate.initech.token);
        wire.authenticate(&Login { user: "app", dbname, password, more: &more }).await;
        wire.query(sql).await;
        assert_eq!(ended(&mut wire).await, ("E(57P05)".to_owned(), message.clone()), "{sql}");
    }
}

#[tokio::test]
async fn a_limit_that_a_reload_brings_holds_for_clients_that_are_there() {
    let estate = Estate::new().await;
    let settings = |tier| estate.settings(&Tweaks { tier, ..Tweaks::default() });
    let gate = Gate::start(&settings("")).await;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    gate.write_settings(&settings("client_idle = \"100ms\""));
    gate.reload();
    assert_eq!(ended(&mut wire).await.0, "E(57P05)");
}

#[tokio::test]
async fn a_client_idle_in_its_transaction_is_disconnected_and_its_work_undone() {
    let estate = Estate::new().await;
    let gate = gate_with(&estate, "idle_in_transaction = \"500ms\"").await;
    let admin = superuser(shared().await, "app").await;
    let mut other = gate.wire(&estate.acme).await;
    for begin in [query("BEGIN; INSERT INTO notes VALUES (950, 'x')"), extended("BEGIN", &[])] {
        let mut wire = gate.wire(&estate.stark).await;
        assert!(wire.ask(begin).await.ends_with("Z(T)"));
        // Work is no idleness, however long, and each answer begins a new silence.
        assert_eq!(wire.query("SELECT pg_sleep(0.8), 1").await, "T D(,1) C(SELECT 1) Z(T)");
        other.send(query("SELECT 1")).await;
        let message = "terminating connection due to idle-in-transaction timeout".to_owned();
        assert_eq!(ended(&mut wire).await, ("E(25P03)".to_owned(), message));
        assert_eq!(transcript(&other.until_ready().await), ONE);
    }
    let mut wire = gate.wire(&estate.stark).await;
    let kept = wire.query("SELECT count(*) FROM notes WHERE id = 950").await;
    assert_eq!(kept, "T D(0) C(SELECT 1) Z(I)");
    // One that failed is a transaction, too.
    assert_eq!(wire.query("BEGIN; SELECT 1/0").await, "C(BEGIN) E(22012) Z(E)");
    assert_eq!(ended(&mut wire).await.0, "E(25P03)");
    eventually("the backend is gone", async || {
        (backends(&admin, &login_of(&estate.stark)).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clients_own_limit_in_a_transaction_is_the_servers_as_without_the_gate() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let user = login_of(&estate.stark);
    let direct = Login { user: &user, dbname: "app", password: LOGIN_PASSWORD, more: &[] };
    for mut wire in
        [Wire::login(shared().await.port(), &direct).await, gate.wire(&estate.stark).await]
    {
        let set = "SET idle_in_transaction_session_timeout = '200ms'";
        assert_eq!(wire.query(set).await, "C(SET) Z(I)");
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        assert_eq!(wire.until_closed().await, "E(25P03)");
    }
}
