//! [`Account`]: a tenant's running totals, and who may still spend from them. Accounts outlive
//! reloads; the limits are handed in with every question, so that a new limit counts at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::budget::accounts::Marks;
use crate::budget::amount::{Amount, Trip};
use crate::budget::breaker::Breaker;
use crate::budget::holdings::{ClusterNumber, HoldingId, Holdings};
use crate::budget::limits::{Excessive, Kind, Limits};
use crate::budget::overrides::{InForce, Override, Overrides};
use crate::budget::rate::Rate;
use crate::budget::spend::{Short, Spend};
use crate::budget::usage::{Tallies, Waiting};
use crate::error::Budget;

/// What one tenant has in use and has used. All counts are for the whole process.
#[derive(Debug, Default)]
pub struct Account {
    clients: AtomicU32,
    at_once: AtomicU32,
    servers: AtomicU32,
    /// How many of these are for those who wait in line.
    reserved: AtomicU32,
    /// How many of these stay with their sessions, or may.
    pinned: AtomicU32,
    /// It is over a budget and served with what others leave.
    pub(super) penalised: AtomicBool,
    /// When it was over one last, in nanoseconds of the caller's clock.
    pub(super) over_at: AtomicU64,
    /// Those of its servers that are leased, by cluster.
    holdings: Holdings,
    pub(super) rate: Rate,
    pub(super) logins: Rate,
    pub(super) time: Spend,
    pub(super) bytes: Spend,
    pub(super) breaker: Breaker,
    pub(super) tallies: Tallies,
    overrides: Overrides,
    /// Told when a transaction ends, so that one that waits may start.
    freed: Notify,
    /// Told when a server slot is given back, so that one who waits for it may have it.
    slot_freed: Notify,
    pub totals: Totals,
    pub(super) marks: Marks,
    /// Of statements that its sessions keep in the gate.
    pub(super) text_bytes: AtomicUsize,
}

/// Totals since the account was opened; for the console and the metrics.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: AtomicU64,
    pub transactions: AtomicU64,
    pub refusals: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    /// Time servers were leased to the tenant, in microseconds.
    pub server_time_us: AtomicU64,
    /// The part of it in which the server waited for its client within a transaction.
    pub idle_time_us: AtomicU64,
    /// Time clients waited for a server, in microseconds.
    pub wait_time_us: AtomicU64,
}

/// What was asked for is over a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    pub budget: Budget,
    pub used: Amount,
    /// When it may be had; `None`: when another transaction ends.
    pub retry_after: Option<Duration>,
}

impl Over {
    fn after(budget: Budget, used: Amount, retry_after: Duration) -> Self {
        Self { budget, used, retry_after: Some(retry_after) }
    }
}

/// A transaction is at work; dropping this ends it.
#[derive(Debug)]
pub struct Permit(Arc<Account>);

/// A client connection is open; dropping this closes it.
#[derive(Debug)]
pub struct ClientSlot(Arc<Account>);

/// A server connection of a cluster is leased, or will be in a moment; dropping this gives it back.
#[derive(Debug)]
pub struct ServerSlot {
    account: Arc<Account>,
    holding: HoldingId,
}

/// A session may keep its server; dropping this takes that back.
#[derive(Debug)]
pub struct PinSlot(Arc<Account>);

/// A slot of one who waits in line for a server. Dropping it gives the slot back.
#[derive(Debug)]
pub struct Reservation(Option<Arc<Account>>);

impl Reservation {
    /// The slot itself, for whoever is given a server of this cluster.
    pub fn redeem(mut self, cluster: ClusterNumber) -> Option<ServerSlot> {
        let account = self.0.take()?;
        account.reserved.fetch_sub(1, Ordering::Relaxed);
        Some(ServerSlot::new(account, cluster))
    }
}

impl ServerSlot {
    /// Of one that is counted among all the tenant's servers already.
    fn new(account: Arc<Account>, cluster: ClusterNumber) -> Self {
        let holding = account.holdings.enter(cluster);
        Self { account, holding }
    }

    /// Whose it is.
    #[inline]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Books time in which its server was leased, in microseconds.
    #[inline]
    pub fn book(&self, micros: u64) {
        self.account.totals.server_time_us.fetch_add(micros, Ordering::Relaxed);
        self.account.holdings.book(self.holding, micros);
    }
}

impl Account {
    /// The limits in force: these, unless somebody has set others for a while.
    #[inline]
    pub fn limits<'own>(&self, own: &'own Limits) -> InForce<'own> {
        self.overrides.over(own)
    }

    /// Holds one request against everything that is spent. `now` is any clock that never goes
    /// back, the same for all who ask. True if the request is a breaker's probe.
    pub fn charge(&self, own: &Limits, now: Duration) -> Result<bool, Over> {
        let limits = self.limits(own);
        let spent = self.charge_spent(&limits, now);
        match limits.over_budget {
            Excessive::Refuse => spent?,
            Excessive::Share => self.penalise(spent.is_err(), now),
        }
        let Some(trip) = limits.breaker else { return Ok(false) };
        let admitted = self.breaker.admit(limits.pause(), now);
        let refused = |after| (Amount::Count(trip.timeouts.into()), after);
        self.hold(&limits, Budget::Breaker, admitted.map_err(refused))
            .map(|probe| probe == Some(true))
    }

    fn charge_spent(&self, limits: &Limits, now: Duration) -> Result<(), Over> {
        if let Some(allowance) = limits.database_time {
            let checked = self.time.check(allowance, now);
            let short = |it: Short| (Amount::micros(it.used), it.retry_after);
            self.hold(limits, Budget::DatabaseTime, checked.map_err(short))?;
        }
        if let Some(allowance) = limits.bytes_out {
            let checked = self.bytes.check(allowance, now);
            let short = |it: Short| (Amount::Bytes(it.used), it.retry_after);
            self.hold(limits, Budget::BytesOut, checked.map_err(short))?;
        }
        if let Some(rate) = limits.queries_per_second {
            let burst = limits.queries_burst.unwrap_or(rate);
            let taken = self.rate.take(now, rate, burst);
            let taken = taken.map_err(|after| (Amount::Count(burst.into()), after));
            self.hold(limits, Budget::Rate, taken)?;
        }
        Ok(())
    }

    /// The budget of those that is over now, without anything being spent or counted.
    pub fn overdrawn(&self, own: &Limits, now: Duration) -> Option<Over> {
        let limits = self.limits(own);
        let short = |budget, short: Short, used| Over::after(budget, used, short.retry_after);
        let time = limits.database_time.and_then(|it| self.time.check(it, now).err());
        if let Some(it) = time {
            return Some(short(Budget::DatabaseTime, it, Amount::micros(it.used)));
        }
        let bytes = limits.bytes_out.and_then(|it| self.bytes.check(it, now).err());
        if let Some(it) = bytes {
            return Some(short(Budget::BytesOut, it, Amount::Bytes(it.used)));
        }
        let rate = limits.queries_per_second?;
        let burst = limits.queries_burst.unwrap_or(rate);
        let after = self.rate.until_next(now, rate, burst)?;
        Some(Over::after(Budget::Rate, Amount::Count(burst.into()), after))
    }

    /// What is over a budget is refused, or only counted.
    fn hold<T>(
        &self,
        limits: &Limits,
        budget: Budget,
        held: Result<T, (Amount, Duration)>,
    ) -> Result<Option<T>, Over> {
        match held {
            Ok(it) => Ok(Some(it)),
            Err(_) if limits.only_report => {
                self.tallies.would_refuse(budget);
                Ok(None)
            }
            Err((used, after)) => Err(Over::after(budget, used, after)),
        }
    }

    /// Counts one login against its rate.
    pub fn log_in(&self, own: &Limits, now: Duration) -> Result<(), Over> {
        let limits = self.limits(own);
        let Some(rate) = limits.logins_per_second else { return Ok(()) };
        let burst = limits.logins_burst.unwrap_or(rate);
        let taken = self.logins.take(now, rate, burst);
        let taken = taken.map_err(|after| (Amount::Count(burst.into()), after));
        self.hold(&limits, Budget::Logins, taken).map(|_| ())
    }

    /// Lets one more transaction start.
    pub fn admit(self: &Arc<Self>, own: &Limits) -> Result<Permit, Over> {
        let limits = self.limits(own);
        let limit = limits.queries_at_once.unwrap_or(u32::MAX);
        if !take_below(&self.at_once, limit) {
            if !limits.only_report {
                let used = Amount::Count(self.at_once.load(Ordering::Relaxed).into());
                return Err(Over { budget: Budget::AtOnce, used, retry_after: None });
            }
            self.tallies.would_refuse(Budget::AtOnce);
            self.at_once.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Permit(self.clone()))
    }

    /// A server begins to work for the tenant; [`Self::stop_work`] must follow.
    pub fn start_work(&self, own: &Limits, now: Duration) -> bool {
        let allowance = self.limits(own).database_time;
        allowance.inspect(|it| self.time.start(*it, now)).is_some()
    }

    /// It does so no more.
    pub fn stop_work(&self, now: Duration) {
        self.time.stop(now);
    }

    /// So many bytes went to a client.
    pub fn sent(&self, own: &Limits, bytes: u64, now: Duration) {
        if let Some(allowance) = self.limits(own).bytes_out {
            self.bytes.add(allowance, bytes, now);
        }
    }

    /// A request ran out of its time. What opened, if the tenant's breaker did.
    pub fn timed_out(&self, own: &Limits, now: Duration) -> Option<Trip> {
        let limits = self.limits(own);
        limits.breaker.filter(|trip| self.breaker.timed_out(*trip, limits.pause(), now))
    }

    /// A breaker's probe came back in time.
    pub fn recovered(&self) {
        self.breaker.close();
    }

    /// Notes what was refused, cancelled or ended because of a limit.
    pub fn count_refused(&self, budget: Budget) {
        self.tallies.refused(budget);
    }

    /// What would have been refused so far, were the budgets enforced.
    pub fn would_refuse(&self) -> u64 {
        self.tallies.would_refuse_in_all()
    }

    /// Notes that a request waits.
    pub fn wait(self: &Arc<Self>, budget: Budget) -> Waiting {
        Waiting::new(self.clone(), budget)
    }

    /// Sets a limit for a while.
    pub fn set_override(&self, new: Override) {
        self.overrides.set(new);
        // Whoever waits looks again.
        self.freed.notify_waiters();
        self.slot_freed.notify_one();
    }

    /// Takes overrides away. False if there was none such.
    pub fn reset_overrides(&self, gone: impl Fn(&Override) -> bool) -> bool {
        self.overrides.remove(gone)
    }

    pub(super) fn is_overridden(&self) -> bool {
        self.overrides.any()
    }

    /// When the override of a kind ends.
    pub fn overridden_until(&self, kind: Kind) -> Option<SystemTime> {
        self.overrides.until(kind)
    }

    /// Returns when a transaction of the tenant may have ended.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Lets one more client in.
    pub fn connect(self: &Arc<Self>, own: &Limits) -> Option<ClientSlot> {
        let limit = self.limits(own).clients.unwrap_or(u32::MAX);
        take_below(&self.clients, limit).then(|| ClientSlot(self.clone()))
    }

    /// Lets the tenant have one more server connection, of this cluster.
    #[inline]
    pub fn lease(self: &Arc<Self>, own: &Limits, cluster: ClusterNumber) -> Option<ServerSlot> {
        self.take_server(own).then(|| ServerSlot::new(self.clone(), cluster))
    }

    #[inline]
    fn take_server(&self, own: &Limits) -> bool {
        let limits = self.limits(own);
        let limit = match self.is_penalised(&limits) {
            false => limits.servers,
            true => Some(1),
        };
        match limit {
            Some(limit) => take_below(&self.servers, limit),
            None => {
                self.servers.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// The same for one who will wait for it in line.
    pub fn reserve(self: &Arc<Self>, own: &Limits) -> Option<Reservation> {
        if !self.take_server(own) {
            return None;
        }
        self.reserved.fetch_add(1, Ordering::Relaxed);
        Some(Reservation(Some(self.clone())))
    }

    fn give_server_back(&self) {
        self.servers.fetch_sub(1, Ordering::Relaxed);
        self.slot_freed.notify_one();
    }

    /// Lets one more session keep its server.
    pub fn pin(self: &Arc<Self>, limit: u32) -> Option<PinSlot> {
        take_below(&self.pinned, limit).then(|| PinSlot(self.clone()))
    }

    /// Returns when a server slot may have been given back. One call is kept for whoever asks next.
    pub async fn slot_freed(&self) {
        self.slot_freed.notified().await;
    }

    /// Hands a call on to another who asks, or will ask.
    pub fn pass_slot_on(&self) {
        self.slot_freed.notify_one();
    }

    /// Books the end of a wait for a server.
    pub fn waited(&self, time: Duration) {
        self.totals.wait_time_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Clients, transactions at work and server connections of this moment.
    pub fn in_use(&self) -> (u32, u32, u32) {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let servers = read(&self.servers).saturating_sub(read(&self.reserved));
        (read(&self.clients), read(&self.at_once), servers)
    }

    /// Servers of one cluster that it has, and the time it had some that it gave back, in
    /// microseconds: how much more it is than before counts, not how much it is.
    pub fn in_cluster(&self, cluster: ClusterNumber) -> (u32, u64) {
        self.holdings.of(cluster)
    }

    pub(super) fn waiting_for_servers(&self) -> u32 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Servers the tenant has, and those kept for its clients in line.
    pub fn servers_taken(&self) -> u32 {
        self.servers.load(Ordering::Relaxed)
    }

    /// Sessions that keep their server.
    pub fn pinned_now(&self) -> u32 {
        self.pinned.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ServerSlot {
    fn drop(&mut self) {
        self.account.holdings.leave(self.holding);
        self.account.give_server_back();
    }
}

impl Drop for PinSlot {
    fn drop(&mut self) {
        self.0.pinned.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(account) = self.0.take() {
            account.reserved.fetch_sub(1, Ordering::Relaxed);
            account.give_server_back();
        }
    }
}

fn take_below(count: &AtomicU32, limit: u32) -> bool {
    let take = |now: u32| (now < limit).then_some(now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_and_slots_return_themselves() {
        let account = Arc::new(Account::default());
        let one = Some(1);
        let limits =
            Limits { queries_at_once: one, clients: one, servers: one, ..Limits::default() };
        let (permit, slot) = (account.admit(&limits).unwrap(), account.connect(&limits));
        let server = account.lease(&limits, 1);
        assert!(server.is_some() && account.lease(&limits, 1).is_none());
        assert!(account.reserve(&limits).is_none());
        let over = Over { budget: Budget::AtOnce, used: Amount::Count(1), retry_after: None };
        assert_eq!(account.admit(&limits).unwrap_err(), over);
        let reporting = Limits { only_report: true, ..limits.clone() };
        drop(account.admit(&reporting).unwrap());
        assert_eq!(account.would_refuse(), 1);
        assert!(account.connect(&limits).is_none());
        drop((permit, slot, server));
        assert_eq!(account.in_use(), (0, 0, 0));
        assert!(account.admit(&limits).is_ok() && account.connect(&limits).is_some());
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let (account, limits) = (Arc::new(Account::default()), Limits::default());
        let spend = |_| account.charge(&limits, Duration::ZERO).is_ok();
        assert!((0..10_000).all(spend));
        assert_eq!(account.usage(&limits, Duration::ZERO), []);
    }
}
