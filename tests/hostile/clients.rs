//! Clients that cut, stall, lie and come in thousands.

use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    ONE, bind, close, copy_data, copy_done, describe, execute, extended, frame, parse, password,
    query, ssl_request, startup, sync, transcript,
};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::Wire;

/// A whole exchange, without waiting for any answer.
fn exchange(tenant: &Tenant) -> Vec<u8> {
    [
        ssl_request(),
        startup(&[("user", "app"), ("database", &tenant.dbname)]),
        password(&tenant.token),
        query("SELECT 1"),
        parse("s", "SELECT $1::text"),
        describe(b'S', "s"),
        bind("p", "s", &[Some("abc")]),
        execute("p", 1),
        close(b'P', "p"),
        sync(),
        query("BEGIN"),
        query("COPY notes FROM STDIN"),
        copy_data(b"850\tx\n"),
        copy_done(),
        query("ROLLBACK"),
    ]
    .concat()
}

async fn send_and_cut(port: u16, bytes: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // It may be closed already: then so be it.
    let _ = socket.write_all(bytes).await;
}

/// All places of a gate with these limits are to be had again.
async fn all_places_are_free(gate: &Gate, estate: &Estate, clients: usize, capacity: usize) {
    let mut wires = Vec::new();
    for _ in 0..clients {
        let wire = eventually("a client's place is free", async || {
            let mut wire = Wire::connect(gate.port).await;
            let login = crate::harness::wire::Login {
                user: "app",
                dbname: "app",
                password: &estate.stark.token,
                more: &[],
            };
            let frames = wire.authenticate(&login).await;
            transcript(&frames).ends_with("Z(I)").then_some(wire)
        })
        .await;
        wires.push(wire);
    }
    for wire in wires.iter_mut().take(capacity) {
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    }
}

#[tokio::test]
async fn every_prefix_of_an_exchange_may_be_all_that_comes() {
    let estate = Estate::new().await;
    let tweaks = Tweaks {
        capacity: 2,
        tier: "clients = 40\nqueries_at_once = 2\nbudget_wait = \"20s\"",
        ..Tweaks::default()
    };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut bystander = gate.wire(&estate.umbrella).await;
    let bytes = exchange(&estate.stark);
    let port = gate.port;
    let cuts = futures::stream::iter(0..=bytes.len());
    let cutting = cuts.map(|cut| send_and_cut(port, &bytes[..cut])).buffer_unordered(16);
    cutting.collect::<Vec<()>>().await;
    assert_eq!(bystander.query("SELECT 1").await, ONE);
    drop(bystander);
    all_places_are_free(&gate, &estate, 40, 2).await;
    let mut reader = gate.wire(&estate.umbrella).await;
    assert_eq!(reader.query("ROLLBACK").await, "N(25P01) C(ROLLBACK) Z(I)");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_ended_and_a_slow_server_is_not_its_fault() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "stall_timeout = \"400ms\"", capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let long = [frame(b'Q', b"SELECT 1\0"), extended("SELECT $1::text", &[Some("x")])];
    for bytes in &long {
        for cut in [1, 5, bytes.len() - 6] {
            let mut idle = gate.wire(&estate.stark).await;
            idle.send(&bytes[..cut]).await;
            let said = idle.until_closed().await;
            assert!(said.ends_with("E(08006)"), "{cut}: {said}");
            let mut inside = gate.wire(&estate.stark).await;
            inside.query("BEGIN").await;
            inside.send(&bytes[..cut]).await;
            let said = inside.until_closed().await;
            assert!(said.ends_with("E(08006)"), "{cut} in a transaction: {said}");
        }
    }
    // Whole messages that wait: behind a slow query, behind somebody who holds the only server.
    let mut slow = gate.wire(&estate.stark).await;
    let mut waits = gate.wire(&estate.acme).await;
    slow.send([query("SELECT pg_sleep(0.9), 1"), query("SELECT 1")].concat()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    waits.send([query("SELECT 1"), query("SELECT 1")].concat()).await;
    slow.send([query("SELECT 1"), query("SELECT 1")].concat()).await;
    assert_eq!(transcript(&slow.until_ready().await), "T D(,1) C(SELECT 1) Z(I)");
    for _ in 0..3 {
        assert_eq!(transcript(&slow.until_ready().await), ONE);
    }
    for _ in 0..2 {
        assert_eq!(transcript(&waits.until_ready().await), ONE);
    }
    // Silence between messages is nobody's business.
    slow.query("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(slow.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended_and_its_server_with_it() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "stall_timeout = \"400ms\"", capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut other = gate.wire(&estate.umbrella).await;
    let mut deaf = gate.wire(&estate.stark).await;
    deaf.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")).await;
    assert_eq!(other.query("SELECT 1").await, ONE);
    drop(deaf);
    // One that asks and asks, and never reads what the gate itself answers.
    let mut deaf = gate.wire(&estate.stark).await;
    let flood = async {
        let many = [sync().repeat(2000), query("LISTEN x").repeat(2000)].concat();
        while deaf.try_send(&many).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(15), flood).await.expect("the gate ends it");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 200_000, "the gate holds {kib} KiB");
    assert_eq!(other.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_ended() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "login_timeout = \"500ms\"", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let first = startup(&[("user", "app"), ("database", "app")]);
    for bytes in [
        Vec::new(),
        first[..7].to_vec(),
        first.clone(),
        ssl_request(),
        [first, password("x")[..3].to_vec()].concat(),
    ] {
        let started = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let reading = socket.read_to_end(&mut rest);
        let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it is ended");
        assert!(started.elapsed() > Duration::from_millis(300));
    }
    let mut wire = gate.wire(&estate.stark).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(wire.query("SELECT 1").await, ONE, "who is in stays in");
}

#[tokio::test]
async fn thousands_of_garbage_connections_leave_the_others_alone() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut bystander = gate.wire(&estate.stark).await;
    let port = gate.port;
    let garbage = tokio::spawn(async move {
        let sending = futures::stream::iter(0..10_000_u64).map(|seed| async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let bytes: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
            send_and_cut(port, &bytes).await;
        });
        sending.buffer_unordered(200).collect::<Vec<()>>().await;
    });
    let mut answered = 0;
    while !garbage.is_finished() {
        assert_eq!(bystander.query("SELECT 1").await, ONE);
        answered += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    garbage.await.unwrap();
    assert!(answered > 20, "{answered} queries while garbage came in");
    assert_eq!(gate.wire(&estate.umbrella).await.query("SELECT 1").await, ONE);
}
