//! Statements prepared by SQL and by the protocol: one namespace, on every server the session comes
//! to, with the errors of a session that has one server.

use super::{Both, Step, Table, ask, flight, queries};
use crate::harness::cluster::{shared, superuser};
use crate::harness::messages::{
    bind, close, describe, execute, extended, parse, query, sync, transcript,
};

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

/// Binds and runs a statement by the protocol.
fn run(name: &str, values: &[Option<&str>]) -> [Step; 2] {
    flight([bind("", name, values), execute("", 0), sync()].concat(), 1)
}

#[tokio::test]
async fn statements_of_sql_follow_the_session() {
    let rows: Table = vec![
        (
            "prepare, execute, deallocate",
            queries(&[
                "PREPARE p AS SELECT 1",
                "EXECUTE p",
                "PREPARE \"Q\" (int, text) AS SELECT $1 + 1, $2 || 'x'",
                "EXECUTE \"Q\"(1, 'a')",
                "execute  P ; ",
                "DEALLOCATE p",
                "EXECUTE p",
                "EXECUTE \"Q\" (2, lower('B'))",
                "DEALLOCATE ALL",
                "EXECUTE \"Q\"(1, 'a')",
            ]),
            "C(PREPARE) Z(I) T D(1) C(SELECT 1) Z(I) C(PREPARE) Z(I) T D(2,ax) C(SELECT 1) Z(I) \
             T D(1) C(SELECT 1) Z(I) C(DEALLOCATE) Z(I) E(26000) Z(I) T D(3,bx) C(SELECT 1) Z(I) \
             C(DEALLOCATE ALL) Z(I) E(26000) Z(I)",
        ),
        (
            "errors",
            queries(&[
                "PREPARE p AS SELECT 1",
                "PREPARE p AS SELECT 2",
                "EXECUTE q",
                "DEALLOCATE q",
                "EXPLAIN EXECUTE q",
                "PREPARE r AS SELEC 1",
                "EXECUTE r",
                "PREPARE r AS SELECT nobody FROM nowhere",
                "EXECUTE r",
                "EXECUTE p(1)",
                "PREPARE r AS CREATE TABLE x (i int)",
                "PREPARE",
                "EXECUTE p",
            ]),
            "C(PREPARE) Z(I) E(42P05) Z(I) E(26000) Z(I) E(26000) Z(I) E(26000) Z(I) E(42601) Z(I) \
             E(26000) Z(I) E(42P01) Z(I) E(26000) Z(I) T D(1) C(SELECT 1) Z(I) E(42601) Z(I) \
             E(42601) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "in transactions, kept by a rollback",
            queries(&[
                "BEGIN",
                "PREPARE p AS SELECT 1",
                "ROLLBACK",
                "BEGIN",
                "EXECUTE p",
                "EXECUTE q",
                "EXECUTE p",
                "ROLLBACK",
                "EXECUTE p",
            ]),
            "C(BEGIN) Z(T) C(PREPARE) Z(T) C(ROLLBACK) Z(I) C(BEGIN) Z(T) T D(1) C(SELECT 1) Z(T) \
             E(26000) Z(E) E(25P02) Z(E) C(ROLLBACK) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "several in one message",
            queries(&[
                "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p; PREPARE p AS SELECT 2; EXECUTE p",
                "EXECUTE p; DEALLOCATE p; PREPARE p AS SELECT 3",
                "DEALLOCATE ALL; PREPARE p AS SELECT 4; EXECUTE p",
                "DEALLOCATE p; PREPARE p AS SELECT 5; SELECT 1/0",
                "EXECUTE p",
            ]),
            "C(PREPARE) T D(1) C(SELECT 1) C(DEALLOCATE) C(PREPARE) T D(2) C(SELECT 1) Z(I) \
             T D(2) C(SELECT 1) C(DEALLOCATE) C(PREPARE) Z(I) \
             C(DEALLOCATE ALL) C(PREPARE) T D(4) C(SELECT 1) Z(I) \
             C(DEALLOCATE) C(PREPARE) E(22012) Z(I) T D(5) C(SELECT 1) Z(I)",
        ),
        (
            "explained, and made a table of",
            queries(&[
                "PREPARE p (int) AS SELECT $1 AS i",
                "EXPLAIN (COSTS off) EXECUTE p(1)",
                "BEGIN; CREATE TEMP TABLE made_of_p ON COMMIT DROP AS EXECUTE p(7)",
                "SELECT i + 0 FROM made_of_p",
                "ROLLBACK",
                "EXPLAIN (COSTS off) CREATE TEMP TABLE made_of_p AS EXECUTE p(7)",
            ]),
            "C(PREPARE) Z(I) T D(Result) C(EXPLAIN) Z(I) C(BEGIN) C(SELECT 1) Z(T) \
             T D(7) C(SELECT 1) Z(T) C(ROLLBACK) Z(I) T D(Result) C(EXPLAIN) Z(I)",
        ),
        (
            "with settings in them",
            queries(&[
                "PREPARE p AS SELECT set_config('work_mem', '2MB', false)",
                "SHOW work_mem",
                "EXECUTE p",
                "SHOW work_mem",
            ]),
            "C(PREPARE) Z(I) T D(4MB) C(SHOW) Z(I) T D(2MB) C(SELECT 1) Z(I) T D(2MB) C(SHOW) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn statements_of_sql_and_of_the_protocol_have_one_namespace() {
    let parsed = |name, text| flight([parse(name, text), sync()].concat(), 1);
    let described = flight([describe(b'S', "p"), sync()].concat(), 1);
    let rows: Table = vec![
        (
            "prepared by SQL, run by the protocol",
            steps(&[
                &ask("PREPARE p (int) AS SELECT $1 + 1"),
                &described,
                &run("p", &[Some("1")]),
                &parsed("p", "SELECT 2"),
                &flight([close(b'S', "p"), sync()].concat(), 1),
                &ask("EXECUTE p(1)"),
            ]),
            "C(PREPARE) Z(I) t T Z(I) 2 D(2) C(SELECT 1) Z(I) E(42P05) Z(I) 3 Z(I) E(26000) Z(I)",
        ),
        (
            "prepared by the protocol, run by SQL",
            steps(&[
                &parsed("p", "SELECT $1::int + 1"),
                &ask("EXECUTE p(1)"),
                &ask("EXPLAIN (COSTS off) EXECUTE p(1)"),
                &ask("PREPARE p AS SELECT 2"),
                &ask("DEALLOCATE p"),
                &run("p", &[Some("1")]),
            ]),
            "1 Z(I) T D(2) C(SELECT 1) Z(I) T D(Result) C(EXPLAIN) Z(I) E(42P05) Z(I) \
             C(DEALLOCATE) Z(I) E(26000) Z(I)",
        ),
        (
            "all of it by the extended protocol",
            steps(&[
                &flight(extended("PREPARE p (int) AS SELECT $1 + 1", &[]), 1),
                &flight(extended("EXECUTE p(1)", &[]), 1),
                &parsed("e", "EXECUTE p(2)"),
                &run("e", &[]),
                &run("e", &[]),
                &parsed("d", "DEALLOCATE p"),
                &run("d", &[]),
                &run("d", &[]),
                &run("e", &[]),
            ]),
            "1 2 n C(PREPARE) Z(I) 1 2 T D(2) C(SELECT 1) Z(I) 1 Z(I) 2 D(3) C(SELECT 1) Z(I) \
             2 D(3) C(SELECT 1) Z(I) 1 Z(I) 2 C(DEALLOCATE) Z(I) 2 E(26000) Z(I) 2 E(26000) Z(I)",
        ),
        (
            "in one batch",
            steps(&[
                &flight(
                    [
                        [parse("", "PREPARE p AS SELECT 1"), bind("", "", &[]), execute("", 0)],
                        [parse("", "EXECUTE p"), bind("", "", &[]), execute("", 0)],
                        [parse("", "EXECUTE q"), bind("", "", &[]), execute("", 0)],
                    ]
                    .concat()
                    .into_iter()
                    .chain([sync()])
                    .collect::<Vec<_>>()
                    .concat(),
                    1,
                ),
                &ask("EXECUTE p"),
            ]),
            "1 2 C(PREPARE) 1 2 D(1) C(SELECT 1) 1 2 E(26000) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "under quotes and backslashes",
            queries(&[r#"PREPARE p AS SELECT 'it''s \ ', E'\\', $$;$$, 1 AS ";" ;"#, "EXECUTE p"]),
            r"C(PREPARE) Z(I) T D(it's \ ,\,;,1) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn the_list_of_statements_is_the_sessions_own() {
    let list = "SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY name";
    let listed = flight(extended(list, &[]), 1);
    let rows: Table = vec![(
        "the view",
        steps(&[
            &ask("PREPARE p (int) AS SELECT $1 ;"),
            &flight([parse("q", "SELECT 2"), sync()].concat(), 1),
            &ask(list),
            &listed,
            &ask("DEALLOCATE p"),
            &ask(list),
            &ask("DEALLOCATE ALL"),
            &ask("SELECT count(*) FROM pg_prepared_statement()"),
        ]),
        "C(PREPARE) Z(I) 1 Z(I) \
         T D(p,PREPARE p (int) AS SELECT $1 ;,t) D(q,SELECT 2,f) C(SELECT 2) Z(I) \
         1 2 T D(p,PREPARE p (int) AS SELECT $1 ;,t) D(q,SELECT 2,f) C(SELECT 2) Z(I) \
         C(DEALLOCATE) Z(I) T D(q,SELECT 2,f) C(SELECT 1) Z(I) \
         C(DEALLOCATE ALL) Z(I) T D(0) C(SELECT 1) Z(I)",
    )];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn the_unnamed_statement_lives_until_another_or_a_query() {
    let rows: Table = vec![(
        "unnamed",
        steps(&[
            &flight([parse("", "SELECT $1::int"), sync()].concat(), 1),
            &run("", &[Some("1")]),
            &run("", &[Some("2")]),
            &flight([describe(b'S', ""), sync()].concat(), 1),
            &flight([parse("n", "SELECT 3"), sync()].concat(), 1),
            &run("n", &[]),
            &run("", &[Some("4")]),
            &flight([parse("", "SELEC"), sync()].concat(), 1),
            &run("", &[Some("5")]),
            &flight([parse("", "SELECT 6"), sync()].concat(), 1),
            &ask("SELECT 7"),
            &run("", &[]),
            &flight([parse("", "SELECT 8"), sync()].concat(), 1),
            &flight([parse("", "SELECT 9"), close(b'S', ""), sync()].concat(), 1),
            &run("", &[]),
        ]),
        "1 Z(I) 2 D(1) C(SELECT 1) Z(I) 2 D(2) C(SELECT 1) Z(I) t T Z(I) 1 Z(I) \
         2 D(3) C(SELECT 1) Z(I) 2 D(4) C(SELECT 1) Z(I) E(42601) Z(I) E(26000) Z(I) \
         1 Z(I) T D(7) C(SELECT 1) Z(I) E(26000) Z(I) 1 Z(I) 1 3 Z(I) E(26000) Z(I)",
    )];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn sessions_of_a_tenant_do_not_meet_each_others_statements() {
    let both = Both::new().await;
    let (mut one, mut two) = (both.gated(&[]).await, both.gated(&[]).await);
    assert_eq!(one.query("PREPARE p AS SELECT 'one'").await, "C(PREPARE) Z(I)");
    assert_eq!(two.query("EXECUTE p").await, "E(26000) Z(I)");
    assert_eq!(two.query("DEALLOCATE p").await, "E(26000) Z(I)");
    assert_eq!(two.query("PREPARE p AS SELECT 'two'").await, "C(PREPARE) Z(I)");
    let list = "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'one'";
    for _ in 0..3 {
        assert_eq!(one.query("EXECUTE p").await, "T D(one) C(SELECT 1) Z(I)");
        assert_eq!(two.query(list).await, "T D(0) C(SELECT 1) Z(I)");
        assert_eq!(two.query("EXECUTE p").await, "T D(two) C(SELECT 1) Z(I)");
        let bound = [bind("", "p", &[]), execute("", 0), sync()].concat();
        assert_eq!(one.ask(bound.clone()).await, "2 D(one) C(SELECT 1) Z(I)");
        assert_eq!(two.ask(bound).await, "2 D(two) C(SELECT 1) Z(I)");
    }
    assert_eq!(one.query("DEALLOCATE ALL").await, "C(DEALLOCATE ALL) Z(I)");
    assert_eq!(two.query("EXPLAIN (COSTS off) EXECUTE p").await, "T D(Result) C(EXPLAIN) Z(I)");
    assert_eq!(one.query("EXECUTE p").await, "E(26000) Z(I)");
}

#[tokio::test]
async fn what_cannot_be_prepared_again_fails_as_its_execution_would() {
    let both = Both::new().await;
    let mut wire = both.gated(&[]).await;
    let mut other = both.gate.wire(&both.estate.globex).await;
    let id = &both.estate.stark.id;
    let table = format!("CREATE TABLE {id}.gone (i int); GRANT SELECT ON {id}.gone TO tg_{id}");
    let admin = superuser(shared().await, "app").await;
    admin.batch_execute(&table).await.unwrap();
    assert_eq!(wire.query("PREPARE p AS SELECT i FROM gone").await, "C(PREPARE) Z(I)");
    admin.batch_execute(&format!("DROP TABLE {id}.gone")).await.unwrap();
    for inside in [false, true] {
        assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        if inside {
            assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
            assert_eq!(wire.query("EXECUTE p").await, "E(42P01) Z(E)");
            assert_eq!(wire.query("EXECUTE p").await, "E(25P02) Z(E)");
            assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        } else {
            assert_eq!(wire.query("EXECUTE p").await, "E(42P01) Z(I)");
            assert_eq!(wire.ask(extended("EXECUTE p", &[])).await, "E(42P01) Z(I)");
        }
    }
    // Two queries in one write: the second is answered by itself.
    other.query("SELECT 1").await;
    wire.send([query("EXECUTE p"), query("SELECT 2")].concat()).await;
    assert_eq!(transcript(&wire.until_ready().await), "E(42P01) Z(I)");
    assert_eq!(transcript(&wire.until_ready().await), "T D(2) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("DEALLOCATE p").await, "C(DEALLOCATE) Z(I)");
}

#[tokio::test]
async fn a_session_has_so_many_statements_and_portals_and_no_more() {
    let both = Both::new().await;
    let mut wire = both.gated(&[]).await;
    let many: Vec<u8> =
        (0..1_001).flat_map(|number| bind(&format!("c{number}"), "s", &[])).chain(sync()).collect();
    let transaction = [parse("s", "SET work_mem = '5MB'"), many, query("SELECT 1")].concat();
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    let told = wire.ask(transaction).await;
    assert!(told.ends_with(" 2 2 E(0A000) Z(E)"), "{told}");
    assert_eq!(transcript(&wire.until_ready().await), "E(25P02) Z(E)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    let many: Vec<u8> =
        (0..10_000).flat_map(|number| parse(&format!("p{number}"), "")).chain(sync()).collect();
    let told = wire.ask(many).await;
    assert!(told.ends_with(" 1 1 E(0A000) Z(I)"), "{told}");
    assert_eq!(wire.query("PREPARE one_more AS SELECT 1").await, "E(0A000) Z(I)");
    assert_eq!(wire.query("DEALLOCATE ALL").await, "C(DEALLOCATE ALL) Z(I)");
    assert_eq!(wire.query("PREPARE one_more AS SELECT 1").await, "C(PREPARE) Z(I)");
}
