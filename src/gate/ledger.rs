//! [`Ledger`]: the figures of SHOW STATS. Tenants' accounts only ever rise; what came since the
//! last look is booked on the tenant and on the database it is in: a tenant that moves or leaves
//! takes nothing with it, and no total goes back.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::budget::Account;
use crate::console::{Figures, StatsRow};
use crate::gate::Common;
use crate::gate::holds::{Database, database_of, databases, name_of};

/// Everything booked so far.
pub struct Ledger {
    tenants: HashMap<String, Book>,
    databases: BTreeMap<Database, Book>,
    /// Where a tenant was last seen.
    homes: HashMap<String, Database>,
    /// When the running period began.
    since: Instant,
}

/// The figures of one tenant or database.
#[derive(Default)]
struct Book {
    totals: Figures,
    /// The totals when the running period began.
    before: Figures,
    /// Of the last whole period.
    averages: Figures,
}

impl Default for Ledger {
    /// Empty, at the begin of a period.
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            databases: BTreeMap::new(),
            homes: HashMap::new(),
            since: Instant::now(),
        }
    }
}

impl Ledger {
    /// When the running period began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Books what came since the last look.
    pub fn observe(&mut self, common: &Common) {
        let catalog = common.catalog.load();
        for (tenant, account) in common.accounts.all() {
            let known = catalog.known(&tenant).map(|it| database_of(it));
            self.book(&tenant, known, figures(&account));
        }
    }

    fn book(&mut self, tenant: &str, home: Option<Database>, totals: Figures) {
        let book = self.tenants.entry(tenant.to_owned()).or_default();
        let more = totals.since(&book.totals);
        book.totals = totals;
        if let Some(home) = home
            && self.homes.get(tenant) != Some(&home)
        {
            self.homes.insert(tenant.to_owned(), home);
        }
        if more == Figures::default() {
            return;
        }
        if let Some(home) = self.homes.get(tenant) {
            let book = self.databases.entry(home.clone()).or_default();
            book.totals = book.totals.plus(&more);
        }
    }

    /// Ends the running period: its averages are shown until the next one ends.
    pub fn end_period(&mut self) {
        let length = self.since.elapsed();
        self.since = Instant::now();
        let books = self.tenants.values_mut().chain(self.databases.values_mut());
        books.for_each(|book| book.end_period(length));
    }

    /// The rows by database and by tenant. Databases of the catalog are there in any case, tenants
    /// if they did anything.
    pub fn rows(&self, common: &Common) -> (Vec<StatsRow>, Vec<StatsRow>) {
        let mut all = databases(&common.catalog.load());
        all.extend(self.databases.keys().cloned());
        let nothing = Book::default();
        let of = |it: &Database| self.databases.get(it).unwrap_or(&nothing);
        let databases = all.iter().map(|it| of(it).row(name_of(it, &all))).collect();
        let busy = self.tenants.iter().filter(|(_, book)| book.totals != Figures::default());
        let mut tenants: Vec<_> = busy.map(|(id, book)| book.row(id.clone())).collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        (databases, tenants)
    }
}

impl Book {
    fn end_period(&mut self, length: Duration) {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        self.averages = self.totals.since(&self.before).averages(micros);
        self.before = self.totals.clone();
    }

    fn row(&self, name: String) -> StatsRow {
        StatsRow { name, totals: self.totals.clone(), averages: self.averages.clone() }
    }
}

fn figures(account: &Account) -> Figures {
    let totals = &account.totals;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let leased = read(&totals.server_time_us);
    Figures {
        transactions: read(&totals.transactions),
        requests: read(&totals.requests),
        received: read(&totals.bytes_received),
        sent: read(&totals.bytes_sent),
        transaction_us: leased,
        request_us: leased.saturating_sub(read(&totals.idle_time_us)),
        wait_us: read(&totals.wait_time_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Figures {
        Figures { requests, ..Figures::default() }
    }

    fn at(database: &str) -> Option<Database> {
        Some(("main".to_owned(), database.to_owned()))
    }

    fn total(ledger: &Ledger, database: &str) -> u64 {
        ledger.databases.get(&at(database).unwrap()).map_or(0, |book| book.totals.requests)
    }

    #[test]
    fn a_tenant_that_moves_or_leaves_takes_nothing_with_it() {
        let mut ledger = Ledger::default();
        ledger.book("a", at("app"), requests(10));
        ledger.book("b", at("app"), requests(5));
        ledger.book("a", at("other"), requests(13));
        assert_eq!((total(&ledger, "app"), total(&ledger, "other")), (15, 3));
        // It has left the catalog, and its last requests are seen only now.
        ledger.book("b", None, requests(7));
        assert_eq!((total(&ledger, "app"), total(&ledger, "other")), (17, 3));
    }

    #[test]
    fn averages_are_those_of_the_last_whole_period() {
        let mut ledger = Ledger::default();
        let period = Duration::from_secs(60);
        ledger.book("a", at("app"), requests(600));
        assert_eq!(ledger.tenants["a"].averages, Figures::default());
        for (seen, average) in [(600, 10), (780, 3), (780, 0)] {
            ledger.book("a", at("app"), requests(seen));
            let books = ledger.tenants.values_mut().chain(ledger.databases.values_mut());
            books.for_each(|book| book.end_period(period));
            assert_eq!(ledger.tenants["a"].averages.requests, average);
            assert_eq!(ledger.databases[&at("app").unwrap()].averages.requests, average);
        }
        assert_eq!(total(&ledger, "app"), 780);
    }
}
