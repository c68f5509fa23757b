//! The lines of a table: what is run, in turns with the others of its group, and the cells that
//! come of it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::sample::{Sample, Series, median};
use crate::sheet::{cell, percent};
use crate::{Bench, say};

/// What a line does for so long.
pub type Run<'stage> = Box<dyn Fn(Duration) -> Result<Outcome> + 'stage>;

/// What came of it. A transaction is whatever the part counts: also a megabyte, or a login.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub transactions: f64,
    pub per_second: f64,
    pub latency: Duration,
}

/// A line of a table.
pub struct Line<'stage> {
    /// Its first cells; lines with the same ones are held against each other.
    pub what: Vec<String>,
    pub through: &'static str,
    pub proxy: Option<u32>,
    pub run: Run<'stage>,
    pub series: Series,
}

/// The way that the others are held against.
pub const BASELINE: &str = "PgBouncer";

/// How the columns of a part are called.
pub struct Columns {
    pub what: &'static [&'static str],
    /// What happens per second: `tps`, `MB/s`.
    pub rate: &'static str,
    /// CPU time of the proxy for each: `proxy CPU µs`.
    pub proxy: &'static str,
    pub postgres: &'static str,
}

impl<'stage> Line<'stage> {
    pub fn new(
        what: &[&str],
        through: &'static str,
        proxy: Option<u32>,
        run: impl Fn(Duration) -> Result<Outcome> + 'stage,
    ) -> Self {
        let what = what.iter().map(|word| (*word).to_owned()).collect();
        Self { what, through, proxy, run: Box::new(run), series: Series::default() }
    }
}

/// Runs all lines in turns, after a short run of each that opens servers and warms caches.
pub fn take(bench: &Bench, part: &str, lines: &mut [Line<'_>]) -> Result<()> {
    let postmaster = bench.stage.postmaster()?;
    let first = usize::from(bench.is_smoke());
    for round in first..=bench.arguments.rounds {
        for line in lines.iter_mut() {
            let length = if round == 0 { Duration::from_secs(1) } else { bench.length() };
            let what = line.what.join(", ");
            let run = || (line.run)(length);
            let sample = Sample::take(line.proxy, postmaster, run);
            let sample = sample.with_context(|| format!("{part}: {what}, {}", line.through))?;
            if round == 0 {
                continue;
            }
            let (per_second, proxy) = (cell(Some(sample.per_second)), cell(sample.proxy_us));
            let through = line.through;
            say(&format!("{part}, round {round}: {what}, {through}: {per_second}/s, {proxy} µs"));
            line.series.0.push(sample);
        }
    }
    Ok(())
}

/// The table, its header first.
pub fn rows(columns: &Columns, lines: &[Line<'_>]) -> Vec<Vec<String>> {
    let header = ["through", columns.rate, "× its", "latency µs", columns.proxy, "× its"];
    let end = [columns.postgres, "spread"];
    let header = columns.what.iter().chain(&header).chain(&end);
    let mut rows = vec![header.map(|word| (*word).to_owned()).collect::<Vec<_>>()];
    for line in lines {
        let its = baseline(line, lines);
        let mut cells = line.what.clone();
        let against = |value: &dyn Fn(&Sample) -> Option<f64>| {
            cell(its.and_then(|its| line.series.against(&its.series, value)))
        };
        cells.extend([
            line.through.to_owned(),
            cell(line.series.per_second()),
            against(&|sample| Some(sample.per_second)),
            cell(line.series.latency_us()),
            cell(line.series.proxy_us()),
            against(&|sample| sample.proxy_us),
            cell(line.series.postgres_us()),
            percent(line.series.spread()),
        ]);
        rows.push(cells);
    }
    rows
}

/// The median, over those groups that have both, of what a way needs of the proxy's CPU against
/// PgBouncer in the same round.
pub fn cpu_ratio(lines: &[Line<'_>], through: &str) -> Option<f64> {
    let ours = lines.iter().filter(|line| line.through == through);
    let ratios = ours.filter_map(|line| {
        let its = baseline(line, lines)?;
        line.series.against(&its.series, &|sample| sample.proxy_us)
    });
    median(ratios.map(Some).collect::<Vec<_>>().into_iter())
}

fn baseline<'lines, 'stage>(
    line: &Line<'_>,
    lines: &'lines [Line<'stage>],
) -> Option<&'lines Line<'stage>> {
    lines.iter().find(|its| its.what == line.what && its.through == BASELINE)
}
