//! Several workers: tenants spread over them share one capacity in order of arrival, clean servers
//! go where they are needed, and what concerns a session finds it wherever it lives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tenantgate::demo::{Cluster, Plan};
use tokio::task::JoinSet;

use super::{login_of, runs, served};
use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::{own, shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, assert_cancelled, query, transcript};
use crate::harness::tenants::{Estate, Tweaks, jwt};
use crate::harness::unique;
use crate::harness::wire::{Login, Wire, cancel};

pub(super) const WORKERS: usize = 4;
const PID: &str = "SELECT pg_backend_pid()";
const NOTE: &str = "SELECT body FROM notes";

/// A gate with four workers and row tenants that are known to live on each of them.
pub(super) struct Spread {
    pub gate: Gate,
    settings: String,
    /// Ids of two tenants for each worker. Each has one note, which is its id.
    pub tenants: Vec<[String; 2]>,
}

impl Spread {
    pub async fn new(tweaks: &Tweaks<'_>) -> Self {
        Self::within(shared().await, tweaks, |text| text, &[]).await
    }

    async fn within(
        cluster: &Cluster,
        tweaks: &Tweaks<'_>,
        edit: impl Fn(String) -> String,
        files: &[(&str, &str)],
    ) -> Self {
        let (estate, mark) = (Estate::within(cluster).await, unique());
        let tenants: Vec<[String; 2]> = (0..WORKERS)
            .map(|worker| [id_on(worker, "a", &mark), id_on(worker, "b", &mark)])
            .collect();
        let admin = superuser(cluster, "app").await;
        let mut more = tweaks.more.to_owned();
        for id in tenants.iter().flatten() {
            let note = format!("INSERT INTO app.notes VALUES ('{id}', 1, '{id}')");
            admin.batch_execute(&note).await.unwrap();
            more.push_str(&format!(
                "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\ntier = \"free\"\n\
                 schema = \"app\"\nrole = \"app_rw\"\n"
            ));
        }
        let gate = format!("workers = {WORKERS}\n{}", tweaks.gate);
        let tweaks = Tweaks { gate: &gate, more: &more, ..tweaks.clone() };
        let settings = edit(estate.settings(&tweaks));
        let gate = Gate::start_with(&settings, files).await;
        Self { gate, settings, tenants }
    }

    /// A session on a worker.
    pub async fn wire(&self, worker: usize) -> Wire {
        self.wire_of(&self.tenants[worker][0]).await
    }

    async fn wire_of(&self, id: &str) -> Wire {
        let token = jwt(id, 3600);
        let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
        Wire::login(self.gate.port, &login).await
    }

    async fn reload(&self, from: &str, to: &str) {
        self.gate.reload_with(&self.settings.replace(from, to)).await;
    }
}

/// The gate's own rule of who lives where: FNV-1a, as in `gate/door/mod.rs`.
fn worker_of(id: &str) -> usize {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % WORKERS as u64) as usize
}

fn id_on(worker: usize, name: &str, mark: &str) -> String {
    let mut names = (0..).map(|number| format!("{name}{number}_{mark}"));
    names.find(|id| worker_of(id) == worker).unwrap()
}

async fn pid(wire: &mut Wire) -> String {
    wire.query(PID).await
}

#[tokio::test]
async fn a_clean_server_goes_from_worker_to_worker_without_a_reconnect() {
    let spread = Spread::new(&Tweaks { capacity: 1, ..Tweaks::default() }).await;
    let mut wires = Vec::new();
    for ids in &spread.tenants {
        wires.push((spread.wire_of(&ids[0]).await, ids[0].clone()));
        wires.push((spread.wire_of(&ids[1]).await, ids[1].clone()));
    }
    let mut pids = BTreeSet::new();
    for turn in 0..40 {
        let at = (turn * 3) % 8;
        let (wire, id) = &mut wires[at];
        pids.insert(pid(wire).await);
        assert_eq!(wire.query(NOTE).await, format!("T D({id}) C(SELECT 1) Z(I)"));
        // Its own settings follow it, and nobody else's are left.
        let own = if turn < 8 { "4MB".to_owned() } else { format!("{}kB", 100 + at) };
        assert_eq!(wire.query("SHOW work_mem").await, format!("T D({own}) C(SHOW) Z(I)"));
        let set = format!("SET work_mem TO '{}kB'", 100 + at);
        assert_eq!(wire.query(&set).await, "C(SET) Z(I)");
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    assert!(!spread.gate.log().contains("a server was lost"));
}

#[tokio::test]
async fn a_server_moves_with_its_tls_session() {
    let authority = Authority::new();
    let Identity { certificate, key } = authority.server(&["127.0.0.1"]);
    let cluster = own(&Plan { tls: Some((certificate, key)), ..Plan::default() }).await;
    let tls = |text: String| text.replace("sslmode=disable", "sslmode=require");
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let spread = Spread::within(&cluster, &tweaks, tls, &[]).await;
    let admin = superuser(&cluster, "app").await;
    let mut pids = BTreeSet::new();
    for turn in 0..12 {
        let mut wire = spread.wire(turn % WORKERS).await;
        pids.insert(pid(&mut wire).await);
        wire.send(query("SELECT repeat('x', 300000)")).await;
        assert_eq!(wire.until_ready().await.swap_remove(1).body.len(), 300_006);
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE usename = 'tg_login' AND ssl";
    assert_eq!(admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_client_with_tls_is_served_on_every_worker() {
    let authority = Authority::new();
    let Identity { certificate, key } = authority.server(&["gate.test"]);
    let listen = "tls = \"require\"\ncertificate = \"gate.crt\"\nkey = \"gate.key\"";
    let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
    let tweaks = Tweaks { listen, gate: "doors = 3", ..Tweaks::default() };
    let spread = Spread::within(shared().await, &tweaks, |text| text, &files).await;
    let config: Arc<ClientConfig> = authority.client_config();
    let mut wires = Vec::new();
    for ids in &spread.tenants {
        for id in ids {
            let port = spread.gate.port;
            let mut wire = Wire::connect_tls(port, config.clone(), "gate.test").await.unwrap();
            let token = jwt(id, 60);
            let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
            let frames = wire.authenticate(&login).await;
            assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
            wires.push((wire, id));
        }
    }
    for (wire, id) in &mut wires {
        wire.send(query("SELECT repeat('x', 3000000)")).await;
        assert_eq!(wire.until_ready().await.swap_remove(1).body.len(), 3_000_006);
        assert_eq!(wire.query(NOTE).await, format!("T D({id}) C(SELECT 1) Z(I)"));
    }
}

#[tokio::test]
async fn who_waits_longest_is_served_first_on_whichever_worker() {
    let spread = Spread::new(&Tweaks { capacity: 1, ..Tweaks::default() }).await;
    let mut holds = spread.wire_of(&spread.tenants[0][1]).await;
    let mut waiting = Vec::new();
    for number in 0..7 {
        // Neighbours in line live on different workers, one of them on the holder's. Each is of a
        // tenant that has had nothing yet.
        let at = number + number / 4;
        waiting.push(spread.wire_of(&spread.tenants[at % WORKERS][at / WORKERS]).await);
    }
    // What the logins took of the only server counts for a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(served(waiting, &mut holds).await, Vec::from_iter(0..7));
}

#[tokio::test]
async fn nobody_starves_beside_a_worker_that_is_always_busy() {
    for capacity in [1, 2] {
        let spread = Spread::new(&Tweaks { capacity, ..Tweaks::default() }).await;
        let mut busy = JoinSet::new();
        for _ in 0..6 {
            let mut wire = spread.wire(0).await;
            busy.spawn(async move {
                loop {
                    assert_eq!(wire.query("SELECT 1").await, ONE);
                }
            });
        }
        for worker in [1, 2, 3, 1] {
            let mut wire = spread.wire(worker).await;
            for _ in 0..10 {
                let asked = Instant::now();
                assert_eq!(wire.query("SELECT 1").await, ONE);
                let waited = asked.elapsed();
                assert!(waited < Duration::from_secs(2), "capacity {capacity}: {waited:?}");
            }
        }
        assert_eq!(busy.len(), 6);
        assert!(busy.try_join_next().is_none(), "the busy ones are served as well");
    }
}

#[tokio::test]
async fn thousands_who_wait_on_four_workers_are_all_served_in_bounded_time() {
    let spread = Spread::new(&Tweaks { capacity: 4, ..Tweaks::default() }).await;
    let mut holders = Vec::new();
    for worker in 0..WORKERS {
        let mut wire = spread.wire(worker).await;
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        holders.push(wire);
    }
    let mut waiting = Vec::new();
    for number in 0..crowd_size() {
        let id = &spread.tenants[number % WORKERS][number / WORKERS % 2];
        let mut wire = spread.wire_of(id).await;
        wire.send(query(NOTE)).await;
        waiting.push((wire, format!("T D({id}) C(SELECT 1) Z(I)")));
    }
    let (started, served) = (Instant::now(), waiting.len());
    for wire in &mut holders {
        assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    }
    let mut crowd = JoinSet::new();
    for (mut wire, expected) in waiting {
        crowd.spawn(async move { assert_eq!(transcript(&wire.until_ready().await), expected) });
    }
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    let took = started.elapsed();
    eprintln!("{served} served in {took:?}");
    assert!(took < Duration::from_secs(20), "{served} took {took:?}");
}

/// As many as this process and the gate have descriptors for.
fn crowd_size() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    (files.unwrap_or(1024) / 2).min(3000)
}

#[tokio::test]
async fn a_cancel_finds_its_session_on_every_worker() {
    let spread = Spread::new(&Tweaks { capacity: 5, ..Tweaks::default() }).await;
    let admin = superuser(shared().await, "app").await;
    let mut wires = Vec::new();
    for worker in 0..WORKERS {
        let mut wire = spread.wire(worker).await;
        let seconds = 7000 + worker;
        wire.send(query(&format!("SELECT pg_sleep({seconds})"))).await;
        runs(&admin, "tg_login", &format!("pg_sleep({seconds})"), true).await;
        wires.push(wire);
    }
    // The last first, and each its own.
    while let Some(mut wire) = wires.pop() {
        cancel(spread.gate.port, wire.pid, wire.secret).await;
        assert_cancelled(&wire.until_ready().await);
        assert_eq!(wire.query("SELECT 1").await, ONE);
        let seconds = 7000 + wires.len();
        runs(&admin, "tg_login", &format!("pg_sleep({seconds})"), false).await;
        let still: i64 = {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'
                AND query LIKE 'SELECT pg_sleep(700%' AND usename = 'tg_login'";
            admin.query_one(sql, &[]).await.unwrap().get(0)
        };
        assert_eq!(still, i64::try_from(wires.len()).unwrap());
    }
}

#[tokio::test]
async fn cancels_while_servers_change_workers_hit_nobody_else() {
    let spread = Spread::new(&Tweaks { capacity: 1, ..Tweaks::default() }).await;
    let mut victims = JoinSet::new();
    for worker in 0..2 {
        let (mut wire, port) = (spread.wire(worker).await, spread.gate.port);
        victims.spawn(async move {
            for turn in 0..60 {
                wire.send(query("SELECT pg_sleep(0.002), 1")).await;
                if turn % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                cancel(port, wire.pid, wire.secret).await;
                let said = transcript(&wire.until_ready().await);
                let fine = said.contains("E(57014)") || said == "T D(,1) C(SELECT 1) Z(I)";
                assert!(fine, "{said}");
            }
        });
    }
    let mut wires = Vec::new();
    for worker in 2..WORKERS {
        wires.push(spread.wire(worker).await);
    }
    while !victims.is_empty() {
        for wire in &mut wires {
            let said = wire.query("SELECT pg_sleep(0.001), 1").await;
            assert_eq!(said, "T D(,1) C(SELECT 1) Z(I)", "hit by another's cancel");
        }
        if let Some(ended) = victims.try_join_next() {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn sigterm_under_load_on_four_workers_cuts_no_transaction() {
    let mut spread = Spread::new(&Tweaks { capacity: 3, ..Tweaks::default() }).await;
    let mut clients = JoinSet::new();
    for number in 0..16 {
        let mut wire = spread.wire(number % WORKERS).await;
        clients.spawn(async move {
            let mut transactions = 0;
            loop {
                // The gate may have hung up: nothing is lost by that.
                let _ = wire.try_send(query("BEGIN")).await;
                let begun = transcript(&wire.until_ready().await);
                if begun != "C(BEGIN) Z(T)" {
                    assert!(["E(57P01)", ""].contains(&begun.as_str()), "BEGIN: {begun}");
                    return transactions;
                }
                assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
                assert_eq!(wire.query("SELECT pg_sleep(0.01)").await, "T D() C(SELECT 1) Z(T)");
                wire.send(query("COMMIT")).await;
                for tag in [b'C', b'Z'] {
                    assert_eq!(wire.frame().await.tag, tag, "cut before its end");
                }
                transactions += 1;
            }
        });
    }
    // Everybody is at it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    spread.gate.terminate();
    let mut transactions = 0;
    while let Some(ended) = clients.join_next().await {
        transactions += ended.unwrap();
    }
    assert!(transactions > 16, "{transactions}");
    assert_eq!(spread.gate.exit().await.code(), Some(0));
    spread.gate.logs("stopped").await;
    assert!(!spread.gate.log().contains("deadline is over"));
}

#[tokio::test]
async fn a_reload_resizes_the_capacity_of_all_workers() {
    let spread = Spread::new(&Tweaks { capacity: 3, ..Tweaks::default() }).await;
    let mut wires = Vec::new();
    for worker in 0..WORKERS {
        wires.push(spread.wire(worker).await);
    }
    for wire in &mut wires[..3] {
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    }
    wires[3].send(query("SELECT 1")).await;
    spread.reload("capacity = 3", "capacity = 4").await;
    assert_eq!(transcript(&wires[3].until_ready().await), ONE, "the new place");
    spread.reload("capacity = 3", "capacity = 1").await;
    // Three are held still; what comes back is closed until one is left.
    for wire in &mut wires[..2] {
        assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    }
    for at in [0, 1, 3] {
        wires[at].send(query("SELECT 1")).await;
    }
    for at in [0, 1, 3] {
        let answer = tokio::time::timeout(Duration::from_millis(200), wires[at].frame()).await;
        assert!(answer.is_err(), "{at} was served beside the one place");
    }
    assert_eq!(wires[2].query("COMMIT").await, "C(COMMIT) Z(I)");
    for at in [0, 1, 3] {
        assert_eq!(transcript(&wires[at].until_ready().await), ONE);
    }
    let mut pids = BTreeSet::new();
    for wire in &mut wires {
        pids.insert(pid(wire).await);
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn a_place_goes_to_another_login_on_another_worker() {
    let estate = Estate::new().await;
    let gate = format!("workers = {WORKERS}");
    let tweaks = Tweaks { capacity: 1, gate: &gate, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let admin = superuser(shared().await, "app").await;
    let tenants = [&estate.umbrella, &estate.initech, &estate.stark];
    for _ in 0..3 {
        for tenant in tenants {
            assert_eq!(gate.wire(tenant).await.query("SELECT 1").await, ONE);
        }
    }
    for tenant in tenants {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        let count: i64 = admin.query_one(sql, &[&login_of(tenant)]).await.unwrap().get(0);
        assert!(count <= 1, "{}", tenant.id);
    }
}

#[tokio::test]
async fn a_tenants_own_limit_of_servers_is_kept_and_what_it_gives_back_is_handed_on() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { tier: "servers = 1", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let admin = superuser(shared().await, "app").await;
    let login = login_of(&estate.stark);
    // Many who wait are looked at in one go when the first is done.
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let mut wire = gate.wire(&estate.stark).await;
        clients.spawn(async move {
            for _ in 0..5 {
                let said = wire.query("SELECT pg_sleep(0.02)").await;
                assert_eq!(said, "T D() C(SELECT 1) Z(I)");
            }
        });
    }
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE usename = $1 AND state = 'active' AND query LIKE '%pg_sleep%'";
    while !clients.is_empty() {
        let active: i64 = admin.query_one(sql, &[&login]).await.unwrap().get(0);
        assert!(active <= 1, "{active} at work");
        if let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
    }
    // One that is lost in a transaction is closed, and nothing else happens on the worker.
    let (mut holds, mut waits) = (gate.wire(&estate.stark).await, gate.wire(&estate.stark).await);
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    waits.send(query("SELECT 1")).await;
    drop(holds);
    assert_eq!(transcript(&waits.until_ready().await), ONE);
}
