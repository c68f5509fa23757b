//! Nanoseconds of small things: all cases in turns, many short rounds, median and quartiles. And
//! instructions, by running a case under callgrind for two numbers of times: what start and end
//! cost falls out of the difference.

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Something that is done many times, and what it is called.
pub struct Case<'stage> {
    pub name: &'static str,
    /// Does it so often; what it gives must depend on what was done.
    pub run: Box<dyn FnMut(u64) -> Result<u64> + 'stage>,
}

/// How long a round of one case is.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub rounds: usize,
    pub round: Duration,
}

/// Nanoseconds each: median, and how far the quartiles are apart as a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub nanoseconds: f64,
    pub spread: f64,
}

/// How often a case is done before each time it is timed.
const WARM_UP: u64 = 4;

/// Counted runs: few enough for callgrind, many enough for the difference to be exact.
const COUNTED: [u64; 2] = [200, 1200];

impl<'stage> Case<'stage> {
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Result<u64> + 'stage) -> Self {
        Self { name, run: Box::new(run) }
    }

    fn time(&mut self, times: u64) -> Result<Duration> {
        let started = Instant::now();
        black_box((self.run)(times).context(self.name)?);
        Ok(started.elapsed())
    }
}

/// Times all cases in turns, so that whatever else the machine does hits all of them.
pub fn take(cases: &mut [Case<'_>], length: Length) -> Result<Vec<Figure>> {
    let mut times = Vec::new();
    for case in cases.iter_mut() {
        times.push(calibrate(case, length.round)?);
    }
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for _ in 0..length.rounds {
        for ((case, times), found) in cases.iter_mut().zip(&times).zip(&mut all) {
            // What the case before left behind, such as a server of another tenant, is not timed.
            case.time(WARM_UP)?;
            found.push(case.time(*times)?.as_secs_f64() * 1e9 / *times as f64);
        }
    }
    let figure = |mut found: Vec<f64>| {
        found.sort_by(f64::total_cmp);
        let at = |part: usize| found.get((found.len() - 1) * part / 4).copied().unwrap_or(0.0);
        Figure { nanoseconds: at(2), spread: (at(3) - at(1)) / at(2).max(1e-9) }
    };
    Ok(all.into_iter().map(figure).collect())
}

/// How often a case fits into a round.
fn calibrate(case: &mut Case<'_>, round: Duration) -> Result<u64> {
    case.time(WARM_UP)?;
    let mut times = 1;
    loop {
        let took = case.time(times)?;
        if took * 2 >= round || times >= 1 << 40 {
            let part = round.as_secs_f64() / took.as_secs_f64().max(1e-9);
            return Ok(((times as f64 * part) as u64).max(1));
        }
        times *= 2;
    }
}

/// User instructions of one time, counted by callgrind in a child that is this program with these
/// words in front of the number of times.
pub fn instructions(words: &[&str]) -> Result<f64> {
    let count = |times: u64| -> Result<f64> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("callgrind.out");
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]);
        valgrind.arg(std::env::current_exe()?).args(words).arg(times.to_string());
        let status = valgrind.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.context("cannot run valgrind")?;
        if !status.success() {
            bail!("valgrind: {status}");
        }
        let text = fs::read_to_string(out)?;
        let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
        let total = total.and_then(|total| total.split_whitespace().next()?.parse::<f64>().ok());
        total.context("callgrind wrote no totals")
    };
    let [few, many] = COUNTED;
    Ok((count(many)? - count(few)?) / (many - few) as f64)
}
