//! Per-tenant series: who has one of its own, what is in it, and their text. Rendered here and
//! not by the recorder, which cannot forget a series and takes kilobytes for each.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::{Kind, Metric, TENANT_METRICS};

/// The label of the sum over the tenants below the limit. No tenant can be called so: ids start
/// with a letter or a digit.
const OTHER: &str = "_other";

/// How often a tenant below the top may take the place of one in it.
const RANK_EVERY: Duration = Duration::from_secs(60);

/// By how much more use.
const RANK_FACTOR: u64 = 2;

/// Microseconds of use that are soon as good as none.
const NEGLIGIBLE_US: u64 = 1000;

/// Most tenants of which it is known where their series stopped.
const FORMER_MAX: usize = 1000;

type Values = [u64; TENANT_METRICS.len()];

/// What one tenant did since the last look: bytes from its clients (in) and to them (out), and
/// microseconds in which a server connection was leased to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRow {
    pub tenant: Arc<str>,
    pub requests: u64,
    pub transactions: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub refusals: u64,
    pub server_time_us: u64,
    /// The part of it in which the server did not wait for its client.
    pub database_time_us: u64,
    /// Refusals that there would have been, were the tenant's budgets enforced.
    pub would_refuse: u64,
    pub wait_time_us: u64,
}

impl TenantRow {
    /// The values in the order of [`TENANT_METRICS`]; times are in microseconds.
    fn values(&self) -> Values {
        [
            self.requests,
            self.transactions,
            self.bytes_in,
            self.bytes_out,
            self.refusals,
            self.server_time_us,
            self.wait_time_us,
            self.database_time_us,
            self.would_refuse,
        ]
    }

    /// What decides who is in the top.
    fn use_of(&self) -> Use {
        let asked = self.requests.saturating_add(self.refusals);
        Use { database_us: self.database_time_us, asked }
    }
}

/// How much a tenant uses: the time servers work for it, and where that is the same what it asks,
/// answered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    database_us: u64,
    asked: u64,
}

impl Use {
    fn add(&mut self, more: Self) {
        self.database_us = self.database_us.saturating_add(more.database_us);
        self.asked = self.asked.saturating_add(more.asked);
    }

    fn halve(&mut self) {
        self.database_us /= 2;
        self.asked /= 2;
        if self.database_us < NEGLIGIBLE_US {
            self.database_us = 0;
        }
    }

    fn is_none(self) -> bool {
        self == Self::default()
    }

    fn is_far_above(self, other: Self) -> bool {
        match (self.database_us, other.database_us) {
            (0, 0) => self.asked > other.asked.saturating_mul(RANK_FACTOR),
            (own, others) => own > others.saturating_mul(RANK_FACTOR),
        }
    }
}

/// The series in force. Every step of every tenant is booked once: on the tenant's own series if it
/// has one at the time, else on [`OTHER`]. So no series ever goes back or jumps, and together they
/// rise by what the process does.
#[derive(Debug)]
pub struct Board {
    /// Most tenants with a series of their own, apart from those that always have one.
    top: usize,
    always: BTreeSet<String>,
    /// Tenants that have a series, had one, or were of some use lately.
    books: HashMap<Arc<str>, Book>,
    /// Places taken by tenants that need not have one.
    taken: usize,
    other: Values,
    /// Whether anybody was ever without a series.
    has_others: bool,
    ranked: Instant,
    rankings: u64,
}

#[derive(Debug, Default)]
struct Book {
    /// What is in its own series: kept while it has none, so that it goes on where it stopped.
    own: Values,
    has_series: bool,
    /// It is one of those that always have one.
    always: bool,
    /// Use in the last minutes: halved at every ranking.
    recent: Use,
    /// The ranking at which its series stopped.
    left: u64,
}

impl Board {
    /// A board on which `always` and the `top` others have a series.
    pub fn new(top: usize, always: &[String]) -> Self {
        Self {
            top,
            always: always.iter().cloned().collect(),
            books: HashMap::new(),
            taken: 0,
            other: [0; TENANT_METRICS.len()],
            has_others: false,
            ranked: Instant::now(),
            rankings: 0,
        }
    }

    /// Books what tenants did since the last time. Costs as much as there are who did anything, and
    /// once a minute as much as there were lately.
    pub fn book(&mut self, rows: &[TenantRow]) {
        let mut newcomers: Vec<&TenantRow> = Vec::new();
        for row in rows {
            match self.books.get_mut(&row.tenant) {
                Some(book) => book.add(row, &mut self.other),
                None => newcomers.push(row),
            }
        }
        // Nothing of these is booked yet: who finds a place starts with all of it.
        newcomers.sort_unstable_by_key(|row| (Reverse(row.use_of()), &row.tenant));
        for row in newcomers {
            let always = self.always.contains(&*row.tenant);
            let has_series = always || self.taken < self.top;
            self.taken += usize::from(has_series && !always);
            self.has_others |= !has_series;
            let mut book = Book { has_series, always, ..Book::default() };
            book.add(row, &mut self.other);
            self.books.insert(row.tenant.clone(), book);
        }
        self.fill();
        if self.ranked.elapsed() >= RANK_EVERY {
            self.ranked = Instant::now();
            self.rank();
        }
    }

    /// Gives free places to those who use most. What they did so far stays where it was booked.
    fn fill(&mut self) {
        let free = self.top.saturating_sub(self.taken);
        if free > 0 {
            for (_, tenant) in self.busiest(free) {
                self.taken += 1;
                self.give(&tenant, true);
            }
        }
    }

    /// Lets who uses far more than the quietest of the top take its place, and forgets who was of
    /// no use lately and has nothing to go on with.
    fn rank(&mut self) {
        self.rankings += 1;
        for (below, above) in self.busiest(self.top).into_iter().zip(self.quietest()) {
            if !below.0.is_far_above(above.0) {
                break;
            }
            self.give(&below.1, true);
            self.give(&above.1, false);
            self.has_others = true;
        }
        self.books.values_mut().for_each(|book| book.recent.halve());
        self.books.retain(|_, book| {
            book.has_series || !book.recent.is_none() || book.own != Values::default()
        });
        self.forget_former();
    }

    /// Forgets where the series stopped of those that left the top first, if they are too many.
    fn forget_former(&mut self) {
        let is_former = |book: &Book| !book.has_series && book.recent.is_none();
        let former = self.books.values().filter(|book| is_former(book));
        let mut left: Vec<u64> = former.map(|book| book.left).collect();
        let Some(excess) = left.len().checked_sub(FORMER_MAX).filter(|it| *it > 0) else { return };
        left.sort_unstable();
        let last = left.get(excess - 1).copied().unwrap_or_default();
        self.books.retain(|_, book| !is_former(book) || book.left > last);
    }

    fn give(&mut self, tenant: &str, has_series: bool) {
        if let Some(book) = self.books.get_mut(tenant) {
            (book.has_series, book.left) = (has_series, self.rankings);
        }
    }

    /// The `most` who use most without a series of their own.
    fn busiest(&self, most: usize) -> Vec<(Use, Arc<str>)> {
        let below = self.books.iter().filter(|(_, it)| !it.has_series && !it.recent.is_none());
        let mut below: Vec<_> = below.map(|(id, it)| (Reverse(it.recent), id)).collect();
        if most < below.len() {
            below.select_nth_unstable(most);
            below.truncate(most);
        }
        below.sort_unstable();
        below.into_iter().map(|(recent, id)| (recent.0, id.clone())).collect()
    }

    /// Those who need not have a series, who uses least of them first.
    fn quietest(&self) -> Vec<(Use, Arc<str>)> {
        let above = self.books.iter().filter(|(_, book)| book.has_series && !book.always);
        let mut above: Vec<_> = above.map(|(id, it)| (it.recent, Reverse(id.clone()))).collect();
        above.sort_unstable();
        above.into_iter().map(|(recent, id)| (recent, id.0)).collect()
    }

    /// The text exposition of all series.
    pub fn render(&self) -> String {
        let mut series: Vec<(String, &Values)> = self
            .books
            .iter()
            .filter(|(_, book)| book.has_series)
            .map(|(tenant, book)| (escape(tenant), &book.own))
            .collect();
        series.sort();
        if self.has_others {
            series.push((OTHER.to_owned(), &self.other));
        }
        if series.is_empty() {
            return String::new();
        }
        let mut text = String::new();
        for (place, metric) in TENANT_METRICS.iter().enumerate() {
            heading(&mut text, metric);
            for (label, values) in &series {
                line(&mut text, metric, label, values.get(place).copied().unwrap_or_default());
            }
        }
        text
    }
}

impl Book {
    fn add(&mut self, row: &TenantRow, other: &mut Values) {
        let sums = if self.has_series { &mut self.own } else { other };
        for (sum, step) in sums.iter_mut().zip(row.values()) {
            *sum = sum.saturating_add(step);
        }
        self.recent.add(row.use_of());
    }
}

fn heading(text: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
    let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
}

fn line(text: &mut String, metric: &Metric, label: &str, value: u64) {
    let name = metric.name;
    let _ = if metric.unit == "seconds" {
        // In integers: the sum of a busy tenant has more digits than a float keeps.
        let (seconds, us) = (value / 1_000_000, value % 1_000_000);
        writeln!(text, "{name}{{tenant=\"{label}\"}} {seconds}.{us:06}")
    } else {
        writeln!(text, "{name}{{tenant=\"{label}\"}} {value}")
    };
}

/// A label value as the text exposition format wants it.
pub(super) fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of as many requests, each with as much work.
    fn row(tenant: &str, requests: u64) -> TenantRow {
        let (server_time_us, database_time_us) = (requests * 1_500_000, requests * 1_000_000);
        let tenant = tenant.into();
        TenantRow { tenant, requests, server_time_us, database_time_us, ..TenantRow::default() }
    }

    /// The series of requests, as `tenant value`.
    fn requests(board: &Board) -> Vec<String> {
        let text = board.render();
        let of = |line: &str| {
            let rest = line.strip_prefix("tenantgate_tenant_requests_total{tenant=\"")?;
            Some(rest.replace("\"}", ""))
        };
        text.lines().filter_map(of).collect()
    }

    fn booked(top: usize, always: &[&str], rows: &[TenantRow]) -> Board {
        let always: Vec<_> = always.iter().map(|id| (*id).to_owned()).collect();
        let mut board = Board::new(top, &always);
        board.book(rows);
        board
    }

    #[test]
    fn tenants_below_the_top_are_summed_into_one_series() {
        let rows = [row("a", 1), row("b", 30), row("c", 2), row("d", 4)];
        let board = booked(2, &["a"], &rows);
        assert_eq!(requests(&board), ["a 1", "b 30", "d 4", "_other 2"]);
        let text = board.render();
        assert!(text.contains("tenantgate_tenant_server_seconds_total{tenant=\"d\"} 6.000000\n"));
        assert!(text.contains("{tenant=\"_other\"} 3.000000\n"));
        assert_eq!(Board::new(10, &[]).render(), "");
        assert_eq!(requests(&booked(9, &[], &[row("a", 1)])), ["a 1"]);
        assert_eq!(requests(&booked(0, &[], &[row("a", 1)])), ["_other 1"]);
    }

    #[test]
    fn the_top_is_by_the_time_that_servers_work() {
        let light = TenantRow { database_time_us: 5, ..row("light", 1000) };
        let heavy = TenantRow { database_time_us: 7, ..row("heavy", 1) };
        let rows = [light, heavy];
        assert_eq!(requests(&booked(1, &[], &rows)), ["heavy 1", "_other 1000"]);
        // Of two that have no such time it is who asks more.
        let refused = TenantRow { tenant: "r".into(), refusals: 9, ..TenantRow::default() };
        let idle = TenantRow { tenant: "i".into(), requests: 3, ..TenantRow::default() };
        assert_eq!(requests(&booked(1, &[], &[idle, refused])), ["r 0", "_other 3"]);
    }

    #[test]
    fn who_moves_in_starts_at_nothing_and_who_comes_back_goes_on_where_it_stopped() {
        let mut board = booked(1, &[], &[row("a", 10), row("b", 5)]);
        assert_eq!(requests(&board), ["a 10", "_other 5"]);
        // Not much more than the one in the top: it stays.
        board.book(&[row("a", 10), row("b", 15)]);
        board.rank();
        assert_eq!(requests(&board), ["a 20", "_other 20"]);
        board.book(&[row("b", 70)]);
        board.rank();
        assert_eq!(requests(&board), ["b 0", "_other 90"]);
        board.book(&[row("a", 5), row("b", 5)]);
        assert_eq!(requests(&board), ["b 5", "_other 95"]);
        board.book(&[row("a", 1_000)]);
        board.rank();
        assert_eq!(requests(&board), ["a 20", "_other 1095"]);
        board.book(&[row("a", 1)]);
        assert_eq!(requests(&board), ["a 21", "_other 1095"]);
    }

    #[test]
    fn no_series_ever_goes_back_and_together_they_rise_by_what_is_done() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut board = Board::new(3, &["t0".to_owned()]);
        let mut before: HashMap<String, u64> = HashMap::new();
        for round in 0..2_000 {
            let here = 1 + (round / 150).min(11);
            let some = (0..here).filter(|_| random.u8(0..3) == 0);
            let some: Vec<usize> = some.collect();
            let steps = some.into_iter().map(|at| row(&format!("t{at}"), random.u64(0..50)));
            let rows: Vec<_> = steps.collect();
            let done: u64 = rows.iter().map(|row| row.requests).sum();
            if round % 7 == 0 {
                board.rank();
            }
            board.book(&rows);
            let mut risen = 0;
            let mut now = before.clone();
            for series in requests(&board) {
                let (tenant, value) = series.split_once(' ').unwrap();
                let value: u64 = value.parse().unwrap();
                let last = now.insert(tenant.to_owned(), value).unwrap_or(0);
                assert!(value >= last, "{tenant} went from {last} to {value}");
                risen += value - last;
            }
            assert_eq!(risen, done, "round {round}");
            before = now;
        }
        assert!(before.len() > 5, "tenants took turns: {before:?}");
    }

    #[test]
    fn who_is_of_no_use_any_more_is_forgotten_and_no_sum_goes_back() {
        let mut board = Board::new(2, &[]);
        for round in 0..50 {
            let rows: Vec<_> = (0..200).map(|id| row(&format!("t{round}-{id}"), 1)).collect();
            board.book(&rows);
        }
        assert_eq!(board.books.len(), 10_000);
        // A second of work is forgotten after ten minutes.
        (0..11).for_each(|_| board.rank());
        assert_eq!((board.books.len(), board.taken), (2, 2));
        assert_eq!(requests(&board), ["t0-0 1", "t0-1 1", "_other 9998"]);
        // Whoever was in the top stays known, up to a bound.
        for round in 0..FORMER_MAX + 300 {
            let step = [row(&format!("u{round}"), 1)];
            for ranks in [1, 2] {
                board.book(&step);
                (0..ranks).for_each(|_| board.rank());
            }
        }
        let known = board.books.len();
        assert!((FORMER_MAX..FORMER_MAX + 30).contains(&known), "{known}");
        assert_eq!(requests(&board).len(), 3);
    }

    #[test]
    fn a_label_value_cannot_leave_its_quotes() {
        let text = booked(10, &[], &[row("x\"} 1\n\\", 1)]).render();
        assert!(text.contains(r#"{tenant="x\"} 1\n\\"} 1"#));
    }
}
