//! `make bench-micro`: what single steps of a request cost, in nanoseconds and in instructions,
//! without sockets but for acquire. `cargo test` runs each once.

mod cases;
mod pool;
mod timing;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};

use crate::timing::{Case, Length};

/// Nanoseconds of the steps of a request.
#[derive(Parser)]
struct Arguments {
    /// How often each step is timed, in turns with the others.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// How long one of these is, in milliseconds.
    #[arg(long, default_value_t = 20)]
    milliseconds: u64,
    /// Only steps with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Count instructions too (needs valgrind); acquire is left out.
    #[arg(long)]
    count: bool,
    /// Do one step so often and print nothing: what is counted.
    #[arg(long, num_args = 2, value_names = ["STEP", "TIMES"], hide = true)]
    once: Vec<String>,
    /// What cargo says to every bench, and does not say in a test.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let smoke = !words.iter().any(|word| word == "--bench" || word == "--once");
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // `cargo test` hands everybody the names of the tests it wants.
        Err(_) if smoke => return Ok(ExitCode::SUCCESS),
        Err(error) => error.exit(),
    };
    if let [step, times] = arguments.once.as_slice() {
        let mut found = cases::all()?.into_iter().find(|case| case.name == step);
        let case = found.as_mut().context("no such step")?;
        std::hint::black_box((case.run)(times.parse()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let length = match smoke {
        true => Length { rounds: 1, round: Duration::from_micros(1) },
        false => Length {
            rounds: arguments.rounds.max(1),
            round: Duration::from_millis(arguments.milliseconds),
        },
    };
    if smoke {
        println!("A smoke test: the figures mean nothing.");
    }
    let wanted = |case: &Case<'_>| {
        arguments.only.as_ref().is_none_or(|only| case.name.contains(only.as_str()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let floor = match arguments.only.as_ref().is_none_or(|only| "acquire".contains(only.as_str())) {
        true => Some(runtime.block_on(local.run_until(pool::Floor::set()))?),
        false => None,
    };
    let mut all = cases::all()?;
    all.retain(wanted);
    let alone = all.len();
    if let Some(floor) = &floor {
        let wait = |future: pool::Turns<'_>| runtime.block_on(local.run_until(future));
        all.extend(floor.cases(wait));
    }
    let figures = timing::take(&mut all, length)?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["step", "ns", "spread", "instructions"]);
    for (at, (case, figure)) in all.iter().zip(figures).enumerate() {
        let instructions = match arguments.count && at < alone {
            true => format!("{:.0}", timing::instructions(&["--once", case.name])?),
            false => "-".to_owned(),
        };
        let nanoseconds = format!("{:.1}", figure.nanoseconds);
        let spread = format!("{:.0} %", figure.spread * 100.0);
        table.add_row([case.name.to_owned(), nanoseconds, spread, instructions]);
    }
    for at in 1..4 {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
