//! Per-tenant series: who has one of its own, what is in it, and their text. Rendered here and
//! not by the recorder, which cannot forget a series and takes kilobytes for each.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::{Kind, Metric, TENANT_METRICS};

/// The label of the sum over the tenants below the limit. No tenant can be called so: ids start
/// with a letter or a digit.
const OTHER: &str = "_other";

/// How often a tenant below the top may take the place of one in it.
const RANK_EVERY: Duration = Duration::from_secs(60);

/// By how much more use.
const RANK_FACTOR: u64 = 2;

type Values = [u64; TENANT_METRICS.len()];

/// One tenant's totals since the gate started, at a scrape: bytes from its clients (in) and to
/// them (out), and microseconds in which a server connection was leased to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRow {
    pub tenant: String,
    pub requests: u64,
    pub transactions: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub refusals: u64,
    pub server_time_us: u64,
    /// The part of it in which the server waited for its client.
    pub idle_time_us: u64,
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
            self.server_time_us.saturating_sub(self.idle_time_us),
            self.would_refuse,
        ]
    }

    /// What decides who is in the top: what was asked, answered or not.
    fn use_of(values: &Values) -> u64 {
        let [requests, _, _, _, refusals, ..] = values;
        requests.saturating_add(*refusals)
    }
}

/// The series in force. Every step of every tenant's totals is booked once: on the tenant's own
/// series if it has one at the time, else on [`OTHER`]. So no series ever goes back or jumps, and
/// together they rise by what the process does.
#[derive(Debug)]
pub struct Board {
    /// Most tenants with a series of their own, apart from those that always have one.
    top: usize,
    always: BTreeSet<String>,
    books: HashMap<String, Book>,
    other: Values,
    ranked: Instant,
}

#[derive(Debug, Default)]
struct Book {
    /// The tenant's totals at the last look.
    seen: Values,
    /// What is in its own series: kept while it has none, so that it goes on where it stopped.
    own: Values,
    has_series: bool,
    /// Use in the last minutes: halved at every ranking.
    recent: u64,
}

impl Board {
    /// A board on which `always` and the `top` others have a series.
    pub fn new(top: usize, always: &[String]) -> Self {
        Self {
            top,
            always: always.iter().cloned().collect(),
            books: HashMap::new(),
            other: [0; TENANT_METRICS.len()],
            ranked: Instant::now(),
        }
    }

    /// Books the totals of this moment and gives the text exposition of all series.
    pub fn render(&mut self, rows: &[TenantRow]) -> String {
        self.book(rows);
        if self.ranked.elapsed() >= RANK_EVERY {
            self.ranked = Instant::now();
            self.rank();
        }
        self.text()
    }

    fn book(&mut self, rows: &[TenantRow]) {
        let mut known = Vec::new();
        let mut newcomers = Vec::new();
        for row in rows {
            match self.books.contains_key(&row.tenant) {
                true => known.push(row),
                false => newcomers.push(row),
            }
        }
        // Nothing of these is booked yet: who finds a place starts with its whole total.
        newcomers.sort_by_key(|row| (Reverse(TenantRow::use_of(&row.values())), &row.tenant));
        for row in &newcomers {
            let values = row.values();
            let has_series = self.always.contains(&row.tenant)
                || values != Values::default() && self.taken() < self.top;
            self.books.insert(row.tenant.clone(), Book { has_series, ..Book::default() });
        }
        for row in known.into_iter().chain(newcomers) {
            let values = row.values();
            let Some(book) = self.books.get_mut(&row.tenant) else { continue };
            let sums = if book.has_series { &mut book.own } else { &mut self.other };
            let seen = std::mem::replace(&mut book.seen, values);
            let mut steps = Values::default();
            for (((step, now), before), sum) in steps.iter_mut().zip(values).zip(seen).zip(sums) {
                *step = now.saturating_sub(before);
                *sum = sum.saturating_add(*step);
            }
            book.recent = book.recent.saturating_add(TenantRow::use_of(&steps));
        }
        self.fill();
    }

    /// Places taken by tenants that need not have one.
    fn taken(&self) -> usize {
        let chosen =
            |(tenant, book): &(&String, &Book)| book.has_series && !self.always.contains(*tenant);
        self.books.iter().filter(chosen).count()
    }

    /// Gives free places to those who use most. What they did so far stays where it was booked.
    fn fill(&mut self) {
        while self.taken() < self.top {
            let Some((_, tenant)) = self.busiest() else { return };
            if let Some(book) = self.books.get_mut(&tenant) {
                book.has_series = true;
            }
        }
    }

    /// Lets who uses far more than the quietest of the top take its place.
    fn rank(&mut self) {
        while let (Some((use_below, tenant)), Some((use_above, quietest))) =
            (self.busiest(), self.quietest())
        {
            if use_below <= use_above.saturating_mul(RANK_FACTOR) {
                break;
            }
            for (id, has_series) in [(tenant, true), (quietest, false)] {
                if let Some(book) = self.books.get_mut(&id) {
                    book.has_series = has_series;
                }
            }
        }
        self.books.values_mut().for_each(|book| book.recent /= 2);
    }

    /// Who uses most without a series of its own.
    fn busiest(&self) -> Option<(u64, String)> {
        let below = self.books.iter().filter(|(_, book)| !book.has_series && book.recent > 0);
        let found = below.max_by_key(|(tenant, book)| (book.recent, Reverse(*tenant)));
        found.map(|(tenant, book)| (book.recent, tenant.clone()))
    }

    /// Who uses least of those who need not have a series.
    fn quietest(&self) -> Option<(u64, String)> {
        let above = self.books.iter();
        let above = above.filter(|(id, book)| book.has_series && !self.always.contains(*id));
        let found = above.min_by_key(|(tenant, book)| (book.recent, Reverse(*tenant)));
        found.map(|(tenant, book)| (book.recent, tenant.clone()))
    }

    fn text(&self) -> String {
        let mut series: Vec<(String, &Values)> = self
            .books
            .iter()
            .filter(|(_, book)| book.has_series)
            .map(|(tenant, book)| (escape(tenant), &book.own))
            .collect();
        series.sort();
        if self.other != Values::default() || self.books.values().any(|book| !book.has_series) {
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

    fn row(tenant: &str, requests: u64) -> TenantRow {
        let (tenant, server_time_us) = (tenant.to_owned(), requests * 1_500_000);
        TenantRow { tenant, requests, server_time_us, ..TenantRow::default() }
    }

    /// The series of requests, as `tenant value`.
    fn requests(text: &str) -> Vec<String> {
        let of = |line: &str| {
            let rest = line.strip_prefix("tenantgate_tenant_requests_total{tenant=\"")?;
            Some(rest.replace("\"}", ""))
        };
        text.lines().filter_map(of).collect()
    }

    #[test]
    fn tenants_below_the_top_are_summed_into_one_series() {
        let mut board = Board::new(2, &["a".to_owned()]);
        let rows = [row("a", 1), row("b", 30), row("c", 2), row("d", 4), row("e", 0)];
        let text = board.render(&rows);
        assert_eq!(requests(&text), ["a 1", "b 30", "d 4", "_other 2"]);
        assert!(text.contains("tenantgate_tenant_server_seconds_total{tenant=\"d\"} 6.000000\n"));
        assert!(text.contains("{tenant=\"_other\"} 3.000000\n"));
        assert_eq!(Board::new(10, &[]).render(&[]), "");
        assert_eq!(requests(&Board::new(9, &[]).render(&[row("a", 1)])), ["a 1"]);
        assert_eq!(requests(&Board::new(0, &[]).render(&[row("a", 1)])), ["_other 1"]);
    }

    #[test]
    fn who_moves_in_starts_at_nothing_and_who_comes_back_goes_on_where_it_stopped() {
        let mut board = Board::new(1, &[]);
        assert_eq!(requests(&board.render(&[row("a", 10), row("b", 5)])), ["a 10", "_other 5"]);
        // Not much more than the one in the top: it stays.
        board.render(&[row("a", 20), row("b", 20)]);
        board.rank();
        assert_eq!(requests(&board.text()), ["a 20", "_other 20"]);
        board.render(&[row("a", 20), row("b", 90)]);
        board.rank();
        assert_eq!(requests(&board.text()), ["b 0", "_other 90"]);
        assert_eq!(requests(&board.render(&[row("a", 25), row("b", 95)])), ["b 5", "_other 95"]);
        board.render(&[row("a", 1_025), row("b", 95)]);
        board.rank();
        assert_eq!(requests(&board.text()), ["a 20", "_other 1095"]);
        assert_eq!(requests(&board.render(&[row("a", 1_026)])), ["a 21", "_other 1095"]);
    }

    #[test]
    fn no_series_ever_goes_back_and_together_they_rise_by_what_is_done() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut board = Board::new(3, &["t0".to_owned()]);
        let mut totals = [0_u64; 12];
        let mut before: HashMap<String, u64> = HashMap::new();
        for round in 0..2_000 {
            let mut done = 0;
            for total in totals.iter_mut().take(1 + round / 150) {
                let more = if random.u8(0..3) == 0 { random.u64(0..50) } else { 0 };
                *total += more;
                done += more;
            }
            let rows: Vec<_> =
                totals.iter().enumerate().map(|(at, it)| row(&format!("t{at}"), *it)).collect();
            if round % 7 == 0 {
                board.rank();
            }
            let text = board.render(&rows);
            let mut risen = 0;
            let mut now = before.clone();
            for series in requests(&text) {
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
    fn a_label_value_cannot_leave_its_quotes() {
        let text = Board::new(10, &[]).render(&[row("x\"} 1\n\\", 1)]);
        assert!(text.contains(r#"{tenant="x\"} 1\n\\"} 1"#));
    }
}
