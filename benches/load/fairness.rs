//! A tenant with a steady light load beside one that wants ten times its share: how much later the
//! slowest of its requests come back than when it is alone, and how much the other one gets through
//! meanwhile. At PostgreSQL itself, through the gate, straight at PostgreSQL while only the other
//! one comes through the gate, through PgBouncer with one pool for both, and as it is by default,
//! with a pool for each login.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

use crate::driver::{self, Client, Work};
use crate::sample::median;
use crate::sheet::{Aim, cell};
use crate::stage::{Door, GatePlan, PgBouncerPlan, Proxy};
use crate::{Bench, proc, say};

/// Servers for each CPU. More than about this many that are at work wait for a CPU and not for each
/// other, which is for the kernel to be fair about, not for a proxy.
const SERVERS_PER_CPU: usize = 2;

/// Clients of the other one for each server that is its share.
const CROWD: usize = 10;

/// The one that is measured: so many clients, each with a request in so long.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(10);

/// How long the other one is at it before the measured one comes, and that one before it counts:
/// neither the logins nor the wait of a newcomer for its first server are part of the steady state.
const AHEAD: Duration = Duration::from_secs(1);

/// How much nicer the other one's clients are (nice(2)): elsewhere they have a machine of their own
/// and take no CPU from those that are measured.
const OUT_OF_THE_WAY: i32 = 5;

/// What its p99 may become, as a part of what it is alone.
pub const AIM: f64 = 1.5;

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
    (Abuse::ManyClients, "one request after the other"),
    (Abuse::HeavyQueries, "queries of 30 ms"),
    (Abuse::ManyConnects, "a login for each request"),
];

/// Two doors of one proxy.
struct Way {
    name: &'static str,
    victim: Door,
    abuser: Door,
    /// The process between them and PostgreSQL.
    proxy: Option<u32>,
}

/// The victim's latency in one round, in microseconds.
#[derive(Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// What it was beside the other one, and what that cost.
struct Beside {
    latency: Latency,
    /// Requests of the other one per second.
    abuser: f64,
    /// CPUs that the proxy and PostgreSQL kept busy.
    proxy: Option<f64>,
    postgres: Option<f64>,
}

/// Of one way and abuse, by round.
#[derive(Default)]
struct Series {
    alone: Vec<Latency>,
    with: Vec<Beside>,
}

/// What the other one does, on a thread of its own, so that it takes no time from the one that
/// measures. Ended with [`Abuser::end`].
struct Abuser {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: JoinHandle<Result<()>>,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let stage = &bench.stage;
    let cpus = std::thread::available_parallelism()?.get();
    let servers = SERVERS_PER_CPU * cpus;
    // Two tenants of equal weight.
    let crowd = CROWD * servers / 2;
    let gate = stage.gate(GatePlan { servers, ..GatePlan::default() })?;
    let pgbouncer = stage
        .pgbouncer
        .as_ref()
        .map(|_| stage.pgbouncer(PgBouncerPlan { servers, ..PgBouncerPlan::default() }));
    let pgbouncer = pgbouncer.transpose()?;
    let ways = ways(bench, &gate, pgbouncer.as_ref());
    let header = ["beside", "through", "p50 alone µs", "p99 alone µs", "p50 with µs"];
    let costs = ["p99 with µs", RATIO, "the other's/s", "proxy CPUs", "PostgreSQL CPUs"];
    let header = header.iter().chain(&costs).map(|word| (*word).to_owned());
    let mut table = vec![header.collect::<Vec<_>>()];
    let mut aims = Vec::new();
    for (abuse, what) in ABUSES {
        let mut all: Vec<Series> = ways.iter().map(|_| Series::default()).collect();
        for round in 0..bench.arguments.rounds {
            say(&format!("fairness: {what}, round {} of {}", round + 1, bench.arguments.rounds));
            for (way, series) in ways.iter().zip(&mut all) {
                series.alone.push(measure(bench, &way.victim)?);
                series.with.push(beside(bench, way, abuse, crowd)?);
            }
        }
        for (way, series) in ways.iter().zip(&all) {
            let (cells, ratio) = series.cells();
            table.push([what, way.name].map(str::to_owned).into_iter().chain(cells).collect());
            if way.name == GATE {
                aims.push(Aim::at_most(&format!("p99 beside {what} ÷ alone"), AIM, ratio));
            }
        }
    }
    let title = format!(
        "Fairness: {CLIENTS} clients with a request every {} ms each, beside {crowd} of another \
         tenant; {servers} servers, {SERVERS_PER_CPU} for each of {cpus} CPUs (a pool each: {} in \
         all)",
        PACE.as_millis(),
        2 * servers
    );
    drop((gate, pgbouncer));
    aims.into_iter().for_each(|aim| bench.sheet.aim(aim));
    bench.sheet.table(&title, 2, &table);
    Ok(())
}

fn ways(bench: &Bench, gate: &Proxy, pgbouncer: Option<&Proxy>) -> Vec<Way> {
    let stage = &bench.stage;
    let direct = stage.direct();
    let (victim, abuser) = (stage.tenant(gate, 0), stage.tenant(gate, 1));
    let proxy = Some(gate.pid());
    let mut ways = vec![
        Way {
            name: "PostgreSQL itself",
            victim: direct.clone(),
            abuser: direct.clone(),
            proxy: None,
        },
        // What is late here is not late because of the gate: it waits for the machine.
        Way { name: "past tenantgate", victim: direct, abuser: abuser.clone(), proxy },
        Way { name: GATE, victim, abuser, proxy },
    ];
    if let Some(pgbouncer) = pgbouncer {
        let proxy = Some(pgbouncer.pid());
        let one = stage.bounced(pgbouncer, "app");
        let name = "PgBouncer, one pool";
        ways.push(Way { name, victim: one.clone(), abuser: one, proxy });
        let [victim, abuser] = [0, 1].map(|tenant| stage.pooled(pgbouncer, tenant));
        ways.push(Way { name: "PgBouncer, a pool each", victim, abuser, proxy });
    }
    ways
}

impl Series {
    /// The cells of a line, and how much later the slowest are.
    fn cells(&self) -> (Vec<String>, Option<f64>) {
        let alone = |of: fn(&Latency) -> f64| median(self.alone.iter().map(|it| Some(of(it))));
        let with = |of: fn(&Beside) -> Option<f64>| median(self.with.iter().map(of));
        let (before, after) = (alone(|it| it.p99), with(|it| Some(it.latency.p99)));
        let ratio = after.zip(before).map(|(after, before)| after / before);
        let micros = |it: Option<f64>| it.map_or("-".to_owned(), |it| format!("{it:.0}"));
        let cells = vec![
            micros(alone(|it| it.p50)),
            micros(before),
            micros(with(|it| Some(it.latency.p50))),
            micros(after),
            ratio.map_or("-".to_owned(), |it| format!("{it:.2}")),
            cell(with(|it| Some(it.abuser))),
            cell(with(|it| it.proxy)),
            cell(with(|it| it.postgres)),
        ];
        (cells, ratio)
    }
}

/// One round beside the other one.
fn beside(bench: &Bench, way: &Way, abuse: Abuse, crowd: usize) -> Result<Beside> {
    let abuser = Abuser::start(abuse, way.abuser.clone(), crowd);
    std::thread::sleep(AHEAD.min(bench.length()));
    let postmaster = bench.stage.postmaster()?;
    let cpu = || (way.proxy.and_then(proc::cpu), proc::cpu_of_family(postmaster));
    let (started, done, before) = (Instant::now(), abuser.done(), cpu());
    let latency = measure(bench, &way.victim);
    let (done, after) = (abuser.done() - done, cpu());
    let seconds = started.elapsed().as_secs_f64();
    abuser.end()?;
    let busy = |before: Option<Duration>, after: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() / seconds)
    };
    Ok(Beside {
        latency: latency?,
        abuser: done as f64 / seconds,
        proxy: busy(before.0, after.0),
        postgres: busy(before.1, after.1),
    })
}

/// The victim's latency.
fn measure(bench: &Bench, door: &Door) -> Result<Latency> {
    let length = bench.length();
    LocalSet::new().block_on(&bench.runtime, async {
        let clients = driver::log_in(&vec![door.clone(); CLIENTS]).await?;
        let counted = Instant::now() + AHEAD.min(length);
        let until = counted + length;
        let mut tasks = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            // Not all at the same moment, as no clients are.
            let first = Instant::now() + PACE * number as u32 / CLIENTS as u32;
            tasks.spawn_local(steady(client, first, counted..until));
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done??);
        }
        all.sort_by(f64::total_cmp);
        let at = |part: f64| {
            all.get(((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1)))
        };
        let [p50, p99] = [0.5, 0.99].map(|part| at(part).copied().unwrap_or(f64::NAN));
        Ok(Latency { p50, p99 })
    })
}

/// Its pace does not slow down with its answers: what comes late is followed at once. The latency
/// of what was due in the time that counts.
async fn steady(mut client: Client, first: Instant, counted: Range<Instant>) -> Result<Vec<f64>> {
    let mut pace = tokio::time::interval_at(first.into(), PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut all = Vec::new();
    while all.is_empty() || Instant::now() < counted.end {
        let due = pace.tick().await.into_std();
        client.transact(Work::Select).await?;
        if due >= counted.start {
            all.push(due.elapsed().as_secs_f64() * 1e6);
        }
    }
    client.leave().await?;
    Ok(all)
}

impl Abuser {
    fn start(abuse: Abuse, door: Door, crowd: usize) -> Self {
        let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (until, count) = (over.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            rustix::process::nice(OUT_OF_THE_WAY)?;
            let runtime = Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async {
                let mut tasks = JoinSet::new();
                for _ in 0..crowd {
                    tasks.spawn_local(abuse.go_on(door.clone(), until.clone(), count.clone()));
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
                Ok(())
            })
        });
        Self { over, done, thread }
    }

    /// Requests so far.
    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the abuser has panicked"))?
    }
}

impl Abuse {
    /// One client.
    async fn go_on(self, door: Door, over: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Result<()> {
        let work = match self {
            Self::ManyClients | Self::ManyConnects => Work::Select,
            Self::HeavyQueries => Work::Read("SELECT pg_sleep(0.03)"),
        };
        let mut client = Client::login(&door).await?;
        while !over.load(Ordering::Relaxed) {
            client.transact(work).await?;
            count.fetch_add(1, Ordering::Relaxed);
            if matches!(self, Self::ManyConnects) {
                client.leave().await?;
                client = Client::login(&door).await?;
            }
        }
        client.leave().await
    }
}
