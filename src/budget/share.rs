//! [`Share`]: a tenant's part of a capacity that others want as well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::budget::account::Account;
use crate::budget::limits::{Excessive, Limits};

/// What a tenant may have of a cluster's server connections while others wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In thousandths: tenants that wait share a capacity in proportion to it.
    pub weight: u64,
    /// Servers it gets before all who have theirs.
    pub minimum: u32,
}

/// What is left of the weight of a tenant over its budget: one part in so many.
const PENALTY: u64 = 100;

/// How long a tenant must have been within its budgets until it has its whole share again. Far
/// above its rate one request in many still finds room.
const CALM: Duration = Duration::from_secs(1);

impl Share {
    /// The weight 1.
    pub const WHOLE: u64 = 1000;
}

impl Account {
    /// The tenant's share of this moment.
    pub fn share(&self, own: &Limits) -> Share {
        let limits = self.limits(own);
        let weight = u64::from(limits.weight.unwrap_or(1)) * Share::WHOLE;
        match self.is_penalised(&limits) {
            true => Share { weight: weight / PENALTY, minimum: 0 },
            false => {
                let minimum = limits.servers_min.unwrap_or(0);
                Share { weight, minimum: minimum.min(limits.servers.unwrap_or(u32::MAX)) }
            }
        }
    }

    /// Whether it is over a budget, and served with what is left by others until that has room.
    #[inline]
    pub fn is_penalised(&self, limits: &Limits) -> bool {
        self.penalised.load(Ordering::Relaxed)
            && limits.over_budget == Excessive::Share
            && !limits.only_report
            && limits.charges()
    }

    /// Whether it was over a budget a moment ago, for which it has less still.
    pub(super) fn is_cooling(&self, now: Duration) -> bool {
        let over_at = Duration::from_nanos(self.over_at.load(Ordering::Relaxed));
        self.penalised.load(Ordering::Relaxed) && now.saturating_sub(over_at) < CALM
    }

    pub(super) fn penalise(&self, over: bool, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        if over {
            self.over_at.store(now, Ordering::Relaxed);
            self.penalised.store(true, Ordering::Relaxed);
        } else if self.penalised.load(Ordering::Relaxed) {
            let calm = now.saturating_sub(self.over_at.load(Ordering::Relaxed));
            if u128::from(calm) >= CALM.as_nanos() {
                self.penalised.store(false, Ordering::Relaxed);
                // It may have more servers again.
                self.pass_slot_on();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Budget;

    #[test]
    fn who_is_over_its_rate_goes_on_with_one_server_and_little_weight() {
        let account = Arc::new(Account::default());
        let limits = Limits {
            queries_per_second: Some(10),
            queries_burst: Some(1),
            over_budget: Excessive::Share,
            weight: Some(3),
            servers_min: Some(2),
            ..Limits::default()
        };
        let charge =
            |limits: &Limits, millis| account.charge(limits, Duration::from_millis(millis)).is_ok();
        assert!(charge(&limits, 0));
        assert_eq!(account.share(&limits), Share { weight: 3000, minimum: 2 });
        let both = [(); 2].map(|()| account.lease(&limits, 1));
        assert!(both.iter().all(Option::is_some));
        drop(both);
        assert!(charge(&limits, 0), "it is not refused");
        assert_eq!(account.share(&limits), Share { weight: 30, minimum: 0 });
        let one = account.lease(&limits, 1);
        assert!(one.is_some() && account.lease(&limits, 1).is_none());
        // Whoever changes its mind about the tenant is heard at once.
        let refused = Limits { over_budget: Excessive::Refuse, ..limits.clone() };
        assert!(account.lease(&refused, 1).is_some() && !charge(&refused, 0));
        let reported = Limits { only_report: true, ..limits.clone() };
        assert!(charge(&reported, 0), "only counted");
        assert_eq!(account.share(&reported).weight, 3000);
        assert!(charge(&limits, 0) && account.lease(&limits, 1).is_none());
        let over = account.overdrawn(&limits, Duration::ZERO).unwrap();
        let after = Some(Duration::from_millis(100));
        assert_eq!((over.budget, over.retry_after), (Budget::Rate, after));
        assert_eq!(account.overdrawn(&limits, Duration::from_millis(100)), None);
        assert!(charge(&limits, 2000), "there is room again");
        assert!(account.lease(&limits, 1).is_some());
    }

    #[test]
    fn far_above_its_rate_a_request_that_finds_room_frees_nobody() {
        let account = Arc::new(Account::default());
        let limits = Limits {
            queries_per_second: Some(10),
            queries_burst: Some(1),
            over_budget: Excessive::Share,
            ..Limits::default()
        };
        // A hundred times its rate, for three seconds.
        for millis in 0..3000 {
            assert_eq!(account.charge(&limits, Duration::from_millis(millis)), Ok(false));
            assert_eq!(account.is_penalised(&limits), millis > 0, "after {millis} ms");
        }
        // Then half of it: a second after the last that was too much it is free.
        for millis in (3100..4500).step_by(200) {
            assert_eq!(account.charge(&limits, Duration::from_millis(millis)), Ok(false));
            assert_eq!(account.is_penalised(&limits), millis < 3999, "after {millis} ms");
        }
    }

    #[test]
    fn a_minimum_is_no_more_than_the_tenant_may_have() {
        let limits = Limits { servers: Some(3), servers_min: Some(1000), ..Limits::default() };
        assert_eq!(Account::default().share(&limits).minimum, 3);
    }
}
