//! What a run measures while it goes on: latencies by phase and tenant, errors, leaks, and a line
//! for each second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// Latencies are kept in microseconds up to this, to two digits (1 %); longer ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Most leaks that are told in full; all are counted.
const LEAKS_TOLD_MAX: usize = 10;

/// Latencies and counts of some transactions.
#[derive(Clone, Debug)]
pub struct Tally {
    latency: Histogram<u32>,
    pub errors: u64,
    /// Due, and not begun before the run was over.
    pub unserved: u64,
}

/// An error as PostgreSQL or the gate told it, or as the connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Empty if it was the connection.
    pub sqlstate: String,
    pub message: String,
    pub hint: String,
}

/// One second of the run.
#[derive(Clone, Debug)]
pub struct Second {
    pub phase: usize,
    pub tally: Tally,
    /// Due and not begun at its end.
    pub waiting: u64,
}

/// All of it.
#[derive(Debug)]
pub struct Figures {
    /// By phase, by tenant; empty until a tenant's first transaction.
    phases: Vec<Vec<Option<Tally>>>,
    pub seconds: Vec<Second>,
    now: Tally,
    /// What a tally starts as.
    empty: Tally,
    /// By SQLSTATE: the first of its kind, and how many.
    pub faults: BTreeMap<String, (Fault, u64)>,
    pub rows_checked: u64,
    pub leaks: u64,
    pub leaks_told: Vec<String>,
}

impl Tally {
    fn new() -> Result<Self, CreationError> {
        let latency = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)?;
        Ok(Self { latency, errors: 0, unserved: 0 })
    }

    /// Books a transaction that was done.
    fn done(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latency.saturating_record(microseconds.max(1));
    }

    /// Adds another's transactions to these.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so everything fits.
        let _ = self.latency.add(&other.latency);
        self.errors += other.errors;
        self.unserved += other.unserved;
    }

    /// Transactions that were done.
    pub fn count(&self) -> u64 {
        self.latency.len() - self.unserved
    }

    /// The latency this part of the transactions stays below.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(part))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.latency.max())
    }
}

impl Figures {
    /// Nothing yet, for this many phases and tenants.
    ///
    /// # Errors
    ///
    /// The bounds of the latencies are constants; they would have to be impossible.
    pub fn new(phases: usize, tenants: usize) -> Result<Self, CreationError> {
        let empty = Tally::new()?;
        Ok(Self {
            phases: vec![vec![None; tenants]; phases],
            seconds: Vec::new(),
            now: empty.clone(),
            empty,
            faults: BTreeMap::new(),
            rows_checked: 0,
            leaks: 0,
            leaks_told: Vec::new(),
        })
    }

    /// Books a transaction that was done.
    pub fn done(&mut self, phase: usize, tenant: usize, latency: Duration) {
        self.now.done(latency);
        if let Some(tally) = self.of(phase, tenant) {
            tally.done(latency);
        }
    }

    /// Books a transaction that failed.
    pub fn failed(&mut self, phase: usize, tenant: usize, fault: Fault) {
        self.now.errors += 1;
        if let Some(tally) = self.of(phase, tenant) {
            tally.errors += 1;
        }
        self.fault(fault);
    }

    /// Books an error outside of a transaction.
    pub fn fault(&mut self, fault: Fault) {
        self.faults.entry(fault.sqlstate.clone()).or_insert((fault, 0)).1 += 1;
    }

    /// Books a transaction that nobody got to: it has waited at least this long.
    pub fn unserved(&mut self, phase: usize, tenant: usize, waited: Duration) {
        if let Some(tally) = self.of(phase, tenant) {
            tally.unserved += 1;
            tally.done(waited);
        }
    }

    /// Books a row of somebody else. True if it is to be told.
    pub fn leaked(&mut self, what: String) -> bool {
        self.leaks += 1;
        let told = self.leaks_told.len() < LEAKS_TOLD_MAX;
        if told {
            self.leaks_told.push(what);
        }
        told
    }

    /// Ends a second.
    pub fn tick(&mut self, phase: usize, waiting: u64) {
        let tally = std::mem::replace(&mut self.now, self.empty.clone());
        self.seconds.push(Second { phase, tally, waiting });
    }

    /// The transactions of those tenants of a phase that pass.
    pub fn sum(&self, phase: usize, pass: impl Fn(usize) -> bool) -> Tally {
        let mut sum = self.empty.clone();
        for (tenant, tally) in self.tallies(phase) {
            if pass(tenant) {
                sum.add(tally);
            }
        }
        sum
    }

    /// Each tenant that did anything in a phase.
    pub fn tallies(&self, phase: usize) -> impl Iterator<Item = (usize, &Tally)> {
        let tenants = self.phases.get(phase).into_iter().flatten().enumerate();
        tenants.filter_map(|(tenant, tally)| Some((tenant, tally.as_ref()?)))
    }

    /// What one tenant did in a phase, if anything.
    pub fn tally(&self, phase: usize, tenant: usize) -> Option<&Tally> {
        self.phases.get(phase)?.get(tenant)?.as_ref()
    }

    fn of(&mut self, phase: usize, tenant: usize) -> Option<&mut Tally> {
        let tally = self.phases.get_mut(phase)?.get_mut(tenant)?;
        Some(tally.get_or_insert_with(|| self.empty.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_booked_and_unserved_ones_count_as_slow() {
        let mut figures = Figures::new(1, 3).unwrap();
        (1..=100).for_each(|ms| figures.done(0, 1, Duration::from_millis(ms)));
        figures.unserved(0, 2, Duration::from_secs(5));
        let all = figures.sum(0, |_| true);
        assert_eq!((all.count(), all.unserved), (100, 1));
        let near =
            |it: Duration, ms: u64| it.as_millis().abs_diff(ms.into()) <= u128::from(ms / 50);
        assert!(near(all.quantile(0.5), 51) && near(all.quantile(0.9), 91), "{all:?}");
        assert!(near(all.max(), 5000));
        assert_eq!(figures.sum(0, |tenant| tenant == 0).count(), 0);
        assert_eq!(figures.tallies(0).map(|(tenant, _)| tenant).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn leaks_are_all_counted_and_some_told() {
        let mut figures = Figures::new(1, 1).unwrap();
        let told = (0..50).filter(|at| figures.leaked(at.to_string())).count();
        assert_eq!((told, figures.leaks), (LEAKS_TOLD_MAX, 50));
    }
}
