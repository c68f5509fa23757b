//! A tenant with a steady light load beside one that takes ten times as much: how much later the
//! slowest of its requests come back than when it is alone. At PostgreSQL itself, through the gate,
//! through PgBouncer with one pool for both, and as it is by default, with a pool for each login.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

use crate::driver::{self, Client, Work};
use crate::sheet::Aim;
use crate::stage::{Door, GatePlan, PgBouncerPlan};
use crate::{Bench, say};

const SERVERS: usize = 8;

/// The one that is measured: so many clients, each with a request in so long.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(10);

/// How long the other one is at it before it counts: its logins are no part of the steady state.
const AHEAD: Duration = Duration::from_secs(1);

/// What its p99 may become, as a part of what it is alone.
const AIM: f64 = 1.5;

/// The way that is held to it.
const GATE: &str = "tenantgate";

/// What plots look for.
pub const RATIO: &str = "with ÷ alone";

/// What the other does.
#[derive(Clone, Copy)]
enum Abuse {
    ManyClients,
    HeavyQueries,
    ManyConnects,
}

const ABUSES: [(Abuse, &str); 3] = [
    (Abuse::ManyClients, "40 clients, one request after the other"),
    (Abuse::HeavyQueries, "40 clients, queries of 30 ms"),
    (Abuse::ManyConnects, "8 clients that log in and out"),
];

/// Two doors of one proxy.
struct Way {
    name: &'static str,
    victim: Door,
    abuser: Door,
}

/// Of one way and abuse, by round, in microseconds.
#[derive(Default)]
struct Series {
    alone: Vec<[f64; 2]>,
    with: Vec<[f64; 2]>,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let stage = &bench.stage;
    let gate = stage.gate(GatePlan { servers: SERVERS, ..GatePlan::default() })?;
    let pgbouncer = stage
        .pgbouncer
        .as_ref()
        .map(|_| stage.pgbouncer(PgBouncerPlan { servers: SERVERS, ..PgBouncerPlan::default() }));
    let pgbouncer = pgbouncer.transpose()?;
    let (victim, abuser) = (stage.tenant(&gate, 0), stage.tenant(&gate, 1));
    let direct = stage.direct();
    let mut ways = vec![
        Way { name: "PostgreSQL itself", victim: direct.clone(), abuser: direct },
        Way { name: GATE, victim, abuser },
    ];
    if let Some(pgbouncer) = &pgbouncer {
        let one = stage.bounced(pgbouncer, "app");
        let name = "PgBouncer, one pool";
        ways.push(Way { name, victim: one.clone(), abuser: one });
        let [victim, abuser] = [0, 1].map(|tenant| stage.pooled(pgbouncer, tenant));
        ways.push(Way { name: "PgBouncer, a pool each", victim, abuser });
    }
    let mut table = vec![
        ["beside", "through", "p50 alone µs", "p99 alone µs", "p50 with µs", "p99 with µs", RATIO]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut aims = Vec::new();
    for (abuse, what) in ABUSES {
        let mut all: Vec<Series> = ways.iter().map(|_| Series::default()).collect();
        for round in 0..bench.arguments.rounds {
            say(&format!("fairness: {what}, round {} of {}", round + 1, bench.arguments.rounds));
            for (way, series) in ways.iter().zip(&mut all) {
                series.alone.push(measure(bench, &way.victim)?);
                let over = Arc::new(AtomicBool::new(false));
                let abuser = start(abuse, way.abuser.clone(), over.clone());
                std::thread::sleep(AHEAD.min(bench.length()));
                let measured = measure(bench, &way.victim);
                over.store(true, Ordering::Relaxed);
                abuser.join().map_err(|_| anyhow!("the abuser has panicked"))??;
                series.with.push(measured?);
            }
        }
        for (way, series) in ways.iter().zip(&all) {
            let [alone, with] = [&series.alone, &series.with].map(|runs| {
                [0, 1].map(|at| median(runs.iter().filter_map(|run| run.get(at).copied())))
            });
            let ratio = with[1] / alone[1];
            let mut row = vec![what.to_owned(), way.name.to_owned()];
            row.extend([alone, with].iter().flatten().map(|micros| format!("{micros:.0}")));
            row.push(format!("{ratio:.2}"));
            table.push(row);
            if way.name == GATE {
                let name = format!("p99 beside {what} ÷ alone");
                aims.push(Aim::at_most(&name, AIM, Some(ratio)));
            }
        }
    }
    let title = format!(
        "Fairness: {CLIENTS} clients with a request every {} ms each, beside another tenant; \
         {SERVERS} servers (a pool each: {} in all)",
        PACE.as_millis(),
        2 * SERVERS
    );
    drop((gate, pgbouncer));
    aims.into_iter().for_each(|aim| bench.sheet.aim(aim));
    bench.sheet.table(&title, 2, &table);
    Ok(())
}

/// The median and the 99th percentile of the victim's latency.
fn measure(bench: &Bench, door: &Door) -> Result<[f64; 2]> {
    let length = bench.length();
    LocalSet::new().block_on(&bench.runtime, async {
        let clients = driver::log_in(&vec![door.clone(); CLIENTS]).await?;
        let until = Instant::now() + length;
        let mut tasks = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            // Not all at the same moment, as no clients are.
            let first = Instant::now() + PACE * number as u32 / CLIENTS as u32;
            tasks.spawn_local(steady(client, first, until));
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done??);
        }
        all.sort_by(f64::total_cmp);
        let at = |part: f64| {
            all.get(((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1)))
        };
        Ok([0.5, 0.99].map(|part| at(part).copied().unwrap_or(f64::NAN)))
    })
}

/// Its pace does not slow down with its answers: what comes late is followed at once.
async fn steady(mut client: Client, first: Instant, until: Instant) -> Result<Vec<f64>> {
    let mut pace = tokio::time::interval_at(first.into(), PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut all = Vec::new();
    while all.is_empty() || Instant::now() < until {
        let due = pace.tick().await.into_std();
        client.transact(Work::Select).await?;
        all.push(due.elapsed().as_secs_f64() * 1e6);
    }
    client.leave().await?;
    Ok(all)
}

/// On a thread of its own, so that it takes no time from the one that measures.
fn start(abuse: Abuse, door: Door, over: Arc<AtomicBool>) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let (clients, work) = match abuse {
                Abuse::ManyClients => (40, Work::Select),
                Abuse::HeavyQueries => (40, Work::Read("SELECT pg_sleep(0.03)")),
                Abuse::ManyConnects => (8, Work::Select),
            };
            let mut tasks = JoinSet::new();
            for _ in 0..clients {
                let (door, over) = (door.clone(), over.clone());
                tasks.spawn_local(async move {
                    let mut client = Client::login(&door).await?;
                    while !over.load(Ordering::Relaxed) {
                        client.transact(work).await?;
                        if matches!(abuse, Abuse::ManyConnects) {
                            client.leave().await?;
                            client = Client::login(&door).await?;
                        }
                    }
                    client.leave().await
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok(())
        })
    })
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
