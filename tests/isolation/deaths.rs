//! Deaths: a session, a server or the line between them is cut in the middle of something. What was
//! half done is undone, and the next tenant gets a clean server of its own context.

use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::faults::{Hop, Mode};
use crate::harness::gate::Gate;
use crate::harness::messages::{
    Frame, bind, complete, copy_data, execute, extended, flush, frame, parameter_status, parse,
    query, ready, sync, transcript,
};
use crate::harness::server::Meddler;
use crate::harness::tenants::{Estate, Tweaks};
use crate::isolation::{NOTES, one_server, own_notes};

/// How the gate's own binding statement begins.
const BIND: &str = "SET \"app\".";

const INSERT: &str = "INSERT INTO notes (id, body) VALUES (77, 'CANARY')";

#[tokio::test]
async fn a_client_cut_in_the_middle_of_anything_leaves_nothing() {
    let (estate, gate) = one_server().await;
    let insert = [parse("", INSERT), bind("", "", &[]), execute("", 0)].concat();
    let half = query(NOTES);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a transaction", [query("BEGIN"), query(INSERT)].concat()),
        ("a failed transaction", [query("BEGIN"), query(INSERT), query("SELECT 1/0")].concat()),
        ("a batch without Sync", insert.clone()),
        ("a flushed batch", [insert, flush()].concat()),
        ("a query", query("SELECT pg_sleep(600)")),
        ("a query behind others", [query("SELECT 1"), query("SELECT pg_sleep(600)")].concat()),
        ("a copy out", query("COPY (SELECT 'CANARY' FROM generate_series(1, 3000000)) TO STDOUT")),
        ("a long result", query("SELECT 'CANARY' FROM generate_series(1, 3000000)")),
        ("a message", half[..half.len() - 3].to_vec()),
        ("a long parameter", long_bind_cut_short()),
        ("a lock", [query("BEGIN"), query("LOCK TABLE notes IN ROW EXCLUSIVE MODE")].concat()),
    ];
    for (name, bytes) in cases {
        let mut dying = gate.wire(&estate.acme).await;
        dying.send(&bytes).await;
        if bytes != half[..half.len() - 3] && name != "a query" && name != "a batch without Sync" {
            let _ = dying.maybe_frame().await;
        }
        drop(dying);
        let mut next = gate.wire(&estate.globex).await;
        assert_eq!(next.query(NOTES).await, own_notes(&estate.globex), "after {name}");
        let mut back = gate.wire(&estate.acme).await;
        assert_eq!(back.query(NOTES).await, own_notes(&estate.acme), "after {name}");
    }
    let mut dying = gate.wire(&estate.initech).await;
    dying.send(query("COPY notes FROM STDIN")).await;
    assert_eq!(dying.frame().await.tag, b'G');
    dying.send([copy_data(b"77\tCANARY\n"), copy_data(b"78\tCA")].concat()).await;
    drop(dying);
    let mut next = gate.wire(&estate.globex).await;
    assert_eq!(next.query(NOTES).await, own_notes(&estate.globex), "after a copy in");
    let mut back = gate.wire(&estate.initech).await;
    assert_eq!(back.query(NOTES).await, own_notes(&estate.initech), "after a copy in");
}

/// A Parse and a Bind that says it has a megabyte and sends a tenth of that.
fn long_bind_cut_short() -> Vec<u8> {
    let long = "x".repeat(1_000_000);
    let bind = bind("", "", &[Some(&long)]);
    [parse("", "INSERT INTO notes (id, body) VALUES (77, $1)"), flush(), bind[..100_000].to_vec()]
        .concat()
}

#[tokio::test]
async fn a_server_that_is_terminated_takes_one_session_with_it() {
    let (estate, gate) = one_server().await;
    let admin = superuser(shared().await, "app").await;
    for in_transaction in [true, false] {
        let mut dying = gate.wire(&estate.acme).await;
        let mut idle = gate.wire(&estate.acme).await;
        idle.query("SET work_mem TO '2MB'").await;
        if in_transaction {
            dying.query("BEGIN").await;
        }
        let backend = dying.query("SELECT pg_backend_pid()").await;
        let backend: i32 = backend[4..backend.find(") C").unwrap()].parse().unwrap();
        let gone = "SELECT pg_terminate_backend($1, 5000)";
        assert!(admin.query_one(gone, &[&backend]).await.unwrap().get::<_, bool>(0));
        if in_transaction {
            assert_eq!(dying.until_closed().await, "E(57P01)");
        } else {
            assert_eq!(dying.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        }
        let mut next = gate.wire(&estate.globex).await;
        assert_eq!(next.query(NOTES).await, own_notes(&estate.globex));
        assert_eq!(idle.query("SHOW work_mem").await, "T D(2MB) C(SHOW) Z(I)");
    }
}

#[tokio::test]
async fn a_server_cut_at_any_message_of_its_bind_or_scrub_serves_nobody() {
    let estate = Estate::within(shared().await).await;
    for cut in 0..14 {
        // Counts the server's messages from the second tenant's bind on.
        let armed = std::sync::Arc::new(std::sync::atomic::AtomicI32::new(-1));
        let counter = armed.clone();
        let meddler = Meddler::start(shared().await.port(), move |_, frame| {
            use std::sync::atomic::Ordering::SeqCst;
            match counter.load(SeqCst) {
                left if left < 0 => Some(frame.bytes()),
                0 => {
                    counter.store(-1, SeqCst);
                    None
                }
                left => {
                    counter.store(left - 1, SeqCst);
                    Some(frame.bytes())
                }
            }
        })
        .await;
        let gate = gate_through(&estate, meddler.port).await;
        let mut first = gate.wire(&estate.acme).await;
        let mut second = gate.wire(&estate.globex).await;
        assert_eq!(first.query(NOTES).await, own_notes(&estate.acme));
        armed.store(cut, std::sync::atomic::Ordering::SeqCst);
        let heard = second.query(NOTES).await;
        let served = heard == own_notes(&estate.globex);
        // Cut in the middle of its own answer a session is lost; before that nobody notices.
        let lost = heard.ends_with("E(08006)") && !heard.contains("acme");
        assert!(served || lost, "cut at {cut}: {heard}");
        assert_eq!(first.query(NOTES).await, own_notes(&estate.acme), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_bind_that_is_not_confirmed_whole_serves_nobody() {
    let estate = Estate::within(shared().await).await;
    let (wanted, other) = (estate.globex.id.clone(), estate.acme.id.clone());
    let mut kept = 0;
    let lies = move |last: &Frame, answer: Frame| {
        let asked = String::from_utf8_lossy(&last.body).into_owned();
        let bind = asked.starts_with(BIND) && asked.contains(&wanted);
        let confirmed = bind && answer.to_string() == "C(SET)";
        kept = if answer.tag == b'Z' { 0 } else { kept + usize::from(confirmed) };
        // The second of its three settings, each time.
        let lost = confirmed && kept == 2;
        Some(if lost { Vec::new() } else { answer.bytes() })
    };
    let meddler = Meddler::start(shared().await.port(), lies).await;
    let gate = gate_through(&estate, meddler.port).await;
    let mut first = gate.wire(&estate.acme).await;
    assert_eq!(first.query(NOTES).await, own_notes(&estate.acme));
    let mut second = crate::harness::wire::Wire::connect(gate.port).await;
    let (dbname, password) = (estate.globex.dbname.as_str(), estate.globex.token.as_str());
    let login = crate::harness::wire::Login { user: "app", dbname, password, more: &[] };
    let heard = transcript(&second.authenticate(&login).await);
    let heard = match heard.ends_with("Z(I)") {
        true => second.query(NOTES).await,
        false => heard,
    };
    assert!(heard.ends_with("E(58000)") && !heard.contains(&other), "{heard}");
    assert_eq!(first.query(NOTES).await, own_notes(&estate.acme));
}

#[tokio::test]
async fn a_scrub_that_fails_or_leaves_a_transaction_open_costs_the_server() {
    let estate = Estate::within(shared().await).await;
    for fault in ["error", "status", "extra"] {
        let mut faults = 1;
        let meddler = Meddler::start(shared().await.port(), move |last, frame| {
            let scrub = last.texts()[0].starts_with(BIND) && frame.tag == b'Z';
            if !scrub || faults == 0 || last.texts()[0].contains("acme") {
                return Some(frame.bytes());
            }
            faults -= 1;
            Some(match fault {
                "error" => [
                    crate::harness::messages::error("ERROR", "XX000", "scrub failed"),
                    frame.bytes(),
                ]
                .concat(),
                "status" => ready(b'T'),
                _ => [frame.bytes(), complete("RESET"), ready(b'I')].concat(),
            })
        })
        .await;
        // On one worker scrub and bind go out together, so nobody can tell which of them failed.
        let gate = gate_with(&estate, meddler.port, "workers = 1").await;
        let mut first = gate.wire(&estate.acme).await;
        let failed = first.query("SELECT pg_backend_pid()").await;
        let mut second = gate.wire(&estate.globex).await;
        assert_eq!(second.query(NOTES).await, own_notes(&estate.globex), "{fault}");
        // Not on the server whose scrub failed: that one was closed.
        assert_ne!(second.query("SELECT pg_backend_pid()").await, failed, "{fault}");
    }
}

#[tokio::test]
async fn parameters_that_tell_the_context_are_kept_back_whenever_a_server_tells_them() {
    let estate = Estate::within(shared().await).await;
    let meddler = Meddler::start(shared().await.port(), |_, frame| {
        // As version 18 does of search_path, unasked.
        let hidden = ["search_path", "role", "session_authorization", "is_superuser"];
        let told = hidden.map(|name| parameter_status(name, "CANARY")).concat();
        Some(if frame.tag == b'Z' { [told, frame.bytes()].concat() } else { frame.bytes() })
    })
    .await;
    let gate = gate_through(&estate, meddler.port).await;
    for tenant in [&estate.acme, &estate.globex, &estate.acme] {
        let mut wire = gate.wire(tenant).await;
        assert_eq!(wire.query(NOTES).await, own_notes(tenant));
        assert_eq!(wire.ask(extended("SELECT 1", &[])).await, "1 2 T D(1) C(SELECT 1) Z(I)");
        for name in ["search_path", "role"] {
            assert_eq!(wire.parameters.get(name), None);
        }
        assert_eq!(wire.parameters["session_authorization"], "app");
    }
}

#[tokio::test]
async fn a_line_to_the_server_that_is_cut_or_stalls_loses_no_place() {
    let estate = Estate::within(shared().await).await;
    let hop = Hop::start(shared().await.port()).await;
    let gate = gate_through(&estate, hop.port).await;
    for sql in ["BEGIN", "SELECT pg_sleep(600)"] {
        let mut dying = gate.wire(&estate.acme).await;
        dying.send(query(sql)).await;
        if sql == "BEGIN" {
            assert_eq!(transcript(&dying.until_ready().await), "C(BEGIN) Z(T)");
        }
        hop.set(Mode::Cut);
        // Cut before the query went out, it is an error; after that, the end of the session.
        let heard = transcript(&dying.until_ready().await);
        assert!(heard.ends_with("E(08006)") || heard.ends_with("E(08001) Z(I)"), "{sql}: {heard}");
        hop.set(Mode::Pass);
        let mut next = gate.wire(&estate.globex).await;
        assert_eq!(next.query(NOTES).await, own_notes(&estate.globex), "{sql}");
    }
    // A client that leaves while its server is being bound.
    let mut waiting = gate.wire(&estate.acme).await;
    hop.set_to_client(Mode::Stall);
    waiting.send(extended(NOTES, &[])).await;
    drop(waiting);
    hop.set_to_client(Mode::Pass);
    let mut next = gate.wire(&estate.globex).await;
    assert_eq!(next.query(NOTES).await, own_notes(&estate.globex));
}

#[tokio::test]
async fn nonsense_from_a_client_ends_its_session_and_nothing_else() {
    let (estate, gate) = one_server().await;
    let mut next = gate.wire(&estate.globex).await;
    let cases = [
        [query("BEGIN"), frame(b'?', b"x")].concat(),
        [query("BEGIN"), frame(b'Q', b"no end")].concat(),
        [query("BEGIN"), frame(b'Q', b"two\0ends\0")].concat(),
        [query("BEGIN"), crate::harness::messages::lying_frame(b'Q', 3, b"")].concat(),
        [
            query("BEGIN"),
            crate::harness::messages::lying_frame(b'Q', usize::try_from(u32::MAX).unwrap(), b""),
        ]
        .concat(),
        [parse("s", "SELECT 1"), frame(b'B', b"\0")].concat(),
        [parse("s", "SELECT 1"), frame(b'D', b"Xs\0")].concat(),
        [parse("s", "SELECT 1"), frame(b'S', b"x")].concat(),
        [parse("s", "SELECT 1"), frame(b'P', b"s\0SELECT\0\0\x09")].concat(),
        frame(b'?', b"x"),
        frame(b'p', b"secret\0"),
    ];
    for bytes in cases {
        let mut wire = gate.wire(&estate.acme).await;
        wire.send(&bytes).await;
        let heard = wire.until_closed().await;
        assert!(heard.ends_with("E(08P01)"), "{:?}: {heard}", bytes.escape_ascii().to_string());
        assert_eq!(next.query(NOTES).await, own_notes(&estate.globex));
    }
    let mut wire = gate.wire(&estate.acme).await;
    wire.send([parse("s", "SELECT 1"), sync()].concat()).await;
    eventually("the session lives", async || {
        (transcript(&wire.until_ready().await) == "1 Z(I)").then_some(())
    })
    .await;
}

/// A gate whose one server connection goes through a hop at this port.
async fn gate_through(estate: &Estate, port: u16) -> Gate {
    gate_with(estate, port, "").await
}

async fn gate_with(estate: &Estate, port: u16, gate: &str) -> Gate {
    let settings = estate.settings(&Tweaks { gate, capacity: 1, ..Tweaks::default() });
    let real = format!("127.0.0.1:{}/", shared().await.port());
    Gate::start(&settings.replace(&real, &format!("127.0.0.1:{port}/"))).await
}
