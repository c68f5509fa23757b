//! The workload the gate is for: 64 clients of 50 tenants over 20 servers, so that nearly every
//! transaction finds a server that was another tenant's. Beside it what an application does
//! without a gate: it sets the tenant itself, in four round trips through PgBouncer.

use std::time::Duration;

use anyhow::Result;

use crate::driver::{self, Work};
use crate::sample::{Sample, Series};
use crate::sheet::{cell, percent};
use crate::stage::{Door, Proxy};
use crate::{Bench, say};

pub const SERVERS: usize = 20;
pub const CLIENTS: usize = 64;

const HEADER: [&str; 8] = [
    "what a transaction is",
    "through",
    "tps",
    "× first line",
    "latency µs",
    "proxy CPU µs",
    "PostgreSQL CPU µs",
    "spread",
];

struct Line {
    what: &'static str,
    through: &'static str,
    work: Work,
    proxy: u32,
    doors: Vec<Door>,
    series: Series,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let gate = bench.stage.gate(SERVERS, &[])?;
    let pgbouncer = bench.stage.pgbouncer(SERVERS, &[])?;
    let tenants = doors(|number| bench.stage.tenant(&gate, number));
    let application = doors(|_| bench.stage.application(&pgbouncer));
    let before = bench.arguments.before.as_deref();
    let before = before.map(|program| bench.stage.gate_of(program, SERVERS, &[])).transpose()?;
    let line = |what, through, work, proxy: &Proxy, doors: &Vec<Door>| Line {
        what,
        through,
        work,
        proxy: proxy.pid(),
        doors: doors.clone(),
        series: Series::default(),
    };
    let mut lines = vec![
        line(
            "begin; set_config; select; commit",
            "PgBouncer",
            Work::SetTenant,
            &pgbouncer,
            &application,
        ),
        line("select", "tenantgate", Work::Select, &gate, &tenants),
        line("begin; select; commit", "tenantgate", Work::Transaction, &gate, &tenants),
    ];
    if let Some(before) = &before {
        let tenants = doors(|number| bench.stage.tenant(before, number));
        lines.push(line("select", "before", Work::Select, before, &tenants));
    }
    for round in 0..=bench.arguments.rounds {
        for line in &mut lines {
            let sample = sample(bench, line, round == 0)?;
            if round == 0 {
                continue;
            }
            let (per_second, proxy) = (cell(Some(sample.per_second)), cell(sample.proxy_us));
            say(&format!(
                "tenants, round {round}: {} through {} {per_second} tps, {proxy} µs",
                line.what, line.through
            ));
            line.series.0.push(sample);
        }
    }
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    let first = lines.first().and_then(|line| line.series.per_second());
    for Line { what, through, series, .. } in &lines {
        let ratio = series.per_second().zip(first).map(|(its, first)| its / first);
        rows.push(vec![
            (*what).to_owned(),
            (*through).to_owned(),
            cell(series.per_second()),
            cell(ratio),
            cell(series.latency_us()),
            cell(series.proxy_us()),
            cell(series.postgres_us()),
            percent(series.spread()),
        ]);
    }
    bench.sheet.table("64 clients of 50 tenants, 20 servers, simple protocol", 2, &rows);
    Ok(())
}

fn doors(door: impl Fn(usize) -> Door) -> Vec<Door> {
    (0..CLIENTS).map(door).collect()
}

fn sample(bench: &Bench, line: &Line, warm_up: bool) -> Result<Sample> {
    let length = Duration::from_secs(if warm_up { 1 } else { bench.arguments.seconds });
    let run = driver::run(line.doors.clone(), line.work, length);
    let postmaster = bench.stage.postmaster()?;
    Sample::take(Some(line.proxy), postmaster, || bench.runtime.block_on(run))
}
