//! [`Ledger`]: the figures of SHOW STATS. Tenants' accounts only ever rise; what came since the
//! last look is booked on the tenant and on the database it is in: a tenant that moves or leaves
//! takes nothing with it, and no total goes back.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::budget::Account;
use crate::catalog::{Database, database_of};
use crate::console::{Figures, StatsRow, TopRow};
use crate::gate::Common;
use crate::gate::holds::{databases, name_of};

/// Everything booked so far.
pub struct Ledger {
    tenants: HashMap<String, Book>,
    databases: BTreeMap<Database, Book>,
    /// Where a tenant was last seen.
    homes: HashMap<String, Database>,
    /// When the running period began, and the one before it.
    since: Instant,
    since_last: Instant,
}

/// The figures of one tenant or database.
#[derive(Default)]
struct Book {
    totals: Figures,
    /// The totals when the running period began.
    before: Figures,
    /// The same of the period before.
    before_last: Figures,
    /// Of the last whole period.
    averages: Figures,
}

/// Most rows of SHOW TOP.
const TOP_MAX: usize = 20;

impl Default for Ledger {
    /// Empty, at the begin of a period.
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            databases: BTreeMap::new(),
            homes: HashMap::new(),
            since: Instant::now(),
            since_last: Instant::now(),
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
        self.since_last = std::mem::replace(&mut self.since, Instant::now());
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

impl Ledger {
    /// Whom servers worked most for in the last whole period and the running one, what runs
    /// still, and is not booked, included.
    pub fn top(&self, working: &[(String, u64)]) -> Vec<TopRow> {
        let length = self.since_last.elapsed();
        let mut lately: HashMap<&str, Figures> =
            self.tenants.iter().map(|(id, book)| (id.as_str(), book.lately())).collect();
        let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        for (tenant, micros) in working {
            lately.entry(tenant).or_default().request_us += micros.min(&length_us);
        }
        let all: u64 = lately.values().map(|it| it.request_us).sum();
        let mut top: Vec<_> = lately.into_iter().filter(|(_, it)| it.request_us > 0).collect();
        top.sort_by(|a, b| b.1.request_us.cmp(&a.1.request_us).then(a.0.cmp(b.0)));
        top.truncate(TOP_MAX);
        let row = |(tenant, figures): (&str, Figures)| TopRow {
            tenant: tenant.to_owned(),
            per_mille: figures.request_us.saturating_mul(1000) / all.max(1),
            seconds: length.as_secs(),
            figures,
        };
        top.into_iter().map(row).collect()
    }
}

impl Book {
    fn end_period(&mut self, length: Duration) {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        self.averages = self.totals.since(&self.before).averages(micros);
        self.before_last = std::mem::replace(&mut self.before, self.totals.clone());
    }

    /// What came in the last whole period and the running one.
    fn lately(&self) -> Figures {
        self.totals.since(&self.before_last)
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
    fn the_top_is_by_work_of_late_and_of_what_runs() {
        let mut ledger = Ledger::default();
        let worked = |request_us| Figures { request_us, ..Figures::default() };
        ledger.book("old", at("app"), worked(1_000_000));
        ledger.end_period();
        ledger.book("new", at("app"), worked(10));
        let named = |ledger: &Ledger, working: &[(String, u64)]| -> Vec<(String, u64)> {
            ledger.top(working).into_iter().map(|row| (row.tenant, row.per_mille)).collect()
        };
        assert_eq!(named(&ledger, &[])[0].0, "old");
        ledger.end_period();
        // Two periods on, nobody remembers it.
        assert_eq!(named(&ledger, &[]), [("new".to_owned(), 1000)]);
        ledger.since_last -= Duration::from_secs(60);
        let runs = [("long".to_owned(), 20), ("long".to_owned(), 10)];
        assert_eq!(named(&ledger, &runs), [("long".to_owned(), 750), ("new".to_owned(), 250)]);
        // What runs for longer counts for no longer.
        let rows = ledger.top(&[("long".to_owned(), u64::MAX)]);
        assert!(rows[0].figures.request_us < 70_000_000, "{rows:?}");
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
