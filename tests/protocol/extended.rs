//! Extended queries: statements and portals, named or not, in batches of every shape.

use super::{Both, Frames, Ready, Send, Step, Table, ask, flight, queries};
use crate::harness::messages::{
    bind, close, describe, execute, extended, flush, frame, parse, query, sync,
};

/// Parse, Bind and Execute of a text without a Sync.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0)].concat()
}

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

#[tokio::test]
async fn statements_are_what_they_are_without_the_gate() {
    let rows: Table = vec![
        (
            "unnamed",
            flight(extended("SELECT $1::text", &[Some("x")]), 1).into(),
            "1 2 T D(x) C(SELECT 1) Z(I)",
        ),
        (
            "unnamed across syncs",
            steps(&[
                &flight([parse("", "SELECT $1::int + 1"), sync()].concat(), 1),
                &flight([bind("", "", &[Some("4")]), execute("", 0), sync()].concat(), 1),
                &flight([bind("", "", &[Some("5")]), execute("", 0), sync()].concat(), 1),
            ]),
            "1 Z(I) 2 D(5) C(SELECT 1) Z(I) 2 D(6) C(SELECT 1) Z(I)",
        ),
        (
            "unnamed while named ones change a setting",
            steps(&[
                &flight([parse("", "SELECT $1::int + 1"), sync()].concat(), 1),
                &flight(
                    [
                        parse("set", "SET work_mem TO '5MB'"),
                        bind("", "set", &[]),
                        execute("", 0),
                        sync(),
                    ]
                    .concat(),
                    1,
                ),
                &flight([bind("", "", &[Some("4")]), execute("", 0), sync()].concat(), 1),
                &flight(
                    [parse("set2", "SELECT set_config('work_mem', '6MB', false)"), sync()].concat(),
                    1,
                ),
                &flight([bind("", "set2", &[]), execute("", 0), sync()].concat(), 1),
                &flight([bind("", "", &[Some("5")]), execute("", 0), sync()].concat(), 1),
            ]),
            "1 Z(I) 1 2 C(SET) Z(I) 2 D(5) C(SELECT 1) Z(I) 1 Z(I) 2 D(6MB) C(SELECT 1) Z(I) \
             2 D(6) C(SELECT 1) Z(I)",
        ),
        (
            "a simple query ends the unnamed statement",
            steps(&[
                &flight([parse("", "SELECT 1"), sync()].concat(), 1),
                &ask("SELECT 2"),
                &flight([bind("", "", &[]), execute("", 0), sync()].concat(), 1),
            ]),
            "1 Z(I) T D(2) C(SELECT 1) Z(I) E(26000) Z(I)",
        ),
        (
            "named, described, closed",
            steps(&[
                &flight(
                    [parse("s", "SELECT $1::int AS n, 'a'::text"), describe(b'S', "s"), sync()]
                        .concat(),
                    1,
                ),
                &flight(
                    [
                        bind("p", "s", &[Some("7")]),
                        describe(b'P', "p"),
                        execute("p", 0),
                        close(b'P', "p"),
                        sync(),
                    ]
                    .concat(),
                    1,
                ),
                &flight([close(b'S', "s"), sync()].concat(), 1),
                &flight([bind("", "s", &[Some("7")]), sync()].concat(), 1),
            ]),
            "1 t T Z(I) 2 T D(7,a) C(SELECT 1) 3 Z(I) 3 Z(I) E(26000) Z(I)",
        ),
        (
            "described without rows",
            flight(
                [
                    parse("s", "SET TimeZone TO 'UTC'"),
                    describe(b'S', "s"),
                    bind("", "s", &[]),
                    describe(b'P', ""),
                    sync(),
                ]
                .concat(),
                1,
            )
            .into(),
            "1 t n 2 n Z(I)",
        ),
        (
            "closing what is not there",
            flight([close(b'S', "none"), close(b'P', "none"), sync()].concat(), 1).into(),
            "3 3 Z(I)",
        ),
        ("empty text", flight(extended("", &[]), 1).into(), "1 2 n I Z(I)"),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn portals_are_what_they_are_without_the_gate() {
    let series = "SELECT generate_series(1, 5)";
    let rows: Table = vec![
        (
            "a portal in parts",
            flight(
                [
                    parse("", series),
                    bind("p", "", &[]),
                    execute("p", 2),
                    execute("p", 2),
                    execute("p", 2),
                    execute("p", 2),
                    sync(),
                ]
                .concat(),
                1,
            )
            .into(),
            "1 2 D(1) D(2) s D(3) D(4) s D(5) C(SELECT 1) C(SELECT 0) Z(I)",
        ),
        (
            "a portal across syncs in a transaction",
            steps(&[
                &ask("BEGIN"),
                &flight(
                    [parse("", series), bind("p", "", &[]), execute("p", 2), sync()].concat(),
                    1,
                ),
                &flight([execute("p", 2), sync()].concat(), 1),
                &ask("COMMIT"),
                &flight([execute("p", 2), sync()].concat(), 1),
            ]),
            "C(BEGIN) Z(T) 1 2 D(1) D(2) s Z(T) D(3) D(4) s Z(T) C(COMMIT) Z(I) E(34000) Z(I)",
        ),
        (
            "a portal ends with its implicit transaction",
            steps(&[
                &flight(
                    [parse("", series), bind("p", "", &[]), execute("p", 2), sync()].concat(),
                    1,
                ),
                &flight([execute("p", 2), sync()].concat(), 1),
            ]),
            "1 2 D(1) D(2) s Z(I) E(34000) Z(I)",
        ),
        (
            "flush without sync",
            vec![
                Send([parse("", "SELECT 1"), flush()].concat()),
                Frames(1),
                Send([bind("", "", &[]), describe(b'P', ""), flush()].concat()),
                Frames(2),
                Send([execute("", 0), flush()].concat()),
                Frames(2),
                Send(sync()),
                Ready(1),
            ],
            "1 2 T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "described without sync, then a query",
            vec![
                Send([parse("s", "SELECT 1"), describe(b'S', "s"), flush()].concat()),
                Frames(3),
                Send(query("SELECT 2")),
                Ready(1),
            ],
            "1 t T T D(2) C(SELECT 1) Z(I)",
        ),
        ("sync alone", flight([sync(), sync()].concat(), 2).into(), "Z(I) Z(I)"),
        (
            "flush alone",
            flight([flush(), query("SELECT 1")].concat(), 1).into(),
            "T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "the same name again, another portal",
            flight(
                [
                    parse("", "SELECT 1"),
                    bind("a", "", &[]),
                    bind("b", "", &[]),
                    execute("b", 0),
                    execute("a", 0),
                    sync(),
                ]
                .concat(),
                1,
            )
            .into(),
            "1 2 2 D(1) C(SELECT 1) D(1) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn errors_in_a_batch_skip_to_its_sync() {
    let rows: Table = vec![
        ("parse", flight(extended("SELEC 1", &[]), 1).into(), "E(42601) Z(I)"),
        ("bind", flight(extended("SELECT $1::int", &[Some("x")]), 1).into(), "1 E(22P02) Z(I)"),
        (
            "too few parameters",
            flight(extended("SELECT $1::int", &[]), 1).into(),
            "1 E(08P01) Z(I)",
        ),
        (
            "execute",
            flight(
                [run("SELECT 1/0"), run("SELECT 2"), sync(), run("SELECT 3"), sync()].concat(),
                2,
            )
            .into(),
            "1 E(22012) Z(I) 1 2 D(3) C(SELECT 1) Z(I)",
        ),
        (
            "a failed transaction",
            steps(&[&flight(
                [
                    run("BEGIN"),
                    sync(),
                    run("SELECT 1/0"),
                    sync(),
                    run("SELECT 1"),
                    sync(),
                    run("COMMIT"),
                    sync(),
                    run("SELECT 1"),
                    sync(),
                ]
                .concat(),
                5,
            )]),
            "1 2 C(BEGIN) Z(T) 1 E(22012) Z(E) E(25P02) Z(E) 1 2 C(ROLLBACK) Z(I) \
             1 2 D(1) C(SELECT 1) Z(I)",
        ),
        (
            "several statements in one Parse",
            flight(extended("SELECT 1; SELECT 2", &[]), 1).into(),
            "E(42601) Z(I)",
        ),
        (
            "an unknown kind of parameter format",
            flight(
                [
                    parse("", "SELECT $1::int"),
                    frame(b'B', b"\0\0\0\x01\0\x07\0\x01\0\0\0\x011\0\0"),
                    sync(),
                ]
                .concat(),
                1,
            )
            .into(),
            "1 E(22023) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn what_is_missing_or_there_twice_is_named() {
    let rows: Table = vec![
        (
            "no such statement",
            flight([bind("", "nope", &[]), execute("", 0), sync()].concat(), 1).into(),
            "E(26000) Z(I)",
        ),
        (
            "no such statement to describe",
            flight([describe(b'S', "nope"), sync()].concat(), 1).into(),
            "E(26000) Z(I)",
        ),
        (
            "no such portal",
            flight([execute("nope", 0), sync()].concat(), 1).into(),
            "E(34000) Z(I)",
        ),
        (
            "no such portal to describe",
            flight([describe(b'P', "nope"), sync()].concat(), 1).into(),
            "E(34000) Z(I)",
        ),
        (
            "a statement twice",
            steps(&[
                &flight([parse("s", "SELECT 1"), sync()].concat(), 1),
                &flight([parse("s", "SELECT 2"), sync()].concat(), 1),
                &flight([bind("", "s", &[]), execute("", 0), sync()].concat(), 1),
            ]),
            "1 Z(I) E(42P05) Z(I) 2 D(1) C(SELECT 1) Z(I)",
        ),
        (
            "a portal twice",
            flight(
                [parse("", "SELECT 1"), bind("p", "", &[]), bind("p", "", &[]), sync()].concat(),
                1,
            )
            .into(),
            "1 2 E(42P03) Z(I)",
        ),
        (
            "a statement whose parse failed is not there",
            flight([parse("s", "SELEC 1"), sync(), bind("", "s", &[]), sync()].concat(), 2).into(),
            "E(42601) Z(I) E(26000) Z(I)",
        ),
        (
            "a statement whose parse was skipped is not there",
            flight(
                [run("SELECT 1/0"), parse("s", "SELECT 1"), sync(), bind("", "s", &[]), sync()]
                    .concat(),
                2,
            )
            .into(),
            "1 E(22012) Z(I) E(26000) Z(I)",
        ),
        (
            "a close that was skipped closes nothing",
            steps(&[
                &flight([parse("s", "SELECT 5"), sync()].concat(), 1),
                &flight([run("SELECT 1/0"), close(b'S', "s"), sync()].concat(), 1),
                &ask("SELECT 1"),
                &flight([bind("", "s", &[]), execute("", 0), sync()].concat(), 1),
            ]),
            "1 Z(I) 1 E(22012) Z(I) T D(1) C(SELECT 1) Z(I) 2 D(5) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn batches_of_many_syncs_in_one_write_are_answered_in_order() {
    let both = Both::new().await;
    let mut bytes = Vec::new();
    for number in 0..400 {
        bytes.extend(match number % 4 {
            0 => [run("SELECT 1/0"), run("SELECT 1"), sync()].concat(),
            1 => query("SELECT 1; SELECT 2"),
            2 => extended("SELECT $1::int", &[Some(&number.to_string())]),
            _ => [run("BEGIN"), run("SELECT 1"), run("COMMIT"), sync()].concat(),
        });
    }
    let said = both.same("four hundred requests", &flight(bytes, 400)).await;
    assert_eq!(said.matches("Z(I)").count(), 400);
    let in_batch = [
        run("BEGIN"),
        run("INSERT INTO notes VALUES (910, 'x')"),
        run("COMMIT"),
        run("DELETE FROM notes WHERE id = 910"),
        sync(),
    ]
    .concat();
    let said = both.same("a whole transaction in a batch", &flight(in_batch, 1)).await;
    assert_eq!(said, "1 2 C(BEGIN) 1 2 C(INSERT 0 1) 1 2 C(COMMIT) 1 2 C(DELETE 1) Z(I)");
    let chain = steps(&[
        &flight([run("BEGIN"), run("SELECT 1"), run("COMMIT AND CHAIN"), sync()].concat(), 1),
        &ask("ROLLBACK"),
    ]);
    both.same("a chain in a batch", &chain).await;
}

#[tokio::test]
async fn an_error_of_the_commit_itself_comes_with_the_sync() {
    let both = Both::new().await;
    let id = &both.estate.stark.id;
    let owner = crate::harness::cluster::superuser(crate::harness::cluster::shared().await, "app");
    let table = format!(
        "SET ROLE app_owner; CREATE TABLE {id}.once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         GRANT SELECT, INSERT ON {id}.once TO tg_{id}"
    );
    owner.await.batch_execute(&table).await.unwrap();
    let twice = "INSERT INTO once VALUES (1), (1)";
    let script = steps(&[
        &flight([run(twice), sync()].concat(), 1),
        &flight([run(twice), sync(), run("SELECT 1"), sync()].concat(), 2),
        &queries(&["SELECT count(*) FROM once", twice]),
        &flight([run("BEGIN"), run(twice), sync(), run("COMMIT"), sync()].concat(), 2),
    ]);
    let said = both.same("a deferred constraint", &script).await;
    assert!(said.starts_with("1 2 C(INSERT 0 2) E(23505)"), "{said}");
}

#[tokio::test]
async fn prepared_statements_follow_their_session_to_another_server() {
    let both = Both::new().await;
    let mut mine = both.gated(&[]).await;
    let mut other = both.gate.wire(&both.estate.acme).await;
    let prepared = [parse("s", "SELECT 11"), parse("", "SELECT 12"), sync()].concat();
    assert_eq!(mine.ask(prepared).await, "1 1 Z(I)");
    for _ in 0..3 {
        // With one place in all, the other tenant takes it every time.
        assert_eq!(other.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
        let named = [describe(b'S', "s"), bind("", "s", &[]), execute("", 0), sync()].concat();
        assert_eq!(mine.ask(named).await, "t T 2 D(11) C(SELECT 1) Z(I)");
        other.query("SELECT 1").await;
        let unnamed = [bind("", "", &[]), execute("", 0), sync()].concat();
        assert_eq!(mine.ask(unnamed).await, "2 D(12) C(SELECT 1) Z(I)");
        other.query("SELECT 1").await;
        assert_eq!(mine.ask([parse("s", "SELECT 13"), sync()].concat()).await, "E(42P05) Z(I)");
        other.query("SELECT 1").await;
        assert_eq!(other.ask([bind("", "s", &[]), sync()].concat()).await, "E(26000) Z(I)");
    }
    assert_eq!(mine.ask([close(b'S', "s"), sync()].concat()).await, "3 Z(I)");
    other.query("SELECT 1").await;
    assert_eq!(mine.ask([bind("", "s", &[]), sync()].concat()).await, "E(26000) Z(I)");
}
