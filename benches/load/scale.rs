//! Very many tenants in tables, of which a part is known and a smaller one at work over 100
//! servers: memory of each, the time to the first answer, look-ups, changes, and what it costs a
//! transaction that others are at work as well.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tenantgate::catalog::{NewToken, new_token};
use tenantgate::demo::Keeper;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::sheet::cell;
use crate::stage::{GatePlan, PASSWORD, Proxy, ROWS, run as run_sql};
use crate::{Bench, acting, proc, say};

/// Servers, and sessions of a service that are at work on them.
const SERVERS: usize = 100;
const SESSIONS: usize = 64;

/// The database with the tables, and the login that reads them.
const CONTROL: &str = "control";
const READER: &str = "catalog_reader";

/// Rows that are inserted in one transaction.
const BATCH: usize = 10_000;

/// How many look-ups and changes are timed one by one.
const TIMED: usize = 1000;
const CHANGES: usize = 20;

/// Longest wait for a gate that has just started, or for a change.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

/// So many tenants are in the tables, known, and at work.
#[derive(Clone, Copy)]
struct Size {
    tenants: usize,
    known: usize,
    active: usize,
}

/// The figures, in the order in which they are printed.
struct Figures(Vec<Vec<String>>);

impl Figures {
    fn put(&mut self, what: &str, figure: Option<f64>, unit: &str) {
        say(&format!("scale: {what}: {} {unit}", cell(figure)));
        self.0.push(vec![what.to_owned(), cell(figure), unit.to_owned()]);
    }

    fn percentiles(&mut self, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
            let at = (times.len() as f64 * part) as usize;
            let time = times.get(at.min(times.len().saturating_sub(1)));
            self.put(&format!("{what}, {name}"), time.map(|it| it.as_secs_f64() * 1e6), "µs");
        }
    }
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let size = match () {
        () if bench.is_smoke() => Size { tenants: 300, known: 100, active: 20 },
        () if bench.is_quick() => Size { tenants: 100_000, known: 10_000, active: 1000 },
        () => Size { tenants: 1_000_000, known: 100_000, active: 10_000 },
    };
    let header = ["what", "figure", "unit"].map(str::to_owned).to_vec();
    let mut figures = Figures(vec![header]);
    bench.runtime.block_on(measure(bench, size, &mut figures))?;
    let Size { tenants, known, active } = size;
    let title = format!("{tenants} tenants in tables, {known} known, {active} at work");
    bench.sheet.table(&title, 1, &figures.0);
    Ok(())
}

async fn measure(bench: &Bench, size: Size, figures: &mut Figures) -> Result<()> {
    let minted = || new_token().context("the system has no random numbers");
    let service = minted()?;
    install(bench).await?;
    let empty = gate(bench, size, &service)?;
    let base = proc::memory(empty.pid());
    drop(empty);
    let first = minted()?;
    fill(bench, size, &first).await?;

    let started = Instant::now();
    let gate = gate(bench, size, &service)?;
    first_answer(&gate, &first, started).await?;
    figures.put("from the start to a first answer", Some(started.elapsed().as_secs_f64()), "s");
    let rows = proc::memory(gate.pid());
    let each = |more: Option<u64>, less: Option<u64>, count: usize| {
        Some(more?.saturating_sub(less?) as f64 / count as f64)
    };
    figures.put("memory for each row in the tables", each(rows, base, size.tenants), "B");

    let one = login(&gate, &service).await?;
    let timed = TIMED.min(size.known / 2);
    let ids: Vec<String> = (1..=timed).map(tenant).collect();
    figures.percentiles("a choice of a tenant that is not known", choose_all(&one, &ids).await?);
    figures.percentiles("a choice of one that is", choose_all(&one, &ids).await?);

    let before = Instant::now();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS.min(size.active) {
        sessions.push(Arc::new(login(&gate, &service).await?));
    }
    bring_in(&sessions, timed + 1..size.known).await?;
    let rate = (size.known - timed - 1) as f64 / before.elapsed().as_secs_f64();
    figures.put(&format!("look-ups by {SESSIONS} sessions at once"), Some(rate), "/s");
    let known = proc::memory(gate.pid());
    figures.put("memory for each tenant that is known", each(known, rows, size.known), "B");
    figures.put("memory in all", known.map(|it| it as f64 / f64::from(1 << 20)), "MiB");
    figures.percentiles("from an UPDATE to its effect", changes(bench, &one, size).await?);

    let length = bench.length();
    let alone = work(&sessions, 1, length).await?;
    let many = work(&sessions, size.active, length).await?;
    figures.put("transactions by one tenant", Some(alone), "/s");
    figures.put(&format!("transactions by {} tenants", size.active), Some(many), "/s");
    figures.put("that is, of those by one", Some(many / alone * 100.0), "%");
    gate.end()
}

fn tenant(number: usize) -> String {
    format!("s{number:07}")
}

/// The tables, in a database of their own.
async fn install(bench: &Bench) -> Result<()> {
    let cluster = &bench.stage.cluster;
    run_sql(cluster, "postgres", &[&format!("CREATE DATABASE {CONTROL}")]).await?;
    let keeper = Keeper::new("bench", &[])?;
    let file = keeper.folder().join("gate.toml");
    let settings = "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n";
    std::fs::write(&file, format!("{settings}{}", table(bench, 1)))?;
    let said = Command::new(env!("CARGO_BIN_EXE_tenantgate"))
        .args(["catalog", "install", "--config"])
        .arg(&file)
        .env("TENANTGATE_ADMIN", cluster.superuser_conninfo(CONTROL))
        .output()?;
    ensure!(said.status.success(), "catalog install: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

fn table(bench: &Bench, known: usize) -> String {
    let conninfo = bench.stage.cluster.conninfo(READER, PASSWORD, CONTROL);
    format!("\n[catalog]\nconnection_string = \"{conninfo}\"\nknown = {known}\n")
}

/// A gate with a service that may act for everybody.
fn gate(bench: &Bench, size: Size, service: &NewToken) -> Result<Proxy> {
    let own = format!("{}tokens = [\"{}\"]\n", acting::table(&bench.stage, None), service.line);
    let more = format!("{own}{}", table(bench, size.known));
    bench.stage.gate(GatePlan { servers: SERVERS, more: &more, ..GatePlan::default() })
}

/// All tenants; those who are to be known have a token each, as they would.
async fn fill(bench: &Bench, size: Size, first: &NewToken) -> Result<()> {
    let (dba, connection) = {
        let conninfo = bench.stage.cluster.superuser_conninfo(CONTROL);
        tokio_postgres::connect(&conninfo, NoTls).await?
    };
    let connection = tokio::spawn(connection);
    dba.batch_execute("SET search_path TO tenantgate_catalog, pg_catalog").await?;
    for from in (0..size.tenants).step_by(BATCH) {
        let (from, to) = (i64::try_from(from)?, i64::try_from((from + BATCH).min(size.tenants))?);
        let sql = "INSERT INTO tenants (id, isolation, cluster, schema, role) \
                   SELECT 's' || lpad(n::text, 7, '0'), 'row', 'main', 'app', 'app_rw' \
                   FROM generate_series($1::int8, $2::int8 - 1) n";
        dba.execute(sql, &[&from, &to]).await?;
    }
    for from in (0..size.known).step_by(BATCH) {
        let numbers = from..(from + BATCH).min(size.known);
        let ids: Vec<String> = numbers.clone().map(tenant).collect();
        let line = |number: usize| {
            let minted = new_token().context("the system has no random numbers");
            if number == 0 { Ok(first.line.clone()) } else { minted.map(|minted| minted.line) }
        };
        let lines = numbers.map(line).collect::<Result<Vec<String>>>()?;
        let sql = "INSERT INTO credentials (kind, tenant, hash) \
                   SELECT 'token', * FROM unnest($1::text[], $2::text[])";
        dba.execute(sql, &[&ids, &lines]).await?;
    }
    dba.batch_execute("ANALYZE").await?;
    drop(dba);
    connection.await??;
    Ok(())
}

async fn login(gate: &Proxy, token: &NewToken) -> Result<Client> {
    let (port, password) = (gate.port, &token.text);
    let conninfo = format!("host=127.0.0.1 port={port} user=app password={password} dbname=app");
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    // Its end is seen by whoever asks something.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            say(&format!("scale: {error:?}"));
        }
    });
    Ok(client)
}

/// A tenant of the tables is let in, and asks something.
async fn first_answer(gate: &Proxy, token: &NewToken, started: Instant) -> Result<()> {
    loop {
        match login(gate, token).await {
            Ok(client) => return Ok(client.batch_execute("SELECT 1").await?),
            Err(error) => ensure!(started.elapsed() < PATIENCE, "no tenant is let in: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Begins to act for a tenant, and ends it again. How long the choice took.
async fn choose(client: &Client, id: &str) -> Result<Duration> {
    client.batch_execute("BEGIN").await?;
    let asked = Instant::now();
    let sql = format!("SELECT set_config('tenantgate.tenant', '{id}', true)");
    let chosen = client.batch_execute(&sql).await;
    let took = asked.elapsed();
    let ended = client.batch_execute("ROLLBACK").await;
    chosen?;
    Ok(ended.map(|()| took)?)
}

async fn choose_all(client: &Client, ids: &[String]) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for id in ids {
        times.push(choose(client, id).await?);
    }
    Ok(times)
}

/// Has all of these looked up.
async fn bring_in(sessions: &[Arc<Client>], numbers: std::ops::Range<usize>) -> Result<()> {
    let next = Arc::new(AtomicU64::new(numbers.start as u64));
    let end = numbers.end as u64;
    let mut tasks = JoinSet::new();
    for session in sessions {
        let (session, next) = (session.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return anyhow::Ok(());
                }
                choose(&session, &tenant(usize::try_from(number)?)).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// How long it takes from the end of an UPDATE until nobody can act for its tenant any more.
async fn changes(bench: &Bench, session: &Client, size: Size) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in (0..CHANGES).map(|at| size.active + 1 + at) {
        let id = tenant(number);
        let sql =
            format!("UPDATE tenantgate_catalog.tenants SET state = 'disabled' WHERE id = '{id}'");
        run_sql(&bench.stage.cluster, CONTROL, &[&sql]).await?;
        let said = Instant::now();
        while choose(session, &id).await.is_ok() {
            ensure!(said.elapsed() < PATIENCE, "a change was not heard");
        }
        times.push(said.elapsed());
    }
    Ok(times)
}

/// Transactions per second, each for one of so many tenants.
async fn work(sessions: &[Arc<Client>], tenants: usize, length: Duration) -> Result<f64> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for session in sessions {
        let session = session.clone();
        tasks.spawn(async move {
            let mut count = 0_u64;
            while count == 0 || started.elapsed() < length {
                let (id, aid) = (tenant(fastrand::usize(1..=tenants)), fastrand::usize(1..=ROWS));
                session.batch_execute("BEGIN").await?;
                let sql = format!("SELECT set_config('tenantgate.tenant', '{id}', true)");
                session.batch_execute(&sql).await?;
                let sql = format!("SELECT abalance FROM accounts WHERE aid = {aid}");
                session.batch_execute(&sql).await?;
                session.batch_execute("COMMIT").await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}
