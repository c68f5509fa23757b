//! How exactly a budget lets through what it is a limit of, offered ten times as much: requests per
//! second that are refused, and database time that is waited for, by queries shorter and longer
//! than what is left of a window. Time is taken by PostgreSQL's clock, requests by the clients':
//! nothing of it is the gate's own count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::sheet::{Aim, cell};
use crate::stage::{Door, GatePlan};
use crate::{Bench, say};

const SERVERS: usize = 20;

/// What is offered for each of what is allowed.
const TIMES: f64 = 10.0;

/// One client comes so often, answered or not.
const PACE: Duration = Duration::from_millis(10);

/// The burst of the start is spent by then, which is no part of what is measured.
const SETTLED: Duration = Duration::from_secs(2);

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// One budget and who presses on it.
struct Case {
    name: &'static str,
    /// As the settings write it.
    limits: &'static str,
    /// What is allowed each second: requests, or seconds.
    per_second: f64,
    /// How long one query works; `None`: it is requests that are counted.
    seconds: Option<f64>,
}

/// Each is a tenant's, in this order.
const CASES: [Case; 3] = [
    Case {
        name: "queries_per_second",
        limits: "queries_per_second = 100",
        per_second: 100.0,
        seconds: None,
    },
    Case {
        name: "database_time, queries of 40 ms",
        limits: "database_time = \"500ms/1s\"\nbudget_wait = \"60s\"",
        per_second: 0.5,
        seconds: Some(0.04),
    },
    Case {
        name: "database_time, queries of 400 ms",
        limits: "database_time = \"500ms/1s\"\nbudget_wait = \"60s\"",
        per_second: 0.5,
        seconds: Some(0.4),
    },
];

/// What was let through: from when to when, in seconds of one clock.
type Spans = Vec<(f64, f64)>;

/// What came of a case.
struct Found {
    offered: f64,
    /// Each second, once the burst of the start is spent.
    admitted: Option<f64>,
    /// Each second of the whole run.
    with_burst: f64,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let limits: String = (0..CASES.len())
        .zip(&CASES)
        .map(|(number, case)| {
            let (id, _) = bench.stage.credential(number);
            format!("\n[tenants.{id}.limits]\n{}\n", case.limits)
        })
        .collect();
    let plan = GatePlan { servers: SERVERS, more: &limits, ..GatePlan::default() };
    let gate = bench.stage.gate(plan)?;
    let length = match (bench.is_smoke(), bench.arguments.quick) {
        (true, _) => Duration::from_millis(300),
        (false, true) => Duration::from_secs(10),
        (false, false) => Duration::from_secs(30),
    };
    let header =
        ["budget", "limit /s", "offered /s", "admitted /s", "off by", "with the first burst"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut worst: Option<f64> = None;
    for (number, case) in CASES.iter().enumerate() {
        say(&format!("budgets: {} for {length:?}", case.name));
        let door = bench.stage.tenant(&gate, number);
        let found = bench.runtime.block_on(press(case, &door, length))?;
        let off = |admitted: f64| (admitted / case.per_second - 1.0) * 100.0;
        let measured = found.admitted.map(off);
        worst = measured.map(f64::abs).into_iter().chain(worst).reduce(f64::max);
        let percent = |off: f64| format!("{off:+.2} %");
        rows.push(vec![
            case.name.to_owned(),
            cell(Some(case.per_second)),
            cell(Some(found.offered)),
            found.admitted.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}")),
            measured.map_or_else(|| "-".to_owned(), percent),
            percent(off(found.with_burst)),
        ]);
    }
    bench.sheet.aim(Aim::at_most("admitted of ten times a budget, off by (%)", 2.0, worst));
    let title = format!("Budgets, offered {TIMES:.0} times as much for {} s", length.as_secs());
    bench.sheet.table(&title, 1, &rows);
    Ok(())
}

/// Offers ten times the limit for so long.
async fn press(case: &Case, door: &Door, length: Duration) -> Result<Found> {
    let clients = match case.seconds {
        None => TIMES * case.per_second * PACE.as_secs_f64(),
        // Each would have a server at work all the time.
        Some(_) => TIMES * case.per_second,
    };
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients.round() as usize {
        let (door, seconds) = (door.clone(), case.seconds);
        tasks.spawn(async move {
            let client = log_in(&door).await?;
            match seconds {
                None => requests(&client, started, length).await,
                Some(seconds) => times(&client, seconds, started + length).await,
            }
        });
    }
    let (mut all, mut offered) = (Spans::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (spans, asked) = done??;
        all.extend(spans);
        offered += asked;
    }
    let offered = match case.seconds {
        None => offered as f64 / length.as_secs_f64(),
        Some(_) => clients,
    };
    let first = all.iter().map(|span| span.0).fold(f64::INFINITY, f64::min);
    let end = first + length.as_secs_f64();
    let with_burst = admitted(&all, first, end) / length.as_secs_f64();
    Ok(Found { offered, admitted: steady(&all, first + SETTLED.as_secs_f64(), end), with_burst })
}

/// What was let through in each second from the first admission behind `from` to the last before
/// `end`: at both the budget had just become enough for one more.
fn steady(all: &Spans, from: f64, end: f64) -> Option<f64> {
    let starts = || all.iter().map(|span| span.0).filter(|start| (from..end).contains(start));
    let (from, end) = (starts().reduce(f64::min)?, starts().reduce(f64::max)?);
    (end > from).then(|| admitted(all, from, end) / (end - from))
}

/// What was let through in a time: seconds, or as many as began where they have no length.
fn admitted(all: &Spans, from: f64, end: f64) -> f64 {
    let part = |(start, stop): &(f64, f64)| match stop > start {
        true => (stop.min(end) - start.max(from)).max(0.0),
        false => f64::from(u8::from((from..end).contains(start))),
    };
    all.iter().map(part).sum()
}

/// Asks at a steady pace, whatever is answered.
async fn requests(client: &Client, started: Instant, length: Duration) -> Result<(Spans, u64)> {
    let (mut spans, mut asked) = (Spans::new(), 0);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while started.elapsed() < length {
        pace.tick().await;
        asked += 1;
        let answer = tokio::time::timeout(PATIENCE, client.simple_query("SELECT 1")).await;
        match answer.context("no answer in time")? {
            Ok(_) => {
                let at = started.elapsed().as_secs_f64();
                spans.push((at, at));
            }
            Err(error) if error.code().is_some_and(|code| code.code() == "53400") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((spans, asked))
}

/// Has the server work again and again, and tell from when to when.
async fn times(client: &Client, seconds: f64, end: Instant) -> Result<(Spans, u64)> {
    let sql = format!(
        "SELECT extract(epoch FROM statement_timestamp()), extract(epoch FROM clock_timestamp()) \
         FROM pg_sleep({seconds})"
    );
    let mut spans = Spans::new();
    while Instant::now() < end {
        let answer = tokio::time::timeout(PATIENCE, client.simple_query(&sql)).await;
        let answer = answer.context("no answer in time")??;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.context("no row")?;
        let (Some(from), Some(to)) = (row.get(0), row.get(1)) else { bail!("no times") };
        spans.push((from.parse()?, to.parse()?));
    }
    let asked = spans.len() as u64;
    Ok((spans, asked))
}

async fn log_in(door: &Door) -> Result<Client> {
    let stream = door.dial().await?;
    let mut config = Config::new();
    config.user(&door.user).dbname(door.dbname).password(&door.password);
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
