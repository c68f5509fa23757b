//! [`Accounts`]: the accounts of tenants that are here, or were lately. A tenant that is gone and
//! would find a new account no better than its own is forgotten, once everybody has read what it
//! did: whoever goes through accounts goes through those alone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use parking_lot::Mutex;

use crate::budget::account::Account;

/// A power of two: no lock is held for longer than a small part of the accounts takes.
const SHARDS: usize = 64;

/// Queries that timed out count towards a breaker for as long, after which nobody gains by them.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What an account has booked since it was opened, or since somebody read it last. Times are in
/// microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub requests: u64,
    pub transactions: u64,
    pub refusals: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// In which servers were leased.
    pub server_us: u64,
    /// In which they worked: without their waits for clients.
    pub database_us: u64,
    pub wait_us: u64,
    /// What would have been refused, were the budgets enforced.
    pub would_refuse: u64,
}

impl Sums {
    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: of(self.requests, other.requests),
            transactions: of(self.transactions, other.transactions),
            refusals: of(self.refusals, other.refusals),
            bytes_received: of(self.bytes_received, other.bytes_received),
            bytes_sent: of(self.bytes_sent, other.bytes_sent),
            server_us: of(self.server_us, other.server_us),
            database_us: of(self.database_us, other.database_us),
            wait_us: of(self.wait_us, other.wait_us),
            would_refuse: of(self.would_refuse, other.would_refuse),
        }
    }
}

/// Who reads what accounts have booked, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The figures of the console.
    Console,
    /// The series of the metrics.
    Metrics,
    /// The plots of the page.
    Page,
    /// The usage records.
    Usage,
}

impl Reader {
    const COUNT: usize = 4;

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How far each reader has read an account.
#[derive(Debug, Default)]
pub struct Marks {
    read: Mutex<[Sums; Reader::COUNT]>,
    /// Since when there has been nothing to keep it for, in nanoseconds of the caller's clock; 0:
    /// there is something.
    idle_since: AtomicU64,
}

impl Account {
    /// What was booked since it was opened.
    pub fn sums(&self) -> Sums {
        let totals = &self.totals;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let server_us = read(&totals.server_time_us);
        Sums {
            requests: read(&totals.requests),
            transactions: read(&totals.transactions),
            refusals: read(&totals.refusals),
            bytes_received: read(&totals.bytes_received),
            bytes_sent: read(&totals.bytes_sent),
            server_us,
            database_us: server_us.saturating_sub(read(&totals.idle_time_us)),
            wait_us: read(&totals.wait_time_us),
            would_refuse: self.would_refuse(),
        }
    }

    /// What was booked since this reader's last look. Over all looks it is what was booked: each
    /// step is given to a reader once.
    pub fn read(&self, reader: Reader) -> Sums {
        let mut marks = self.marks.read.lock();
        let sums = self.sums();
        let Some(mark) = marks.get_mut(reader as usize) else { return Sums::default() };
        let more = sums.with(*mark, u64::saturating_sub);
        // Time in which a server waited may be booked ahead of the lease it was in.
        *mark = sums.with(*mark, u64::max);
        more
    }

    /// What the next [`Self::read`] of this reader has, as things are.
    pub fn unread(&self, reader: Reader) -> Sums {
        let marks = self.marks.read.lock();
        let mark = marks.get(reader as usize).copied().unwrap_or_default();
        self.sums().with(mark, u64::saturating_sub)
    }

    fn is_read(&self, readers: u8) -> bool {
        let (marks, sums) = (self.marks.read.lock(), self.sums());
        let unread = |mark: &Sums| sums.with(*mark, u64::saturating_sub) != Sums::default();
        let of = |(place, _): &(usize, &Sums)| readers & (1 << place) != 0;
        !marks.iter().enumerate().filter(of).any(|(_, mark)| unread(mark))
    }

    /// Whether it may be forgotten, which nobody may be asking of one that is in use: there is
    /// nothing in it, and there was nothing when it was asked before. A tenant must not get rid
    /// of what it owes by leaving.
    fn may_go(&self, readers: u8, now: Duration) -> bool {
        let owes = !self.rate.is_whole(now)
            || !self.logins.is_whole(now)
            || !self.time.is_empty(now)
            || !self.bytes.is_empty(now)
            || self.breaker.is_open(now)
            || self.is_cooling(now)
            || self.is_overridden();
        if owes || !self.is_read(readers) {
            self.stay();
            return false;
        }
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        match self.marks.idle_since.load(Ordering::Relaxed) {
            0 => {
                self.marks.idle_since.store(nanos, Ordering::Relaxed);
                false
            }
            since => {
                let idle = Duration::from_nanos(nanos.saturating_sub(since));
                self.breaker.is_blank() || idle >= REMEMBERED
            }
        }
    }

    fn stay(&self) {
        self.marks.idle_since.store(0, Ordering::Relaxed);
    }
}

type Shard = HashMap<Arc<str>, Arc<Account>>;

/// The accounts of tenants, by id.
#[derive(Debug)]
pub struct Accounts {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Who reads them, as bits.
    readers: AtomicU8,
}

impl Default for Accounts {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, hasher: RandomState::new(), readers: AtomicU8::new(0) }
    }
}

impl Accounts {
    /// The account of a tenant that is here; opened when first asked for.
    pub fn of(&self, tenant: &str) -> Arc<Account> {
        let mut shard = self.shard(tenant).lock();
        if let Some(account) = shard.get(tenant) {
            return account.clone();
        }
        let account = Arc::new(Account::default());
        shard.insert(tenant.into(), account.clone());
        account
    }

    /// The account of a tenant, if there is one: to look at.
    pub fn known(&self, tenant: &str) -> Option<Arc<Account>> {
        self.shard(tenant).lock().get(tenant).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Goes through all accounts. Nobody who logs in waits for more than a small part of it.
    pub fn each(&self, mut visit: impl FnMut(&Arc<str>, &Account)) {
        let mut some = Vec::new();
        for shard in &self.shards {
            some.extend(shard.lock().iter().map(|(id, it)| (id.clone(), it.clone())));
            some.drain(..).for_each(|(id, account)| visit(&id, &account));
        }
    }

    /// What this reader has not read yet, of those who did anything.
    pub fn read(&self, reader: Reader) -> Vec<(Arc<str>, Sums)> {
        let mut rows = Vec::new();
        self.each(|tenant, account| {
            let sums = account.read(reader);
            if sums != Sums::default() {
                rows.push((tenant.clone(), sums));
            }
        });
        rows
    }

    /// From now on nothing is forgotten before this reader has read it.
    pub fn keep_for(&self, reader: Reader) {
        self.readers.fetch_or(reader.bit(), Ordering::Relaxed);
    }

    /// Forgets the accounts that nobody has and nothing is in, if that was so at the last call as
    /// well. Says how many. `now` is the clock of everybody else who asks.
    pub fn forget(&self, now: Duration) -> usize {
        let readers = self.readers.load(Ordering::Relaxed);
        let mut gone = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, account| {
                // Whoever wants it has to wait for the lock: one is the shard's own.
                if Arc::strong_count(account) > 1 {
                    account.stay();
                    return true;
                }
                // All that was booked by those who had it is to be seen.
                fence(Ordering::Acquire);
                let goes = account.may_go(readers, now);
                gone += usize::from(goes);
                !goes
            });
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
        }
        gone
    }

    fn shard(&self, tenant: &str) -> &Mutex<Shard> {
        let place = self.hasher.hash_one(tenant) as usize % SHARDS;
        self.shards.get(place).unwrap_or(&self.shards[0])
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::budget::{Allowance, Kind, Limits, Override, Trip};
    use crate::error::Budget;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many accounts somebody goes through who goes through all.
    fn visited(accounts: &Accounts) -> usize {
        let mut visited = 0;
        accounts.each(|_, _| visited += 1);
        visited
    }

    #[test]
    fn who_is_gone_costs_nobody_anything() {
        let (accounts, limits) = (Accounts::default(), Limits::default());
        let all: Vec<_> = (0..5_000).map(|id| accounts.of(&format!("t{id}"))).collect();
        let here: Vec<_> = all[..10].iter().map(|it| it.connect(&limits).unwrap()).collect();
        drop(all);
        assert_eq!((accounts.forget(at(1)), visited(&accounts)), (0, 5_000));
        assert_eq!((accounts.forget(at(2)), visited(&accounts)), (4_990, 10));
        assert!(accounts.known("t0").is_some() && accounts.known("t4000").is_none());
        assert_eq!(visited(&accounts), 10, "looking opens none");
        drop(here);
        assert_eq!([accounts.forget(at(3)), accounts.forget(at(4))], [0, 10]);
    }

    #[test]
    fn nothing_goes_before_everybody_has_read_it_and_each_reads_all_of_it_once() {
        let mut random = fastrand::Rng::with_seed(7);
        let accounts = Accounts::default();
        let readers = [Reader::Console, Reader::Metrics, Reader::Usage];
        readers.iter().for_each(|reader| accounts.keep_for(*reader));
        let (mut booked, mut read, mut forgotten) = (0, [0; 3], 0);
        for round in 0..3_000 {
            let account = accounts.of(&format!("t{}", random.u32(0..20)));
            let more = random.u64(0..3);
            account.totals.requests.fetch_add(more, Ordering::Relaxed);
            booked += more;
            drop(account);
            let place = random.usize(0..3);
            let some = accounts.read(readers[place]);
            read[place] += some.iter().map(|(_, sums)| sums.requests).sum::<u64>();
            if random.u8(0..4) == 0 {
                forgotten += accounts.forget(at(round));
            }
        }
        for (place, reader) in readers.into_iter().enumerate() {
            read[place] += accounts.read(reader).iter().map(|it| it.1.requests).sum::<u64>();
        }
        assert!(forgotten > 100, "{forgotten} came back to new accounts");
        assert_eq!(read, [booked; 3]);
    }

    #[test]
    fn time_a_server_waited_that_is_booked_first_is_taken_off_later() {
        let account = Account::default();
        account.totals.server_time_us.store(100, Ordering::Relaxed);
        assert_eq!(account.read(Reader::Page).database_us, 100);
        account.totals.idle_time_us.store(30, Ordering::Relaxed);
        assert_eq!(account.read(Reader::Page), Sums::default());
        account.totals.server_time_us.store(150, Ordering::Relaxed);
        let sums = account.read(Reader::Page);
        assert_eq!((sums.server_us, sums.database_us), (50, 20));
    }

    #[test]
    fn nobody_gets_rid_of_what_it_owes_by_leaving() {
        let window = at(60);
        let allowance = Some(Allowance { amount: 1_000_000, window });
        let limits = Limits {
            database_time: allowance,
            bytes_out: allowance,
            queries_per_second: Some(1),
            queries_burst: Some(10),
            logins_per_second: Some(1),
            logins_burst: Some(10),
            breaker: Some(Trip { timeouts: 2, of: 10 }),
            ..Limits::default()
        };
        let pay = |how: &dyn Fn(&Account)| {
            let accounts = Accounts::default();
            how(&accounts.of("a"));
            // The first second at which it is gone, asked at each.
            (1..10_000).find(|second| accounts.forget(at(*second)) == 1).unwrap_or(u64::MAX)
        };
        let charge = |it: &Account| assert_eq!(it.charge(&limits, at(0)), Ok(false));
        assert_eq!(pay(&|_| ()), 2);
        assert_eq!(pay(&|it| (0..9).for_each(|_| charge(it))), 10);
        assert_eq!(pay(&|it| (0..5).for_each(|_| it.log_in(&limits, at(0)).unwrap())), 6);
        assert!((31..=32).contains(&pay(&|it| it.sent(&limits, 500_000, at(0)))));
        let works = |it: &Account| {
            it.start_work(&limits, at(0));
            it.stop_work(at(2));
        };
        assert!((110..125).contains(&pay(&works)));
        // An open breaker, and timeouts that may open it.
        let times_out = |it: &Account| it.timed_out(&limits, at(0)).is_some();
        assert_eq!(pay(&|it| assert!(!times_out(it))), 3601);
        assert_eq!(pay(&|it| assert!(!times_out(it) && times_out(it))), 30 + 3600);
        let set = |it: &Account| {
            let (kind, limits) = (Kind::Budget(Budget::Rate), Box::default());
            it.set_override(Override { kind, limits, until: SystemTime::UNIX_EPOCH, serial: 1 });
        };
        assert_eq!(pay(&set), u64::MAX);
    }
}
