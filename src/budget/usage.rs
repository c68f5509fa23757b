//! What of a tenant's limits is used: for the console, and for the counts behind it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::budget::account::Account;
use crate::budget::amount::Amount;
use crate::budget::limits::{Kind, Limits};
use crate::error::Budget;

/// One limit and what is used of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    pub kind: Kind,
    /// `None` where nothing is used up: a limit of each request's own.
    pub used: Option<Amount>,
    pub limit: Option<Amount>,
    /// As people write it.
    pub window: Option<String>,
    /// Requests that wait for it.
    pub waiting: u32,
    /// Refused, cancelled or ended because of it, since the account was opened.
    pub refused: u64,
    /// What would have been, were the tenant's budgets enforced.
    pub would_refuse: u64,
    /// When an override of it ends.
    pub until: Option<SystemTime>,
}

/// Counts by budget, kept where something is over a limit or waits: most tenants never need them.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Option<Box<[Tally; Budget::ALL.len()]>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    waiting: u32,
    refused: u64,
    would_refuse: u64,
}

impl Tallies {
    fn change(&self, budget: Budget, change: impl FnOnce(&mut Tally)) {
        let mut all = self.0.lock();
        if let Some(tally) = all.get_or_insert_default().get_mut(budget as usize) {
            change(tally);
        }
    }

    pub(super) fn refused(&self, budget: Budget) {
        self.change(budget, |tally| tally.refused += 1);
    }

    pub(super) fn would_refuse(&self, budget: Budget) {
        self.change(budget, |tally| tally.would_refuse += 1);
    }

    fn read(&self, budget: Budget) -> Tally {
        let all = self.0.lock();
        all.as_ref().and_then(|all| all.get(budget as usize)).copied().unwrap_or_default()
    }

    /// Of all: what would have been refused.
    pub(super) fn would_refuse_in_all(&self) -> u64 {
        let all = self.0.lock();
        all.iter().flat_map(|all| all.iter()).map(|tally| tally.would_refuse).sum()
    }
}

/// A request waits for its budget; dropping this ends the wait.
#[derive(Debug)]
pub struct Waiting(Arc<Account>, Budget);

impl Waiting {
    pub(super) fn new(account: Arc<Account>, budget: Budget) -> Self {
        account.tallies.change(budget, |tally| tally.waiting += 1);
        Self(account, budget)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.tallies.change(self.1, |tally| tally.waiting = tally.waiting.saturating_sub(1));
    }
}

impl Account {
    /// What is used of each limit that there is, and of those without one that are in use or have
    /// refused something.
    pub fn usage(&self, own: &Limits, now: Duration) -> Vec<Usage> {
        let limits = self.limits(own);
        let all = Kind::all().map(|kind| self.usage_of(kind, &limits, now));
        all.filter(|it| {
            let used = matches!(it.used, Some(Amount::Count(1..)));
            it.limit.is_some() || it.until.is_some() || used || it.refused + it.would_refuse > 0
        })
        .collect()
    }

    fn usage_of(&self, kind: Kind, limits: &Limits, now: Duration) -> Usage {
        use Budget as B;
        let tally = match kind {
            Kind::Budget(budget) => self.tallies.read(budget),
            Kind::Wait | Kind::Weight | Kind::ServersMin => Tally::default(),
        };
        let Tally { mut waiting, refused, would_refuse } = tally;
        let (clients, at_once, servers) = self.in_use();
        let (limit, window) = kind.limit(limits).unzip();
        let count = |count: u32| Some(Amount::Count(count.into()));
        let used = match kind {
            Kind::Budget(B::Clients) => count(clients),
            Kind::Budget(B::AtOnce) => count(at_once),
            Kind::Budget(B::Servers) => {
                waiting = self.waiting_for_servers();
                count(servers)
            }
            Kind::Budget(B::Pins) => count(self.pinned_now()),
            Kind::Budget(B::Rate) => limits.queries_per_second.and_then(|rate| {
                count(self.rate.used(now, rate, limits.queries_burst.unwrap_or(rate)))
            }),
            Kind::Budget(B::Logins) => limits.logins_per_second.and_then(|rate| {
                count(self.logins.used(now, rate, limits.logins_burst.unwrap_or(rate)))
            }),
            Kind::Budget(B::DatabaseTime) => {
                limits.database_time.map(|_| Amount::micros(self.time.used(now)))
            }
            Kind::Budget(B::BytesOut) => {
                limits.bytes_out.map(|_| Amount::Bytes(self.bytes.used(now)))
            }
            Kind::Budget(B::Breaker) => {
                limits.breaker.map(|trip| Amount::Count(self.breaker.state(trip, now).0))
            }
            Kind::Budget(
                B::PinIdle
                | B::QueryTime
                | B::TransactionTime
                | B::ClientIdle
                | B::IdleInTransaction,
            )
            | Kind::Wait
            | Kind::Weight
            | Kind::ServersMin => None,
        };
        let window = window.flatten();
        let until = self.overridden_until(kind);
        Usage { kind, used, limit, window, waiting, refused, would_refuse, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Allowance;

    #[test]
    fn a_row_for_each_limit_and_for_what_is_in_use() {
        let account = Arc::new(Account::default());
        let limits = Limits::default();
        assert_eq!(account.usage(&limits, Duration::ZERO), []);
        let slot = account.connect(&limits);
        let kinds = |limits: &Limits| -> Vec<Kind> {
            account.usage(limits, Duration::ZERO).iter().map(|it| it.kind).collect()
        };
        assert_eq!(kinds(&limits), [Kind::Budget(Budget::Clients)]);
        drop(slot);
        let window = Duration::from_secs(60);
        let database_time = Some(Allowance { amount: 5_000_000, window });
        let limits = Limits { database_time, ..limits };
        let waits = Waiting::new(account.clone(), Budget::DatabaseTime);
        account.tallies.refused(Budget::DatabaseTime);
        let rows = account.usage(&limits, Duration::ZERO);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (row.used, row.limit),
            (Some(Amount::micros(0)), Some(Amount::micros(5_000_000)))
        );
        assert_eq!((row.window.as_deref(), row.waiting, row.refused), (Some("1m"), 1, 1));
        drop(waits);
        assert_eq!(account.usage(&limits, Duration::ZERO)[0].waiting, 0);
    }
}
