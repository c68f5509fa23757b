//! One statement per transaction, one tenant: what a proxy costs when it has nothing to do but
//! pass on. 1 and 32 clients over 8 servers, by each of the protocol's ways.

use anyhow::Result;

use crate::pgbench::{Length, Manner};
use crate::sample::{Sample, Series};
use crate::sheet::{cell, percent};
use crate::stage::{Door, Proxy, Stage};
use crate::{Bench, say};

const SERVERS: usize = 8;
const CLIENTS: [usize; 2] = [1, 32];
const MODES: [&str; 3] = ["simple", "extended", "prepared"];

const HEADER: [&str; 9] = [
    "protocol",
    "clients",
    "through",
    "tps",
    "latency µs",
    "proxy CPU µs",
    "× PgBouncer",
    "PostgreSQL CPU µs",
    "spread",
];

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Gate,
    /// The build to compare with.
    Before,
    PgBouncer,
}

const WAYS: [Way; 4] = [Way::Direct, Way::Gate, Way::Before, Way::PgBouncer];

struct Proxies {
    gate: Proxy,
    before: Option<Proxy>,
    pgbouncer: Proxy,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let gate = bench.stage.gate(SERVERS, &[])?;
    let pgbouncer = bench.stage.pgbouncer(SERVERS, &[])?;
    let before = bench.arguments.before.as_deref();
    let before = before.map(|program| bench.stage.gate_of(program, SERVERS, &[])).transpose()?;
    let proxies = Proxies { gate, before, pgbouncer };
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    for mode in MODES {
        for clients in CLIENTS {
            let manner = Manner { mode, clients };
            let series = rounds(bench, &proxies, manner)?;
            rows.extend(lines(manner, &series));
        }
    }
    bench.sheet.table("One tenant, one statement per transaction, 8 servers", 3, &rows);
    if !bench.stage.pgbouncer.keeps_statements {
        bench.sheet.text(
            "This PgBouncer cannot share prepared statements (since 1.21 it can): one client is \
             measured in its session mode, many cannot be.",
        );
    }
    Ok(())
}

/// All ways in turns, after a short run of each that opens the servers and warms the caches.
fn rounds(bench: &Bench, proxies: &Proxies, manner: Manner) -> Result<Vec<(Way, Series)>> {
    let mut all = Vec::new();
    for way in WAYS {
        if door(&bench.stage, proxies, way, manner).is_some() {
            all.push((way, Series::default()));
        }
    }
    for round in 0..=bench.arguments.rounds {
        for (way, series) in &mut all {
            let sample = sample(bench, proxies, *way, manner, round == 0)?;
            if round == 0 {
                continue;
            }
            let Manner { mode, clients } = manner;
            let (per_second, proxy) = (cell(Some(sample.per_second)), cell(sample.proxy_us));
            say(&format!(
                "{mode}, {clients} clients, round {round}: {} {per_second} tps, {proxy} µs",
                way.name()
            ));
            series.0.push(sample);
        }
    }
    Ok(all)
}

fn sample(
    bench: &Bench,
    proxies: &Proxies,
    way: Way,
    manner: Manner,
    warm_up: bool,
) -> Result<Sample> {
    let Some(door) = door(&bench.stage, proxies, way, manner) else {
        anyhow::bail!("{} cannot do this", way.name())
    };
    let pid = match way {
        Way::Direct => None,
        Way::Gate => Some(proxies.gate.pid()),
        Way::Before => proxies.before.as_ref().map(Proxy::pid),
        Way::PgBouncer => Some(proxies.pgbouncer.pid()),
    };
    let seconds = if warm_up { 1 } else { bench.arguments.seconds };
    let postmaster = bench.stage.postmaster()?;
    Sample::take(pid, postmaster, || bench.pgbench.run(&door, manner, Length::Seconds(seconds)))
}

/// Where this way starts; nowhere if it cannot do what is asked.
fn door(stage: &Stage, proxies: &Proxies, way: Way, manner: Manner) -> Option<Door> {
    let shares = stage.pgbouncer.keeps_statements || manner.mode != "prepared";
    match way {
        Way::Direct => Some(stage.direct()),
        Way::Gate => Some(stage.tenant(&proxies.gate, 0)),
        Way::Before => proxies.before.as_ref().map(|before| stage.tenant(before, 0)),
        Way::PgBouncer if shares => Some(stage.bounced(&proxies.pgbouncer, "app")),
        Way::PgBouncer if manner.clients == 1 => Some(stage.bounced(&proxies.pgbouncer, "session")),
        Way::PgBouncer => None,
    }
}

fn lines(manner: Manner, all: &[(Way, Series)]) -> Vec<Vec<String>> {
    let theirs = all.iter().find(|(way, _)| *way == Way::PgBouncer);
    let theirs = theirs.and_then(|(_, series)| series.proxy_us());
    let line = |(way, series): &(Way, Series)| {
        let ratio = series.proxy_us().zip(theirs).map(|(ours, theirs)| ours / theirs);
        vec![
            manner.mode.to_owned(),
            manner.clients.to_string(),
            way.name().to_owned(),
            cell(series.per_second()),
            cell(series.latency_us()),
            cell(series.proxy_us()),
            cell(ratio),
            cell(series.postgres_us()),
            percent(series.spread()),
        ]
    };
    all.iter().map(line).collect()
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Gate => "tenantgate",
            Self::Before => "before",
            Self::PgBouncer => "PgBouncer",
        }
    }
}
