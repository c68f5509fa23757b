//! [`Account`]: a tenant's running totals, and who may still spend from them. Accounts outlive
//! reloads; the limits are handed in with every question, so that a new limit counts at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::budget::limits::Limits;
use crate::budget::rate::Rate;

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
    rate: Rate,
    /// Told when a transaction ends, so that one that waits may start.
    freed: Notify,
    /// Told when a server slot is given back, so that one who waits for it may have it.
    slot_freed: Notify,
    pub totals: Totals,
}

/// Totals since the gate started; for the console and the metrics.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: AtomicU64,
    pub transactions: AtomicU64,
    pub refused_rate: AtomicU64,
    pub refused_at_once: AtomicU64,
    pub refusals: AtomicU64,
    pub cancelled: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    /// Time servers were leased to the tenant, in microseconds.
    pub server_time_us: AtomicU64,
    /// The part of it in which the server waited for its client within a transaction.
    pub idle_time_us: AtomicU64,
    /// Time clients waited for a server, in microseconds.
    pub wait_time_us: AtomicU64,
}

/// What was asked for is over the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// To be had after this long.
    Rate(Duration),
    /// This many transactions are at work already.
    AtOnce(u32),
}

/// A transaction is at work; dropping this ends it.
#[derive(Debug)]
pub struct Permit(Arc<Account>);

/// A client connection is open; dropping this closes it.
#[derive(Debug)]
pub struct ClientSlot(Arc<Account>);

/// A server connection is leased, or will be in a moment; dropping this gives it back.
#[derive(Debug)]
pub struct ServerSlot(Arc<Account>);

/// A session may keep its server; dropping this takes that back.
#[derive(Debug)]
pub struct PinSlot(Arc<Account>);

/// A slot of one who waits in line for a server. Dropping it gives the slot back.
#[derive(Debug)]
pub struct Reservation(Option<ServerSlot>);

impl Reservation {
    /// The slot itself, for whoever is given a server.
    pub fn redeem(mut self) -> Option<ServerSlot> {
        self.take()
    }

    fn take(&mut self) -> Option<ServerSlot> {
        let slot = self.0.take()?;
        slot.0.reserved.fetch_sub(1, Ordering::Relaxed);
        Some(slot)
    }
}

impl ServerSlot {
    /// Whose it is.
    #[inline]
    pub fn account(&self) -> &Account {
        &self.0
    }
}

impl Account {
    /// Counts one request against the rate. `now` is any clock that never goes back.
    pub fn charge(&self, limits: &Limits, now: Duration) -> Result<(), Over> {
        let Some(per_second) = limits.queries_per_second else { return Ok(()) };
        let burst = limits.queries_burst.unwrap_or(per_second);
        self.rate.take(now, per_second, burst).map_err(Over::Rate)
    }

    /// Lets one more transaction start.
    pub fn admit(self: &Arc<Self>, limits: &Limits) -> Result<Permit, Over> {
        let limit = limits.queries_at_once.unwrap_or(u32::MAX);
        match take_below(&self.at_once, limit) {
            true => Ok(Permit(self.clone())),
            false => Err(Over::AtOnce(limit)),
        }
    }

    /// Returns when a transaction of the tenant may have ended.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Lets one more client in.
    pub fn connect(self: &Arc<Self>, limits: &Limits) -> Option<ClientSlot> {
        let limit = limits.clients.unwrap_or(u32::MAX);
        take_below(&self.clients, limit).then(|| ClientSlot(self.clone()))
    }

    /// Lets the tenant have one more server connection.
    #[inline]
    pub fn lease(self: &Arc<Self>, limits: &Limits) -> Option<ServerSlot> {
        match limits.servers {
            Some(limit) if !take_below(&self.servers, limit) => return None,
            Some(_) => {}
            None => drop(self.servers.fetch_add(1, Ordering::Relaxed)),
        }
        Some(ServerSlot(self.clone()))
    }

    /// The same for one who will wait for it in line.
    pub fn reserve(self: &Arc<Self>, limits: &Limits) -> Option<Reservation> {
        let slot = self.lease(limits)?;
        self.reserved.fetch_add(1, Ordering::Relaxed);
        Some(Reservation(Some(slot)))
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

    /// Requests that could come at once; `None` without a limit.
    pub fn available(&self, limits: &Limits, now: Duration) -> Option<u32> {
        let per_second = limits.queries_per_second?;
        let burst = limits.queries_burst.unwrap_or(per_second);
        Some(self.rate.available(now, per_second, burst))
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
        self.0.servers.fetch_sub(1, Ordering::Relaxed);
        self.0.slot_freed.notify_one();
    }
}

impl Drop for PinSlot {
    fn drop(&mut self) {
        self.0.pinned.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        drop(self.take());
    }
}

fn take_below(count: &AtomicU32, limit: u32) -> bool {
    let take = |now: u32| (now < limit).then_some(now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}

/// Every tenant's account, by tenant id.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<HashMap<String, Arc<Account>>>);

impl Accounts {
    /// The account of a tenant; opened when first asked for.
    pub fn of(&self, tenant: &str) -> Arc<Account> {
        let mut accounts = self.0.lock();
        if let Some(account) = accounts.get(tenant) {
            return account.clone();
        }
        let account = Arc::new(Account::default());
        accounts.insert(tenant.to_owned(), account.clone());
        account
    }

    /// All accounts, in order of tenant ids.
    pub fn all(&self) -> Vec<(String, Arc<Account>)> {
        let accounts = self.0.lock();
        let mut all: Vec<_> = accounts.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
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
        let server = account.lease(&limits);
        assert!(server.is_some() && account.lease(&limits).is_none());
        assert!(account.reserve(&limits).is_none());
        assert_eq!(account.admit(&limits).unwrap_err(), Over::AtOnce(1));
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
        assert_eq!(account.available(&limits, Duration::ZERO), None);
    }
}
