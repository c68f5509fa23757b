//! [`Ledger`]: the figures of SHOW STATS. What accounts have booked since the last look is booked
//! on the tenant and on the database it is in: a tenant that moves or leaves takes nothing with it,
//! and no total goes back.

mod books;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{Reader, Sums};
use crate::catalog::{Database, database_of};
use crate::console::{Figures, StatsRow, TopRow};
use crate::gate::Common;
use crate::gate::holds::{Names, databases};
use crate::gate::ledger::books::Books;

/// Everything booked so far.
pub struct Ledger {
    tenants: Books<Arc<str>>,
    databases: Books<Database>,
    /// Where a tenant was last seen, and in which period it was here.
    homes: HashMap<Arc<str>, (Database, u64)>,
    period: u64,
    /// When the running period began, and the one before it.
    since: Instant,
    since_last: Instant,
}

/// Most rows of SHOW TOP.
const TOP_MAX: usize = 20;

/// The row of those that are not known any more. No tenant can be called so.
const OTHER: &str = "_other";

impl Default for Ledger {
    /// Empty, at the begin of a period.
    fn default() -> Self {
        Self {
            tenants: Books::default(),
            databases: Books::default(),
            homes: HashMap::new(),
            period: 0,
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

    /// Books what came since the last look. Costs as much as there are accounts.
    pub fn observe(&mut self, common: &Common) {
        let catalog = common.catalog.load();
        common.accounts.each(|tenant, account| {
            let known = catalog.known(tenant).map(|it| database_of(it));
            self.book(tenant, known, &figures(&account.read(Reader::Console)));
        });
    }

    fn book(&mut self, tenant: &Arc<str>, home: Option<Database>, more: &Figures) {
        let last = self.homes.get_mut(tenant);
        match (home, last) {
            (Some(home), None) => drop(self.homes.insert(tenant.clone(), (home, self.period))),
            (home, Some(last)) => *last = (home.unwrap_or(last.0.clone()), self.period),
            (None, None) => {}
        }
        self.tenants.add(tenant, more);
        if let Some((home, _)) = self.homes.get(tenant) {
            self.databases.add(home, more);
        }
    }

    /// Ends the running period: its averages are shown until the next one ends. What came in it
    /// must be booked.
    pub fn end_period(&mut self) {
        let length = self.since.elapsed();
        self.since_last = std::mem::replace(&mut self.since, Instant::now());
        self.close(length);
    }

    fn close(&mut self, length: Duration) {
        self.tenants.end_period(length);
        self.databases.end_period(length);
        // Who has no account any more is not here.
        let period = self.period;
        self.homes.retain(|_, (_, seen)| *seen == period);
        self.period += 1;
    }

    /// The rows by database. Those of the catalog are there in any case.
    pub fn databases(&self, common: &Common) -> Vec<StatsRow> {
        let mut all = databases(&common.catalog.load());
        all.extend(self.databases.keys().cloned());
        let names = Names::of(&all);
        let row = |it: &Database| {
            let (totals, averages) = self.databases.figures(it);
            StatsRow { name: names.of_database(it), totals, averages }
        };
        all.iter().map(row).chain(self.databases.forgotten().map(other)).collect()
    }

    /// The rows by tenant, of those that did anything.
    pub fn tenants(&self) -> Vec<StatsRow> {
        let ids: BTreeSet<&Arc<str>> = self.tenants.keys().collect();
        let row = |id: &Arc<str>| {
            let (totals, averages) = self.tenants.figures(id);
            StatsRow { name: id.to_string(), totals, averages }
        };
        ids.into_iter().map(row).chain(self.tenants.forgotten().map(other)).collect()
    }

    /// Whom servers worked most for in the last whole period and the running one, what runs
    /// still, and is not booked, included.
    pub fn top(&self, working: &[(String, u64)]) -> Vec<TopRow> {
        let length = self.since_last.elapsed();
        let lately = self.tenants.lately().map(|(id, figures)| (&**id, figures));
        let mut lately: HashMap<&str, Figures> = lately.collect();
        let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        for (tenant, micros) in working {
            lately.entry(tenant).or_default().request_us += micros.min(&length_us);
        }
        let all: u64 = lately.values().map(|it| it.request_us).sum();
        let mut top: Vec<_> = lately.into_iter().filter(|(_, it)| it.request_us > 0).collect();
        let order = |a: &(&str, Figures), b: &(&str, Figures)| {
            b.1.request_us.cmp(&a.1.request_us).then(a.0.cmp(b.0))
        };
        if top.len() > TOP_MAX {
            top.select_nth_unstable_by(TOP_MAX, order);
            top.truncate(TOP_MAX);
        }
        top.sort_by(order);
        let row = |(tenant, figures): (&str, Figures)| TopRow {
            tenant: tenant.to_owned(),
            per_mille: figures.request_us.saturating_mul(1000) / all.max(1),
            seconds: length.as_secs(),
            figures,
        };
        top.into_iter().map(row).collect()
    }
}

fn other(totals: &Figures) -> StatsRow {
    StatsRow { name: OTHER.to_owned(), totals: totals.clone(), averages: Figures::default() }
}

fn figures(sums: &Sums) -> Figures {
    Figures {
        transactions: sums.transactions,
        requests: sums.requests,
        received: sums.bytes_received,
        sent: sums.bytes_sent,
        transaction_us: sums.server_us,
        request_us: sums.database_us,
        wait_us: sums.wait_us,
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

    fn book(ledger: &mut Ledger, tenant: &str, home: Option<Database>, more: Figures) {
        ledger.book(&tenant.into(), home, &more);
    }

    fn total(ledger: &Ledger, database: &str) -> u64 {
        ledger.databases.figures(&at(database).unwrap()).0.requests
    }

    #[test]
    fn a_tenant_that_moves_or_leaves_takes_nothing_with_it() {
        let mut ledger = Ledger::default();
        book(&mut ledger, "a", at("app"), requests(10));
        book(&mut ledger, "b", at("app"), requests(5));
        book(&mut ledger, "a", at("other"), requests(3));
        assert_eq!((total(&ledger, "app"), total(&ledger, "other")), (15, 3));
        // It has left the catalog, and its last requests are seen only now.
        book(&mut ledger, "b", None, requests(2));
        assert_eq!((total(&ledger, "app"), total(&ledger, "other")), (17, 3));
        // Where somebody was who has gone is forgotten, what it did is not.
        ledger.end_period();
        book(&mut ledger, "a", None, requests(0));
        ledger.end_period();
        assert_eq!(ledger.homes.keys().map(|id| &**id).collect::<Vec<_>>(), ["a"]);
        assert_eq!((total(&ledger, "app"), total(&ledger, "other")), (17, 3));
        assert_eq!(ledger.tenants().iter().map(|it| it.totals.requests).sum::<u64>(), 20);
    }

    #[test]
    fn the_top_is_by_work_of_late_and_of_what_runs() {
        let mut ledger = Ledger::default();
        let worked = |request_us| Figures { request_us, ..Figures::default() };
        book(&mut ledger, "old", at("app"), worked(1_000_000));
        ledger.end_period();
        book(&mut ledger, "new", at("app"), worked(10));
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
        for id in 0..100_u64 {
            book(&mut ledger, &format!("t{id}"), None, worked(1_000 + id));
        }
        let most: Vec<String> = ledger.top(&[]).into_iter().map(|row| row.tenant).collect();
        let wanted: Vec<String> = (80..100).rev().map(|id| format!("t{id}")).collect();
        assert_eq!(most, wanted);
    }

    #[test]
    fn averages_are_those_of_the_last_whole_period() {
        let mut ledger = Ledger::default();
        let period = Duration::from_secs(60);
        book(&mut ledger, "a", at("app"), requests(600));
        let averages = |ledger: &Ledger| {
            let rows = (ledger.tenants.figures(&"a".into()), &at("app").unwrap());
            (rows.0.1.requests, ledger.databases.figures(rows.1).1.requests)
        };
        assert_eq!(averages(&ledger), (0, 0));
        for (more, average) in [(0, 10), (180, 3), (0, 0)] {
            book(&mut ledger, "a", at("app"), requests(more));
            ledger.close(period);
            assert_eq!(averages(&ledger), (average, average));
        }
        assert_eq!(total(&ledger, "app"), 780);
    }
}
