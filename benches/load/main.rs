//! `make bench`: PostgreSQL alone, through tenantgate and through PgBouncer, in turns on one
//! machine. Prints tables; with `--record` they also go into `benches/README.md`, which says how to
//! read them. Nothing here passes or fails by time.

mod count;
mod driver;
mod idle;
mod pgbench;
mod plain;
mod proc;
mod sample;
mod sheet;
mod stage;
mod tenants;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::pgbench::PgBench;
use crate::sheet::Sheet;
use crate::stage::Stage;

/// Throughput, CPU time and memory beside PostgreSQL alone and PgBouncer.
#[derive(Parser)]
pub struct Arguments {
    /// How long each run goes on.
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// How often each run is repeated, in turns with the others.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Also count instructions (needs valgrind) and system calls (needs strace) per query.
    #[arg(long)]
    count: bool,
    /// Another build of the gate, measured in turns with this one.
    #[arg(long)]
    pub before: Option<PathBuf>,
    /// Keep what callgrind wrote in this folder, for callgrind_annotate.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write the tables into benches/README.md, under today's date.
    #[arg(long)]
    record: bool,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One statement per transaction, one tenant.
    Plain,
    /// Many tenants, beside an application that sets the tenant itself.
    Tenants,
    /// Memory of clients that do nothing.
    Idle,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let load = proc::load();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    say("starting a cluster, filling its table");
    let stage = runtime.block_on(Stage::set())?;
    let pgbench = PgBench::new(stage.program("pgbench"))?;
    let mut bench = Bench { arguments, stage, pgbench, runtime, sheet: Sheet::default() };
    let facts = bench.facts(&load)?;
    bench.sheet.text(&facts);
    if bench.wants(Part::Plain) {
        plain::run(&mut bench)?;
    }
    if bench.wants(Part::Tenants) {
        tenants::run(&mut bench)?;
    }
    if bench.wants(Part::Idle) {
        idle::run(&mut bench)?;
    }
    if bench.wants(Part::Count) {
        count::run(&mut bench)?;
    }
    bench.sheet.text(&format!("Load average at the end: {}.", proc::load()));
    if bench.arguments.record {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
        bench.sheet.record(&page, &proc::said("date", &["+%Y-%m-%d"]))?;
    }
    say(&format!("done in {:.0} s", started.elapsed().as_secs_f32()));
    Ok(())
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        let only = &self.arguments.only;
        let asked = part != Part::Count || self.arguments.count;
        only.contains(&part) || (only.is_empty() && asked)
    }

    /// What figures are worth nothing without.
    fn facts(&self, load: &str) -> Result<String> {
        let commit = proc::said("git", &["describe", "--always", "--dirty"]);
        let (seconds, rounds) = (self.arguments.seconds, self.arguments.rounds);
        let machine = proc::machine();
        let (postgres, pgbouncer) = (self.stage.postgres_version()?, &self.stage.pgbouncer.version);
        Ok(format!(
            "tenantgate {commit}, PostgreSQL {postgres}, PgBouncer {pgbouncer}.\n\
             {machine}; load average before: {load}.\n\
             {rounds} rounds of {seconds} s each, medians."
        ))
    }
}

/// Progress, on standard error.
pub fn say(text: &str) {
    eprintln!("bench: {text}");
}
