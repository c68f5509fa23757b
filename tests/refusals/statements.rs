//! Statements the gate refuses: outside and inside of transactions, by both protocols.

use super::{aborts_the_transaction, is_in_step, refusal};
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, extended, frame, parse, query, sync, transcript};
use crate::harness::tenants::{Estate, Tweaks};

/// What is refused and by which SQLSTATE.
const REFUSED: [(&str, &str); 9] = [
    ("LISTEN news", "0A000"),
    ("PREPARE TRANSACTION 'x'", "0A000"),
    ("LOAD 'plpgsql'", "0A000"),
    ("SET tcp_user_timeout TO 1", "0A000"),
    ("SET client_encoding TO 'SJIS'", "0A000"),
    ("SELECT set_config('idle_session_timeout', '1', false)", "0A000"),
    ("SET ROLE postgres", "42501"),
    ("SET SESSION AUTHORIZATION postgres", "42501"),
    ("SET search_path TO public", "42501"),
];

#[tokio::test]
async fn statements_that_cannot_be_pooled_are_refused_and_the_session_goes_on() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    for (sql, sqlstate) in REFUSED {
        for bytes in [query(sql), extended(sql, &[])] {
            let refused = refusal(&mut wire, &bytes).await;
            assert_eq!(refused.brief(), format!("{sqlstate} ERROR Z(I)"), "{sql}: {refused:?}");
            assert!(!refused.hint.is_empty(), "{sql}: {refused:?}");
            let inside = aborts_the_transaction(&mut wire, &bytes).await;
            assert_eq!(inside.sqlstate, sqlstate, "{sql}: {inside:?}");
            assert_eq!(inside.message, refused.message);
        }
        is_in_step(&mut wire).await;
    }
}

#[tokio::test]
async fn discard_all_inside_a_transaction_aborts_it() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    for bytes in [query("DISCARD ALL"), extended("DISCARD ALL", &[])] {
        let refused = aborts_the_transaction(&mut wire, bytes).await;
        assert_eq!(refused.brief(), "25001 ERROR Z(E)");
    }
    is_in_step(&mut wire).await;
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_batch_undoes_the_batch() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    let run = |sql| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let insert = run("INSERT INTO notes VALUES (801, 'x')");
    let batch = [insert.clone(), run("LISTEN x"), insert.clone(), sync()].concat();
    assert_eq!(wire.ask(batch).await, "1 2 C(INSERT 0 1) E(0A000) Z(I)");
    // And for a whole transaction in a batch, with its COMMIT in it.
    let batch = [run("BEGIN"), insert, run("LISTEN x"), run("COMMIT"), sync()].concat();
    assert_eq!(wire.ask(batch).await, "1 2 C(BEGIN) 1 2 C(INSERT 0 1) E(0A000) Z(E)");
    assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
    let gone = wire.query("SELECT count(*) FROM notes WHERE id = 801").await;
    assert_eq!(gone, "T D(0) C(SELECT 1) Z(I)");
    // Among pipelined simple queries each has its own answer.
    wire.send([query("SELECT 1"), query("LISTEN x"), query("SELECT 2")].concat()).await;
    for wanted in ["T D(1) C(SELECT 1) Z(I)", "E(0A000) Z(I)", "T D(2) C(SELECT 1) Z(I)"] {
        assert_eq!(transcript(&wire.until_ready().await), wanted);
    }
}

#[tokio::test]
async fn the_fast_path_is_refused() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    let call = frame(b'F', b"\0\0\x04\xd2\0\0\0\0\0\0");
    let refused = refusal(&mut wire, &call).await;
    assert_eq!(refused.brief(), "0A000 ERROR Z(I)");
    assert_eq!(
        refused.message,
        "the function call message (fast path) is not supported through the gate"
    );
    is_in_step(&mut wire).await;
    aborts_the_transaction(&mut wire, &call).await;
    is_in_step(&mut wire).await;
}

#[tokio::test]
async fn a_statement_longer_than_the_limit_is_refused_and_dropped() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "statement_bytes = \"64KiB\"", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut wire = gate.wire(&estate.stark).await;
    for bytes in [70 << 10, 5 << 20] {
        let sql = format!("SELECT length('{}')", "x".repeat(bytes));
        for bytes in [query(&sql), extended(&sql, &[])] {
            let refused = refusal(&mut wire, &bytes).await;
            assert_eq!(refused.brief(), "54000 ERROR Z(I)");
            assert_eq!(refused.message, "statement is too long");
            assert_eq!(refused.detail, "The limit is 65536 bytes.");
            is_in_step(&mut wire).await;
            let refused = aborts_the_transaction(&mut wire, &bytes).await;
            assert_eq!(refused.sqlstate, "54000");
            is_in_step(&mut wire).await;
        }
    }
    // Parameters are not statements.
    let long = "y".repeat(5 << 20);
    let said = wire.ask(extended("SELECT length($1::text)", &[Some(&long)])).await;
    assert_eq!(said, "1 2 T D(5242880) C(SELECT 1) Z(I)");
}
