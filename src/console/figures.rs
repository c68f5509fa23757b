//! Figures of the console: totals and averages, how many there are of each, memory. Names and order
//! are PgBouncer's.

use crate::console::field::{Field, count, field, text};
use crate::console::snapshot::{Figures, MemoryRow, Snapshot, StatsRow, TopRow};
use crate::console::table::{Cell, Kind};

/// What SHOW STATS is by.
pub const DATABASE: &[Field<StatsRow>] = &[field("database", Kind::Text, |row| text(&row.name))];

/// What SHOW STATS_TENANTS is by.
pub const TENANT: &[Field<StatsRow>] = &[field("tenant", Kind::Text, |row| text(&row.name))];

/// What both show: totals since the start, averages of the last period.
pub const STATS: &[Field<StatsRow>] = &[
    field("total_xact_count", Kind::Numeric, |row| number(row.totals.transactions)),
    field("total_query_count", Kind::Numeric, |row| number(row.totals.requests)),
    field("total_received", Kind::Numeric, |row| number(row.totals.received)),
    field("total_sent", Kind::Numeric, |row| number(row.totals.sent)),
    field("total_xact_time", Kind::Numeric, |row| number(row.totals.transaction_us)),
    field("total_query_time", Kind::Numeric, |row| number(row.totals.request_us)),
    field("total_wait_time", Kind::Numeric, |row| number(row.totals.wait_us)),
    field("avg_xact_count", Kind::Numeric, |row| number(row.averages.transactions)),
    field("avg_query_count", Kind::Numeric, |row| number(row.averages.requests)),
    field("avg_recv", Kind::Numeric, |row| number(row.averages.received)),
    field("avg_sent", Kind::Numeric, |row| number(row.averages.sent)),
    field("avg_xact_time", Kind::Numeric, |row| number(row.averages.transaction_us)),
    field("avg_query_time", Kind::Numeric, |row| number(row.averages.request_us)),
    field("avg_wait_time", Kind::Numeric, |row| number(row.averages.wait_us)),
];

/// SHOW TOP.
pub const TOP: &[Field<TopRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("query_time", Kind::Numeric, |row| number(row.figures.request_us)),
    field("percent", Kind::Numeric, |row| number(row.per_mille.div_ceil(10))),
    field("xact_count", Kind::Numeric, |row| number(row.figures.transactions)),
    field("query_count", Kind::Numeric, |row| number(row.figures.requests)),
    field("bytes_sent", Kind::Numeric, |row| number(row.figures.sent)),
    field("wait_time", Kind::Numeric, |row| number(row.figures.wait_us)),
    field("seconds", Kind::Int4, |row| count(row.seconds)),
];

/// SHOW STATS_TOTALS, by database.
pub const TOTALS: &[Field<StatsRow>] = &[
    field("xact_count", Kind::Numeric, |row| number(row.totals.transactions)),
    field("query_count", Kind::Numeric, |row| number(row.totals.requests)),
    field("bytes_received", Kind::Numeric, |row| number(row.totals.received)),
    field("bytes_sent", Kind::Numeric, |row| number(row.totals.sent)),
    field("xact_time", Kind::Numeric, |row| number(row.totals.transaction_us)),
    field("query_time", Kind::Numeric, |row| number(row.totals.request_us)),
    field("wait_time", Kind::Numeric, |row| number(row.totals.wait_us)),
];

/// SHOW STATS_AVERAGES, by database.
pub const AVERAGES: &[Field<StatsRow>] = &[
    field("xact_count", Kind::Numeric, |row| number(row.averages.transactions)),
    field("query_count", Kind::Numeric, |row| number(row.averages.requests)),
    field("bytes_received", Kind::Numeric, |row| number(row.averages.received)),
    field("bytes_sent", Kind::Numeric, |row| number(row.averages.sent)),
    field("xact_time", Kind::Numeric, |row| number(row.averages.transaction_us)),
    field("query_time", Kind::Numeric, |row| number(row.averages.request_us)),
    field("wait_time", Kind::Numeric, |row| number(row.averages.wait_us)),
];

/// SHOW LISTS.
pub const LISTS: &[Field<(&'static str, usize)>] = &[
    field("list", Kind::Text, |row| text(row.0)),
    field("items", Kind::Int4, |row| count(row.1 as u64)),
];

/// SHOW MEM.
pub const MEM: &[Field<MemoryRow>] = &[
    field("name", Kind::Text, |row| text(row.name)),
    field("size", Kind::Int4, |row| count(row.size)),
    field("used", Kind::Int4, |row| row.used.map_or(Cell::Null, count)),
    field("free", Kind::Int4, |row| row.free.map_or(Cell::Null, count)),
    field("memtotal", Kind::Int4, |row| count(row.total)),
];

/// The rows of SHOW LISTS: PgBouncer's first, in its order. What the gate does not have (a cache of
/// names, spare objects) is 0.
pub fn lists(snapshot: &Snapshot) -> Vec<(&'static str, usize)> {
    let (clients, servers) = (&snapshot.clients, &snapshot.servers);
    let clients_in = |state| clients.iter().filter(|row| row.socket.state == state).count();
    let servers_in = |state| servers.iter().filter(|row| row.socket.state == state).count();
    let free = servers_in("idle") + servers_in("used");
    vec![
        ("databases", snapshot.databases.len()),
        ("users", snapshot.users.len()),
        ("pools", snapshot.pools.len()),
        ("free_clients", 0),
        ("used_clients", clients.len()),
        ("login_clients", snapshot.connections.saturating_sub(clients.len())),
        ("free_servers", free),
        ("used_servers", servers.len().saturating_sub(free)),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("tenants", snapshot.tenants_known),
        ("clients", clients.len()),
        ("active_clients", clients_in("active")),
        ("waiting_clients", clients_in("waiting")),
        ("servers", servers.len()),
        ("active_servers", servers_in("active")),
        ("idle_servers", servers_in("idle")),
    ]
}

impl Figures {
    /// What came since `before`. Counters never go back, so a difference below zero is none.
    pub fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    /// The sum of both.
    pub fn plus(&self, more: &Self) -> Self {
        self.with(more, u64::saturating_add)
    }

    /// Averages over a period of `micros` microseconds in which these came, as PgBouncer has them:
    /// counts, bytes and waits per second, times per transaction or request.
    pub fn averages(&self, micros: u64) -> Self {
        let scaled = |count: u64, by: u64, over: u64| {
            let wide = u128::from(count) * u128::from(by);
            wide.checked_div(u128::from(over)).map_or(0, |it| u64::try_from(it).unwrap_or(u64::MAX))
        };
        let per_second = |count| scaled(count, 1_000_000, micros);
        Self {
            transactions: per_second(self.transactions),
            requests: per_second(self.requests),
            received: per_second(self.received),
            sent: per_second(self.sent),
            transaction_us: scaled(self.transaction_us, 1, self.transactions),
            request_us: scaled(self.request_us, 1, self.requests),
            wait_us: per_second(self.wait_us),
        }
    }

    fn with(&self, other: &Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            transactions: join(self.transactions, other.transactions),
            requests: join(self.requests, other.requests),
            received: join(self.received, other.received),
            sent: join(self.sent, other.sent),
            transaction_us: join(self.transaction_us, other.transaction_us),
            request_us: join(self.request_us, other.request_us),
            wait_us: join(self.wait_us, other.wait_us),
        }
    }
}

/// PgBouncer's totals are numeric; so many digits fit in no integer of the wire.
fn number(value: u64) -> Cell {
    Cell::Numeric(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::snapshot::{ClientRow, ServerRow, SocketRow};

    fn figures(count: u64) -> Figures {
        Figures {
            transactions: count,
            requests: 2 * count,
            received: 3 * count,
            sent: 4 * count,
            transaction_us: 1_000 * count,
            request_us: 500 * count,
            wait_us: 10 * count,
        }
    }

    #[test]
    fn averages_are_per_second_and_times_per_transaction() {
        // 600 transactions in a minute: 10 a second, of 1 ms each.
        let averages = figures(660).since(&figures(60)).averages(60_000_000);
        let wanted = Figures {
            transactions: 10,
            requests: 20,
            received: 30,
            sent: 40,
            transaction_us: 1_000,
            request_us: 250,
            wait_us: 100,
        };
        assert_eq!(averages, wanted);
        assert_eq!(Figures::default().averages(0), Figures::default());
        assert_eq!(figures(1).plus(&figures(2)), figures(3));
    }

    #[test]
    fn lists_have_pgbouncers_words_first_and_count_by_state() {
        let client = |state: &str| {
            let socket = SocketRow { state: state.to_owned(), ..SocketRow::default() };
            ClientRow { socket, ..ClientRow::default() }
        };
        let server = |state: &str| {
            let socket = SocketRow { state: state.to_owned(), ..SocketRow::default() };
            ServerRow { socket, ..ServerRow::default() }
        };
        let snapshot = Snapshot {
            clients: vec![client("active"), client("waiting"), client("idle")],
            servers: vec![server("active"), server("idle"), server("used")],
            connections: 5,
            ..Snapshot::default()
        };
        let lists = lists(&snapshot);
        for wanted in [
            ("used_clients", 3),
            ("login_clients", 2),
            ("free_servers", 2),
            ("used_servers", 1),
            ("waiting_clients", 1),
            ("active_servers", 1),
        ] {
            assert!(lists.contains(&wanted), "{wanted:?} in {lists:?}");
        }
        assert_eq!(lists[0].0, "databases");
        assert_eq!(lists[11].0, "dns_pending");
    }
}
