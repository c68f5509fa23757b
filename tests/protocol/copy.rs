//! COPY in both directions, by both protocols, with the habits drivers have.

use super::{Both, Frames, Ready, Send, Step, Table, ask, flight};
use crate::harness::messages::{
    bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync,
};

const IN: &str = "COPY notes FROM STDIN";
const OUT: &str = "COPY (SELECT * FROM notes WHERE id >= 900 ORDER BY id) TO STDOUT";

/// Parse, Bind, Execute and Sync: the Sync comes before the server has asked for data.
fn eager(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat()
}

/// Undoes what the script copied in.
fn tidy() -> [Step; 2] {
    ask("DELETE FROM notes WHERE id >= 900")
}

fn rows(range: std::ops::Range<u32>) -> Vec<u8> {
    range.flat_map(|id| copy_data(format!("{id}\tcopied\n").as_bytes())).collect()
}

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

#[tokio::test]
async fn simple_copy_in_is_what_it_is_without_the_gate() {
    let data = |more: &[u8]| Send([rows(900..903), more.to_vec()].concat());
    let rows: Table = vec![
        (
            "simple",
            steps(&[
                &[Send(query(IN)), Frames(1), data(&copy_done()), Ready(1)],
                &ask(OUT),
                &tidy(),
            ]),
            "G C(COPY 3) Z(I) H d d d c C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "simple, among other statements",
            steps(&[
                &[
                    Send(query("SELECT 1; COPY notes FROM STDIN; SELECT 2")),
                    Frames(4),
                    data(&copy_done()),
                    Ready(1),
                ],
                &tidy(),
            ]),
            "T D(1) C(SELECT 1) G C(COPY 3) T D(2) C(SELECT 1) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "simple, with Syncs and Flushes inside",
            steps(&[
                &[
                    Send(query(IN)),
                    Frames(1),
                    Send([sync(), flush(), sync()].concat()),
                    data(&copy_done()),
                    Ready(1),
                ],
                &tidy(),
            ]),
            "G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "simple, with a Sync behind the Query",
            steps(&[
                &[Send([query(IN), sync()].concat()), Frames(1), data(&copy_done()), Ready(1)],
                &tidy(),
            ]),
            "G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "in a transaction",
            steps(&[
                &ask("BEGIN"),
                &[Send(query(IN)), Frames(1), data(&copy_done()), Ready(1)],
                &ask("ROLLBACK"),
                &tidy(),
            ]),
            "C(BEGIN) Z(T) G C(COPY 3) Z(T) C(ROLLBACK) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "nothing copied",
            steps(&[&[Send(query(IN)), Frames(1), Send(copy_done()), Ready(1)]]),
            "G C(COPY 0) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn failing_copy_in_is_what_it_is_without_the_gate() {
    let data = |more: &[u8]| Send([rows(900..903), more.to_vec()].concat());
    let rows: Table = vec![
        (
            "simple, failed by the client",
            steps(&[&[Send(query(IN)), Frames(1), data(&copy_fail("enough")), Ready(1)], &tidy()]),
            "G E(57014) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "simple, bad data with more to come",
            steps(&[
                &[
                    Send(query(IN)),
                    Frames(1),
                    Send(copy_data(b"no number\tx\n")),
                    data(&[rows(910..990), copy_done()].concat()),
                    Ready(1),
                ],
                &ask("SELECT 1"),
                &tidy(),
            ]),
            "G E(22P02) Z(I) T D(1) C(SELECT 1) Z(I) C(DELETE 0) Z(I)",
        ),
        (
            "simple, bad data, answered, and then more data",
            steps(&[
                &[
                    Send(query(IN)),
                    Frames(1),
                    Send(copy_data(b"no number\tx\n")),
                    Ready(1),
                    data(&copy_done()),
                ],
                &ask("SELECT 1"),
            ]),
            "G E(22P02) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "binary signature missing",
            steps(&[&[
                Send(query("COPY notes FROM STDIN BINARY")),
                Frames(1),
                data(&copy_done()),
                Ready(1),
            ]]),
            "G E(22P04) Z(I)",
        ),
        (
            "copy data where nobody copies",
            steps(&[
                &[Send([rows(0..3), copy_done(), copy_fail("x")].concat())],
                &ask("SELECT 1"),
                &ask("BEGIN"),
                &[Send([rows(0..3), copy_done()].concat())],
                &ask("COMMIT"),
            ]),
            "T D(1) C(SELECT 1) Z(I) C(BEGIN) Z(T) C(COMMIT) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn extended_copy_in_is_what_it_is_without_the_gate() {
    let data = |more: &[u8]| Send([rows(900..903), more.to_vec()].concat());
    let rows: Table = vec![
        (
            "extended, Sync ahead of the data",
            steps(&[
                &[Send(eager(IN)), Frames(3), data(&[copy_done(), sync()].concat()), Ready(1)],
                &tidy(),
            ]),
            "1 2 G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "extended, Sync after the data only",
            steps(&[
                &[
                    Send([parse("", IN), bind("", "", &[]), execute("", 0), flush()].concat()),
                    Frames(3),
                    data(&[copy_done(), sync()].concat()),
                    Ready(1),
                ],
                &tidy(),
            ]),
            "1 2 G C(COPY 3) Z(I) C(DELETE 3) Z(I)",
        ),
        (
            "extended, failed by the client",
            steps(&[
                &[
                    Send(eager(IN)),
                    Frames(3),
                    data(&[copy_fail("enough"), sync()].concat()),
                    Ready(1),
                ],
                &ask("SELECT 1"),
            ]),
            "1 2 G E(57014) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "extended, bad data with more to come",
            steps(&[
                &[
                    Send(eager(IN)),
                    Frames(3),
                    Send(copy_data(b"x\ty\n")),
                    data(&[rows(910..990), copy_done(), sync()].concat()),
                    Ready(1),
                ],
                &ask("SELECT 1"),
            ]),
            "1 2 G E(22P02) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "extended, refused before the data, Sync ahead",
            steps(&[
                &[
                    Send(eager("COPY nowhere FROM STDIN")),
                    Ready(1),
                    data(&[copy_done(), sync()].concat()),
                    Ready(1),
                ],
                &ask("SELECT 1"),
            ]),
            "1 2 E(42P01) Z(I) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
        (
            "extended, more of the batch behind the data",
            steps(&[
                &[
                    Send([parse("", IN), bind("", "", &[]), execute("", 0), flush()].concat()),
                    Frames(3),
                    data(&copy_done()),
                    Send(eager("SELECT 1")),
                    Ready(1),
                ],
                &tidy(),
            ]),
            "1 2 G C(COPY 3) 1 2 D(1) C(SELECT 1) Z(I) C(DELETE 3) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn copy_out_is_what_it_is_without_the_gate() {
    let table: Table = vec![
        ("simple", ask("COPY (SELECT 1, 'a') TO STDOUT").into(), "H d c C(COPY 1) Z(I)"),
        (
            "csv with header",
            ask("COPY (SELECT 1 AS x) TO STDOUT (FORMAT csv, HEADER)").into(),
            "H d d c C(COPY 1) Z(I)",
        ),
        ("binary", ask("COPY (SELECT 1) TO STDOUT BINARY").into(), "H d d c C(COPY 1) Z(I)"),
        (
            "extended",
            flight(eager("COPY (SELECT 1) TO STDOUT"), 1).into(),
            "1 2 H d c C(COPY 1) Z(I)",
        ),
        (
            "several",
            ask("COPY (SELECT 1) TO STDOUT; COPY (SELECT 2) TO STDOUT").into(),
            "H d c C(COPY 1) H d c C(COPY 1) Z(I)",
        ),
        (
            "an error in the middle",
            ask("COPY (SELECT 1/(3-g) FROM generate_series(1,5) g) TO STDOUT").into(),
            "H d d E(22012) Z(I)",
        ),
        ("empty", ask("COPY (SELECT 1 WHERE false) TO STDOUT").into(), "H c C(COPY 0) Z(I)"),
        ("a file", ask("COPY notes TO '/tmp/no_such_right'").into(), "E(42501) Z(I)"),
    ];
    Both::new().await.table(&table).await;
}

#[tokio::test]
async fn a_million_rows_stream_both_ways() {
    let both = Both::new().await;
    let mut wire = both.gated(&[]).await;
    let out = "COPY (SELECT g, repeat('x', 90) FROM generate_series(1, 300000) g) TO STDOUT";
    wire.send(query(out)).await;
    let frames = wire.until_ready().await;
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'd').count(), 300_000);
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    wire.send(query(IN)).await;
    assert_eq!(wire.frame().await.tag, b'G');
    let line = format!("\t{}\n", "x".repeat(90));
    for chunk in 0..100 {
        let ids = chunk * 1000 + 1000..chunk * 1000 + 2000;
        let bytes: String = ids.map(|id| format!("{id}{line}")).collect();
        wire.send(copy_data(bytes.as_bytes())).await;
    }
    assert_eq!(wire.ask(copy_done()).await, "C(COPY 100000) Z(T)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
}
