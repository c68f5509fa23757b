//! Whoever is over a budget is told whose it is, which, how much there is, how much is used, and
//! when to come again; and it is counted as the tenant's.

use super::spending::budget;
use super::{Refusal, refusal};
use crate::console::ADMIN;
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http;
use crate::harness::messages::query;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

const TEMP: &str = "CREATE TEMP TABLE kept (a int)";

/// The detail has all of it; the hint says when to come again, and what else would help.
fn has_facts(refused: &Refusal, tenant: &Tenant, kind: &str, limit: &str, used: &str) {
    let wanted = format!("Tenant \"{}\", {kind}: limit {limit}, used {used}", tenant.id);
    assert!(refused.detail.starts_with(&wanted), "{refused:?}");
    let again = refused.hint.starts_with("Retry") || refused.hint.starts_with("Reconnect");
    assert!(again && refused.hint.contains(kind), "{refused:?}");
}

/// The same of a time that is over: what is used is more than its 100 ms.
fn has_time(refused: &Refusal, tenant: &Tenant, kind: &str) {
    has_facts(refused, tenant, kind, "100ms", "");
    let (_, used) = refused.detail.split_once("used ").unwrap();
    let used = humantime_serde::re::humantime::parse_duration(used.trim_end_matches('.')).unwrap();
    assert!((100..60_000).contains(&used.as_millis()), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_rate_has_its_facts_too() {
    let estate = Estate::new().await;
    let verifier = crate::console::verifier().await;
    let more = format!(
        "[console.users]\nadmin = \"{verifier}\"\n\n[http]\naddress = \"127.0.0.1:$HTTP\"\n"
    );
    let cluster = "query_wait = \"400ms\"";
    let tweaks = Tweaks { cluster, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let tenant = &estate.stark;
    let mut set = async |what: &str| {
        let order = format!("SET BUDGET {} {what} FOR '1h'", tenant.id);
        assert_eq!(console.query(&order).await, "C(SET BUDGET) Z(I)", "{order}");
    };
    let mut first = gate.wire(tenant).await;
    let mut second = gate.wire(tenant).await;

    set("clients = 2").await;
    let mut third = Wire::connect(gate.port).await;
    let login = Login { user: "app", dbname: "app", password: &tenant.token, more: &[] };
    let refused = Refusal::among(&third.authenticate(&login).await);
    assert_eq!(refused.brief(), "53300 FATAL");
    has_facts(&refused, tenant, "clients", "2", "2.");
    set("clients = none").await;

    set("servers = 1").await;
    assert_eq!(first.query("BEGIN").await, "C(BEGIN) Z(T)");
    let refused = refusal(&mut second, query("SELECT 1")).await;
    assert_eq!(refused.brief(), "53300 ERROR Z(I)");
    assert_eq!(refused.message, "tenant exceeded its server connections");
    has_facts(&refused, tenant, "servers", "1", "1.");
    // There is room for others: the cluster's capacity has nothing to do with it.
    assert!(!refused.hint.contains("capacity"), "{refused:?}");
    let mut other = gate.wire(&estate.acme).await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(first.query("COMMIT").await, "C(COMMIT) Z(I)");
    set("servers = none").await;

    set("pins = 1").await;
    assert_eq!(first.query(TEMP).await, "C(CREATE TABLE) Z(I)");
    let refused = refusal(&mut second, query(TEMP)).await;
    assert_eq!(refused.brief(), "53400 ERROR Z(I)");
    has_facts(&refused, tenant, "pins", "1", "1.");
    assert_eq!(first.query("DISCARD ALL").await, "C(DISCARD ALL) Z(I)");

    set("query_time = '100ms'").await;
    let refused = refusal(&mut second, query("SELECT pg_sleep(600)")).await;
    assert_eq!(refused.brief(), "57014 ERROR Z(I)");
    has_time(&refused, tenant, "query_time");
    set("query_time = none").await;

    set("transaction_time = '100ms'").await;
    let refused = refusal(&mut second, query("SELECT pg_sleep(600)")).await;
    assert_eq!(refused.brief(), "25P04 FATAL");
    has_time(&refused, tenant, "transaction_time");
    set("transaction_time = none").await;

    set("idle_in_transaction = '100ms'").await;
    assert_eq!(first.query("BEGIN").await, "C(BEGIN) Z(T)");
    let refused = refusal(&mut first, "").await;
    assert_eq!(refused.brief(), "25P03 FATAL");
    has_time(&refused, tenant, "idle_in_transaction");
    set("idle_in_transaction = none").await;

    set("pin_idle = '100ms'").await;
    let mut first = gate.wire(tenant).await;
    assert_eq!(first.query(TEMP).await, "C(CREATE TABLE) Z(I)");
    let refused = refusal(&mut first, "").await;
    assert_eq!(refused.brief(), "57P05 FATAL");
    has_time(&refused, tenant, "pin_idle");
    set("pin_idle = none").await;
    for (kind, refused) in [
        ("clients", "1"),
        ("servers", "1"),
        ("pins", "1"),
        ("query_time", "1"),
        ("transaction_time", "1"),
        ("idle_in_transaction", "1"),
        ("pin_idle", "1"),
    ] {
        let row = budget(&mut console, tenant, kind).await.unwrap();
        assert_eq!(row["refused"], refused, "{row:?}");
    }
    counted_as_the_tenants(&gate).await;
}

/// What is counted by side: nothing of it is trouble of the gate's.
async fn counted_as_the_tenants(gate: &Gate) {
    let names = ["over_clients", "over_servers", "over_pins"];
    // Workers hand their counters on once a second.
    let page = eventually("the refusals are in the metrics", async || {
        let (_, page) = http::get(gate.http, "/metrics").await;
        let told = |name: &&str| {
            let lines = page.lines().filter(|line| line.contains(&format!("name=\"{name}\"")));
            lines.take(1).any(|line| line.contains("side=\"tenant\""))
        };
        names.iter().all(told).then(|| page.clone())
    })
    .await;
    assert!(!page.contains("name=\"no_server_in_time\""), "{page}");
}
