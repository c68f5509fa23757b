//! pgbench through each way: PostgreSQL alone, the gate, another build of it, PgBouncer. One
//! tenant, so nothing is to be scrubbed: what a proxy costs when it has nothing to do but pass on.

use anyhow::Result;

use crate::Bench;
use crate::lines::{self, Columns, Line};
use crate::pgbench::{Length, Manner, Script};
use crate::sheet::Aim;
use crate::stage::{Door, GatePlan, PgBouncerPlan, Proxy};

pub const SERVERS: usize = 8;
const MODES: [&str; 3] = ["simple", "extended", "prepared"];

pub const COLUMNS: Columns = Columns {
    what: &["protocol", "clients"],
    rate: "tps",
    proxy: "proxy CPU µs",
    postgres: "PostgreSQL CPU µs",
};

/// The proxies of a part, as far as there are any.
pub struct Ways {
    pub gate: Proxy,
    /// The same with level guard.
    pub guard: Proxy,
    /// The same with level sealed.
    pub sealed: Proxy,
    /// The build to compare with.
    pub before: Option<Proxy>,
    pub pgbouncer: Option<Proxy>,
}

impl Ways {
    /// Starts each with so many server connections.
    pub fn start(bench: &Bench, servers: usize, tls: bool) -> Result<Self> {
        let plan = GatePlan { servers, tls, ..GatePlan::default() };
        let stage = &bench.stage;
        let guard = stage.gate(GatePlan { level: Some("guard"), ..plan })?;
        let sealed = stage.gate(GatePlan { level: Some("sealed"), ..plan })?;
        let before = bench.arguments.before.as_deref();
        let before = before
            .map(|program| stage.gate(GatePlan { program: Some(program), ..plan }))
            .transpose()?;
        let pgbouncer = PgBouncerPlan { servers, tls, ..PgBouncerPlan::default() };
        let pgbouncer = match stage.pgbouncer.is_some() {
            true => Some(stage.pgbouncer(pgbouncer)?),
            false => None,
        };
        Ok(Self { gate: stage.gate(plan)?, guard, sealed, before, pgbouncer })
    }

    /// The builds of the gate, with what they are called.
    pub fn gates(&self) -> Vec<(&'static str, &Proxy)> {
        let mut gates = vec![
            ("tenantgate", &self.gate),
            ("tenantgate, guard", &self.guard),
            ("tenantgate, sealed", &self.sealed),
        ];
        gates.extend(self.before.as_ref().map(|gate| ("before", gate)));
        gates
    }

    /// Every way, with the door for the one tenant of the plain parts.
    pub fn doors(&self, bench: &Bench) -> Vec<(&'static str, Option<u32>, Door)> {
        let stage = &bench.stage;
        let mut doors = vec![("direct", None, stage.direct())];
        for (name, gate) in self.gates() {
            doors.push((name, Some(gate.pid()), stage.tenant(gate, 0)));
        }
        if let Some(pgbouncer) = &self.pgbouncer {
            let door = stage.bounced(pgbouncer, "app");
            doors.push((lines::BASELINE, Some(pgbouncer.pid()), door));
        }
        doors
    }
}

/// One statement per transaction.
pub fn plain(bench: &mut Bench) -> Result<()> {
    let ways = Ways::start(bench, SERVERS, false)?;
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for mode in MODES {
        for clients in [1, 32] {
            let mut lines = through(bench, &ways, Manner { mode, clients, script: Script::Select });
            lines::take(bench, "plain", &mut lines)?;
            ratios.push(lines::cpu_ratio(&lines, "tenantgate"));
            let table = lines::rows(&COLUMNS, &lines);
            rows.extend(table.into_iter().skip(usize::from(!rows.is_empty())));
        }
    }
    let worst = ratios.into_iter().flatten().reduce(f64::max);
    bench.sheet.aim(Aim::at_most("proxy CPU per query, worst of plain, × PgBouncer", 1.0, worst));
    bench.sheet.table("One tenant, one statement per transaction, 8 servers", 3, &rows);
    if bench.stage.pgbouncer.as_ref().is_some_and(|found| !found.keeps_statements) {
        bench.sheet.text(
            "This PgBouncer cannot share prepared statements (since 1.21 it can): one client is \
             measured in its session mode, many cannot be.",
        );
    }
    Ok(())
}

/// pgbench's default transaction.
pub fn tpc_b(bench: &mut Bench) -> Result<()> {
    let ways = Ways::start(bench, SERVERS, false)?;
    let mut rows = Vec::new();
    for mode in ["simple", "prepared"] {
        // As many clients as servers: pgbench waits for the answer to its first Parse without
        // looking at its other clients, who may hold all servers in open transactions.
        let manner = Manner { mode, clients: SERVERS, script: Script::TpcB };
        let mut lines = through(bench, &ways, manner);
        lines::take(bench, "tpcb", &mut lines)?;
        let table = lines::rows(&COLUMNS, &lines);
        rows.extend(table.into_iter().skip(usize::from(!rows.is_empty())));
    }
    bench.sheet.table("TPC-B-like, row security on all four tables, 8 servers", 3, &rows);
    Ok(())
}

fn through<'stage>(bench: &'stage Bench, ways: &Ways, manner: Manner) -> Vec<Line<'stage>> {
    let stage = &bench.stage;
    let keeps = stage.pgbouncer.as_ref().is_some_and(|found| found.keeps_statements);
    let what = [manner.mode, &manner.clients.to_string()];
    let mut lines = Vec::new();
    for (name, proxy, mut door) in ways.doors(bench) {
        if name == lines::BASELINE && manner.mode == "prepared" && !keeps {
            if manner.clients > 1 {
                continue;
            }
            door.dbname = "session";
        }
        let run = move |length| bench.pgbench.run(&door, manner, Length::For(length));
        lines.push(Line::new(&what, name, proxy, run));
    }
    lines
}
