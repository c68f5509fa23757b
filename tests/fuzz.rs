//! Seeded fuzz at a live gate: random bytes and valid sessions with mistakes in them. The process
//! lives on, tells nobody anything of others, and has all its places afterwards.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{
    bind, cancel_request, close, copy_data, copy_done, copy_fail, describe, execute, flush, frame,
    gss_request, parse, password, query, ssl_request, startup, startup_version, sync, terminate,
};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::{PATIENCE, eventually};

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

/// Start-up packets of every version, with options of the protocol that nobody knows, twice or
/// broken off; what would be a session goes on as one.
fn beginning(random: &mut fastrand::Rng, token: &str) -> Vec<u8> {
    let letters = ["a", "_pq_", ".", "é", "", "x", "command_queue"];
    let mut word =
        || (0..random.usize(..3)).map(|_| letters[random.usize(..7)]).collect::<String>();
    let own: Vec<(String, String)> = (0..4).map(|_| (format!("_pq_.{}", word()), word())).collect();
    let mut parameters = vec![("user", "app"), ("database", "app")];
    let count = random.usize(..5);
    parameters.extend(own.iter().take(count).map(|(name, value)| (name.as_str(), value.as_str())));
    if random.u8(..6) == 0 {
        parameters.push(parameters[random.usize(..parameters.len())]);
    }
    random.shuffle(&mut parameters);
    let major = [3, 3, 3, 3, 2, 4, random.u16(..)][random.usize(..7)];
    let minor = [0, 1, 2, 2, 3, 9999, random.u16(..)][random.usize(..7)];
    let mut bytes = startup_version(major, minor, &parameters);
    for _ in 0..[0, 0, 0, 1, 3][random.usize(..5)] {
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
    }
    [bytes, password(token), query("SELECT 1"), terminate()].concat()
}

/// The names in a NegotiateProtocolVersion message, if it is whole.
fn negotiated(body: &[u8]) -> Option<(u32, Vec<&[u8]>)> {
    let (version, rest) = body.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let mut names: Vec<&[u8]> = rest.split(|byte| *byte == 0).collect();
    let whole = names.pop()?.is_empty() && names.len() == u32::from_be_bytes(*count) as usize;
    whole.then_some((u32::from_be_bytes(*version), names))
}

#[tokio::test]
async fn beginnings_of_every_version_are_negotiated_or_end() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "login_timeout = \"2s\"", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let (port, token) = (gate.port, estate.stark.token.as_str());
    let mut answers = [0; 3];
    for seed in 0..SESSIONS / 2 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = beginning(&mut random, token);
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // It may hang up in the middle.
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let mut heard = Vec::new();
        let hearing = socket.read_to_end(&mut heard);
        let ended = tokio::time::timeout(PATIENCE, hearing).await;
        assert!(ended.is_ok(), "seed {seed}: it does not end");
        answers[match heard.first() {
            Some(b'v') => {
                let length = u32::from_be_bytes(heard[1..5].try_into().unwrap()) as usize;
                let (version, names) = negotiated(&heard[5..=length]).expect("a whole message");
                assert!((0x3_0000..=0x3_0002).contains(&version), "seed {seed}: {version:x}");
                let own = names.iter().all(|name| name.starts_with(b"_pq_."));
                assert!(own, "seed {seed}: {names:?}");
                0
            }
            Some(b'R') => 1,
            Some(b'E') | None => 2,
            other => panic!("seed {seed}: {other:?}"),
        }] += 1;
    }
    assert!(answers.iter().all(|count| *count > 10), "{answers:?}");
    let log = gate.log();
    assert!(!log.contains("panicked"), "something panicked:\n{log}");
    gate.connect(&estate.stark).await;
}
