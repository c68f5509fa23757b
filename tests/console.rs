//! The console and the HTTP endpoints beside live traffic: what they show is what is going on.

mod acts;
mod figures;
mod tools;

use std::collections::BTreeMap;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::cluster::{shared, superuser, template};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http::get;
use crate::harness::messages::{Frame, extended, query, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

pub type Row = BTreeMap<String, String>;

/// The verifier of [`LOGIN_PASSWORD`].
pub async fn verifier() -> String {
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

pub async fn gate(tweaks: &Tweaks<'_>) -> (Estate, Gate) {
    let estate = Estate::new().await;
    let verifier = verifier().await;
    let more = format!(
        "[console.users]\nadmin = \"{verifier}\"\n\n[http]\naddress = \"127.0.0.1:$HTTP\"\n{}",
        tweaks.more
    );
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..tweaks.clone() })).await;
    (estate, gate)
}

pub const ADMIN: Login<'static> =
    Login { user: "admin", dbname: "tenantgate", password: LOGIN_PASSWORD, more: &[] };

pub async fn show(console: &mut Wire, what: &str) -> Vec<Row> {
    console.send(query(&format!("SHOW {what}"))).await;
    rows(&console.until_ready().await)
}

fn rows(frames: &[Frame]) -> Vec<Row> {
    let names = columns(frames.iter().find(|frame| frame.tag == b'T').expect("a description"));
    let found = frames.iter().filter(|frame| frame.tag == b'D');
    let cells = found.map(|row| row.columns().into_iter().map(Option::unwrap_or_default));
    cells.map(|cells| names.iter().cloned().zip(cells).collect()).collect()
}

fn columns(description: &Frame) -> Vec<String> {
    let mut rest = &description.body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 19..];
    }
    names
}

fn one<'rows>(rows: &'rows [Row], column: &str, value: &str) -> &'rows Row {
    let found: Vec<&Row> = rows.iter().filter(|row| row[column] == value).collect();
    assert_eq!(found.len(), 1, "{column} = {value} in {rows:?}");
    found[0]
}

#[tokio::test]
async fn the_console_shows_what_is_going_on() {
    let tier = "queries_at_once = 9\nqueries_per_second = 1000";
    let (estate, gate) = gate(&Tweaks { capacity: 2, tier, ..Tweaks::default() }).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let more = [("application_name", "billing")];
    let login = Login { user: "app", dbname: "app", password: &estate.stark.token, more: &more };
    let mut active = Wire::login(gate.port, &login).await;
    let mut holds = gate.wire(&estate.acme).await;
    let mut waits = gate.wire(&estate.umbrella).await;
    active.query("BEGIN").await;
    holds.query("BEGIN").await;
    waits.send(query("SELECT 1")).await;
    let waiting = eventually("one waits", async || {
        let clients = show(&mut console, "CLIENTS").await;
        clients.into_iter().find(|row| row["state"] == "waiting")
    })
    .await;
    assert_eq!(waiting["tenant"], estate.umbrella.id);
    let clients = show(&mut console, "CLIENTS").await;
    assert_eq!(clients.len(), 3);
    let client = one(&clients, "tenant", &estate.stark.id);
    assert_eq!((client["state"].as_str(), client["user"].as_str()), ("active", "app"));
    assert_eq!(client["application_name"], "billing");
    let servers = show(&mut console, "SERVERS").await;
    assert_eq!(servers.iter().filter(|row| row["state"] == "active").count(), 2, "{servers:?}");
    let pools = show(&mut console, "POOLS").await;
    let pool = one(&pools, "user", &format!("tg_{}", estate.umbrella.id));
    assert_eq!((pool["cl_waiting"].as_str(), pool["sv_active"].as_str()), ("1", "0"));
    assert_eq!(one(&pools, "user", "tg_login")["sv_active"], "1");
    let tenants = show(&mut console, "TENANTS").await;
    assert_eq!(tenants.len(), 5);
    let tenant = one(&tenants, "tenant", &estate.stark.id);
    assert_eq!((tenant["isolation"].as_str(), tenant["level"].as_str()), ("schema", "plain"));
    assert_eq!((tenant["clients"].as_str(), tenant["state"].as_str()), ("1", "active"));
    let budgets = show(&mut console, "BUDGETS").await;
    assert!(budgets.iter().any(|row| row.values().any(|cell| cell == "9")), "{budgets:?}");
    let version = show(&mut console, "VERSION").await;
    assert!(version[0].values().any(|cell| cell.contains(env!("CARGO_PKG_VERSION"))));
    for secret in [estate.stark.token.as_str(), LOGIN_PASSWORD] {
        for what in ["TENANTS", "POOLS", "CLIENTS", "SERVERS", "BUDGETS", "CONFIG", "LISTS"] {
            let shown = format!("{:?}", show(&mut console, what).await);
            assert!(!shown.contains(secret), "SHOW {what} tells a secret");
        }
    }
    assert_eq!(active.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&waits.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
    // The extended protocol works as well, and nonsense is an error that ends nothing.
    let said = console.ask(extended("SHOW VERSION", &[])).await;
    assert!(said.starts_with("1 2 T D(") && said.ends_with("Z(I)"), "{said}");
    assert!(console.query("SELECT * FROM notes").await.starts_with("E("));
    assert!(console.query("SHOW NOTHING").await.starts_with("E("));
    assert_eq!(show(&mut console, "VERSION").await.len(), 1);
}

#[tokio::test]
async fn the_console_lets_in_its_own_users_only() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    for (user, password) in [
        ("admin", "wrong"),
        ("nobody", LOGIN_PASSWORD),
        ("app", estate.stark.token.as_str()),
        ("", LOGIN_PASSWORD),
    ] {
        let mut wire = Wire::connect(gate.port).await;
        let first = [("user", user), ("database", "tenantgate")];
        wire.send(crate::harness::messages::startup(&first)).await;
        let mut frames = Vec::new();
        let mut scram = postgres_protocol::authentication::sasl::ScramSha256::new(
            password.as_bytes(),
            postgres_protocol::authentication::sasl::ChannelBinding::unsupported(),
        );
        while let Some(frame) = wire.maybe_frame().await {
            let kind = frame.body.first_chunk::<4>().map(|kind| u32::from_be_bytes(*kind));
            match (frame.tag, kind) {
                (b'R', Some(10)) => {
                    let text = scram.message();
                    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
                    let body = [b"SCRAM-SHA-256\0", &length[..], text].concat();
                    wire.send(crate::harness::messages::frame(b'p', &body)).await;
                }
                (b'R', Some(11)) => {
                    scram.update(&frame.body[4..]).unwrap();
                    wire.send(crate::harness::messages::frame(b'p', scram.message())).await;
                }
                _ => {}
            }
            frames.push(frame);
        }
        let said = transcript(&frames);
        assert!(said.ends_with("E(28P01)") || said.ends_with("E(28000)"), "{user}: {said}");
    }
    let mut console = Wire::login(gate.port, &ADMIN).await;
    assert_eq!(show(&mut console, "VERSION").await.len(), 1);
}

#[tokio::test]
async fn psql_talks_to_the_console() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let _client = gate.wire(&estate.stark).await;
    let url = format!("host=127.0.0.1 port={} user=admin dbname=tenantgate", gate.port);
    let output = Command::new(template().binaries().program("psql"))
        .args(["-X", "-A", "-t", "-c", "SHOW CLIENTS", &url])
        .env("PGPASSWORD", LOGIN_PASSWORD)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&estate.stark.id), "{said}");
}

#[tokio::test]
async fn metrics_and_health_are_told_over_http() {
    let (estate, mut gate) = gate(&Tweaks::default()).await;
    assert_eq!(get(gate.http, "/live").await.0, 200);
    assert_eq!(get(gate.http, "/ready").await.0, 200);
    assert_eq!(get(gate.http, "/nothing").await.0, 404);
    let mut wire = gate.wire(&estate.stark).await;
    for _ in 0..10 {
        wire.query("SELECT 1").await;
    }
    wire.query("LISTEN x").await;
    let id = estate.stark.id.clone();
    for line in [
        "tenantgate_clients 1".to_owned(),
        "tenantgate_logins_total 1".to_owned(),
        "tenantgate_catalog_tenants 5".to_owned(),
        "tenantgate_refusals_total{name=\"not_supported\",side=\"client\"} 1".to_owned(),
        format!("tenantgate_tenant_requests_total{{tenant=\"{id}\"}} 10"),
    ] {
        eventually(&line, async || {
            let (_, body) = get(gate.http, "/metrics").await;
            body.lines().any(|told| told == line).then_some(())
        })
        .await;
    }
    wire.query("BEGIN").await;
    gate.terminate();
    eventually("it is not ready while it drains", async || {
        match TcpStream::connect(("127.0.0.1", gate.http)).await {
            Ok(_) => (get(gate.http, "/ready").await.0 == 503).then_some(()),
            Err(_) => Some(()),
        }
    })
    .await;
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(gate.exit().await.code(), Some(0));
}
