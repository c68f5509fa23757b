//! Connect storms: clients that log in and leave, one after the other, eight at a time. Through the
//! gate with a token, through PgBouncer and to PostgreSQL with SCRAM from a verifier.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use crate::Bench;
use crate::lines::{self, Columns, Line, Outcome};
use crate::sheet::Aim;
use crate::stage::{Door, GatePlan, PgBouncerPlan};

const AT_ONCE: usize = 8;
const SERVERS: usize = 4;

/// One login may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

const COLUMNS: Columns = Columns {
    what: &["what"],
    rate: "logins/s",
    proxy: "proxy CPU µs",
    postgres: "PostgreSQL CPU µs",
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let mut proxies = Vec::new();
    for (what, tls) in [("plaintext", false), ("TLS 1.3", true)] {
        let gate = GatePlan { servers: SERVERS, tls, ..GatePlan::default() };
        let gate = bench.stage.gate(gate)?;
        let door = bench.stage.tenant(&gate, 0);
        proxies.push((what, "tenantgate", gate, door));
        if bench.stage.pgbouncer.is_some() {
            let plan = PgBouncerPlan { servers: SERVERS, tls, scram: true, ..Default::default() };
            let pgbouncer = bench.stage.pgbouncer(plan)?;
            let door = bench.stage.bounced(&pgbouncer, "app");
            proxies.push((what, lines::BASELINE, pgbouncer, door));
        }
    }
    let shared: &Bench = bench;
    let storm = |door: Door| move |length| shared.runtime.block_on(storm(door.clone(), length));
    let mut lines = vec![Line::new(&["plaintext"], "direct", None, storm(bench.stage.direct()))];
    for (what, name, proxy, door) in &proxies {
        lines.push(Line::new(&[*what], name, Some(proxy.pid()), storm(door.clone())));
    }
    lines::take(bench, "storm", &mut lines)?;
    let rows = lines::rows(&COLUMNS, &lines);
    lines.retain(|line| line.what.iter().any(|word| word.starts_with("TLS")));
    let ratio = lines::cpu_ratio(&lines, "tenantgate");
    drop(lines);
    bench.sheet.aim(Aim::at_most("proxy CPU per TLS connect, × PgBouncer", 0.6, ratio));
    bench.sheet.table("Logins, 8 at a time (gate: token; the others: SCRAM-SHA-256)", 2, &rows);
    Ok(())
}

async fn storm(door: Door, length: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let end = started + length;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let door = door.clone();
        tasks.spawn(async move {
            let mut logins = 0;
            while logins == 0 || Instant::now() < end {
                let login = tokio::time::timeout(PATIENCE, login(&door)).await;
                login.context("no login in time")??;
                logins += 1;
            }
            anyhow::Ok(logins)
        });
    }
    let mut logins = 0;
    while let Some(done) = tasks.join_next().await {
        logins += done??;
    }
    let elapsed = started.elapsed();
    let latency = elapsed.mul_f64(AT_ONCE as f64 / f64::from(logins.max(1)));
    let transactions = f64::from(logins);
    Ok(Outcome { transactions, per_second: transactions / elapsed.as_secs_f64(), latency })
}

/// In and out again.
async fn login(door: &Door) -> Result<()> {
    let stream = door.dial().await?;
    let mut config = Config::new();
    config.user(&door.user).dbname(door.dbname).password(&door.password);
    // TLS, where the door has it, is around the stream already.
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    drop(client);
    connection.await?;
    Ok(())
}
