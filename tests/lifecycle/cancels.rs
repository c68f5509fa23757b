//! Cancels: they reach the query that runs, the one that waits, and never the one that comes next.

use super::{login_of, runs};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::faults::{Hop, Mode};
use crate::harness::gate::Gate;
use crate::harness::messages::{
    ONE, assert_cancelled, bind, copy_data, copy_done, execute, extended, flush, parse, query,
    sync, transcript,
};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Wire, cancel};

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

/// Whether a login has copied a line.
const COPIED: &str = "SELECT count(*) > 0 FROM pg_stat_progress_copy AS copied \
                      JOIN pg_stat_activity USING (pid) \
                      WHERE usename = $1 AND tuples_processed > 0";

#[tokio::test]
async fn a_cancel_in_copy_ends_the_copy_and_nothing_else() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let start = "COPY notes FROM STDIN";
    let eager = [parse("", start), bind("", "", &[]), execute("", 0), sync()].concat();
    for (bytes, answers, behind, ends) in [
        (query(start), 1, copy_done(), "E(57014) Z(I)"),
        (eager, 3, [copy_done(), sync()].concat(), "E(57014) Z(I)"),
    ] {
        let mut wire = gate.wire(&estate.stark).await;
        wire.send(bytes).await;
        for _ in 0..answers {
            wire.frame().await;
        }
        wire.send(copy_data(b"940\tcopied\n")).await;
        // A server that has not read the Sync ahead of the data yet would answer it by itself.
        eventually("the first line is read", async || {
            let row = admin.query_one(COPIED, &[&login_of(&estate.stark)]).await.unwrap();
            row.get::<_, bool>(0).then_some(())
        })
        .await;
        cancel(gate.port, wire.pid, wire.secret).await;
        // PostgreSQL looks for a cancel when it has read more.
        wire.send([copy_data(b"941\tcopied\n"), behind].concat()).await;
        assert_eq!(transcript(&wire.until_ready().await), ends);
        let kept = wire.query("SELECT count(*) FROM notes WHERE id IN (940, 941)").await;
        assert_eq!(kept, "T D(0) C(SELECT 1) Z(I)");
    }
    let mut wire = gate.wire(&estate.stark).await;
    wire.send(query("COPY (SELECT pg_sleep(600)) TO STDOUT")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep(600)", true).await;
    cancel(gate.port, wire.pid, wire.secret).await;
    let said = transcript(&wire.until_ready().await);
    assert!(["H E(57014) Z(I)", "E(57014) Z(I)"].contains(&&*said), "{said}");
    assert_eq!(wire.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn a_cancel_between_the_messages_of_a_batch_hits_nothing() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    for begins in [false, true] {
        if begins {
            assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        }
        let status = if begins { "T" } else { "I" };
        let parts = [parse("", "SELECT pg_sleep(0.01), 1"), bind("", "", &[]), execute("", 0)];
        let mut frames = Vec::new();
        for (part, answers) in parts.into_iter().zip([1, 1, 2]) {
            wire.send([part, flush()].concat()).await;
            for _ in 0..answers {
                frames.push(wire.frame().await);
            }
            cancel(gate.port, wire.pid, wire.secret).await;
        }
        wire.send(sync()).await;
        frames.extend(wire.until_ready().await);
        assert_eq!(transcript(&frames), format!("1 2 D(,1) C(SELECT 1) Z({status})"));
    }
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    // Idle, with nothing open.
    cancel(gate.port, wire.pid, wire.secret).await;
    assert_eq!(wire.query("SELECT pg_sleep(0.01), 1").await, "T D(,1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_cancel_while_a_server_is_made_ready_is_answered_by_the_gate() {
    let estate = Estate::new().await;
    let port = shared().await.port();
    let hop = Hop::start(port).await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let settings = estate.settings(&tweaks);
    let through = format!("127.0.0.1:{}/", hop.port);
    let gate = Gate::start(&settings.replace(&format!("127.0.0.1:{port}/"), &through)).await;
    let mut other = gate.wire(&estate.globex).await;
    let mut wire = gate.wire(&estate.acme).await;
    assert_eq!(other.query("SELECT 1").await, ONE);
    // The server is bound to the other tenant; what it says to be bound anew does not come.
    hop.set_to_client(Mode::Stall);
    wire.send(query("SELECT 1")).await;
    let (gate_port, pid, secret) = (gate.port, wire.pid, wire.secret);
    let cancels = tokio::spawn(async move {
        loop {
            cancel(gate_port, pid, secret).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let opens = async {
        // It is answered while it waits for the scrub, or when the bind is over.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        hop.set_to_client(Mode::Pass);
    };
    let (frames, ()) = tokio::join!(wire.until_ready(), opens);
    assert_eq!(transcript(&frames), "E(57014) Z(I)");
    cancels.abort();
    let _ = cancels.await;
    eventually("the session goes on", async || (wire.query("SELECT 1").await == ONE).then_some(()))
        .await;
    assert_eq!(other.query("SELECT 1").await, ONE);
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
