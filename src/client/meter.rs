//! What a session's work costs its tenant: database time while a server works for it, bytes as they
//! go out, and the counts behind SHOW BUDGETS.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::budget::{Account, Amount, InForce, Kind, Limits, Over};
use crate::client::Env;
use crate::client::talk::{Talk, add};
use crate::error::{Budget, Error, Excess};
use crate::pool::NoPin;

/// A server works for the tenant, and that is charged; dropping this ends it.
#[derive(Debug)]
pub struct Meter {
    account: Arc<Account>,
    env: Rc<Env>,
    /// Since when, or since somebody looked last.
    pub since: Instant,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.account.stop_work(self.env.epoch.elapsed());
    }
}

impl Talk {
    /// The tenant's limits of this moment.
    #[inline]
    pub fn limits(&self) -> InForce<'_> {
        self.account.limits(&self.tenant.limits)
    }

    /// Charges one request against what is spent.
    pub fn charge(&self) -> Result<(), Over> {
        let limits: &Limits = &self.limits();
        if limits.charges() {
            let now = self.env.epoch.elapsed();
            let probe = self.account.charge(&self.tenant.limits, now)?;
            self.probes.set(self.probes.get() || probe);
        }
        self.account.totals.requests.fetch_add(1, Ordering::Relaxed);
        add(&self.env.counts.requests, 1);
        Ok(())
    }

    /// What the client is told of a budget that is used up.
    pub fn refusal(&self, over: &Over) -> Error {
        refusal(over, self.tenant.id.as_str(), &self.limits())
    }

    /// The same of a limit that no time brings back.
    pub fn exceeded(&self, budget: Budget, limit: Amount, used: Amount) -> Error {
        let tenant = self.tenant.id.to_string();
        excess(Over { budget, used, retry_after: None }, tenant, limit.to_string())
    }

    /// The same of a time that is over.
    pub fn overran(&self, budget: Budget, limit: Duration, used: Duration) -> Error {
        self.exceeded(budget, Amount::Time(limit), Amount::Time(used))
    }

    /// What the client is told that wants to keep its server.
    pub fn no_pin(&self, full: NoPin) -> Error {
        match full {
            NoPin::OfCluster(limit) => Error::TooManyPins { limit },
            NoPin::OfTenant(limit) => {
                let (limit, used) = (limit.into(), self.account.pinned_now().into());
                self.exceeded(Budget::Pins, Amount::Count(limit), Amount::Count(used))
            }
        }
    }

    /// Something is in flight on the server.
    #[inline]
    pub fn begin_work(&mut self) {
        self.shared.begin_work();
        if self.meter.is_none() && self.limits().database_time.is_some() {
            self.start_meter();
        }
    }

    /// Nothing is in flight any more; `within` a transaction the server waits for the client.
    #[inline]
    pub fn end_work(&mut self, within: bool) {
        self.shared.end_work(within);
        self.meter = None;
    }

    /// From now on the server's time is the tenant's.
    pub fn start_meter(&mut self) {
        let since = Instant::now();
        let now = since.saturating_duration_since(self.env.epoch);
        if self.meter.is_none() && self.account.start_work(&self.tenant.limits, now) {
            let (account, env) = (self.account.clone(), self.env.clone());
            self.meter = Some(Meter { account, env, since });
        }
    }

    /// Bytes to the client are charged from here on, if they are limited. `sent` is the
    /// connection's own count.
    pub fn meter_bytes(&mut self, sent: u64) {
        self.charge_bytes(sent);
        self.bytes_charged = self.limits().bytes_out.map(|_| sent);
    }

    /// Charges what was sent since the last time.
    #[inline]
    pub fn charge_bytes(&mut self, sent: u64) {
        if let Some(before) = self.bytes_charged.filter(|before| *before < sent) {
            self.bytes_charged = Some(sent);
            let now = self.env.epoch.elapsed();
            self.account.sent(&self.tenant.limits, sent - before, now);
        }
    }

    /// Cancels what runs because it ran too long.
    pub fn cancel_running(&self) {
        add(&self.env.counts.time_exceeded, 1);
        let now = self.env.epoch.elapsed();
        if let Some(trip) = self.account.timed_out(&self.tenant.limits, now) {
            let (tenant, timeouts, of) = (&self.tenant.id, trip.timeouts, trip.of);
            tracing::warn!(%tenant, timeouts, of, "queries keep running out of time: refused");
        }
        self.shared.cancel_running();
    }

    /// What was in flight is answered: if it was a breaker's probe, its tenant may go on.
    #[inline]
    pub fn end_probe(&self, timed_out: bool) {
        if self.probes.take() && !timed_out {
            self.account.recovered();
            tracing::info!(tenant = %self.tenant.id, "queries come back in time again");
        }
    }

    /// Counts a refusal for the limit it comes from.
    pub(super) fn count_by_kind(&self, error: &Error) {
        if let Error::OverBudget(excess) = error {
            self.account.count_refused(excess.budget);
        }
    }
}

/// What a client is told of a budget that is used up.
pub fn refusal(over: &Over, tenant: &str, limits: &Limits) -> Error {
    let limit = match Kind::Budget(over.budget).limit(limits) {
        Some((amount, Some(window))) => format!("{amount} per {window}"),
        Some((amount, None)) => amount.to_string(),
        None => "none".to_owned(),
    };
    excess(*over, tenant.to_owned(), limit)
}

fn excess(over: Over, tenant: String, limit: String) -> Error {
    let Over { budget, used, retry_after } = over;
    let used = used.to_string();
    Error::OverBudget(Box::new(Excess { budget, tenant, limit, used, retry_after }))
}
