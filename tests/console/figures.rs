//! SHOW STATS and its kin, and the metrics of tenants: every request is counted once, times are
//! what passed, averages are those of the last period.

use super::{ADMIN, Row, gate, get, one, show};
use crate::harness::eventually;
use crate::harness::messages::{extended, query};
use crate::harness::tenants::Tweaks;
use crate::harness::wire::Wire;

fn number(row: &Row, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is no number in {row:?}"))
}

#[tokio::test]
async fn every_request_is_in_the_figures_of_its_tenant_and_its_database() {
    let (estate, gate) = gate(&Tweaks { capacity: 1, ..Tweaks::default() }).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let (acme, globex) = (&estate.acme, &estate.globex);
    let mut first = gate.wire(acme).await;
    for _ in 0..7 {
        first.query("SELECT 1").await;
    }
    first.ask(extended("SELECT $1::text", &[Some("x")])).await;
    // In a transaction that waits for its client in between, while somebody waits for the server.
    let mut second = gate.wire(globex).await;
    first.query("BEGIN").await;
    first.query("SELECT pg_sleep(0.1)").await;
    second.send(query("SELECT 1")).await;
    eventually("it waits", async || {
        let clients = show(&mut console, "CLIENTS").await;
        clients.iter().find(|row| row["state"] == "waiting")?;
        Some(())
    })
    .await;
    let held = std::time::Instant::now();
    tokio::time::timeout(std::time::Duration::from_millis(300), second.frame())
        .await
        .expect_err("there is one server only");
    first.query("COMMIT").await;
    second.until_ready().await;
    let held = u64::try_from(held.elapsed().as_micros()).unwrap();
    let tenants = show(&mut console, "STATS_TENANTS").await;
    let (a, b) = (one(&tenants, "tenant", &acme.id), one(&tenants, "tenant", &globex.id));
    // BEGIN and COMMIT are no requests; the transaction is one, and so is each request alone.
    assert_eq!((number(a, "total_query_count"), number(a, "total_xact_count")), (9, 9));
    assert_eq!((number(b, "total_query_count"), number(b, "total_xact_count")), (1, 1));
    let (leased, worked) = (number(a, "total_xact_time"), number(a, "total_query_time"));
    assert!(leased >= 400_000, "it held the server for longer: {leased}");
    assert!((100_000..leased - 250_000).contains(&worked), "{worked} of {leased} at work");
    let waited = number(b, "total_wait_time");
    assert!((250_000..held + 5_000_000).contains(&waited), "{waited}");
    // What a session that is still there sent and got counts already.
    let answers = 8 * "SELECT 1".len() as u64;
    assert!(number(a, "total_received") >= answers && number(a, "total_sent") >= answers);
    // The database has what its tenants have, in every table.
    let stats = show(&mut console, "STATS").await;
    let totals = show(&mut console, "STATS_TOTALS").await;
    let (stats, totals) = (one(&stats, "database", "app"), one(&totals, "database", "app"));
    for (long, short) in [
        ("total_xact_count", "xact_count"),
        ("total_query_count", "query_count"),
        ("total_received", "bytes_received"),
        ("total_sent", "bytes_sent"),
        ("total_xact_time", "xact_time"),
        ("total_query_time", "query_time"),
        ("total_wait_time", "wait_time"),
    ] {
        assert_eq!(number(stats, long), number(a, long) + number(b, long), "{long}");
        assert_eq!(number(totals, short), number(stats, long), "{short}");
    }
}

#[tokio::test]
async fn the_top_is_whom_servers_work_for_what_runs_included() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let (mut short, mut long) = (gate.wire(&estate.acme).await, gate.wire(&estate.stark).await);
    assert_eq!(short.query("SELECT pg_sleep(0.1)").await, "T D() C(SELECT 1) Z(I)");
    long.send(query("SELECT pg_sleep(600)")).await;
    eventually("the long query is first while it runs", async || {
        let top = show(&mut console, "TOP").await;
        let tenants: Vec<&str> = top.iter().map(|row| row["tenant"].as_str()).collect();
        let led = tenants == [estate.stark.id.as_str(), estate.acme.id.as_str()];
        (led && number(&top[0], "query_time") > number(&top[1], "query_time")).then_some(())
    })
    .await;
    let top = show(&mut console, "TOP").await;
    assert!(number(one(&top, "tenant", &estate.acme.id), "query_time") >= 100_000, "{top:?}");
    assert!(number(&top[0], "percent") >= 50, "{top:?}");
}

#[tokio::test]
async fn usage_records_have_every_request_once_to_the_last() {
    let more = "[usage]\nfile = \"usage.jsonl\"\ninterval = \"1s\"\n\n\
                [console]\nstats_period = \"1s\"\n";
    let (estate, mut gate) = gate(&Tweaks { more, ..Tweaks::default() }).await;
    let file = gate.folder().join("usage.jsonl");
    let mut wire = gate.wire(&estate.acme).await;
    // Clients are let in when it is there.
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..5 {
        assert_eq!(wire.query("SELECT pg_sleep(0.05)").await, "T D() C(SELECT 1) Z(I)");
    }
    eventually("a record of an interval", async || {
        (!std::fs::read_to_string(&file).unwrap().is_empty()).then_some(())
    })
    .await;
    for _ in 0..3 {
        wire.query("SELECT 1").await;
    }
    gate.wire(&estate.stark).await.query("SELECT 1").await;
    drop(wire);
    // Tenants that are gone are forgotten, what they did is not.
    let mut console = Wire::login(gate.port, &ADMIN).await;
    eventually("nobody has an account", async || {
        let rows = show(&mut console, "MEM").await;
        (number(one(&rows, "name", "account_cache"), "used") == 0).then_some(())
    })
    .await;
    let mut wire = gate.wire(&estate.acme).await;
    for _ in 0..2 {
        wire.query("SELECT 1").await;
    }
    drop(wire);
    let rows = show(&mut console, "STATS_TENANTS").await;
    assert_eq!(number(one(&rows, "tenant", &estate.acme.id), "total_query_count"), 10);
    let (_, body) = get(gate.http, "/metrics").await;
    for (id, requests) in [(&estate.acme.id, 10), (&estate.stark.id, 1)] {
        let line = format!("tenantgate_tenant_requests_total{{tenant=\"{id}\"}} {requests}\n");
        assert!(body.contains(&line), "{line} in {body}");
    }
    gate.terminate();
    assert!(gate.exit().await.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&estate.acme.token) && !text.contains(&estate.globex.id), "{text}");
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: std::collections::BTreeSet<&str> =
        records.iter().map(|record| record["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), records.len(), "{text}");
    let sum = |id: &str, field: &str| -> u64 {
        let of = records.iter().filter(|record| record["tenant"] == id);
        of.map(|record| record[field].as_u64().unwrap()).sum()
    };
    assert_eq!((sum(&estate.acme.id, "requests"), sum(&estate.stark.id, "requests")), (10, 1));
    assert_eq!(sum(&estate.acme.id, "transactions"), 10);
    let worked = sum(&estate.acme.id, "database_us");
    assert!(worked >= 250_000 && worked <= sum(&estate.acme.id, "server_us"), "{text}");
    assert!(sum(&estate.acme.id, "sent_bytes") > 100, "{text}");
}

#[tokio::test]
async fn averages_are_those_of_the_last_period_and_go_back_to_nothing() {
    let more = "[console]\nstats_period = \"1s\"\n";
    let (estate, gate) = gate(&Tweaks { more, ..Tweaks::default() }).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let mut client = gate.wire(&estate.stark).await;
    let mut sent = 0_u64;
    let average = eventually("an average", async || {
        for _ in 0..20 {
            client.query("SELECT 1").await;
            sent += 1;
        }
        let rows = show(&mut console, "STATS_AVERAGES").await;
        let row = rows.into_iter().find(|row| number(row, "query_count") > 0)?;
        Some(number(&row, "query_count"))
    })
    .await;
    // A period is a second here, or a little more: no more can have come in it than was sent.
    assert!((1..=sent).contains(&average), "{average} a second, {sent} sent");
    eventually("a quiet period", async || {
        let rows = show(&mut console, "STATS").await;
        let quiet = rows.iter().all(|row| number(row, "avg_query_count") == 0);
        let kept = rows.iter().any(|row| number(row, "total_query_count") == sent);
        (quiet && kept).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tenants_beyond_the_top_by_database_time_are_summed_and_the_sum_is_the_whole() {
    let (estate, gate) = gate(&Tweaks { more: "tenants_top = 1\n", ..Tweaks::default() }).await;
    let mut requests = 0;
    for (tenant, count) in [(&estate.stark, 3), (&estate.acme, 10), (&estate.globex, 5)] {
        let mut wire = gate.wire(tenant).await;
        for _ in 0..count {
            let sleeps = if count == 3 { 0.5 } else { 0.0 };
            wire.query(&format!("SELECT pg_sleep({sleeps})")).await;
            requests += 1;
        }
    }
    let name = "tenantgate_tenant_requests_total{tenant=\"";
    let series = eventually("all are counted", async || {
        let (_, body) = get(gate.http, "/metrics").await;
        let lines = body.lines().filter_map(|line| line.strip_prefix(name));
        let series: Vec<(String, u64)> = lines
            .map(|line| line.split_once("\"} ").unwrap())
            .map(|(tenant, value)| (tenant.to_owned(), value.parse().unwrap()))
            .collect();
        (series.iter().map(|it| it.1).sum::<u64>() == requests).then_some(series)
    })
    .await;
    assert_eq!(series, [(estate.stark.id.clone(), 3), ("_other".to_owned(), 15)]);
    let (_, body) = get(gate.http, "/metrics").await;
    for metric in ["resident_memory_bytes", "open_fds", "threads", "cpu_seconds_total"] {
        let line = format!("\ntenantgate_process_{metric} ");
        assert!(body.contains(&line), "{metric}");
    }
}
