//! A simple query, or a function call, behind a batch that no Sync has closed: it is carried out in
//! the transaction that the batch began, ends it, and is skipped when the batch has failed.

use super::{Both, Frames, Ready, Send, Step, Table, ask, flight};
use crate::harness::messages::{bind, describe, execute, flush, parse, query, sync};

/// Parse, Bind and Execute of a text without a Sync.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0)].concat()
}

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

const INSERT: &str = "INSERT INTO notes VALUES (930, 'x')";

/// How many rows the script has left, which it takes away again.
fn left() -> [Step; 2] {
    ask("DELETE FROM notes WHERE id = 930")
}

#[tokio::test]
async fn a_query_behind_an_open_batch_is_what_it_is_without_the_gate() {
    let rows: Table = vec![
        (
            "after results",
            flight([run("SELECT 1"), query("SELECT 2")].concat(), 1).into(),
            "1 2 D(1) C(SELECT 1) T D(2) C(SELECT 1) Z(I)",
        ),
        (
            "twice",
            flight([run("SELECT 1"), query("SELECT 2"), run("SELECT 3"), query("")].concat(), 2)
                .into(),
            "1 2 D(1) C(SELECT 1) T D(2) C(SELECT 1) Z(I) 1 2 D(3) C(SELECT 1) I Z(I)",
        ),
        (
            "it commits",
            steps(&[&flight([run(INSERT), query("SELECT 2")].concat(), 1), &left()]),
            "1 2 C(INSERT 0 1) T D(2) C(SELECT 1) Z(I) C(DELETE 1) Z(I)",
        ),
        (
            "its failure undoes what the batch did",
            steps(&[&flight([run(INSERT), query("SELECT 1/0")].concat(), 1), &left()]),
            "1 2 C(INSERT 0 1) E(22012) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "its rollback too",
            steps(&[&flight([run(INSERT), query("ROLLBACK")].concat(), 1), &left()]),
            "1 2 C(INSERT 0 1) N(25P01) C(ROLLBACK) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "its commit",
            steps(&[&flight([run(INSERT), query("COMMIT")].concat(), 1), &left()]),
            "1 2 C(INSERT 0 1) N(25P01) C(COMMIT) Z(I) C(DELETE 1) Z(I)",
        ),
        (
            "a transaction begun in the batch stays open",
            steps(&[
                &flight([run("BEGIN"), query(INSERT)].concat(), 1),
                &flight([run("SELECT 1"), query("ROLLBACK")].concat(), 1),
                &left(),
            ]),
            "1 2 C(BEGIN) C(INSERT 0 1) Z(T) 1 2 D(1) C(SELECT 1) C(ROLLBACK) Z(I) \
             C(DELETE 0) Z(I)",
        ),
        (
            "a suspended portal, a query, and the rest of the portal",
            steps(&[
                &ask("BEGIN"),
                &flight(
                    [
                        parse("", "SELECT generate_series(1, 3)"),
                        bind("p", "", &[]),
                        execute("p", 2),
                        query("SELECT 9"),
                        execute("p", 2),
                        sync(),
                    ]
                    .concat(),
                    2,
                ),
                &ask("COMMIT"),
            ]),
            "C(BEGIN) Z(T) 1 2 D(1) D(2) s T D(9) C(SELECT 1) Z(T) D(3) C(SELECT 1) Z(T) \
             C(COMMIT) Z(I)",
        ),
        (
            "in parts",
            vec![
                Send([run("SELECT 1"), flush()].concat()),
                Frames(4),
                Send(query("SELECT 2")),
                Ready(1),
            ],
            "1 2 D(1) C(SELECT 1) T D(2) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn a_query_behind_a_failed_batch_is_skipped_as_without_the_gate() {
    let next = flight([bind("", "", &[]), execute("", 0), sync()].concat(), 1);
    let rows: Table = vec![
        (
            "a parse failed",
            flight([parse("", "SELEC 1"), query("SELECT 2"), sync()].concat(), 1).into(),
            "E(42601) Z(I)",
        ),
        (
            "an execute failed, and more came",
            flight(
                [run("SELECT 1/0"), query("SELECT 2"), run("SELECT 3"), sync(), query("SELECT 4")]
                    .concat(),
                2,
            )
            .into(),
            "1 E(22012) Z(I) T D(4) C(SELECT 1) Z(I)",
        ),
        (
            "the error was heard first",
            vec![
                Send([parse("", "SELEC 1"), flush()].concat()),
                Frames(1),
                Send([query("SELECT 2"), run("SELECT 3"), sync()].concat()),
                Ready(1),
            ],
            "E(42601) Z(I)",
        ),
        (
            "the unnamed statement is gone behind a query",
            steps(&[&flight([parse("", "SELECT 5"), query("SELECT 2")].concat(), 1), &next]),
            "1 T D(2) C(SELECT 1) Z(I) E(26000) Z(I)",
        ),
        (
            "and not behind a skipped one",
            steps(&[
                &flight([parse("", "SELECT 5"), sync()].concat(), 1),
                &flight([parse("a", "SELEC 1"), query("SELECT 2"), sync()].concat(), 1),
                &next,
            ]),
            "1 Z(I) E(42601) Z(I) 2 D(5) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn a_session_command_behind_an_open_batch_is_what_it_is_without_the_gate() {
    let bound = flight([bind("", "s", &[]), execute("", 0), sync()].concat(), 1);
    let rows: Table = vec![
        (
            "a setting",
            steps(&[
                &flight([run("SELECT 1"), query("SET TimeZone = 'Asia/Tokyo'")].concat(), 1),
                &ask("SHOW TimeZone"),
            ]),
            "1 2 D(1) C(SELECT 1) C(SET) S(TimeZone=Asia/Tokyo) Z(I) T D(Asia/Tokyo) C(SHOW) Z(I)",
        ),
        (
            "DEALLOCATE ALL, with no answer heard yet",
            steps(&[
                &flight([parse("s", "SELECT 1"), query("DEALLOCATE ALL")].concat(), 1),
                &bound,
            ]),
            "1 C(DEALLOCATE ALL) Z(I) E(26000) Z(I)",
        ),
        (
            "DISCARD ALL behind what was only described",
            steps(&[
                &[
                    Send([parse("s", "SELECT 1"), describe(b'S', "s"), flush()].concat()),
                    Frames(3),
                    Send(query("DISCARD ALL")),
                    Ready(1),
                ],
                &bound,
            ]),
            "1 t T C(DISCARD ALL) Z(I) E(26000) Z(I)",
        ),
        (
            "a query behind a DEALLOCATE in the batch",
            steps(&[
                &flight([parse("s", "SELECT 1"), sync()].concat(), 1),
                &flight([run("DEALLOCATE s"), query("SELECT 2")].concat(), 1),
                &bound,
            ]),
            "1 Z(I) 1 2 C(DEALLOCATE) T D(2) C(SELECT 1) Z(I) E(26000) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}
