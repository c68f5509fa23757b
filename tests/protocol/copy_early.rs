//! COPY data sent before the server has asked for it, and Syncs that a copy swallows or, when it
//! has failed before, does not.

use super::{Both, Frames, Ready, Send, Step, Table, ask, flight};
use crate::harness::cluster::{shared, superuser};
use crate::harness::messages::{
    bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync,
};

const IN: &str = "COPY notes FROM STDIN";

/// Parse, Bind, Execute and Sync: the Sync comes before the server has asked for data.
fn eager(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat()
}

fn rows(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|id| copy_data(format!("{id}\tcopied\n").as_bytes())).collect()
}

/// Undoes what the script copied in.
fn tidy() -> [Step; 2] {
    ask("DELETE FROM notes WHERE id >= 900")
}

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

#[tokio::test]
async fn a_copy_in_one_flight_is_what_it_is_without_the_gate() {
    let table: Table = vec![
        (
            "extended",
            steps(&[
                &flight([eager(IN), rows(900..903), copy_done(), sync()].concat(), 1),
                &tidy(),
            ]),
            "1 2 G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "extended, two of them and a query",
            steps(&[
                &flight(
                    [
                        eager(IN),
                        rows(900..903),
                        copy_done(),
                        sync(),
                        eager(IN),
                        rows(903..905),
                        copy_done(),
                        sync(),
                        query("SELECT 1"),
                    ]
                    .concat(),
                    3,
                ),
                &tidy(),
            ]),
            "1 2 G C(COPY 3) Z(I) 1 2 G C(COPY 2) Z(I) T D(1) C(SELECT 1) Z(I) C(DELETE 5) Z(I)",
        ),
        (
            "extended, more of the batch behind it",
            steps(&[
                &flight([eager(IN), rows(900..903), copy_done(), eager("SELECT 1")].concat(), 1),
                &tidy(),
            ]),
            "1 2 G C(COPY 3) 1 2 D(1) C(SELECT 1) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "extended, its end without a Sync, then the Sync",
            steps(&[
                &[
                    Send([eager(IN), rows(900..903), copy_done(), flush()].concat()),
                    Frames(4),
                    Send(sync()),
                    Ready(1),
                ],
                &tidy(),
            ]),
            "1 2 G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "simple, and the next query",
            steps(&[
                &flight([query(IN), rows(900..903), copy_done(), query("SELECT 1")].concat(), 2),
                &tidy(),
            ]),
            "G C(COPY 3) Z(I) T D(1) C(SELECT 1) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "simple, two copies in one text",
            steps(&[
                &flight(
                    [
                        query("SELECT 1; COPY notes FROM STDIN; COPY notes FROM STDIN"),
                        rows(900..902),
                        copy_done(),
                        rows(902..903),
                        copy_done(),
                    ]
                    .concat(),
                    1,
                ),
                &tidy(),
            ]),
            "T D(1) C(SELECT 1) G C(COPY 2) G C(COPY 1) Z(I) C(DELETE 3) Z(I)",
        ),
    ];
    Both::new().await.table(&table).await;
}

#[tokio::test]
async fn a_copy_that_fails_in_one_flight_is_what_it_is_without_the_gate() {
    let bad = copy_data(b"no number\tx\n");
    let table: Table = vec![
        (
            "failed by the client, as drivers do that change their mind",
            steps(&[&flight([eager(IN), copy_fail("no"), sync()].concat(), 1), &ask("SELECT 1")]),
            "1 2 G E(57014) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "refused before it began",
            steps(&[
                &flight(
                    [eager("COPY nowhere FROM STDIN"), rows(0..3), copy_done(), sync()].concat(),
                    2,
                ),
                &ask("SELECT 1"),
            ]),
            "1 2 E(42P01) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "bad data",
            steps(&[
                &flight([eager(IN), bad.clone(), rows(900..990), copy_done(), sync()].concat(), 1),
                &ask("SELECT 1"),
                &tidy(),
            ]),
            "1 2 G E(22P02) Z(I) T D(1) C(SELECT 1) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "simple, bad data and a Sync among it",
            steps(&[
                &[
                    Send(query(IN)),
                    Frames(1),
                    Send([bad.clone(), sync(), rows(900..903), copy_done()].concat()),
                    Ready(2),
                ],
                &ask("SELECT 1"),
            ]),
            "G E(22P02) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "extended, bad data and a Sync among it",
            steps(&[
                &[
                    Send([parse("", IN), bind("", "", &[]), execute("", 0), flush()].concat()),
                    Frames(3),
                    Send([bad, sync(), rows(900..903), copy_done(), sync()].concat()),
                    Ready(2),
                ],
                &ask("SELECT 1"),
            ]),
            "1 2 G E(22P02) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&table).await;
}

#[tokio::test]
async fn a_copy_that_fails_before_it_reads_swallows_nothing() {
    let both = Both::new().await;
    let id = &both.estate.stark.id;
    let table = format!(
        "CREATE TABLE {id}.guarded (n int, t text); GRANT ALL ON {id}.guarded TO tg_{id};
         CREATE FUNCTION {id}.no() RETURNS trigger LANGUAGE plpgsql
           AS $$BEGIN RAISE EXCEPTION 'not now'; END$$;
         CREATE TRIGGER no BEFORE INSERT ON {id}.guarded EXECUTE FUNCTION {id}.no()"
    );
    superuser(shared().await, "app").await.batch_execute(&table).await.unwrap();
    let refused = "COPY guarded FROM STDIN";
    let table: Table = vec![
        (
            "all in one flight",
            steps(&[
                &flight([eager(refused), rows(0..3), copy_done(), sync()].concat(), 2),
                &ask("SELECT 1"),
            ]),
            "1 2 G E(P0001) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "one after the other",
            steps(&[
                &[
                    Send(eager(refused)),
                    Ready(1),
                    Send([rows(0..3), copy_done(), sync()].concat()),
                    Ready(1),
                ],
                &ask("SELECT 1"),
            ]),
            "1 2 G E(P0001) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "simple",
            steps(&[
                &flight([query(refused), rows(0..3), copy_done(), query("SELECT 1")].concat(), 2),
                &ask("SELECT 2"),
            ]),
            "G E(P0001) Z(I) T D(1) C(SELECT 1) Z(I) T D(2) C(SELECT 1) Z(I)",
        ),
    ];
    both.table(&table).await;
}

#[tokio::test]
async fn the_server_is_free_for_others_behind_a_copy_that_left_doubts() {
    let both = Both::new().await;
    let mut other = both.gate.wire(&both.estate.acme).await;
    for _ in 0..20 {
        let mut wire = both.gated(&[]).await;
        let bad = copy_data(b"no number\tx\n");
        wire.send([parse("u", "SELECT 7"), parse("", "SELECT 8"), sync()].concat()).await;
        wire.until_ready().await;
        let flight = [eager(IN), bad, copy_done(), sync()].concat();
        assert_eq!(wire.ask(flight).await, "1 2 G E(22P02) Z(I)");
        assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        let named = [bind("", "u", &[]), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(named).await, "2 D(7) C(SELECT 1) Z(I)");
    }
    // One that leaves in the middle of such a flight leaves nothing.
    let mut wire = both.gated(&[]).await;
    wire.send([eager(IN), rows(900..950)].concat()).await;
    drop(wire);
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let mut wire = both.gated(&[]).await;
    let kept = wire.query("SELECT count(*) FROM notes WHERE id >= 900").await;
    assert_eq!(kept, "T D(0) C(SELECT 1) Z(I)");
}
