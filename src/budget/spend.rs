//! [`Spend`]: what is used up of an allowance, such as database time: a vessel that fills as it is
//! spent and drains evenly, its whole amount in one window. What runs fills it while it runs, so a
//! long query is charged before it ends, and nobody has to tick: the level of any moment follows
//! from the last one and from how many run.

use std::time::Duration;

use parking_lot::Mutex;

use crate::budget::amount::Allowance;

/// Spent by everybody who shares the account. Times are of any clock that never goes back.
#[derive(Debug, Default)]
pub struct Spend(Mutex<Level>);

#[derive(Debug, Default)]
struct Level {
    /// By which it drains; `None` before anybody asked.
    allowance: Option<Allowance>,
    /// In the allowance's unit, at `at`. What was spent beyond the amount is in it: it is owed.
    used: f64,
    at: Duration,
    /// How many fill it with a second each second.
    running: u32,
}

/// An allowance is used up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Short {
    pub used: u64,
    /// When there is some again, if nothing more is spent.
    pub retry_after: Duration,
}

/// Microseconds that one who runs spends in a second.
const RUN_PER_SECOND: f64 = 1_000_000.0;

/// Nobody is told to come back sooner.
const RETRY_MIN: Duration = Duration::from_millis(1);

impl Spend {
    /// Whether there is anything left. What is running counts up to `now`.
    pub fn check(&self, allowance: Allowance, now: Duration) -> Result<(), Short> {
        let mut level = self.0.lock();
        level.settle(Some(allowance), now);
        let over = level.used - allowance.amount as f64;
        if over < 0.0 {
            return Ok(());
        }
        // A sum that no duration holds comes back when hell freezes over.
        let seconds = Duration::try_from_secs_f64(over / allowance.per_second());
        let retry_after = seconds.unwrap_or(Duration::MAX).max(RETRY_MIN);
        Err(Short { used: level.used as u64, retry_after })
    }

    /// Somebody begins to spend time.
    pub fn start(&self, allowance: Allowance, now: Duration) {
        let mut level = self.0.lock();
        level.settle(Some(allowance), now);
        level.running += 1;
    }

    /// One who began ends.
    pub fn stop(&self, now: Duration) {
        let mut level = self.0.lock();
        level.settle(None, now);
        level.running = level.running.saturating_sub(1);
    }

    /// So much was spent at once.
    pub fn add(&self, allowance: Allowance, spent: u64, now: Duration) {
        let mut level = self.0.lock();
        level.settle(Some(allowance), now);
        level.used += spent as f64;
    }

    /// Whether nothing is used at `now`, and nobody spends.
    pub fn is_empty(&self, now: Duration) -> bool {
        let mut level = self.0.lock();
        level.settle(None, now);
        level.used <= 0.0 && level.running == 0
    }

    /// What is used at `now`.
    pub fn used(&self, now: Duration) -> u64 {
        let mut level = self.0.lock();
        level.settle(None, now);
        level.used as u64
    }
}

impl Level {
    /// Goes on to `now`; from there on it drains by `allowance`, if that is new.
    fn settle(&mut self, allowance: Option<Allowance>, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let drains = self.allowance.map_or(0.0, Allowance::per_second);
        let slope = f64::from(self.running) * RUN_PER_SECOND - drains;
        self.used = (self.used + slope * passed).max(0.0);
        self.allowance = allowance.or(self.allowance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_PER_MINUTE: Allowance =
        Allowance { amount: 5_000_000, window: Duration::from_secs(60) };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_runs_is_charged_while_it_runs() {
        let spend = Spend::default();
        assert_eq!(spend.check(FIVE_PER_MINUTE, at(0)), Ok(()));
        spend.start(FIVE_PER_MINUTE, at(0));
        spend.start(FIVE_PER_MINUTE, at(0));
        assert_eq!(spend.check(FIVE_PER_MINUTE, at(2_000)), Ok(()));
        let short = spend.check(FIVE_PER_MINUTE, at(6_000)).unwrap_err();
        // Twelve seconds in six, of which half a second has drained.
        assert_eq!(short, Short { used: 11_500_000, retry_after: Duration::from_secs(78) });
        spend.stop(at(6_000));
        spend.stop(at(6_000));
        assert!(spend.check(FIVE_PER_MINUTE, at(83_999)).is_err());
        assert_eq!(spend.check(FIVE_PER_MINUTE, at(84_001)), Ok(()));
        assert_eq!(spend.used(at(1_000_000)), 0);
        // One end too many makes nobody spend backwards.
        spend.stop(at(1_000_000));
        assert_eq!(spend.used(at(1_000_001)), 0);
    }

    #[test]
    fn a_new_allowance_counts_from_now_on() {
        let spend = Spend::default();
        let small = Allowance { amount: 100, window: Duration::from_secs(1) };
        spend.add(small, 1_000, at(0));
        assert_eq!(spend.check(small, at(0)).unwrap_err().retry_after, at(9_000));
        let large = Allowance { amount: 2_000, window: Duration::from_secs(1) };
        assert_eq!(spend.check(large, at(0)), Ok(()));
        assert_eq!(spend.used(at(400)), 200);
        // A clock that seems to go back, between two threads, changes nothing.
        assert_eq!(spend.used(at(300)), 200);
    }

    /// Offered far more than the allowance, by many who come and go: what is admitted over a long
    /// time is the allowance, within what a few requests overshoot at the end.
    #[test]
    fn admitted_is_the_allowance() {
        let mut random = fastrand::Rng::with_seed(9);
        let spend = Spend::default();
        let allowance = Allowance { amount: 500_000, window: Duration::from_secs(1) };
        let mut ends: Vec<u64> = Vec::new();
        let (mut admitted, mut from) = (0_u64, None);
        for micros in (0..60_000_000_u64).step_by(500) {
            let now = Duration::from_micros(micros);
            ends.retain(|end| {
                if *end <= micros {
                    spend.stop(now);
                }
                *end > micros
            });
            if ends.len() < 20 && spend.check(allowance, now).is_ok() {
                spend.start(allowance, now);
                let length = random.u64(1..40) * 500;
                ends.push(micros + length);
                if from.is_some() {
                    admitted += length;
                }
            } else if from.is_none() && micros > 5_000_000 {
                // The burst of the start is spent.
                from = Some(micros);
            }
        }
        let seconds = (60_000_000 - from.unwrap()) as f64 / 1e6;
        let ratio = admitted as f64 / (seconds * allowance.per_second());
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
    }
}
