//! One run with what it cost, and a series of runs as its median and spread.

use std::time::Duration;

use anyhow::Result;

use crate::lines::Outcome;
use crate::proc;

/// One run: throughput, and CPU time per transaction of the proxy and of PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub per_second: f64,
    pub latency_us: f64,
    pub proxy_us: Option<f64>,
    pub postgres_us: Option<f64>,
}

impl Sample {
    /// Takes the clocks of both processes before and after a run.
    pub fn take(
        proxy: Option<u32>,
        postmaster: u32,
        run: impl FnOnce() -> Result<Outcome>,
    ) -> Result<Self> {
        let cpu = || (proxy.and_then(proc::cpu), proc::cpu_of_family(postmaster));
        let before = cpu();
        let outcome = run()?;
        let after = cpu();
        let each = |before: Option<Duration>, after: Option<Duration>| {
            let spent = after?.saturating_sub(before?);
            Some(spent.as_secs_f64() * 1e6 / outcome.transactions.max(1.0))
        };
        Ok(Self {
            per_second: outcome.per_second,
            latency_us: outcome.latency.as_secs_f64() * 1e6,
            proxy_us: each(before.0, after.0),
            postgres_us: each(before.1, after.1),
        })
    }
}

/// The runs of one line of a table.
#[derive(Clone, Debug, Default)]
pub struct Series(pub Vec<Sample>);

impl Series {
    pub fn per_second(&self) -> Option<f64> {
        median(self.0.iter().map(|sample| Some(sample.per_second)))
    }

    pub fn latency_us(&self) -> Option<f64> {
        median(self.0.iter().map(|sample| Some(sample.latency_us)))
    }

    pub fn proxy_us(&self) -> Option<f64> {
        median(self.0.iter().map(|sample| sample.proxy_us))
    }

    pub fn postgres_us(&self) -> Option<f64> {
        median(self.0.iter().map(|sample| sample.postgres_us))
    }

    /// The median, round by round, of a value against the one of another series.
    pub fn against(&self, its: &Self, value: &dyn Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let pairs = self.0.iter().zip(&its.0);
        median(pairs.map(|(ours, theirs)| Some(value(ours)? / value(theirs)?.max(1e-9))))
    }

    /// How far the fastest and the slowest run are apart, as a part of the median.
    pub fn spread(&self) -> Option<f64> {
        let all = self.0.iter().map(|sample| sample.per_second);
        let (least, most) = (all.clone().reduce(f64::min)?, all.reduce(f64::max)?);
        Some((most - least) / self.per_second()?)
    }
}

/// None if any is missing, or all.
pub fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect::<Option<_>>()?;
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
