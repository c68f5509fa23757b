//! The run itself: connections log in, arrivals are scheduled, connections work them off, and once
//! a second somebody says how it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::cli::load::client::{self, Failure};
use crate::cli::load::figures::{Fault, Figures};
use crate::cli::load::tenants::{Choice, shares};
use crate::cli::load::{Pace, Plan};

/// Logins that are under way at once, before the clock starts.
const LOGINS_AT_ONCE: usize = 32;

/// How long what is under way at the end may still take.
const GRACE: Duration = Duration::from_secs(10);

/// Before a lost connection is opened anew.
const PAUSE: Duration = Duration::from_millis(100);

/// A transaction that is due.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    phase: usize,
    tenant: usize,
    due: Instant,
}

/// What everybody works with.
struct Shared {
    plan: Plan,
    figures: Mutex<Figures>,
    start: Instant,
    /// Scheduled and not begun.
    waiting: AtomicU64,
    stopped: AtomicBool,
}

/// Where connections find their work: a tenant's own, or everybody's.
struct Lane {
    tenant: Option<usize>,
    due: tokio::sync::Mutex<UnboundedReceiver<Arrival>>,
}

/// Logs everybody in, runs the load to its end, and hands back what was measured and how long it
/// took.
pub async fn run(plan: Plan) -> Result<(Plan, Figures, Duration)> {
    let weights: Vec<f64> = plan.weights(plan.noisy.is_some());
    let own = plan.tenants.iter().all(|tenant| tenant.token.is_some());
    let shares = match own {
        true => shares(&weights, plan.clients).context("fewer connections than tenants")?,
        false => vec![plan.clients],
    };
    eprintln!("load: {} connections log in", plan.clients);
    let connections = log_in(&plan, &shares, own).await?;
    let figures = Mutex::new(Figures::new(plan.phases(), plan.tenants.len())?);
    let (waiting, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let shared = Arc::new(Shared { plan, figures, start: Instant::now(), waiting, stopped });

    let mut senders = Vec::new();
    let mut tasks = JoinSet::new();
    for (number, connections) in connections.into_iter().enumerate() {
        let (sender, due) = unbounded_channel();
        senders.push(sender);
        let tenant = own.then_some(number);
        let lane = Arc::new(Lane { tenant, due: tokio::sync::Mutex::new(due) });
        for client in connections {
            let number = tasks.len() as u64;
            tasks.spawn(serve(shared.clone(), lane.clone(), client, number));
        }
    }
    let scheduler = shared.clone();
    let scheduler = tokio::task::spawn_blocking(move || schedule(&scheduler, &senders));
    let ticker = tokio::spawn(tick(shared.clone()));
    let ended = finish(&shared, &mut tasks).await;
    shared.stopped.store(true, Ordering::Relaxed);
    let took = shared.start.elapsed().min(shared.plan.length);
    tasks.shutdown().await;
    scheduler.await.context("the scheduler ended early")?;
    ticker.await.context("the ticker ended early")?;
    ended?;
    let shared = Arc::into_inner(shared).context("a connection is still at work")?;
    Ok((shared.plan, shared.figures.into_inner(), took))
}

/// Waits until all connections have done their work, the grace is over, or ctrl-C.
async fn finish(shared: &Shared, tasks: &mut JoinSet<()>) -> Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a connection's task ended early")?;
        }
        Ok(())
    };
    tokio::select! {
        ended = tokio::time::timeout(shared.plan.length + GRACE, all) => match ended {
            Ok(ended) => ended,
            Err(_) => {
                eprintln!("load: some transactions did not end within {} s", GRACE.as_secs());
                Ok(())
            }
        },
        interrupt = tokio::signal::ctrl_c() => {
            eprintln!("load: interrupted, what was measured so far:");
            interrupt.context("cannot listen for ctrl-C")
        }
    }
}

async fn log_in(plan: &Plan, shares: &[usize], own: bool) -> Result<Vec<Vec<Client>>> {
    let limit = Arc::new(tokio::sync::Semaphore::new(LOGINS_AT_ONCE));
    let mut lanes: Vec<Vec<Client>> = shares.iter().map(|_| Vec::new()).collect();
    let mut tasks = JoinSet::new();
    for (lane, share) in shares.iter().enumerate() {
        for _ in 0..*share {
            let (conninfo, limit) = (plan.conninfo.clone(), limit.clone());
            let password = plan.password(own.then_some(lane));
            tasks.spawn(async move {
                let _place = limit.acquire_owned().await;
                (lane, client::login(&conninfo, &password).await)
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        let (lane, client) = ended.context("a login's task ended early")?;
        match client {
            Ok(client) => lanes.get_mut(lane).context("no such lane")?.push(client),
            Err(fault) => bail!("cannot log in: {}", fault.told()),
        }
    }
    Ok(lanes)
}

/// One connection: takes what is due, or in a closed loop makes its own work.
async fn serve(shared: Arc<Shared>, lane: Arc<Lane>, client: Client, number: u64) {
    let plan = &shared.plan;
    let mut random = fastrand::Rng::with_seed(plan.seed ^ (number + 1).wrapping_mul(0x9e37_79b9));
    let choice = Choice::new(&plan.weights(false));
    let mut client = Some(client);
    loop {
        let arrival = match plan.pace {
            Pace::Rate(_) => {
                let Some(arrival) = lane.due.lock().await.recv().await else { return };
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
                arrival
            }
            Pace::Closed => {
                let tenant = lane.tenant.unwrap_or_else(|| choice.pick(&mut random));
                Arrival { phase: 0, tenant, due: Instant::now() }
            }
        };
        let over = Instant::now() >= shared.start + plan.length;
        if over {
            if plan.pace == Pace::Closed {
                return;
            }
            // Nobody got to it: it counts as at least as slow as it has become by now.
            let waited = arrival.due.elapsed();
            shared.figures.lock().unserved(arrival.phase, arrival.tenant, waited);
            continue;
        }
        let ready = match client.take() {
            Some(ready) => Ok(ready),
            None => client::login(&plan.conninfo, &plan.password(lane.tenant)).await,
        };
        match ready {
            Ok(ready) => {
                if transact(&shared, &ready, arrival, &mut random).await {
                    client = Some(ready);
                }
            }
            Err(fault) => {
                shared.figures.lock().failed(arrival.phase, arrival.tenant, fault);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One transaction with its bookkeeping. False if the connection is gone.
async fn transact(
    shared: &Shared,
    client: &Client,
    arrival: Arrival,
    random: &mut fastrand::Rng,
) -> bool {
    let plan = &shared.plan;
    let Arrival { phase, tenant, due } = arrival;
    let Some(id) = plan.tenants.get(tenant).map(|tenant| tenant.id.as_str()) else { return true };
    let drawn = plan.script.draw(random);
    let column = plan.check_column.as_deref();
    let done = client::transact(client, &plan.script, id, &drawn, column).await;
    let latency = due.elapsed();
    let mut figures = shared.figures.lock();
    match done {
        Ok(seen) => {
            figures.done(phase, tenant, latency);
            figures.rows_checked += seen.rows_checked;
            for leak in seen.leaks {
                let line = format!("LEAK: {leak}");
                if figures.leaked(leak) {
                    eprintln!("{line}");
                }
            }
            true
        }
        Err(Failure { fault, lost }) => {
            figures.failed(phase, tenant, fault);
            !lost
        }
    }
}

/// Hands out what is due when it is due, on a thread of its own: a runtime's timers are exact to a
/// millisecond, this is to some tens of microseconds.
fn schedule(shared: &Shared, lanes: &[UnboundedSender<Arrival>]) {
    let plan = &shared.plan;
    let Pace::Rate(rate) = plan.pace else { return };
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let each = plan.length / u32::try_from(plan.phases()).unwrap_or(1);
    let mut due = shared.start;
    for phase in 0..plan.phases() {
        let choice = Choice::new(&plan.weights(phase > 0));
        // The noisy tenant's requests come on top of the others'.
        let rate = rate * choice.sum() / Choice::new(&plan.weights(false)).sum();
        let end = shared.start + each * u32::try_from(phase + 1).unwrap_or(1);
        loop {
            // A Poisson process: requests of many users who do not know each other.
            let gap = -(1.0 - random.f64()).ln() / rate;
            due += Duration::from_secs_f64(gap);
            if due >= end {
                due = end;
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let tenant = choice.pick(&mut random);
            let lane = if lanes.len() == 1 { lanes.first() } else { lanes.get(tenant) };
            shared.waiting.fetch_add(1, Ordering::Relaxed);
            let sent = lane.map(|lane| lane.send(Arrival { phase, tenant, due }));
            if shared.stopped.load(Ordering::Relaxed) || !matches!(sent, Some(Ok(()))) {
                return;
            }
        }
    }
}

/// Once a second: a line for the person who waits, and one for the plot.
async fn tick(shared: Arc<Shared>) {
    let whole = shared.plan.length.as_secs_f64().ceil() as u64;
    let each = shared.plan.length / u32::try_from(shared.plan.phases()).unwrap_or(1);
    for second in 1..=whole {
        let at = shared.start + Duration::from_secs(second).min(shared.plan.length);
        tokio::time::sleep_until(at.into()).await;
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let waiting = shared.waiting.load(Ordering::Relaxed);
        let elapsed = Duration::from_secs(second - 1).as_secs_f64();
        let phase = (elapsed / each.as_secs_f64()) as usize;
        let mut figures = shared.figures.lock();
        figures.tick(phase.min(shared.plan.phases() - 1), waiting);
        if let Some(last) = figures.seconds.last() {
            let [p50, p99] = [0.5, 0.99].map(|part| last.tally.quantile(part).as_secs_f64() * 1e3);
            eprintln!(
                "load: {second:>4} s  {:>7} done  p50 {p50:>8.2} ms  p99 {p99:>8.2} ms  \
                 {waiting:>6} waiting  {:>5} failed",
                last.tally.count(),
                last.tally.errors
            );
        }
    }
}

impl Fault {
    /// As it is told to a person.
    pub fn told(&self) -> String {
        let Self { sqlstate, message, hint } = self;
        let state = if sqlstate.is_empty() { String::new() } else { format!("{sqlstate}: ") };
        let hint = if hint.is_empty() { String::new() } else { format!(" (hint: {hint})") };
        format!("{state}{message}{hint}")
    }
}
