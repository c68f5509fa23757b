//! Unnamed statements of the extended protocol, as most drivers send them: parsed by PostgreSQL
//! each time, or prepared by the gate (`prepare_threshold`).

use anyhow::Result;

use crate::Bench;
use crate::lines::{self, Line};
use crate::pgbench::{Length, Manner, Script};
use crate::stage::{GatePlan, PgBouncerPlan};
use crate::ways::{COLUMNS, SERVERS};

pub fn run(bench: &mut Bench) -> Result<()> {
    let stage = &bench.stage;
    let plan = GatePlan { servers: SERVERS, ..GatePlan::default() };
    let (parsed, prepared) = (stage.gate(plan)?, stage.gate(GatePlan { prepares: true, ..plan })?);
    let pgbouncer = match stage.pgbouncer.is_some() {
        true => {
            let plan = PgBouncerPlan { servers: SERVERS, ..PgBouncerPlan::default() };
            Some(stage.pgbouncer(plan)?)
        }
        false => None,
    };
    let mut rows = Vec::new();
    for clients in [1, 32] {
        let stage = &bench.stage;
        let mut doors = vec![
            ("direct", None, stage.direct()),
            ("tenantgate", Some(parsed.pid()), stage.tenant(&parsed, 0)),
            ("tenantgate, prepare_threshold", Some(prepared.pid()), stage.tenant(&prepared, 0)),
        ];
        if let Some(pgbouncer) = &pgbouncer {
            let door = stage.bounced(pgbouncer, "app");
            doors.push((lines::BASELINE, Some(pgbouncer.pid()), door));
        }
        let manner = Manner { mode: "extended", clients, script: Script::Typed };
        let what = [manner.mode, &clients.to_string()];
        let pgbench = &bench.pgbench;
        let line = |(name, proxy, door)| {
            let run = move |length| pgbench.run(&door, manner, Length::For(length));
            Line::new(&what, name, proxy, run)
        };
        let mut lines: Vec<Line<'_>> = doors.into_iter().map(line).collect();
        lines::take(bench, "unnamed", &mut lines)?;
        let table = lines::rows(&COLUMNS, &lines);
        rows.extend(table.into_iter().skip(usize::from(!rows.is_empty())));
    }
    bench.sheet.table("Unnamed statements with typed parameters, 8 servers", 3, &rows);
    Ok(())
}
