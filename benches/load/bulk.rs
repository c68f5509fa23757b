//! Bytes: large results, COPY out and COPY in. What counts is the proxy's CPU time per byte.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::driver::{self, Work};
use crate::lines::{self, Columns, Line};
use crate::sheet::Aim;
use crate::stage::Door;
use crate::ways::Ways;

const CLIENTS: usize = 4;

/// 50,000 rows of about 100 bytes each.
const ROWS: Work = Work::Read("SELECT number, body FROM bulk");
/// The same bytes in fewer, longer rows.
const LONG_ROWS: Work = Work::Read("SELECT string_agg(body, '') FROM bulk GROUP BY number / 40");
const COPY_OUT: Work = Work::Read("COPY (SELECT number, body FROM bulk) TO STDOUT");

const COLUMNS: Columns = Columns {
    what: &["what"],
    rate: "MB/s",
    proxy: "proxy CPU ms per GB",
    postgres: "PostgreSQL CPU ms per GB",
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let ways = Ways::start(bench, CLIENTS, false)?;
    let mut lines = Vec::new();
    let works = [("rows of 100 B", ROWS), ("rows of 3 kB", LONG_ROWS), ("COPY out", COPY_OUT)];
    for (what, work) in works {
        for way in ways.doors(bench) {
            lines.push(line(bench, what, way, work));
        }
    }
    let stage = &bench.stage;
    let mut copies = vec![("direct", None, stage.silo(None, false))];
    for (name, gate) in ways.gates() {
        copies.push((name, Some(gate.pid()), stage.silo(Some(gate), true)));
    }
    if let Some(pgbouncer) = &ways.pgbouncer {
        let door = stage.silo(Some(pgbouncer), false);
        copies.push((lines::BASELINE, Some(pgbouncer.pid()), door));
    }
    for way in copies {
        lines.push(line(bench, "COPY in (silo)", way, Work::CopyIn));
    }
    lines::take(bench, "bulk", &mut lines)?;
    let rows = lines::rows(&COLUMNS, &lines);
    let results: Vec<Line<'_>> = lines
        .into_iter()
        .filter(|line| line.what.iter().any(|it| it.starts_with("rows")))
        .collect();
    let ratio = lines::cpu_ratio(&results, "tenantgate");
    drop(results);
    bench.sheet.aim(Aim::at_most("proxy CPU per GB of results, × PgBouncer", 0.7, ratio));
    bench.sheet.table("Large results and COPY, 4 clients", 2, &rows);
    Ok(())
}

fn line<'stage>(
    bench: &'stage Bench,
    what: &str,
    way: (&'static str, Option<u32>, Door),
    work: Work,
) -> Line<'stage> {
    let (name, proxy, door) = way;
    let doors = vec![door; CLIENTS];
    let run =
        move |length: Duration| bench.runtime.block_on(driver::run(doors.clone(), work, length));
    Line::new(&[what], name, proxy, run)
}
