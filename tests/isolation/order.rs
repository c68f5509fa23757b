//! The order of messages: half ones, early ones, batches that end badly. The gate answers as
//! PostgreSQL does, and whatever it is sent, the next tenant is served.

use crate::harness::cluster::{shared, superuser};
use crate::harness::messages::{
    bind, close, copy_data, copy_done, describe, execute, extended, flush, frame, parse, query,
    sync, terminate, transcript,
};
use crate::harness::tenants::Tweaks;
use crate::harness::wire::cancel;
use crate::isolation::{NOTES, one_server, one_server_with, own_notes, wire_with};

#[tokio::test]
async fn half_a_message_of_any_kind_holds_nobody_up() {
    let (estate, gate) = one_server().await;
    let long = "x".repeat(40);
    let messages = [
        query("SELECT 1"),
        parse("s", "SELECT 1"),
        bind("", "s", &[Some(&long)]),
        describe(b'S', "s"),
        describe(b'P', "p"),
        close(b'S', "s"),
        execute("p", 0),
        sync(),
        flush(),
        copy_data(b"row"),
        copy_done(),
        frame(b'F', &[0; 20]),
        terminate(),
    ];
    let mut other = gate.wire(&estate.globex).await;
    for message in messages {
        for length in 1..message.len() {
            let mut half = gate.wire(&estate.acme).await;
            half.send(&message[..length]).await;
            assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        }
    }
    assert_eq!(other.query(NOTES).await, own_notes(&estate.globex));
}

#[tokio::test]
async fn a_batch_that_begins_with_any_message_may_come_in_pieces() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.globex).await;
    let prepared = [parse("s", "SELECT 7"), sync()].concat();
    assert_eq!(wire.ask(prepared).await, "1 Z(I)");
    let run = [bind("", "s", &[]), execute("", 0), sync()].concat();
    let cases = [
        ([describe(b'S', "s"), run.clone()].concat(), "t T 2 D(7) C(SELECT 1) Z(I)"),
        ([close(b'S', "none"), run.clone()].concat(), "3 2 D(7) C(SELECT 1) Z(I)"),
        ([close(b'P', ""), run].concat(), "3 2 D(7) C(SELECT 1) Z(I)"),
        ([execute("none", 0), sync()].concat(), "E(34000) Z(I)"),
        (extended("SELECT $1::text", &[Some("x")]), "1 2 T D(x) C(SELECT 1) Z(I)"),
    ];
    for (bytes, expected) in cases {
        for cut in 1..bytes.len() {
            wire.send(&bytes[..cut]).await;
            if cut % 8 == 0 {
                // Somebody else on the one server in between, if nothing was begun there yet.
                let _ = other.try_send(query("SELECT 1")).await;
            }
            assert_eq!(wire.ask(&bytes[cut..]).await, expected, "cut at {cut}");
            if cut % 8 == 0 {
                assert_eq!(transcript(&other.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
            }
        }
    }
}

#[tokio::test]
async fn an_error_at_sync_is_the_batchs_error_and_not_the_sessions_end() {
    let (estate, gate) = one_server().await;
    let (mark, admin) = (&estate.acme.id, superuser(shared().await, "app").await);
    let table = format!("app.later_{mark}");
    admin
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
             GRANT SELECT, INSERT ON {table} TO app_rw; INSERT INTO {table} VALUES (1)"
        ))
        .await
        .unwrap();
    let mut wire = gate.wire(&estate.acme).await;
    let insert = format!("INSERT INTO {table} VALUES (1)");
    assert_eq!(wire.ask(extended(&insert, &[])).await, "1 2 n C(INSERT 0 1) E(23505) Z(I)");
    assert_eq!(wire.query(&insert).await, "E(23505) Z(I)");
    let two = [extended(&insert, &[]), extended("SELECT 2", &[])].concat();
    assert_eq!(wire.ask(two).await, "1 2 n C(INSERT 0 1) E(23505) Z(I)");
    assert_eq!(transcript(&wire.until_ready().await), "1 2 T D(2) C(SELECT 1) Z(I)");
    assert_eq!(wire.query(NOTES).await, own_notes(&estate.acme));
}

#[tokio::test]
async fn a_refusal_in_a_pipeline_fails_its_own_batch_only() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let insert = "INSERT INTO notes (id, body) VALUES (9, 'kept by mistake')";
    let bytes = [
        extended("SELECT 1", &[]),
        [parse("", insert), bind("", "", &[]), execute("", 0)].concat(),
        extended("SET app.tenant_id = 'other'", &[]),
        extended("SELECT 3", &[]),
    ];
    wire.send(bytes.concat()).await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(transcript(&wire.until_ready().await));
    }
    let expected = [
        "1 2 T D(1) C(SELECT 1) Z(I)",
        "1 2 C(INSERT 0 1) E(42501) Z(I)",
        "1 2 T D(3) C(SELECT 1) Z(I)",
    ];
    assert_eq!(heard, expected);
    assert_eq!(wire.query(NOTES).await, own_notes(&estate.acme), "the insert was rolled back");
    let simple = [query("BEGIN"), query(insert), query("LISTEN x"), query("COMMIT")].concat();
    wire.send(simple).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(transcript(&wire.until_ready().await));
    }
    let expected = ["C(BEGIN) Z(T)", "C(INSERT 0 1) Z(T)", "E(0A000) Z(E)", "C(ROLLBACK) Z(I)"];
    assert_eq!(heard, expected);
    assert_eq!(wire.query(NOTES).await, own_notes(&estate.acme), "COMMIT kept nothing");
}

#[tokio::test]
async fn copy_in_with_its_sync_sent_early_or_late_ends_at_ready() {
    let (estate, gate) = one_server().await;
    // A silo has no row security, which COPY FROM would be refused under.
    let mut wire = gate.wire(&estate.initech).await;
    let start = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let into = "COPY notes FROM STDIN";
    for (id, early) in [(11, true), (12, false)] {
        let row = format!("{id}\tcopied\n");
        let first = if early { [start(into), sync()] } else { [start(into), flush()] };
        wire.send(first.concat()).await;
        for tag in [b'1', b'2', b'G'] {
            assert_eq!(wire.frame().await.tag, tag);
        }
        let rest = [copy_data(row.as_bytes()), sync(), copy_done(), sync()].concat();
        assert_eq!(wire.ask(rest).await, "C(COPY 1) Z(I)");
        let bad = [copy_data(b"not a number\tx\n"), copy_done(), sync()].concat();
        wire.send([start(into), sync()].concat()).await;
        for tag in [b'1', b'2', b'G'] {
            assert_eq!(wire.frame().await.tag, tag);
        }
        assert_eq!(wire.ask(bad).await, "E(22P02) Z(I)");
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    }
    // Simple: the Sync that nobody asked for is ignored by a server that reads copy data.
    wire.send([query(into), sync()].concat()).await;
    assert_eq!(wire.frame().await.tag, b'G');
    assert_eq!(wire.ask([copy_data(b"13\tc\n"), copy_done()].concat()).await, "C(COPY 1) Z(I)");
    let mut other = gate.wire(&estate.globex).await;
    assert_eq!(other.query(NOTES).await, own_notes(&estate.globex));
    let count = "SELECT count(*) FROM notes WHERE id > 10";
    assert_eq!(wire.query(count).await, "T D(3) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn an_unnamed_statement_of_another_session_cannot_be_run() {
    let (estate, gate) = one_server().await;
    let mut first = gate.wire(&estate.acme).await;
    let mut second = gate.wire(&estate.acme).await;
    let run = [bind("", "", &[]), execute("", 0), sync()].concat();
    assert_eq!(first.ask(extended("SELECT 'first'", &[])).await, "1 2 T D(first) C(SELECT 1) Z(I)");
    assert_eq!(second.ask(run.clone()).await, "E(26000) Z(I)");
    assert_eq!(first.ask(run).await, "2 D(first) C(SELECT 1) Z(I)", "its own lives on");
}

#[tokio::test]
async fn a_setting_behind_reset_all_in_one_string_is_kept() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.globex).await;
    wire.query("SET work_mem TO '2MB'").await;
    let asked = wire.query("RESET ALL; SET TimeZone TO 'Asia/Tokyo'").await;
    assert!(asked.starts_with("C(RESET) C(SET)"), "{asked}");
    other.query("SELECT 1").await;
    assert_eq!(wire.query("SHOW TimeZone").await, "T D(Asia/Tokyo) C(SHOW) Z(I)");
    assert_eq!(wire.query("SHOW work_mem").await, "T D(4MB) C(SHOW) Z(I)");
}

#[tokio::test]
async fn reset_all_tells_the_driver_what_became_of_the_parameters_it_tracks() {
    let (estate, gate) = one_server().await;
    for reset in ["RESET ALL", "DISCARD ALL"] {
        let mut wire = wire_with(&gate, &estate.acme, &[("DateStyle", "SQL, DMY")]).await;
        assert_eq!(wire.parameters["DateStyle"], "SQL, DMY");
        wire.query("SET standard_conforming_strings TO off; SET DateStyle TO 'German'").await;
        assert_eq!(wire.parameters["standard_conforming_strings"], "off");
        wire.query(reset).await;
        assert_eq!(wire.parameters["standard_conforming_strings"], "on", "{reset}");
        assert_eq!(wire.parameters["DateStyle"], "SQL, DMY", "{reset}");
        assert_eq!(wire.query("SHOW DateStyle").await, "T D(SQL, DMY) C(SHOW) Z(I)");
    }
}

#[tokio::test]
async fn a_cancel_while_in_line_cancels_one_request_and_not_the_next() {
    let (estate, gate) = one_server().await;
    let mut holder = gate.wire(&estate.globex).await;
    let mut wire = gate.wire(&estate.acme).await;
    assert_eq!(holder.query("BEGIN").await, "C(BEGIN) Z(T)");
    wire.send(query("SELECT 1")).await;
    // The request may not have reached the line yet: a cancel that finds nothing is forgotten.
    let (port, pid, secret) = (gate.port, wire.pid, wire.secret);
    let cancelling = async {
        loop {
            cancel(port, pid, secret).await;
        }
    };
    tokio::select! {
        heard = wire.until_ready() => assert_eq!(transcript(&heard), "E(57014) Z(I)"),
        () = cancelling => {}
    }
    assert_eq!(holder.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(wire.query("SELECT 2").await, "T D(2) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_pipeline_behind_a_long_query_is_not_a_stall_while_others_wait() {
    let tweaks = Tweaks { gate: "stall_timeout = '1s'", ..Tweaks::default() };
    let (estate, gate) = one_server_with(&tweaks).await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.globex).await;
    wire.query("BEGIN").await;
    other.send(query("SELECT 3")).await;
    for _ in 0..50 {
        // Time for the other one to get into line.
        wire.query("SELECT 1").await;
    }
    wire.send([query("SELECT pg_sleep(2.5); COMMIT"), query("SELECT 2")].concat()).await;
    assert_eq!(transcript(&wire.until_ready().await), "T D() C(SELECT 1) C(COMMIT) Z(I)");
    assert_eq!(transcript(&wire.until_ready().await), "T D(2) C(SELECT 1) Z(I)");
    assert_eq!(transcript(&other.until_ready().await), "T D(3) C(SELECT 1) Z(I)");
}
