//! What a running exchange costs its tenant, and how long it may take.

use std::time::{Duration, Instant};

use crate::client::relay::{Ended, Exchange, WAITING_BYTES_MAX};
use crate::error::{Budget, Ending, Error};

/// Time that is not charged because the client did not take its rows. It is never more than the
/// server has worked for the same request: a server may go on working behind full buffers, and
/// reading slowly would be a way to have it work for nothing.
#[derive(Debug, Default)]
pub struct Free {
    since: Option<Instant>,
    worked: Duration,
    spent: Duration,
}

impl Free {
    fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// The server worked from `since` to `now` and may be waiting from now on. Until when that is
    /// free; `None` if it is not.
    fn begin(&mut self, since: Instant, now: Instant) -> Option<Instant> {
        self.worked += now - since;
        let left = self.worked.saturating_sub(self.spent);
        if left < FREE_MIN {
            return None;
        }
        self.since = Some(now);
        Some(now + left)
    }

    fn end(&mut self, now: Instant) {
        self.spent += self.since.take().map_or(Duration::ZERO, |since| now - since);
    }
}

/// Less is not worth a timer.
const FREE_MIN: Duration = Duration::from_millis(1);

/// How long something may go on.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// As it was when that began.
    pub limit: Duration,
    pub ends: Instant,
}

impl Term {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, ends: now + limit }
    }

    /// How long it has gone on, once it is over.
    pub fn used(self) -> Duration {
        self.limit + self.ends.elapsed()
    }
}

impl Exchange<'_> {
    /// When the client has been silent for too long within a transaction.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let quiet_since = self.talk.shared.quiet_since()?;
        Some(quiet_since + self.talk.limits().idle_in_transaction?)
    }

    /// What the client is told then.
    pub(super) fn idle_for_too_long(&self, now: Instant) -> Error {
        let limit = self.talk.limits().idle_in_transaction.unwrap_or_default();
        let since = self.talk.shared.quiet_since().unwrap_or(now);
        self.talk.overran(Budget::IdleInTransaction, limit, since.elapsed())
    }

    /// Charges the request at the front against the tenant's budgets. `Ok(false)` means it waits.
    pub(in crate::client) fn charge(&mut self, free: bool) -> Result<bool, Error> {
        if self.relay.charged || free {
            return Ok(true);
        }
        let over = match self.talk.charge() {
            Ok(()) => {
                self.relay.charged = true;
                self.relay.held_since = None;
                return Ok(true);
            }
            Err(over) => over,
        };
        let now = Instant::now();
        let since = self.relay.held_since.as_ref().map_or(now, |(since, _)| *since);
        let waits = over
            .retry_after
            .filter(|after| (now - since).saturating_add(*after) <= self.talk.limits().budget_wait);
        let Some(retry_after) = waits else {
            self.relay.held_since = None;
            return Err(self.talk.refusal(&over));
        };
        let waiting = || self.talk.account.wait(over.budget);
        self.relay.held_since.get_or_insert_with(|| (now, waiting()));
        self.relay.held_until = Some(now + retry_after);
        Ok(false)
    }

    /// Starts the clocks of a request and of a transaction, if the tenant's budget has any.
    pub(in crate::client) fn start_clocks(&mut self) {
        let limits = self.talk.limits();
        let (query, transaction) = (limits.query_time, limits.transaction_time);
        if query.is_none() && transaction.is_none() {
            return;
        }
        let now = Instant::now();
        let terms = (&mut self.relay.query_term, &mut self.relay.transaction_term);
        *terms.0 = terms.0.or(query.map(|limit| Term::new(limit, now)));
        *terms.1 = terms.1.or(transaction.map(|limit| Term::new(limit, now)));
    }

    /// What came of limits that are reached at `now`.
    pub(super) fn pass_deadlines(&mut self, now: Instant) -> Option<Ended> {
        if let Some(term) = self.relay.transaction_term.filter(|term| term.ends <= now) {
            let error = self.talk.overran(Budget::TransactionTime, term.limit, term.used());
            return Some(Ended::Fatal(error));
        }
        // It is told by the wall clock, so that it is never before this moment.
        if self.talk.shown_until().is_some_and(|at| at <= Instant::now()) {
            return Some(Ended::Fatal(Error::Ended(Ending::CredentialExpired)));
        }
        if let Some(term) = self.relay.query_term.take_if(|term| term.ends <= now) {
            self.relay.time_exceeded = Some(term);
            self.talk.cancel_running();
        }
        if self.relay.held_until.is_some_and(|at| at <= now) {
            self.relay.held_until = None;
        }
        None
    }

    /// Nothing can move. While the client does not take what there is for it, the server may be
    /// waiting for it, and that is not the server's time. Until when, at the latest.
    pub(super) fn hold_meter(&mut self) -> Option<Instant> {
        let meter = self.talk.meter.as_mut()?;
        let full = self.relay.to_client > 0 || self.client.output.len() > WAITING_BYTES_MAX;
        if !full {
            return None;
        }
        let now = Instant::now();
        let since = std::mem::replace(&mut meter.since, now);
        let until = self.relay.free.begin(since, now)?;
        self.talk.meter = None;
        Some(until)
    }

    /// Something may move again.
    #[inline]
    pub(super) fn resume_meter(&mut self) {
        if self.relay.free.is_on() {
            self.relay.free.end(Instant::now());
            if self.talk.shared.busy.get() {
                self.talk.start_meter();
            }
        }
    }

    /// The server is ready, and `due` says whether more is in flight.
    pub(in crate::client) fn end_request(&mut self, status: u8) {
        self.relay.query_term = None;
        if status == b'I' {
            self.relay.transaction_term = None;
        }
        if self.relay.due.is_empty() {
            self.talk.end_work(status != b'I');
            self.relay.free = Free::default();
            let exceeded = self.relay.time_exceeded.take();
            self.talk.end_probe(exceeded.is_some());
        } else {
            self.start_clocks();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_client_is_not_charged_for_more_than_twice_its_work() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut free = Free::default();
        assert_eq!(free.begin(at(0), at(0)), None);
        // 100 ms of work earn as much.
        assert_eq!(free.begin(at(0), at(100)), Some(at(200)));
        assert!(free.is_on());
        free.end(at(160));
        assert_eq!(free.begin(at(160), at(170)), Some(at(220)));
        free.end(at(220));
        assert_eq!(free.begin(at(220), at(220)), None);
        assert!(!free.is_on());
        // What goes on is charged, and earns again.
        assert_eq!(free.begin(at(220), at(300)), Some(at(380)));
    }
}
