//! Requests per second with a burst: the generic cell rate algorithm in one atomic, so that every
//! thread of the gate draws from the same budget without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When the next request is due, in nanoseconds of the caller's clock, if all came evenly.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

const SECOND_NS: u64 = 1_000_000_000;

impl Rate {
    /// Takes one request at time `now`, or says how long until one is to be had.
    pub fn take(&self, now: Duration, per_second: u32, burst: u32) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let step = SECOND_NS / u64::from(per_second.max(1));
        let ahead_max = step.saturating_mul(u64::from(burst.max(1)) - 1);
        let mut due = self.0.load(Ordering::Relaxed);
        loop {
            let start = due.max(now);
            let ahead = start - now;
            if ahead > ahead_max {
                return Err(Duration::from_nanos(ahead - ahead_max));
            }
            let next = start.saturating_add(step);
            let swap =
                self.0.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) => return Ok(()),
                Err(seen) => due = seen,
            }
        }
    }

    /// How long until one more may be taken; `None` if that is now.
    pub fn until_next(&self, now: Duration, per_second: u32, burst: u32) -> Option<Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let step = SECOND_NS / u64::from(per_second.max(1));
        let ahead_max = step.saturating_mul(u64::from(burst.max(1)) - 1);
        let ahead = self.0.load(Ordering::Relaxed).saturating_sub(now);
        (ahead > ahead_max).then(|| Duration::from_nanos(ahead - ahead_max))
    }

    /// Whether nothing of the burst is taken at time `now`, whatever the rate.
    pub fn is_whole(&self, now: Duration) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) <= now.as_nanos()
    }

    /// How many requests are taken of the burst at time `now`.
    pub fn used(&self, now: Duration, per_second: u32, burst: u32) -> u32 {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let step = SECOND_NS / u64::from(per_second.max(1));
        let ahead = self.0.load(Ordering::Relaxed).saturating_sub(now);
        let used = ahead.div_ceil(step.max(1));
        u32::try_from(used).unwrap_or(u32::MAX).min(burst.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_per_step() {
        let rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!(rate.used(at(0), 10, 3), 0);
        for _ in 0..3 {
            assert_eq!(rate.take(at(0), 10, 3), Ok(()));
        }
        assert_eq!(rate.take(at(0), 10, 3), Err(at(100)));
        assert_eq!(rate.used(at(0), 10, 3), 3);
        assert_eq!(rate.take(at(100), 10, 3), Ok(()));
        assert_eq!(rate.take(at(150), 10, 3), Err(at(50)));
    }

    #[test]
    fn a_long_quiet_time_earns_no_more_than_the_burst() {
        let rate = Rate::default();
        let late = Duration::from_secs(86_400);
        let taken = (0..100).filter(|_| rate.take(late, 10, 5).is_ok()).count();
        assert_eq!(taken, 5);
    }
}
