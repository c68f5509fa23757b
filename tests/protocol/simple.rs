//! Simple queries and transactions.

use super::{Both, Closed, Ready, Send, Table, ask, flight, queries};
use crate::harness::messages::{query, terminate};

#[tokio::test]
async fn simple_queries_are_answered_as_the_server_answers_them() {
    let rows: Table = vec![
        ("one", ask("SELECT 1").into(), "T D(1) C(SELECT 1) Z(I)"),
        ("empty", ask("").into(), "I Z(I)"),
        ("blank", ask(" ;; -- nothing\n").into(), "I Z(I)"),
        (
            "several",
            ask("SELECT 1; SELECT 'a' AS x, NULL").into(),
            "T D(1) C(SELECT 1) T D(a,NULL) C(SELECT 1) Z(I)",
        ),
        (
            "commit in the middle",
            queries(&[
                "BEGIN; INSERT INTO notes VALUES (901, 'x'); COMMIT; SELECT 1/0",
                "DELETE FROM notes WHERE id = 901",
            ]),
            "C(BEGIN) C(INSERT 0 1) C(COMMIT) E(22012) Z(I) C(DELETE 1) Z(I)",
        ),
        (
            "many queries in one write",
            flight(
                [query("SELECT 1"), query("SELECT 1/0"), query(""), query("SELECT 2")].concat(),
                4,
            )
            .into(),
            "T D(1) C(SELECT 1) Z(I) E(22012) Z(I) I Z(I) T D(2) C(SELECT 1) Z(I)",
        ),
        ("row-less", ask("SELECT").into(), "T D() C(SELECT 1) Z(I)"),
        ("explain", ask("EXPLAIN (COSTS OFF) SELECT 1").into(), "T D(Result) C(EXPLAIN) Z(I)"),
        ("show", ask("SHOW server_encoding").into(), "T D(UTF8) C(SHOW) Z(I)"),
        (
            "goodbye behind a query",
            vec![Send([query("SELECT 1"), terminate()].concat()), Closed],
            "T D(1) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn errors_and_notices_come_with_all_their_fields() {
    let rows: Table = vec![
        ("syntax", ask("SELEC 1").into(), "E(42601) Z(I)"),
        ("unclosed", ask("SELECT 'a").into(), "E(42601) Z(I)"),
        ("unknown table", ask("SELECT * FROM nowhere").into(), "E(42P01) Z(I)"),
        (
            "at run time",
            ask("SELECT 1/(g-3) FROM generate_series(1,5) g").into(),
            "T D(0) D(-1) E(22012) Z(I)",
        ),
        (
            "an error ends an implicit transaction and undoes it",
            queries(&[
                "INSERT INTO notes VALUES (900, 'x'); SELECT 1/0; SELECT 2",
                "SELECT count(*) FROM notes WHERE id = 900",
            ]),
            "C(INSERT 0 1) E(22012) Z(I) T D(0) C(SELECT 1) Z(I)",
        ),
        (
            "notice",
            ask("DO $$ BEGIN RAISE NOTICE 'hear %', 1; END $$").into(),
            "N(00000) C(DO) Z(I)",
        ),
        ("warning", ask("COMMIT").into(), "N(25P01) C(COMMIT) Z(I)"),
        (
            "error with everything",
            ask("DO $$ BEGIN RAISE 'no' USING detail = 'd', hint = 'h', errcode = 'AB123',
             table = 't', schema = 's', constraint = 'c'; END $$")
            .into(),
            "E(AB123) Z(I)",
        ),
        ("not null", ask("INSERT INTO notes VALUES (NULL, 'x')").into(), "E(23502) Z(I)"),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn transactions_are_what_they_are_without_the_gate() {
    let rows: Table = vec![
        (
            "failed",
            queries(&["BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT", "SELECT 2"]),
            "C(BEGIN) Z(T) E(22012) Z(E) E(25P02) Z(E) C(ROLLBACK) Z(I) T D(2) C(SELECT 1) Z(I)",
        ),
        (
            "savepoints",
            queries(&[
                "BEGIN",
                "SAVEPOINT a",
                "SELECT 1/0",
                "ROLLBACK TO a",
                "SELECT 1",
                "RELEASE a",
                "COMMIT",
            ]),
            "C(BEGIN) Z(T) C(SAVEPOINT) Z(T) E(22012) Z(E) C(ROLLBACK) Z(T) \
             T D(1) C(SELECT 1) Z(T) C(RELEASE) Z(T) C(COMMIT) Z(I)",
        ),
        (
            "chain",
            queries(&[
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                "COMMIT AND CHAIN",
                "SHOW transaction_isolation",
                "ROLLBACK AND CHAIN",
                "SELECT 1/0",
                "COMMIT AND CHAIN",
                "SHOW transaction_isolation",
                "ROLLBACK",
            ]),
            "C(BEGIN) Z(T) C(COMMIT) Z(T) T D(serializable) C(SHOW) Z(T) C(ROLLBACK) Z(T) \
             E(22012) Z(E) C(ROLLBACK) Z(T) T D(serializable) C(SHOW) Z(T) C(ROLLBACK) Z(I)",
        ),
        (
            "begin twice",
            queries(&["BEGIN", "BEGIN", "ROLLBACK"]),
            "C(BEGIN) Z(T) N(25001) C(BEGIN) Z(T) C(ROLLBACK) Z(I)",
        ),
        (
            "read only",
            queries(&["BEGIN READ ONLY", "DELETE FROM notes", "END"]),
            "C(BEGIN) Z(T) E(25006) Z(E) C(ROLLBACK) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn cursors_timeouts_and_pipelined_transactions_are_what_they_are_without_the_gate() {
    let rows: Table = vec![
        (
            "cursor",
            queries(&[
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT generate_series(1,3)",
                "FETCH 2 FROM c",
                "MOVE c",
                "FETCH c",
                "CLOSE c",
                "FETCH c",
                "ROLLBACK",
                "CLOSE c",
            ]),
            "C(BEGIN) Z(T) C(DECLARE CURSOR) Z(T) T D(1) D(2) C(FETCH 2) Z(T) C(MOVE 1) Z(T) \
             T C(FETCH 0) Z(T) C(CLOSE CURSOR) Z(T) E(34000) Z(E) C(ROLLBACK) Z(I) E(34000) Z(I)",
        ),
        (
            "set transaction",
            queries(&[
                "BEGIN",
                "SET TRANSACTION READ ONLY",
                "SHOW transaction_read_only",
                "COMMIT",
            ]),
            "C(BEGIN) Z(T) C(SET) Z(T) T D(on) C(SHOW) Z(T) C(COMMIT) Z(I)",
        ),
        (
            "many statements, open at the end",
            queries(&["BEGIN; SELECT 1; SAVEPOINT s", "ABORT"]),
            "C(BEGIN) T D(1) C(SELECT 1) C(SAVEPOINT) Z(T) C(ROLLBACK) Z(I)",
        ),
        (
            "begin, work, commit, pipelined",
            vec![
                Send(
                    [query("BEGIN"), query("SELECT 1/0"), query("COMMIT"), query("SELECT 1")]
                        .concat(),
                ),
                Ready(4),
            ],
            "C(BEGIN) Z(T) E(22012) Z(E) C(ROLLBACK) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "statement timeout",
            queries(&[
                "BEGIN",
                "SET LOCAL statement_timeout = 500",
                "SELECT pg_sleep(20)",
                "ROLLBACK",
                "SHOW statement_timeout",
            ]),
            "C(BEGIN) Z(T) C(SET) Z(T) T E(57014) Z(E) C(ROLLBACK) Z(I) T D(0) C(SHOW) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}
