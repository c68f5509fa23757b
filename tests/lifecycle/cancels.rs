//! Cancels: they reach the query that runs, the one that waits, and never the one that comes next.

use super::{login_of, runs};
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{assert_cancelled, extended, query, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Wire, cancel};

const ONE: &str = "T D(1) C(SELECT 1) Z(I)";

#[tokio::test]
async fn a_cancel_never_hits_the_next_query() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    let mut neighbour = gate.wire(&estate.stark).await;
    let mut hits = 0;
    for turn in 0..200 {
        let pause = f64::from(turn % 10) / 1000.0;
        wire.send(query(&format!("SELECT pg_sleep({pause})"))).await;
        if turn % 3 == 0 {
            tokio::task::yield_now().await;
        }
        // Returns when the gate has closed the connection, as drivers wait for.
        cancel(gate.port, wire.pid, wire.secret).await;
        let said = transcript(&wire.until_ready().await);
        hits += usize::from(said.contains("E(57014)"));
        let next = wire.query("SELECT pg_sleep(0.002), 1").await;
        assert_eq!(next, "T D(,1) C(SELECT 1) Z(I)", "turn {turn}");
        assert_eq!(neighbour.query("SELECT 1").await, ONE, "turn {turn}");
    }
    assert!(hits > 0, "some must have been cancelled");
}

#[tokio::test]
async fn a_cancel_that_arrives_after_its_query_is_lost_also_inside_a_transaction() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    for turn in 0..100 {
        cancel(gate.port, wire.pid, wire.secret).await;
        let said = wire.query("SELECT pg_sleep(0.001), 1").await;
        assert_eq!(said, "T D(,1) C(SELECT 1) Z(T)", "turn {turn}");
    }
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn a_wrong_key_cancels_nothing() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let mut wire = gate.wire(&estate.stark).await;
    wire.send(query("SELECT pg_sleep(0.6), 1")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep", true).await;
    for (pid, secret) in [(wire.pid, wire.secret ^ 1), (wire.pid ^ 1, wire.secret), (0, 0)] {
        cancel(gate.port, pid, secret).await;
    }
    assert_eq!(transcript(&wire.until_ready().await), "T D(,1) C(SELECT 1) Z(I)");
    // The server's own pid is no key either.
    let said = wire.query("SELECT pg_backend_pid()").await;
    assert_ne!(said, format!("T D({}) C(SELECT 1) Z(I)", wire.pid));
}

#[tokio::test]
async fn a_cancel_while_waiting_in_line_is_answered_by_the_gate() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut waits = gate.wire(&estate.stark).await;
    let mut holds = gate.wire(&estate.acme).await;
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    for (bytes, said) in
        [(query("SELECT 1"), "E(57014) Z(I)"), (extended("SELECT 1", &[]), "E(57014) Z(I)")]
    {
        assert_eq!(cancelled(&gate, &mut waits, bytes).await, said);
    }
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    // It was for that request: the next ones run.
    for _ in 0..3 {
        assert_eq!(waits.query("SELECT 1").await, ONE);
    }
    assert_eq!(holds.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn a_cancel_while_waiting_for_the_budget_is_answered_by_the_gate() {
    let estate = Estate::new().await;
    let tier = "queries_at_once = 1\nbudget_wait = \"60s\"";
    let gate = Gate::start(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    let mut waits = gate.wire(&estate.stark).await;
    let mut holds = gate.wire(&estate.stark).await;
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(cancelled(&gate, &mut waits, query("SELECT 1")).await, "E(57014) Z(I)");
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(waits.query("SELECT 1").await, ONE);
    // One that hangs up while it waits leaves nothing behind.
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    waits.send(query("SELECT 1")).await;
    drop(waits);
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

/// Sends something that will wait, and cancels until it is answered.
async fn cancelled(gate: &Gate, wire: &mut Wire, bytes: Vec<u8>) -> String {
    wire.send(bytes).await;
    let (port, pid, secret) = (gate.port, wire.pid, wire.secret);
    let cancels = tokio::spawn(async move {
        loop {
            cancel(port, pid, secret).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let frames = wire.until_ready().await;
    cancels.abort();
    let error = frames.iter().find(|frame| frame.tag == b'E').expect("an error");
    let message = error.field('M').unwrap();
    assert_eq!(message, "canceling statement due to user request");
    transcript(&frames)
}

#[tokio::test]
async fn cancels_of_a_pipeline_hit_one_request_and_the_rest_is_answered() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let mut wire = gate.wire(&estate.stark).await;
    wire.send([query("SELECT pg_sleep(602)"), query("SELECT 1"), query("SELECT 1")].concat()).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep(602)", true).await;
    cancel(gate.port, wire.pid, wire.secret).await;
    assert_cancelled(&wire.until_ready().await);
    assert_eq!(transcript(&wire.until_ready().await), ONE);
    assert_eq!(transcript(&wire.until_ready().await), ONE);
}
