//! Seeded fuzz at a live gate: random bytes and valid sessions with mistakes in them. The process
//! lives on, tells nobody anything of others, and has all its places afterwards.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    bind, cancel_request, close, copy_data, copy_done, copy_fail, describe, execute, flush, frame,
    gss_request, parse, password, query, ssl_request, startup, sync, terminate,
};
use crate::harness::tenants::{Estate, Tweaks};

/// Sessions in one run; the seed of each is its number, so a failure names itself.
const SESSIONS: u64 = 600;

const TEXTS: [&str; 16] = [
    "SELECT 1",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SELECT 1/0",
    "SELECT body FROM notes",
    "INSERT INTO notes (id, body) VALUES (860, 'x')",
    "COPY notes TO STDOUT",
    "COPY notes FROM STDIN",
    "SET TimeZone = 'Asia/Tokyo'",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "LISTEN x",
    "SELECT 'unclosed",
    "SELECT $1::text; SELECT 2",
];

fn message(random: &mut fastrand::Rng) -> Vec<u8> {
    let text = TEXTS[random.usize(..TEXTS.len())];
    let name = ["", "a", "b"][random.usize(..3)];
    match random.u8(..22) {
        0..4 => query(text),
        4..7 => parse(name, text),
        7..9 => bind(name, name, &[]),
        9 => bind(name, name, &[Some("v")]),
        10 => describe(b'S', name),
        11 => describe(b'P', name),
        12 => execute(name, random.u32(..3)),
        13 => close(if random.bool() { b'S' } else { b'P' }, name),
        14..17 => sync(),
        17 => flush(),
        18 => copy_data(b"861\tx\n"),
        19 => [copy_done(), copy_fail("x")][random.usize(..2)].clone(),
        20 => frame(random.u8(..), &vec![0; random.usize(..9)]),
        _ => [terminate(), ssl_request(), gss_request(), cancel_request(1, 2)][random.usize(..4)]
            .clone(),
    }
}

fn session(random: &mut fastrand::Rng, token: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match random.u8(..10) {
        0 => bytes.extend((0..random.usize(..300)).map(|_| random.u8(..))),
        first => {
            let mut names = vec![("user", "app"), ("database", "app")];
            if first == 1 {
                names.push(("options", "-c DateStyle=German"));
            }
            bytes.extend([startup(&names), password(token)].concat());
        }
    }
    for _ in 0..random.usize(..30) {
        bytes.extend(message(random));
    }
    // Most sessions are right except for what the server thinks of them.
    for _ in 0..[0, 0, 0, 1, 4][random.usize(..5)] {
        let at = random.usize(..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match random.u8(..4) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes.insert(at, random.u8(..)),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Sends in pieces, reads what comes, hangs up. Returns what came.
async fn play(port: u16, seed: u64, token: &str) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let bytes = session(&mut random, token);
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut from, mut into) = socket.split();
    let mut rest = &bytes[..];
    let sending = async {
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
            if into.write_all(piece).await.is_err() {
                return;
            }
            rest = after;
            tokio::task::yield_now().await;
        }
    };
    let mut heard = Vec::new();
    let hearing = from.read_to_end(&mut heard);
    let talk = async { tokio::join!(sending, hearing) };
    let _ = tokio::time::timeout(Duration::from_millis(150), talk).await;
    heard
}

#[tokio::test]
async fn sessions_with_mistakes_in_them_leave_the_gate_whole() {
    let estate = Estate::new().await;
    let tweaks = Tweaks {
        gate: "stall_timeout = \"1s\"\nlogin_timeout = \"2s\"",
        capacity: 3,
        tier: "clients = 50\nqueries_at_once = 3\nbudget_wait = \"10s\"\nquery_time = \"5s\"",
        ..Tweaks::default()
    };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let (port, token) = (gate.port, estate.stark.token.as_str());
    let foreign = estate.acme.id.as_bytes();
    let sessions = futures::stream::iter(0..SESSIONS).map(|seed| async move {
        let heard = play(port, seed, token).await;
        let leak = heard.windows(foreign.len()).any(|bytes| bytes == foreign);
        assert!(!leak, "seed {seed} heard of another tenant");
    });
    sessions.buffer_unordered(12).collect::<Vec<()>>().await;
    let log = gate.log();
    assert!(!log.contains("panicked"), "something panicked:\n{log}");
    let mut wires = Vec::new();
    for _ in 0..50 {
        let wire = eventually("a client's place is free", async || {
            let client = gate.try_connect(&estate.stark).await.ok()?;
            client.batch_execute("SELECT 1").await.is_ok().then_some(client)
        })
        .await;
        wires.push(wire);
    }
    for wire in &wires[..3] {
        wire.batch_execute("BEGIN").await.expect("all of the capacity is to be had");
    }
    for wire in &wires[..3] {
        wire.batch_execute("ROLLBACK").await.unwrap();
    }
    let id = &estate.stark.id;
    let admin = superuser(shared().await, "app").await;
    let sql = format!("SELECT count(*) FROM {id}.notes WHERE body <> 'x'");
    let kept: i64 = admin.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(kept, 3);
}
