//! `make bench`: PostgreSQL alone, through tenantgate and through PgBouncer, in turns on one
//! machine. Prints tables and the aims; `benches/README.md` says how to read them. Nothing here
//! passes or fails by time. `cargo test` runs it as a smoke test: everything once, for a moment.

mod acting;
mod budgets;
mod bulk;
mod count;
mod driver;
mod fairness;
mod idle;
mod levels;
mod lines;
mod pgbench;
mod plot;
mod proc;
mod sample;
mod scale;
mod sheet;
mod stage;
mod storm;
mod tables;
mod tenants;
mod unnamed;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::pgbench::PgBench;
use crate::sheet::Sheet;
use crate::stage::Stage;

/// Throughput, CPU time and memory beside PostgreSQL alone and PgBouncer.
#[derive(Clone, Parser)]
pub struct Arguments {
    /// How long each run goes on.
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// How often each run is repeated, in turns with the others.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// One round of one second each: does everything run, and what is it about.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Also count instructions (needs valgrind) and system calls (needs strace) per query.
    #[arg(long)]
    count: bool,
    /// Worker threads of the gate; its default without it.
    #[arg(long)]
    workers: Option<usize>,
    /// Everything on this CPU (needs taskset).
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,
    /// Another build of the gate, measured in turns with this one.
    #[arg(long)]
    pub before: Option<PathBuf>,
    /// Keep what callgrind wrote in this folder, for callgrind_annotate.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write tables and aims as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what tables hold against PgBouncer (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write tables, JSON and plot into benches/, under today's date.
    #[arg(long)]
    record: bool,
    /// What cargo says to every bench, and does not say in a test.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One statement per transaction, one tenant.
    Plain,
    /// The same without a name, parsed each time and not.
    Unnamed,
    /// pgbench's default transaction.
    Tpcb,
    /// Large results and COPY.
    Bulk,
    /// Logins.
    Storm,
    /// Many tenants, beside an application that sets the tenant itself.
    Tenants,
    /// One tenant beside another that takes ten times as much.
    Fairness,
    /// One pool that acts for many tenants.
    Acting,
    /// What each level of protection costs.
    Levels,
    /// How exactly budgets hold.
    Budgets,
    /// Memory of clients that do nothing.
    Idle,
    /// A million tenants in tables.
    Scale,
    /// Instructions and system calls.
    Count,
}

/// What every part works with.
pub struct Bench {
    pub arguments: Arguments,
    pub stage: Stage,
    pub pgbench: PgBench,
    pub runtime: Runtime,
    pub sheet: Sheet,
}

fn main() -> Result<ExitCode> {
    let smoke = !std::env::args().any(|word| word == "--bench");
    let mut arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // `cargo test` hands everybody the names of the tests it wants.
        Err(_) if smoke => return Ok(ExitCode::SUCCESS),
        Err(error) => error.exit(),
    };
    if let Some(cpu) = arguments.pin {
        return pinned(cpu);
    }
    if arguments.quick || !arguments.bench {
        (arguments.seconds, arguments.rounds) = (1, 1);
    }
    let parts = arguments.parts();
    say(&format!("{} parts, {}", parts.len(), arguments.estimate()));
    let started = Instant::now();
    let load = proc::load();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    say("starting a cluster, filling its tables");
    let stage = runtime.block_on(Stage::set(arguments.bench, arguments.workers))?;
    let pgbench = PgBench::new(stage.program("pgbench"))?;
    let mut bench = Bench { arguments, stage, pgbench, runtime, sheet: Sheet::default() };
    let facts = bench.facts(&load)?;
    bench.sheet.text(&facts);
    for (number, part) in parts.iter().enumerate() {
        say(&format!("part {} of {}: {part:?}", number + 1, parts.len()));
        part.run(&mut bench)?;
    }
    bench.sheet.end(&format!("Load average at the end: {}.", proc::load()));
    bench.write()?;
    say(&format!("done in {:.0} s", started.elapsed().as_secs_f32()));
    Ok(ExitCode::SUCCESS)
}

/// Runs all of this again on one CPU, which everything that is started inherits.
fn pinned(cpu: usize) -> Result<ExitCode> {
    let mut words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word.starts_with("--pin")).context("no --pin")?;
    let count = if words.get(at).is_some_and(|word| word.contains('=')) { 1 } else { 2 };
    words.drain(at..at + count);
    let status = Command::new("taskset").args(["-c", &cpu.to_string()]).args(words).status();
    let status = status.context("cannot run taskset")?;
    Ok(ExitCode::from(if status.success() { 0 } else { 1 }))
}

impl Arguments {
    fn parts(&self) -> Vec<Part> {
        let mut parts = Part::value_variants().to_vec();
        parts.retain(|part| match self.only.is_empty() {
            true => *part != Part::Count || self.count,
            false => self.only.contains(part),
        });
        parts
    }

    /// About how long all of it takes.
    fn estimate(&self) -> String {
        let each = self.rounds as u64 * (self.seconds + 1) + 2;
        let seconds = self.parts().into_iter().map(|part| match part {
            Part::Plain => 23 * each,
            Part::Unnamed => 8 * each,
            Part::Tpcb => 7 * each,
            Part::Bulk => 16 * each,
            Part::Storm => 5 * each,
            Part::Tenants => 8 * each + 60,
            Part::Fairness => 24 * each + 15,
            Part::Acting => 7 * each + 30,
            Part::Levels => 12 * each + 30,
            Part::Budgets if self.quick => 35,
            Part::Budgets => 95,
            Part::Idle => 120,
            Part::Scale if self.quick => 25,
            Part::Scale => 90,
            Part::Count => 150,
        });
        let seconds = seconds.sum::<u64>() + 15;
        match self.bench {
            true => format!("about {} minutes", seconds.div_ceil(60)),
            false => "a moment each, as a smoke test".to_owned(),
        }
    }
}

impl Part {
    fn run(self, bench: &mut Bench) -> Result<()> {
        match self {
            Self::Plain => ways::plain(bench),
            Self::Unnamed => unnamed::run(bench),
            Self::Tpcb => ways::tpc_b(bench),
            Self::Bulk => bulk::run(bench),
            Self::Storm => storm::run(bench),
            Self::Tenants => tenants::run(bench),
            Self::Fairness => fairness::run(bench),
            Self::Acting => acting::run(bench),
            Self::Levels => levels::take(bench),
            Self::Budgets => budgets::run(bench),
            Self::Idle => idle::run(bench),
            Self::Scale => scale::run(bench),
            Self::Count => count::run(bench),
        }
    }
}

impl Bench {
    /// Whether this is `cargo test`, which wants to know that everything runs and nothing else.
    pub fn is_smoke(&self) -> bool {
        !self.arguments.bench
    }

    /// Whether a first impression is enough.
    pub fn is_quick(&self) -> bool {
        self.arguments.quick
    }

    /// How long one run goes on.
    pub fn length(&self) -> Duration {
        match self.is_smoke() {
            true => Duration::from_millis(100),
            false => Duration::from_secs(self.arguments.seconds),
        }
    }

    /// Whether this proxy is on this machine.
    pub fn has(&self, name: &str) -> bool {
        name != lines::BASELINE || self.stage.pgbouncer.is_some()
    }

    /// What figures are worth nothing without.
    fn facts(&self, load: &str) -> Result<String> {
        let commit = proc::said("git", &["describe", "--always", "--dirty"]);
        let (seconds, rounds) = (self.arguments.seconds, self.arguments.rounds);
        let machine = proc::machine();
        let postgres = self.stage.postgres_version()?;
        let pgbouncer = self.stage.pgbouncer.as_ref().map_or("none", |found| &found.version);
        if self.is_smoke() {
            return Ok("A smoke test: the figures mean nothing.".to_owned());
        }
        Ok(format!(
            "tenantgate {commit}, PostgreSQL {postgres}, PgBouncer {pgbouncer}.\n\
             {machine}; load average before: {load}.\n\
             {rounds} rounds of {seconds} s each, medians."
        ))
    }

    /// Files that were asked for.
    fn write(&self) -> Result<()> {
        let put = |file: &Path, text: String| {
            fs::write(file, text).with_context(|| file.display().to_string())
        };
        let Arguments { json, plot, record, .. } = &self.arguments;
        if let Some(file) = json {
            put(file, self.sheet.json())?;
        }
        if let Some(file) = plot {
            put(file, plot::svg(&self.sheet))?;
        }
        if *record {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
            let results = folder.join("results");
            fs::create_dir_all(&results)?;
            let date = proc::said("date", &["+%Y-%m-%d"]);
            put(&results.join(format!("{date}.json")), self.sheet.json())?;
            put(&results.join(format!("{date}.svg")), plot::svg(&self.sheet))?;
            self.sheet.record(&folder.join("README.md"), &date)?;
        }
        Ok(())
    }
}

/// Progress, on standard error.
pub fn say(text: &str) {
    eprintln!("bench: {text}");
}
