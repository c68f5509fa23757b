//! Sizes: what is long passes through without being held, what must be held has a limit.

use super::{Both, Ready, Send, flight};
use crate::harness::messages::{bind, execute, extended, parse, query, sync};

#[tokio::test]
async fn parameters_of_many_megabytes_pass_and_keep_their_bytes() {
    let both = Both::new().await;
    for bytes in [1 << 20, 40 << 20] {
        let value = "a".repeat(bytes);
        let sql = "SELECT length($1::text), md5($1::text)";
        let said = both.same("one long", &flight(extended(sql, &[Some(&value)]), 1)).await;
        assert!(said.contains(&format!("D({bytes},")), "{said}");
        let half = Some(&value[..bytes / 2]);
        let several = [
            parse("s", "SELECT length($1), length($2::text), $3::int"),
            bind("", "s", &[half, half, Some("3")]),
            execute("", 0),
            bind("", "s", &[Some("x"), half, Some("4")]),
            execute("", 0),
            sync(),
        ];
        both.same("several in one flight", &flight(several.concat(), 1)).await;
    }
}

#[tokio::test]
async fn thousands_of_parameters_pass() {
    let both = Both::new().await;
    let count = 30_000;
    let list: Vec<String> = (1..=count).map(|number| format!("${number}::int")).collect();
    let values: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    let values: Vec<Option<&str>> = values.iter().map(|value| Some(value.as_str())).collect();
    let sql = format!("SELECT sum(n) FROM unnest(ARRAY[{}]) n", list.join(","));
    let said = both.same("30,000", &flight(extended(&sql, &values), 1)).await;
    assert!(said.contains("D(450015000)"), "{said}");
}

#[tokio::test]
async fn a_result_of_fifty_megabytes_streams_and_the_gate_does_not_hold_it() {
    let both = Both::new().await;
    let before = resident_kib(both.gate.pid());
    let row = "SELECT repeat('x', 50000000)";
    let said = both.same("one row", &flight(query(row), 1)).await;
    assert!(said.contains("D[50000006 bytes]"), "{}", said.len());
    let rows = "SELECT repeat('y', 1000) FROM generate_series(1, 50000)";
    both.same("many rows", &flight(extended(rows, &[]), 1)).await;
    let grown = resident_kib(both.gate.pid()) - before;
    assert!(grown < 20_000, "the gate grew by {grown} KiB");
}

#[tokio::test]
async fn a_statement_of_megabytes_is_judged_whole_and_passes() {
    let both = Both::new().await;
    let text = format!("SELECT length('{}')", "z".repeat(10 << 20));
    both.same("simple", &[Send(query(&text)), Ready(1)]).await;
    both.same("extended", &flight(extended(&text, &[]), 1)).await;
}

#[tokio::test]
async fn notices_and_errors_of_many_megabytes_pass() {
    let both = Both::new().await;
    for (kind, ends) in [("NOTICE", "C(DO) Z(I)"), ("EXCEPTION", "Z(I)")] {
        let raise = format!("DO $$BEGIN RAISE {kind} '%', repeat('x', 20000000); END$$");
        let script = [query(&raise), query("SELECT 1")].concat();
        let said = both.same(kind, &flight(script, 2)).await;
        assert!(said.len() > 20_000_000 && said.contains(ends), "{kind}: {}", said.len());
    }
}

fn resident_kib(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
