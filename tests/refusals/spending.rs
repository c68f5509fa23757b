//! What is spent over time: database time, bytes, logins; and what has taken too long too often.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::{Refusal, aborts_the_transaction, is_in_step, refusal, told};
use crate::console::{ADMIN, show};
use crate::credentials::{AUDIT, written};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, extended, query, transcript};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire, cancel};

async fn gate(tier: &str) -> (Estate, Gate) {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    (estate, gate)
}

/// The refusal that comes sooner or later, while something else spends.
async fn refused_in_time(wire: &mut Wire) -> Refusal {
    eventually("the budget is spent", async || {
        wire.send(query("SELECT 1")).await;
        let frames = wire.until_ready().await;
        frames.iter().any(|frame| frame.tag == b'E').then(|| Refusal::among(&frames))
    })
    .await
}

#[tokio::test]
async fn a_long_query_is_charged_while_it_runs() {
    let (estate, gate) = gate("database_time = \"500ms/1h\"").await;
    let mut long = gate.wire(&estate.stark).await;
    let mut short = gate.wire(&estate.stark).await;
    assert_eq!(short.query("SELECT 1").await, ONE);
    long.send(query("SELECT pg_sleep(600)")).await;
    let refused = refused_in_time(&mut short).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    assert_eq!(refused.message, "tenant exceeded its database time");
    let wanted =
        format!("Tenant \"{}\", database_time: limit 500ms per 1h, used ", estate.stark.id);
    assert!(refused.detail.starts_with(&wanted), "{}", refused.detail);
    assert!(refused.hint.starts_with("Retry after "), "{}", refused.hint);
    // It runs still, and is ended as ever.
    let early = tokio::time::timeout(Duration::from_millis(50), long.frame()).await;
    assert!(early.is_err(), "{early:?}");
    cancel(gate.port, long.pid, long.secret).await;
    assert_eq!(transcript(&long.until_ready().await), "T E(57014) Z(I)");
    // What controls transactions passes; what is refused in one aborts it.
    assert_eq!(short.query("BEGIN").await, "C(BEGIN) Z(T)");
    let refused = refusal(&mut short, extended("SELECT 1", &[])).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(E)");
    assert_eq!(short.query("COMMIT").await, "C(ROLLBACK) Z(I)");
    assert_eq!(long.query("ROLLBACK").await, "N(25P01) C(ROLLBACK) Z(I)");
    // The others have budgets of their own.
    is_in_step(&mut gate.wire(&estate.umbrella).await).await;
}

#[tokio::test]
async fn time_in_which_a_server_waits_for_its_client_is_free() {
    let (estate, gate) = gate("database_time = \"600ms/1h\"").await;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(wire.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn over_the_database_time_waits_where_the_tier_says_so() {
    let tier = "database_time = \"200ms/1s\"\nbudget_wait = \"60s\"";
    let estate = Estate::new().await;
    let (gate, mut console) = with_console(&estate, tier).await;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("SELECT pg_sleep(1)").await, "T D() C(SELECT 1) Z(I)");
    wire.send(query("SELECT 1")).await;
    eventually("it is shown waiting", async || {
        let row = budget(&mut console, &estate.stark, "database_time").await?;
        (row["waiting"] == "1").then_some(())
    })
    .await;
    assert_eq!(transcript(&wire.until_ready().await), ONE);
    // In a transaction as well, where the server is held meanwhile.
    wire.query("BEGIN").await;
    assert_eq!(wire.query("SELECT pg_sleep(0.5)").await, "T D() C(SELECT 1) Z(T)");
    let started = Instant::now();
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_eq!((row["waiting"].as_str(), row["refused"].as_str()), ("0", "0"));
}

/// Longer than in every run: `TENANTGATE_BUDGET_SECONDS=30`, and then within 2 %.
fn seconds() -> u64 {
    let said = std::env::var("TENANTGATE_BUDGET_SECONDS").ok();
    said.map_or(4, |seconds| seconds.parse().unwrap())
}

/// Asks the same again and again until `end`.
async fn offer(mut wire: Wire, sql: &str, end: Instant) {
    while Instant::now() < end {
        let said = wire.query(sql).await;
        assert!(said.ends_with("C(SELECT 1) Z(I)") || said == "E(53400) Z(I)", "{said}");
        if said.starts_with("E(") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// How much of what is allowed per second is admitted, when ten times as much is offered: by
/// `column` of SHOW STATS_TENANTS, which is counted apart from the budget, once the burst of the
/// start is spent.
async fn admitted(tier: &str, sql: &str, column: &str, per_second: f64) {
    let estate = Estate::new().await;
    let (gate, mut console) = with_console(&estate, tier).await;
    let (start, id) = (Instant::now() + Duration::from_secs(2), &estate.stark.id);
    let end = start + Duration::from_secs(seconds());
    let mut offers = Vec::new();
    for _ in 0..10 {
        offers.push(offer(gate.wire(&estate.stark).await, sql, end));
    }
    let measure = async {
        let mut points = Vec::new();
        for at in [start, end] {
            tokio::time::sleep_until(at.into()).await;
            let rows = show(&mut console, "STATS_TENANTS").await;
            let row = rows.iter().find(|row| row["tenant"] == *id).unwrap();
            points.push((Instant::now(), row[column].parse::<f64>().unwrap()));
        }
        let [(from, before), (to, after)] = points.as_slice() else { unreachable!() };
        (after - before) / (*to - *from).as_secs_f64() / per_second
    };
    let (ratio, _) = tokio::join!(measure, join_all(offers));
    let tolerance = if seconds() >= 30 { 0.02 } else { 0.2 };
    println!("{tier}: admitted {ratio:.4} of the limit in {} s", seconds());
    assert!((ratio - 1.0).abs() <= tolerance, "{tier}: {ratio}");
}

#[tokio::test]
async fn of_ten_times_the_database_time_the_limit_is_admitted() {
    let tier = "database_time = \"400ms/1s\"\nbudget_wait = \"60s\"";
    admitted(tier, "SELECT pg_sleep(0.02)", "total_query_time", 400_000.0).await;
}

#[tokio::test]
async fn of_ten_times_the_rate_the_limit_is_admitted() {
    let tier = "queries_per_second = 50\nqueries_burst = 5";
    admitted(tier, "SELECT 1", "total_query_count", 50.0).await;
}

#[tokio::test]
async fn over_the_bytes_out_is_refused_behind_a_whole_result() {
    let (estate, gate) = gate("bytes_out = \"1MB/1h\"").await;
    let mut wire = gate.wire(&estate.stark).await;
    let mut other = gate.wire(&estate.stark).await;
    assert_eq!(other.query("SELECT 1").await, ONE);
    let long = wire.query("SELECT repeat('x', 3000000)").await;
    assert_eq!(long.len(), 3_000_000 + "T D() C(SELECT 1) Z(I)".len());
    for wire in [&mut wire, &mut other] {
        let refused = refused_in_time(wire).await;
        assert_eq!(refused.brief(), "53400 ERROR Z(I)");
        assert_eq!(refused.message, "tenant exceeded its bytes out");
        let wanted = "bytes_out: limit 1.0 MB per 1h, used 3.0 MB.";
        assert!(refused.detail.ends_with(wanted), "{}", refused.detail);
    }
    is_in_step(&mut gate.wire(&estate.umbrella).await).await;
}

#[tokio::test]
async fn logins_over_their_rate_are_refused_behind_their_proof() {
    let (estate, gate) = gate("logins_per_second = 1\nlogins_burst = 3").await;
    let login = |token| Login { user: "app", dbname: "app", password: token, more: &[] };
    let mut refused = None;
    for _ in 0..100 {
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login(&estate.stark.token)).await;
        if told(&frames).contains("E(") {
            refused = Some(Refusal::among(&frames));
            break;
        }
    }
    let refused = refused.expect("a hundred logins are more than three");
    assert_eq!(refused.brief(), "53400 FATAL");
    assert_eq!(refused.message, "tenant exceeded its logins per second");
    assert!(refused.hint.starts_with("Retry after 0."), "{}", refused.hint);
    // Who has no proof is told what he is always told.
    let stranger = jwt_of_a_stranger(&estate.stark);
    for _ in 0..5 {
        let mut wire = Wire::connect(gate.port).await;
        assert!(told(&wire.authenticate(&login(&stranger)).await).ends_with("E(28P01)"));
    }
    eventually("logins come back", async || {
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login(&estate.stark.token)).await;
        told(&frames).ends_with("Z(I)").then_some(())
    })
    .await;
}

/// A token of the right shape and tenant, signed by nobody the gate knows.
fn jwt_of_a_stranger(tenant: &Tenant) -> String {
    let claims = serde_json::json!({ "tenant": tenant.id, "exp": 4_000_000_000_u64 });
    crate::harness::tenants::jwt_with("a key that no issuer of the gate's has", &claims)
}

#[tokio::test]
async fn a_transaction_over_its_time_ends_the_session() {
    let (estate, gate) = gate("transaction_time = \"700ms\"").await;
    for (begin, last) in [
        ("INSERT INTO notes VALUES (810, 'x')", Some("SELECT pg_sleep(600)")),
        ("INSERT INTO notes VALUES (810, 'x')", None),
    ] {
        let mut wire = gate.wire(&estate.stark).await;
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        assert_eq!(wire.query(begin).await, "C(INSERT 0 1) Z(T)");
        if let Some(last) = last {
            wire.send(query(last)).await;
        }
        let ended = wire.until_closed().await;
        assert!(ended.ends_with("E(25P04)"), "{ended}");
    }
    // A request of its own is a transaction, too, and many short ones are not a long one.
    let mut wire = gate.wire(&estate.stark).await;
    for _ in 0..20 {
        assert_eq!(wire.query("SELECT pg_sleep(0.05)").await, "T D() C(SELECT 1) Z(I)");
    }
    wire.send([query("SELECT pg_sleep(0.1)").repeat(12), query("SELECT 1")].concat()).await;
    for _ in 0..12 {
        assert_eq!(transcript(&wire.until_ready().await), "T D() C(SELECT 1) Z(I)");
    }
    assert_eq!(transcript(&wire.until_ready().await), ONE);
    let gone = wire.query("SELECT count(*) FROM notes WHERE id = 810").await;
    assert_eq!(gone, "T D(0) C(SELECT 1) Z(I)");
    wire.send(query("SELECT pg_sleep(600)")).await;
    let frames = wire.until_ready().await;
    let refused = Refusal::among(&frames);
    assert_eq!(refused.brief(), "25P04 FATAL");
    assert_eq!(refused.message, "terminating connection due to transaction timeout");
}

#[tokio::test]
async fn a_tenant_whose_queries_keep_timing_out_is_refused_until_one_comes_back() {
    let tier = "query_time = \"150ms\"\nbreaker = \"3/5\"\nbreaker_pause = \"3s\"";
    let (estate, gate) = gate(tier).await;
    let mut wire = gate.wire(&estate.stark).await;
    for _ in 0..3 {
        assert_eq!(wire.query("SELECT 1").await, ONE);
    }
    for _ in 0..2 {
        assert!(wire.query("SELECT pg_sleep(600)").await.ends_with("E(57014) Z(I)"));
        assert_eq!(wire.query("SELECT 1").await, ONE);
    }
    assert!(wire.query("SELECT pg_sleep(600)").await.ends_with("E(57014) Z(I)"));
    let refused = refusal(&mut wire, query("SELECT 1")).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    assert_eq!(refused.message, "too many of the tenant's queries ran out of time");
    assert!(refused.detail.ends_with("breaker: limit 3 per 5 queries, used 3."), "{refused:?}");
    // The probe runs out of its time as well: another pause.
    eventually("a probe is let through", async || {
        wire.query("SELECT pg_sleep(600)").await.ends_with("E(57014) Z(I)").then_some(())
    })
    .await;
    let refused = refusal(&mut wire, query("SELECT 1")).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    // What is free is no probe.
    assert_eq!(wire.query("BEGIN; COMMIT").await, "C(BEGIN) C(COMMIT) Z(I)");
    assert_eq!(refusal(&mut wire, query("SELECT 1")).await.brief(), "53400 ERROR Z(I)");
    eventually("it is over", async || (wire.query("SELECT 1").await == ONE).then_some(())).await;
    is_in_step(&mut wire).await;
    gate.logs("queries come back in time again").await;
}

async fn with_console(estate: &Estate, tier: &str) -> (Gate, Wire) {
    let verifier = crate::console::verifier().await;
    let more = format!("{AUDIT}[console.users]\nadmin = \"{verifier}\"\n");
    let tweaks = Tweaks { tier, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let console = Wire::login(gate.port, &ADMIN).await;
    (gate, console)
}

/// The row of one limit in SHOW BUDGETS.
pub async fn budget(
    console: &mut Wire,
    tenant: &Tenant,
    kind: &str,
) -> Option<crate::console::Row> {
    let rows = show(console, "BUDGETS").await;
    rows.into_iter().find(|row| row["tenant"] == tenant.id && row["kind"] == kind)
}

#[tokio::test]
async fn budgets_that_are_not_enforced_only_count() {
    let estate = Estate::new().await;
    let tier = "queries_per_second = 1\nqueries_burst = 1\nqueries_at_once = 1\n\
        database_time = \"1ms/1h\"\nbytes_out = \"1kB/1h\"\nlogins_per_second = 1\n\
        enforce_budgets = false";
    let (gate, mut console) = with_console(&estate, tier).await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(gate.wire(&estate.stark).await);
    }
    for wire in &mut wires {
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        assert_eq!(wire.query("SELECT pg_sleep(0.01)").await, "T D() C(SELECT 1) Z(T)");
        let long = wire.query("SELECT repeat('x', 2000)").await;
        assert!(long.ends_with("C(SELECT 1) Z(T)"), "{long}");
    }
    let logins = ["logins_per_second", "queries_per_second", "queries_at_once"];
    for kind in logins.into_iter().chain(["database_time", "bytes_out"]) {
        let row = budget(&mut console, &estate.stark, kind).await.unwrap();
        assert_eq!(row["refused"], "0", "{row:?}");
        assert!(row["would_refuse"].parse::<u64>().unwrap() > 0, "{row:?}");
    }
}

#[tokio::test]
async fn a_budget_set_on_the_console_holds_at_once_survives_a_reload_and_ends() {
    let estate = Estate::new().await;
    let (gate, mut console) = with_console(&estate, "queries_per_second = 100000").await;
    let id = &estate.stark.id;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    let set = format!("SET BUDGET {id} database_time = '1ms/1h' FOR '1h'");
    assert_eq!(console.query(&set).await, "C(SET BUDGET) Z(I)");
    // On the session that is there.
    wire.query("SELECT pg_sleep(0.01)").await;
    assert_eq!(refusal(&mut wire, query("SELECT 1")).await.brief(), "53400 ERROR Z(I)");
    gate.reloaded().await;
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_eq!((row["limit"].as_str(), row["window"].as_str()), ("1ms", "1h"));
    assert!(row["until"].ends_with("UTC"), "{row:?}");
    assert_eq!(refusal(&mut wire, query("SELECT 1")).await.brief(), "53400 ERROR Z(I)");
    // Also inside of a transaction.
    assert_eq!(console.query(&format!("RESET BUDGET {id}")).await, "C(RESET BUDGET) Z(I)");
    assert_eq!(wire.query("SELECT 1").await, ONE);
    assert_eq!(console.query(&set).await, "C(SET BUDGET) Z(I)");
    assert_eq!(console.query(&format!("RESET BUDGET {id} clients")).await, "E(55000) Z(I)");
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_ne!(row["until"], "");
    // The next of its kind takes its place, and ends by itself.
    let brief = format!("SET BUDGET '{id}' database_time TO '2ms/1h' FOR '1500ms'");
    assert_eq!(console.query(&brief).await, "C(SET BUDGET) Z(I)");
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_eq!(row["limit"], "2ms");
    wire.query("SELECT pg_sleep(0.01)").await;
    eventually("the budget is over", async || (wire.query("SELECT 1").await == ONE).then_some(()))
        .await;
    gate.logs("a budget that was set for a while is over").await;
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_eq!((row["limit"].as_str(), row["until"].as_str()), ("", ""));
    // What it refused is still told, and every order is in the log and in the audit.
    assert_ne!(row["refused"], "0");
    gate.logs("SET BUDGET").await;
    let short = format!("SET BUDGET {id} db_time = '5s/1m' FOR '10min'");
    assert_eq!(console.query(&short).await, "C(SET BUDGET) Z(I)");
    let row = budget(&mut console, &estate.stark, "database_time").await.unwrap();
    assert_eq!((row["limit"].as_str(), row["window"].as_str()), ("5s", "1m"));
    let audited = written(&gate, "console", 6).await;
    for (event, order) in audited.iter().zip([
        format!("SET BUDGET \"{id}\" \"database_time\" = '1ms/1h' FOR '1h': done"),
        format!("RESET BUDGET \"{id}\": done"),
        format!("SET BUDGET \"{id}\" \"database_time\" = '1ms/1h' FOR '1h': done"),
        format!("RESET BUDGET \"{id}\" \"clients\": failed: SET BUDGET has set nothing"),
        format!("SET BUDGET \"{id}\" \"database_time\" = '2ms/1h' FOR '1500ms': done"),
        format!("SET BUDGET \"{id}\" \"db_time\" = '5s/1m' FOR '10min': done"),
    ]) {
        assert!(event["reason"].as_str().unwrap().starts_with(&order), "{event}: {order}");
        assert_eq!((&event["user"], &event["tenant"]), (&"admin".into(), &id.as_str().into()));
        assert!(event["peer"].as_str().unwrap().starts_with("127.0.0.1"), "{event}");
    }
    for (order, said) in [
        ("SET BUDGET nobody clients = 5 FOR '1h'".to_owned(), "E(3D000) Z(I)"),
        (format!("SET BUDGET {id} clint = 5 FOR '1h'"), "E(22023) Z(I)"),
        (format!("SET BUDGET {id} database_time = '5s' FOR '1h'"), "E(22023) Z(I)"),
        (format!("SET BUDGET {id} clients = 5 FOR 'ever'"), "E(22023) Z(I)"),
        (format!("SET BUDGET {id} clients = 5 FOR '9999d'"), "E(22023) Z(I)"),
        (format!("SET BUDGET {id} clients = 5"), "E(08P01) Z(I)"),
        (format!("BEGIN; SET BUDGET {id} clients = 5 FOR '1h'"), "C(BEGIN) E(25001) Z(E)"),
    ] {
        assert_eq!(console.query(&order).await, said, "{order}");
    }
}

#[tokio::test]
async fn limits_set_on_the_console_reach_whatever_they_are_of() {
    let estate = Estate::new().await;
    let (gate, mut console) = with_console(&estate, "clients = 100").await;
    let id = &estate.stark.id;
    let mut wire = gate.wire(&estate.stark).await;
    let mut set = async |what: &str| {
        let order = format!("SET BUDGET {id} {what} FOR '1h'");
        assert_eq!(console.query(&order).await, "C(SET BUDGET) Z(I)", "{order}");
    };
    set("query_time = '100ms'").await;
    let refused = refusal(&mut wire, query("SELECT pg_sleep(600)")).await;
    assert_eq!(refused.message, "canceling statement due to the tenant's query time limit");
    aborts_the_transaction(&mut wire, query("SELECT pg_sleep(600)")).await;
    set("query_time = none").await;
    set("clients = 1").await;
    let login = Login { user: "app", dbname: "app", password: &estate.stark.token, more: &[] };
    let mut second = Wire::connect(gate.port).await;
    assert_eq!(told(&second.authenticate(&login).await), "R E(53300)");
    set("clients = 'none'").await;
    let mut second = gate.wire(&estate.stark).await;
    set("queries_at_once = 1").await;
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(second.query("SELECT 1").await, "E(53400) Z(I)");
    set("queries_at_once = none").await;
    assert_eq!(second.query("SELECT 1").await, ONE);
    set("transaction_time = '300ms'").await;
    // Of transactions that begin from now on.
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    second.send(query("SELECT pg_sleep(600)")).await;
    assert!(second.until_closed().await.ends_with("E(25P04)"));
}

/// The page's settings and its orders, as they stand there.
#[tokio::test]
async fn the_examples_of_the_page_work_as_written() {
    let page = include_str!("../../docs/budgets.md");
    let block = |kind: &str| {
        let start = format!("```{kind}\n");
        let (_, rest) = page.split_once(&start).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let estate = Estate::new().await;
    let verifier = crate::console::verifier().await;
    let tiers = block("toml").replace("[tiers.free]", "[tiers.page]");
    let more = format!("[console.users]\nadmin = \"{verifier}\"\n\n{tiers}");
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let gate = Gate::start(&settings.replace("tier = \"free\"", "tier = \"page\"")).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    for order in block("sql").lines() {
        let order = order.replace("acme", &estate.stark.id);
        let said = console.query(&order).await;
        assert!(!said.contains("E("), "{order}: {said}");
        assert_eq!(wire.query("SELECT 1").await, ONE, "{order}");
    }
}
