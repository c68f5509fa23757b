//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: right and wrong passwords through drivers, and what a
//! stranger can learn.

use std::collections::BTreeSet;

use super::{PASSWORD, psql, psycopg, scram, script, secured};
use crate::harness::gate::Gate;
use crate::harness::messages::{self, Frame, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

const RULES: &str = "rules = [{ method = \"scram-sha-256\" }]\n";

const NOTE: &str = "SELECT body FROM notes WHERE id = 1";

#[tokio::test]
async fn a_password_is_proved_without_tls_and_never_sent() {
    let estate = Estate::new().await;
    let (stark, acme) = (&estate.stark.id, &estate.acme.id);
    let more = [scram(stark, "app", PASSWORD), scram(acme, "app", "other")].concat();
    let listen = format!("tls = \"disable\"\n{RULES}");
    let tweaks = Tweaks { listen: &listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let conninfo = |user: &str, password: &str| {
        format!(
            "host=127.0.0.1 port={} user='{user}' dbname=app password='{password}' \
             sslmode=disable",
            gate.port
        )
    };
    let right = conninfo(&format!("app.{stark}"), PASSWORD);
    assert_eq!(psql(&right, NOTE).await.as_deref(), Ok("note 1 of stark"));
    let other = conninfo(&format!("app.{acme}"), "other");
    assert_eq!(psql(&other, NOTE).await.as_deref(), Ok("note 1 of acme"));
    if let Some(said) = psycopg(&right, NOTE).await {
        assert_eq!(said.as_deref(), Ok("note 1 of stark"));
    }
    let url = format!("postgres://app.{stark}:correct%20horse@127.0.0.1:{}/app", gate.port);
    let node = "const { Client } = require('pg'); (async () => { \
        const c = new Client(process.argv[1]); await c.connect(); \
        const r = await c.query(process.argv[2]); console.log(r.rows[0].body); await c.end(); \
        })().catch(e => { console.error(e.code, e.message); process.exit(1); })";
    if let Some(said) = script("node", node, &[&url, NOTE]).await {
        assert_eq!(said.as_deref(), Ok("note 1 of stark"));
    }
    for (user, password) in [
        (format!("app.{stark}"), "other"),
        (format!("app.{acme}"), PASSWORD),
        ("app".to_owned(), PASSWORD),
        (format!("nobody.{stark}"), PASSWORD),
        ("app.nobody".to_owned(), PASSWORD),
    ] {
        let said = psql(&conninfo(&user, password), NOTE).await.unwrap_err();
        assert!(said.ends_with("FATAL:  authentication failed"), "{user}: {said}");
    }
    // A token is no password where passwords are proved.
    let said = psql(&conninfo(&format!("app.{stark}"), &estate.stark.token), NOTE).await;
    assert!(said.unwrap_err().ends_with("FATAL:  authentication failed"));
    let (log, verifier) =
        (gate.log(), more.split('"').find(|it| it.starts_with("SCRAM-")).unwrap());
    for secret in [PASSWORD, verifier] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    assert!(log.contains("credential=\"scram app\""), "{log}");
}

#[tokio::test]
async fn the_channel_is_bound_where_the_client_requires_it() {
    let estate = Estate::new().await;
    let stark = &estate.stark.id;
    let listen = format!("tls = \"allow\"\n{RULES}");
    let (_, gate) = secured(&estate, &listen, &scram(stark, "only", PASSWORD)).await;
    let conninfo = |more: &str| {
        let (port, folder) = (gate.port, gate.folder().display().to_string());
        format!(
            "host=gate.test hostaddr=127.0.0.1 port={port} user=only dbname=app \
             password='{PASSWORD}' sslrootcert='{folder}/ca.crt' {more}"
        )
    };
    for more in [
        "sslmode=verify-full channel_binding=require",
        "sslmode=verify-full channel_binding=disable",
        "sslmode=disable",
    ] {
        let said = psql(&conninfo(more), NOTE).await;
        assert_eq!(said.as_deref(), Ok("note 1 of stark"), "{more}");
        if let Some(said) = psycopg(&conninfo(more), NOTE).await {
            assert_eq!(said.as_deref(), Ok("note 1 of stark"), "{more}");
        }
    }
    let node = "const { Client } = require('pg'); const fs = require('fs'); (async () => { \
        const [port, ca, sql] = process.argv.slice(1); const c = new Client({ host: '127.0.0.1', \
          port, user: 'only', database: 'app', password: 'correct horse', \
          enableChannelBinding: true, \
          ssl: { ca: fs.readFileSync(ca), servername: 'gate.test', \
                 checkServerIdentity: () => undefined } }); \
        await c.connect(); const r = await c.query(sql); console.log(r.rows[0].body); \
        await c.end(); \
        })().catch(e => { console.error(e.code, e.message); process.exit(1); })";
    let ca = gate.folder().join("ca.crt").display().to_string();
    if let Some(said) = script("node", node, &[&gate.port.to_string(), &ca, NOTE]).await {
        assert_eq!(said.as_deref(), Ok("note 1 of stark"));
    }
    // Without TLS there is nothing to bind, and the client says so.
    let said = psql(&conninfo("sslmode=disable channel_binding=require"), NOTE).await;
    assert!(said.unwrap_err().contains("channel binding"));
}

/// Sends one message of the exchange and gives what comes, transcribed and whole.
async fn exchange(wire: &mut Wire, message: &[u8]) -> Frame {
    wire.send(messages::frame(b'p', message)).await;
    wire.frame().await
}

fn initial(mechanism: &str, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [mechanism.as_bytes(), b"\0", &length, text.as_bytes()].concat()
}

async fn knock(gate: &Gate, user: &str) -> (Wire, Frame) {
    let mut wire = Wire::connect(gate.port).await;
    wire.send(messages::startup(&[("user", user), ("database", "app")])).await;
    let asked = wire.frame().await;
    (wire, asked)
}

#[tokio::test]
async fn users_who_do_not_exist_are_met_like_those_who_do() {
    let estate = Estate::new().await;
    let stark = &estate.stark.id;
    let off = format!(
        "[tenants.off_{0}]\nisolation = \"row\"\ncluster = \"main\"\nstate = \"disabled\"\n\
         schema = \"app\"\nrole = \"app_rw\"\n{1}",
        stark,
        scram(&format!("off_{stark}"), "app", PASSWORD)
    );
    let more = [scram(stark, "app", PASSWORD), off].concat();
    let listen = format!("tls = \"disable\"\n{RULES}");
    let tweaks = Tweaks { listen: &listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut salts = BTreeSet::new();
    let off = format!("app.off_{stark}");
    let users = [&format!("app.{stark}"), "app.nobody", "nobody", &off];
    for user in users {
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            let (mut wire, asked) = knock(&gate, user).await;
            assert_eq!(asked.body, b"\0\0\0\x0aSCRAM-SHA-256\0\0", "{user}");
            let answer = exchange(&mut wire, &initial("SCRAM-SHA-256", "n,,n=,r=abcdef")).await;
            let text = String::from_utf8(answer.body[4..].to_vec()).unwrap();
            let [nonce, salt, count] = text.split(',').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            assert!(nonce.starts_with("r=abcdef") && nonce.len() == 8 + 24, "{nonce}");
            assert_eq!((salt.len(), count), (2 + 24, "i=4096"), "{user}");
            seen.insert(salt.to_owned());
            let last = format!("c=biws,{nonce},p={}=", "A".repeat(43));
            let verdict = exchange(&mut wire, last.as_bytes()).await;
            assert_eq!(transcript(&[verdict]), "E(28P01)", "{user}");
            assert_eq!(wire.until_closed().await, "");
        }
        assert_eq!(seen.len(), 1, "{user}: the salt stays");
        salts.extend(seen);
    }
    assert_eq!(salts.len(), users.len());
    // Right passwords of tenants that may not log in look like wrong ones, to the last frame.
    let login = |user| Login { user, dbname: "app", password: PASSWORD, more: &[] };
    let frames = Wire::connect(gate.port).await.authenticate(&login(&off)).await;
    assert_eq!(transcript(&frames), "R R E(28P01)");
    gate.logs("tenant is disabled").await;
    let log = gate.log();
    assert!(log.contains("wrong password") && log.contains("unknown"), "{log}");
}

#[tokio::test]
async fn messages_out_of_turn_end_the_exchange() {
    let estate = Estate::new().await;
    let more = scram(&estate.stark.id, "app", PASSWORD);
    let listen = format!("tls = \"disable\"\n{RULES}");
    let tweaks = Tweaks { listen: &listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let first = initial("SCRAM-SHA-256", "n,,n=,r=abcdef");
    let sent: [(&str, Vec<u8>); 8] = [
        ("another start-up packet", messages::startup(&[("user", "app")])),
        ("a query", messages::query("SELECT 1")),
        ("an unknown mechanism", messages::frame(b'p', &initial("MD5", "x"))),
        (
            "the mechanism that needs TLS",
            messages::frame(
                b'p',
                &initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc"),
            ),
        ),
        ("no message", messages::frame(b'p', b"")),
        ("a length that lies", messages::frame(b'p', b"SCRAM-SHA-256\0\0\0\x01\0n,,n=,r=abc")),
        ("too much", messages::frame(b'p', &initial("SCRAM-SHA-256", &"n".repeat(4000)))),
        ("an identity to act as", messages::frame(b'p', &initial("SCRAM-SHA-256", "n,a=x,n=,r=a"))),
    ];
    for (name, bytes) in sent {
        let (mut wire, _) = knock(&gate, "app").await;
        wire.send(bytes).await;
        assert_eq!(wire.until_closed().await, "E(08P01)", "{name}");
    }
    // CVE-2026-107350: a start-up packet in mid-exchange names nobody anew.
    let (mut wire, _) = knock(&gate, "nobody").await;
    exchange(&mut wire, &first).await;
    wire.send(messages::startup(&[("user", "app"), ("database", "app")])).await;
    assert_eq!(wire.until_closed().await, "E(08P01)");
}
