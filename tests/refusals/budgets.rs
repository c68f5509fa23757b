//! Over the budget: refused or made to wait, as the tier says, and transactions end cleanly.

use std::time::{Duration, Instant};

use super::{Refusal, aborts_the_transaction, is_in_step, refusal, spend, told};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, extended, parse, query, sync, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

async fn gate(tier: &str) -> (Estate, Gate) {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    (estate, gate)
}

#[tokio::test]
async fn over_the_rate_is_refused_and_the_session_goes_on() {
    let (estate, gate) = gate("queries_per_second = 1\nqueries_burst = 5").await;
    let mut wire = gate.wire(&estate.stark).await;
    let refused = spend(&mut wire).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    assert_eq!(refused.message, "tenant exceeded its queries per second");
    let said = "queries_per_second: limit 1 per 1s, bursts of 5, used 5.";
    assert_eq!(refused.detail, format!("Tenant \"{}\", {said}", estate.stark.id));
    assert!(refused.hint.starts_with("Retry after 0."), "{}", refused.hint);
    // The others have budgets of their own.
    let mut other = gate.wire(&estate.umbrella).await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let refused = refusal(&mut wire, extended("SELECT 1", &[])).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    // Empty texts and what only controls transactions cost nothing.
    assert_eq!(wire.query("").await, "I Z(I)");
    assert_eq!(wire.query("BEGIN; COMMIT").await, "C(BEGIN) C(COMMIT) Z(I)");
    eventually("budget comes back", async || {
        (wire.query("SELECT 1").await == "T D(1) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn over_the_rate_in_a_transaction_aborts_it_and_its_end_always_passes() {
    let (estate, gate) = gate("queries_per_second = 1\nqueries_burst = 5").await;
    for end in ["COMMIT", "END", "ROLLBACK", "ABORT"] {
        let mut wire = gate.wire(&estate.stark).await;
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        let refused = spend(&mut wire).await;
        assert_eq!(refused.brief(), "53400 ERROR Z(E)");
        let again = refusal(&mut wire, extended("SELECT 1", &[])).await;
        assert_eq!((again.sqlstate.as_str(), again.status.as_str()), ("53400", "Z(E)"));
        assert_eq!(wire.query(end).await, "C(ROLLBACK) Z(I)");
    }
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    spend(&mut wire).await;
    let commit = [parse("", "COMMIT"), bind("", "", &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(commit).await, "1 2 C(ROLLBACK) Z(I)");
}

#[tokio::test]
async fn pipelined_requests_over_the_rate_are_answered_in_their_places() {
    let (estate, gate) = gate("queries_per_second = 1\nqueries_burst = 5").await;
    let mut wire = gate.wire(&estate.stark).await;
    wire.send([query("SELECT 7").repeat(10), extended("SELECT 8", &[]).repeat(10)].concat()).await;
    let mut said = Vec::new();
    for _ in 0..20 {
        said.push(transcript(&wire.until_ready().await));
    }
    assert!(said[..5].iter().all(|it| it == "T D(7) C(SELECT 1) Z(I)"), "{said:?}");
    let refused = said.iter().filter(|it| *it == "E(53400) Z(I)").count();
    assert!(refused >= 13, "{said:?}");
    let passed = said.iter().filter(|it| it.ends_with("C(SELECT 1) Z(I)")).count();
    assert_eq!(refused + passed, 20, "{said:?}");
    assert_eq!(wire.query("").await, "I Z(I)");
}

#[tokio::test]
async fn over_the_rate_waits_where_the_tier_says_so() {
    let tier = "queries_per_second = 20\nqueries_burst = 1\nbudget_wait = \"10s\"";
    let (estate, gate) = gate(tier).await;
    let mut wire = gate.wire(&estate.stark).await;
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    }
    wire.send([query("BEGIN"), query("SELECT 2").repeat(3), query("COMMIT")].concat()).await;
    for wanted in ["C(BEGIN) Z(T)", "T D(2) C(SELECT 1) Z(T)"] {
        assert_eq!(transcript(&wire.until_ready().await), wanted);
    }
    for _ in 0..3 {
        wire.until_ready().await;
    }
    assert_eq!(wire.ask(extended("SELECT 3", &[])).await, "1 2 T D(3) C(SELECT 1) Z(I)");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(350), "nine queries at 20 a second took {took:?}");
}

#[tokio::test]
async fn transactions_at_once_are_limited_and_places_come_back() {
    let (estate, gate) = gate("queries_at_once = 1").await;
    let mut first = gate.wire(&estate.stark).await;
    let mut second = gate.wire(&estate.stark).await;
    assert_eq!(first.query("BEGIN").await, "C(BEGIN) Z(T)");
    let refused = refusal(&mut second, query("SELECT 1")).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    assert_eq!(refused.message, "tenant exceeded its queries at once");
    let detail = format!("Tenant \"{}\", queries_at_once: limit 1, used 1.", estate.stark.id);
    assert_eq!(refused.detail, detail);
    let refused = refusal(&mut second, extended("SELECT 1", &[])).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    // What can only end a transaction is never counted.
    assert_eq!(second.query("ROLLBACK").await, "N(25P01) C(ROLLBACK) Z(I)");
    assert_eq!(first.query("COMMIT").await, "C(COMMIT) Z(I)");
    is_in_step(&mut second).await;
    second.query("BEGIN").await;
    drop(second);
    eventually("the place of one that hung up comes back", async || {
        (first.query("SELECT 1").await == "T D(1) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn transactions_at_once_wait_where_the_tier_says_so() {
    let (estate, gate) = gate("queries_at_once = 1\nbudget_wait = \"10s\"").await;
    let mut first = gate.wire(&estate.stark).await;
    let mut second = gate.wire(&estate.stark).await;
    first.query("BEGIN").await;
    second.send(query("SELECT 5")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.frame()).await;
    assert!(early.is_err(), "it waits: {early:?}");
    assert_eq!(first.query("COMMIT").await, "C(COMMIT) Z(I)");
    // The frame that was awaited in vain was not read, so all of the answer is still there.
    assert_eq!(transcript(&second.until_ready().await), "T D(5) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn clients_of_a_tenant_and_of_the_process_are_limited() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "clients = 3", tier: "clients = 2", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let login = |token| Login { user: "app", dbname: "app", password: token, more: &[] };
    let first = gate.wire(&estate.stark).await;
    let second = gate.wire(&estate.stark).await;
    let mut third = Wire::connect(gate.port).await;
    let frames = third.authenticate(&login(&estate.stark.token)).await;
    assert_eq!(told(&frames), "R E(53300)");
    let refused = Refusal::among(&frames);
    assert_eq!(refused.brief(), "53300 FATAL");
    assert_eq!(refused.message, "too many connections for tenant");
    assert_eq!(third.until_closed().await, "");
    let other = eventually("the refused one's place is free", async || {
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login(&estate.umbrella.token)).await;
        told(&frames).ends_with("Z(I)").then_some(wire)
    })
    .await;
    let mut fourth = Wire::connect(gate.port).await;
    let frames = fourth.authenticate(&login(&estate.acme.token)).await;
    assert_eq!(told(&frames), "R E(53300)");
    assert_eq!(Refusal::among(&frames).message, "sorry, too many clients already");
    // Whoever is beyond the limit may still cancel, and those who say nothing keep nobody out.
    let crowd: Vec<Wire> =
        futures::future::join_all((0..400).map(|_| Wire::connect(gate.port))).await;
    let mut canceller = Wire::connect(gate.port).await;
    canceller.try_send(crate::harness::messages::cancel_request(1, 1)).await.ok();
    assert_eq!(canceller.until_closed().await, "");
    drop(other);
    eventually("a place among so many who say nothing", async || {
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login(&estate.umbrella.token)).await;
        told(&frames).ends_with("Z(I)").then_some(())
    })
    .await;
    drop((first, second, crowd));
    eventually("places come back", async || {
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login(&estate.stark.token)).await;
        told(&frames).ends_with("Z(I)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_query_over_its_time_is_cancelled_in_our_words() {
    let (estate, gate) = gate("query_time = \"150ms\"").await;
    let mut wire = gate.wire(&estate.stark).await;
    for bytes in [query("SELECT pg_sleep(30)"), extended("SELECT pg_sleep(30)", &[])] {
        let refused = refusal(&mut wire, bytes.clone()).await;
        assert_eq!(refused.brief(), "57014 ERROR Z(I)");
        assert_eq!(refused.message, "canceling statement due to the tenant's query time limit");
        let detail = format!("Tenant \"{}\", query_time: limit 150ms, used ", estate.stark.id);
        assert!(refused.detail.starts_with(&detail), "{refused:?}");
        is_in_step(&mut wire).await;
        aborts_the_transaction(&mut wire, bytes).await;
    }
    // Many short ones are not one long one, and PostgreSQL's own cancels keep their words.
    for _ in 0..30 {
        wire.query("SELECT pg_sleep(0.01)").await;
    }
    wire.query("SET statement_timeout = 20").await;
    let own = refusal(&mut wire, query("SELECT pg_sleep(30)")).await;
    assert_eq!(own.message, "canceling statement due to statement timeout");
}

#[tokio::test]
async fn each_request_of_a_pipeline_has_its_own_time() {
    let (estate, gate) = gate("query_time = \"400ms\"").await;
    let mut wire = gate.wire(&estate.stark).await;
    wire.send([query("SELECT pg_sleep(0.15)").repeat(5), query("SELECT 1")].concat()).await;
    for _ in 0..5 {
        assert_eq!(transcript(&wire.until_ready().await), "T D() C(SELECT 1) Z(I)");
    }
    assert_eq!(transcript(&wire.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
    // A client that thinks inside a transaction is not a query.
    wire.query("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
}
