//! What a run comes to: a table for people, JSON for programs, a plot, and whether it was good.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::cli::load::chart::{self, Line, Panel};
use crate::cli::load::figures::{Figures, Tally};
use crate::cli::load::{Pace, Plan};

/// Most tenants with a line of their own in the table; JSON has all.
const TENANTS_SHOWN_MAX: usize = 20;

/// Quantiles that are shown, and what they are called.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A run that is over.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    figures: Figures,
    took: Duration,
}

/// Some transactions, as they are shown.
struct Group {
    name: String,
    phase: usize,
    tally: Tally,
}

impl Report {
    pub(super) fn new(plan: Plan, figures: Figures, took: Duration) -> Self {
        Self { plan, figures, took }
    }

    /// Why the run was not good; nothing if it was. Errors with one of the SQLSTATEs in `expected`
    /// do not count.
    pub fn verdict(&self, expected: &[String]) -> Option<String> {
        let Figures { leaks, rows_checked, faults, .. } = &self.figures;
        if *leaks > 0 {
            return Some(format!("{leaks} rows of other tenants were seen (LEAK)"));
        }
        let unexpected = faults.values().filter(|(fault, _)| !expected.contains(&fault.sqlstate));
        let failed: u64 = unexpected.map(|(_, count)| count).sum();
        if failed > 0 {
            return Some(format!("{failed} errors"));
        }
        if self.all(0).count() == 0 {
            return Some("no transaction was done".to_owned());
        }
        match &self.plan.check_column {
            Some(column) if *rows_checked == 0 => {
                Some(format!("no row had a column \"{column}\": nothing was checked"))
            }
            _ => None,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let Figures { leaks, rows_checked, faults, .. } = &self.figures;
        let title = ["", "done", "per s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
        let mut table = plain_table();
        table.set_header(title.iter().copied().chain(["failed", "not begun"]));
        let mut groups = self.groups();
        groups.extend(self.busiest());
        for group in &groups {
            table.add_row(self.cells(group));
        }
        for at in 1..=9 {
            if let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut out = format!("{}\n\n{}\n", self.headline(), table.trim_fmt());
        if let Some(line) = self.noise() {
            out.push_str(&format!("\n{line}\n"));
        }
        if let Some(column) = &self.plan.check_column {
            out.push_str(&format!(
                "\nrows checked by {column}: {rows_checked}, of other tenants: {leaks}\n"
            ));
        }
        if !faults.is_empty() {
            out.push_str("\nerrors:\n");
            for (fault, count) in faults.values() {
                out.push_str(&format!("{count:>8} × {}\n", fault.told()));
            }
        }
        out
    }

    /// For programs. Latencies are in milliseconds.
    pub fn json(&self) -> Value {
        let Plan { clients, pace, seed, tenants, .. } = &self.plan;
        let Figures { leaks, rows_checked, faults, seconds, .. } = &self.figures;
        let groups: Vec<Value> = self.groups().iter().map(|group| self.facts(group)).collect();
        let each = (0..self.plan.phases()).flat_map(|phase| {
            let tallies = self.figures.tallies(phase);
            tallies.map(move |(tenant, tally)| self.own(phase, tenant, tally))
        });
        let each: Vec<Value> = each.map(|group| self.facts(&group)).collect();
        let errors = faults.values().map(|(fault, count)| {
            let (sqlstate, message, hint) = (&fault.sqlstate, &fault.message, &fault.hint);
            json!({ "sqlstate": sqlstate, "message": message, "hint": hint, "count": count })
        });
        let seconds = seconds.iter().map(|second| {
            let tally = &second.tally;
            json!({
                "phase": self.phase_name(second.phase), "done": tally.count(),
                "failed": tally.errors, "waiting": second.waiting,
                "p50": milliseconds(tally, 0.5), "p99": milliseconds(tally, 0.99),
            })
        });
        json!({
            "seconds": self.took.as_secs_f64(), "clients": clients, "seed": seed,
            "tenants": tenants.len(),
            "rate": match pace { Pace::Rate(rate) => Some(rate), Pace::Closed => None },
            "groups": groups, "by_tenant": each,
            "errors": errors.collect::<Vec<_>>(),
            "rows_checked": rows_checked, "leaks": leaks,
            "leaks_told": self.figures.leaks_told,
            "by_second": seconds.collect::<Vec<_>>(),
        })
    }

    /// An SVG: throughput and latency over time, and latency by quantile.
    pub fn plot(&self) -> String {
        let seconds = &self.figures.seconds;
        let line = |name: &str, value: &dyn Fn(usize) -> f64| {
            let points = (0..seconds.len()).map(|at| (at as f64 + 1.0, value(at)));
            Line { name: name.to_owned(), points: points.collect() }
        };
        let tally = |at: usize, value: &dyn Fn(&Tally) -> f64| {
            seconds.get(at).map_or(0.0, |second| value(&second.tally))
        };
        let done = line("done", &|at| tally(at, &|tally| tally.count() as f64));
        let failed = line("failed", &|at| tally(at, &|tally| tally.errors as f64));
        let quantile = |part: f64| move |at: usize| tally(at, &|tally| milliseconds(tally, part));
        let (p50, p99) = (line("p50", &quantile(0.5)), line("p99", &quantile(0.99)));
        let by_quantile = self.groups().into_iter().map(|group| {
            // One step to the right is a tenth of the transactions before it.
            let steps = (0..=30).map(|step| f64::from(step) / 10.0);
            let point = |step: f64| (step, milliseconds(&group.tally, 1.0 - 10_f64.powf(-step)));
            Line { points: steps.map(point).collect(), name: group.name }
        });
        let mark = self.plan.noisy.map(|_| self.plan.length.as_secs_f64() / 2.0);
        let panel = |title: &str, x: &str, lines: Vec<Line>, log: bool, mark: Option<f64>| Panel {
            title: title.to_owned(),
            x: x.to_owned(),
            lines,
            log,
            mark,
        };
        chart::svg(
            &self.headline(),
            &[
                panel("transactions per second", "seconds", vec![done, failed], false, mark),
                panel("latency in ms, by second", "seconds", vec![p50, p99], true, mark),
                panel(
                    "latency in ms, by quantile",
                    "nines: 1 is p90, 2 is p99, 3 is p99.9",
                    by_quantile.collect(),
                    true,
                    None,
                ),
            ],
        )
    }

    fn headline(&self) -> String {
        let Plan { tenants, clients, pace, seed, .. } = &self.plan;
        let pace = match pace {
            Pace::Closed => "as fast as they can".to_owned(),
            Pace::Rate(rate) => format!("{rate} transactions per second scheduled"),
        };
        let seconds = self.took.as_secs_f64();
        let tenants = tenants.len();
        format!("{tenants} tenants, {clients} connections, {pace}, {seconds:.0} s, seed {seed}")
    }

    fn all(&self, phase: usize) -> Tally {
        self.figures.sum(phase, |_| true)
    }

    /// All tenants; with a noisy one, that one and the others, before and after it got noisy.
    fn groups(&self) -> Vec<Group> {
        let Some(noisy) = self.plan.noisy else {
            return vec![Group { name: "all".to_owned(), phase: 0, tally: self.all(0) }];
        };
        let groups = (0..self.plan.phases()).flat_map(|phase| {
            let others = self.figures.sum(phase, |tenant| tenant != noisy.tenant);
            let own = self.figures.sum(phase, |tenant| tenant == noisy.tenant);
            let name = |who: &str| format!("{}: {who}", self.phase_name(phase));
            [
                Group { name: name("the others"), phase, tally: others },
                Group { name: name(self.id(noisy.tenant)), phase, tally: own },
            ]
        });
        groups.collect()
    }

    /// The tenants with the most transactions, each with the phases it has.
    fn busiest(&self) -> Vec<Group> {
        let tally = |phase, tenant| self.figures.tally(phase, tenant);
        let count = |tenant: usize| {
            let phases = (0..self.plan.phases()).filter_map(|phase| tally(phase, tenant));
            phases.map(Tally::count).sum::<u64>()
        };
        let mut tenants: Vec<usize> = (0..self.plan.tenants.len()).collect();
        tenants.sort_by_cached_key(|tenant| std::cmp::Reverse(count(*tenant)));
        let shown = if tenants.len() > 1 { TENANTS_SHOWN_MAX } else { 0 };
        let lines = tenants.into_iter().take(shown).flat_map(|tenant| {
            (0..self.plan.phases()).filter_map(move |phase| {
                tally(phase, tenant).map(|tally| self.own(phase, tenant, tally))
            })
        });
        lines.collect()
    }

    fn own(&self, phase: usize, tenant: usize, tally: &Tally) -> Group {
        let name = match self.plan.noisy {
            Some(_) => format!("{}: {}", self.phase_name(phase), self.id(tenant)),
            None => self.id(tenant).to_owned(),
        };
        Group { name, phase, tally: tally.clone() }
    }

    fn id(&self, tenant: usize) -> &str {
        self.plan.tenants.get(tenant).map_or("?", |tenant| tenant.id.as_str())
    }

    fn phase_name(&self, phase: usize) -> &'static str {
        match (self.plan.noisy, phase) {
            (None, _) => "all",
            (Some(_), 0) => "calm",
            (Some(_), _) => "noisy",
        }
    }

    /// How the others fare beside the noisy one.
    fn noise(&self) -> Option<String> {
        let noisy = self.plan.noisy?;
        let p99 = |phase| {
            let others = self.figures.sum(phase, |tenant| tenant != noisy.tenant);
            milliseconds(&others, 0.99)
        };
        let (calm, beside) = (p99(0), p99(1));
        let (who, factor) = (self.id(noisy.tenant), noisy.factor);
        Some(format!(
            "p99 of the others: {calm:.2} ms, and {beside:.2} ms while {who} sends {factor} times \
             as much ({:.2} times as long)",
            beside / calm.max(0.001)
        ))
    }

    fn per_second(&self, tally: &Tally) -> f64 {
        let each = self.took.as_secs_f64() / self.plan.phases() as f64;
        tally.count() as f64 / each.max(0.001)
    }

    fn cells(&self, group: &Group) -> Vec<String> {
        let tally = &group.tally;
        let mut cells = vec![group.name.clone(), tally.count().to_string()];
        cells.push(format!("{:.1}", self.per_second(tally)));
        cells.extend(QUANTILES.map(|(_, part)| format!("{:.2}", milliseconds(tally, part))));
        cells.push(format!("{:.2}", tally.max().as_secs_f64() * 1e3));
        cells.extend([tally.errors, tally.unserved].map(|count| count.to_string()));
        cells
    }

    fn facts(&self, group: &Group) -> Value {
        let tally = &group.tally;
        let mut value = json!({
            "name": group.name, "phase": self.phase_name(group.phase),
            "done": tally.count(), "per_second": self.per_second(tally),
            "failed": tally.errors, "not_begun": tally.unserved,
            "max": tally.max().as_secs_f64() * 1e3,
        });
        if let Some(object) = value.as_object_mut() {
            object.extend(
                QUANTILES
                    .map(|(name, part)| (name.to_owned(), Value::from(milliseconds(tally, part)))),
            );
        }
        value
    }
}

fn milliseconds(tally: &Tally, part: f64) -> f64 {
    tally.quantile(part).as_secs_f64() * 1e3
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}
