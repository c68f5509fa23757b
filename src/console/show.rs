//! What each SHOW command shows: its columns with their types, and the cell each row has for them.
//! PgBouncer's names and order come first where the thing is the same, ours behind them.

use std::marker::PhantomData;

use crate::console::act::ORDERS;
use crate::console::command::{COMMANDS, Subject};
use crate::console::field::{Field, count, field, filled, joined, large, text};
use crate::console::figures::{self, DATABASE};
use crate::console::snapshot::{
    BudgetRow, CatalogRow, ClientRow, ConfigRow, DatabaseRow, FaultRow, HostRow, PoolRow,
    ServerRow, Snapshot, SocketRow, TenantRow, UserRow, WouldRefuseRow,
};
use crate::console::table::{Cell, Column, Kind, Table};

const US_PER_SECOND: u64 = 1_000_000;

const TENANTS: &[Field<TenantRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("isolation", Kind::Text, |row| text(&row.isolation)),
    field("level", Kind::Text, |row| text(&row.level)),
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("database", Kind::Text, |row| text(&row.database)),
    field("login", Kind::Text, |row| text(&row.login)),
    field("role", Kind::Text, |row| row.role.as_deref().map_or(Cell::Null, text)),
    field("tier", Kind::Text, |row| text(&row.tier)),
    field("state", Kind::Text, |row| text(&row.state)),
    field("clients", Kind::Int4, |row| count(row.clients)),
    field("servers", Kind::Int4, |row| count(row.servers)),
    field("version", Kind::Int8, |row| large(row.version)),
    field("leaves_open", Kind::Text, |row| text(&row.leaves_open)),
    field("share", Kind::Text, |row| text(&part(row.share, 100))),
    field("weight", Kind::Text, |row| text(&part(row.weight, 1000))),
    field("servers_min", Kind::Int4, |row| count(row.servers_min)),
];

/// A number that is kept in so many parts of one, without zeros at its end.
fn part(value: u64, of: u64) -> String {
    let digits = of.ilog10() as usize;
    let (whole, rest) = (value / of, value % of);
    let text = format!("{whole}.{rest:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const CATALOG: &[Field<CatalogRow>] = &[
    field("source", Kind::Text, |row| text(row.source)),
    field("version", Kind::Int8, |row| large(row.version)),
    field("tenants", Kind::Int8, |row| large(row.tenants)),
    field("faults", Kind::Int8, |row| large(row.faults)),
    field("connected", Kind::Int4, |row| count(row.connected.into())),
    field("table_version", Kind::Int8, |row| row.table_version.map_or(Cell::Null, large)),
    field("synced", Kind::Text, |row| row.synced.as_deref().map_or(Cell::Null, text)),
    field("from_copy", Kind::Int4, |row| count(row.from_copy.into())),
    field("error", Kind::Text, |row| text(&row.error)),
];

const CATALOG_FAULTS: &[Field<FaultRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("row", Kind::Text, |row| text(&row.row)),
    field("column", Kind::Text, |row| text(&row.column)),
    field("message", Kind::Text, |row| text(&row.message)),
    field("hint", Kind::Text, |row| text(&row.hint)),
];

const HOSTS: &[Field<HostRow>] = &[
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("host", Kind::Text, |row| text(&row.host)),
    field("port", Kind::Int4, |row| Cell::Int4(row.port.into())),
    field("state", Kind::Text, |row| text(row.state)),
    field("since", Kind::Text, |row| text(&row.since)),
    field("failures", Kind::Int4, |row| count(row.failures)),
    field("last_error", Kind::Text, |row| row.last_error.as_deref().map_or(Cell::Null, text)),
    field("next_try_ms", Kind::Int8, |row| row.next_try_ms.map_or(Cell::Null, large)),
    field("attempts", Kind::Int4, |row| count(row.attempts)),
];

const POOLS: &[Field<PoolRow>] = &[
    field("database", Kind::Text, |row| text(&row.database)),
    field("user", Kind::Text, |row| text(&row.user)),
    field("cl_active", Kind::Int4, |row| count(row.cl_active)),
    field("cl_waiting", Kind::Int4, |row| count(row.cl_waiting)),
    field("cl_active_cancel_req", Kind::Int4, |row| count(row.cl_cancel)),
    // A cancel never waits for a server here.
    field("cl_waiting_cancel_req", Kind::Int4, |_| count(0)),
    field("sv_active", Kind::Int4, |row| count(row.sv_active)),
    field("sv_active_cancel", Kind::Int4, |row| count(row.cl_cancel)),
    field("sv_being_canceled", Kind::Int4, |row| count(row.sv_held)),
    field("sv_idle", Kind::Int4, |row| count(row.sv_idle)),
    field("sv_used", Kind::Int4, |row| count(row.sv_used)),
    field("sv_tested", Kind::Int4, |row| count(row.sv_scrub)),
    field("sv_login", Kind::Int4, |row| count(row.sv_login)),
    field("maxwait", Kind::Int4, |row| count(row.maxwait_us / US_PER_SECOND)),
    field("maxwait_us", Kind::Int4, |row| count(row.maxwait_us % US_PER_SECOND)),
    field("pool_mode", Kind::Text, |row| text(&row.pool_mode)),
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("tenant", Kind::Text, |row| text(&row.tenant)),
];

/// Columns that SHOW CLIENTS, SHOW SERVERS and SHOW SOCKETS have in common.
struct Socket<R>(PhantomData<R>);

impl<R: AsRef<SocketRow> + 'static> Socket<R> {
    const FIELDS: &'static [Field<R>] = &[
        field("type", Kind::Text, |row| text(row.as_ref().kind)),
        field("user", Kind::Text, |row| text(&row.as_ref().user)),
        field("database", Kind::Text, |row| text(&row.as_ref().database)),
        field("state", Kind::Text, |row| text(&row.as_ref().state)),
        field("addr", Kind::Text, |row| text(&row.as_ref().addr)),
        field("port", Kind::Int4, |row| Cell::Int4(row.as_ref().port.into())),
        field("local_addr", Kind::Text, |row| text(&row.as_ref().local_addr)),
        field("local_port", Kind::Int4, |row| Cell::Int4(row.as_ref().local_port.into())),
        field("connect_time", Kind::Text, |row| text(&row.as_ref().connect_time)),
        field("request_time", Kind::Text, |row| text(&row.as_ref().request_time)),
        field("wait", Kind::Int4, |row| count(row.as_ref().wait_us / US_PER_SECOND)),
        field("wait_us", Kind::Int4, |row| count(row.as_ref().wait_us % US_PER_SECOND)),
        field("close_needed", Kind::Int4, |row| Cell::Int4(row.as_ref().close_needed.into())),
        field("ptr", Kind::Text, |row| text(&row.as_ref().ptr)),
        field("link", Kind::Text, |row| text(&row.as_ref().link)),
        field("remote_pid", Kind::Int4, |row| count(row.as_ref().remote_pid)),
        field("tls", Kind::Text, |row| text(&row.as_ref().tls)),
        field("application_name", Kind::Text, |row| text(&row.as_ref().application_name)),
    ];
}

const CLIENTS: &[Field<ClientRow>] = &[
    field("id", Kind::Int8, |row| large(row.id)),
    field("tenant", Kind::Text, |row| text(&row.socket.tenant)),
    field("credential", Kind::Text, |row| text(&row.credential)),
    field("pin", Kind::Text, |row| text(&row.pin)),
];

const SERVERS: &[Field<ServerRow>] = &[
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("tenant", Kind::Text, |row| text(&row.socket.tenant)),
    field("kind", Kind::Text, |row| text(&row.kind)),
];

const SOCKETS: &[Field<SocketRow>] = &[field("tenant", Kind::Text, |row| text(&row.tenant))];

const DATABASES: &[Field<DatabaseRow>] = &[
    field("name", Kind::Text, |row| text(&row.name)),
    field("host", Kind::Text, |row| text(&row.host)),
    field("port", Kind::Int4, |row| Cell::Int4(row.port.into())),
    field("database", Kind::Text, |row| text(&row.database)),
    field("force_user", Kind::Text, |row| row.user.as_deref().map_or(Cell::Null, text)),
    field("pool_size", Kind::Int4, |row| count(row.capacity)),
    field("min_pool_size", Kind::Int4, |_| count(0)),
    field("reserve_pool", Kind::Int4, |_| count(0)),
    field("pool_mode", Kind::Text, |_| text("transaction")),
    field("max_connections", Kind::Int4, |row| count(row.capacity)),
    field("current_connections", Kind::Int4, |row| count(row.servers)),
    field("paused", Kind::Int4, |row| count(row.paused.into())),
    field("disabled", Kind::Int4, |row| count(row.disabled.into())),
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("tenants", Kind::Int4, |row| count(row.tenants)),
];

const USERS: &[Field<UserRow>] = &[
    field("name", Kind::Text, |row| text(&row.name)),
    field("pool_mode", Kind::Text, |row| row.pool_mode.map_or(Cell::Null, text)),
    field("kind", Kind::Text, |row| text(row.kind)),
    field("cluster", Kind::Text, |row| row.cluster.as_deref().map_or(Cell::Null, text)),
];

const BUDGETS: &[Field<BudgetRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("tier", Kind::Text, |row| text(&row.tier)),
    field("kind", Kind::Text, |row| text(row.kind)),
    field("used", Kind::Text, |row| row.used.as_deref().map_or(Cell::Null, text)),
    field("limit", Kind::Text, |row| row.limit.as_deref().map_or(Cell::Null, text)),
    field("window", Kind::Text, |row| row.window.as_deref().map_or(Cell::Null, text)),
    field("waiting", Kind::Int4, |row| count(row.waiting)),
    field("refused", Kind::Int8, |row| large(row.refused)),
    field("would_refuse", Kind::Int8, |row| large(row.would_refuse)),
    field("until", Kind::Text, |row| row.until.as_deref().map_or(Cell::Null, text)),
];

const WOULD_REFUSE: &[Field<WouldRefuseRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("rule", Kind::Text, |row| text(&row.rule)),
    field("statement", Kind::Text, |row| text(&row.statement)),
    field("fingerprint", Kind::Text, |row| text(&row.fingerprint)),
    field("count", Kind::Int8, |row| large(row.count)),
    field("first_time", Kind::Text, |row| text(&row.first_time)),
    field("last_time", Kind::Text, |row| text(&row.last_time)),
];

const CONFIG: &[Field<ConfigRow>] = &[
    field("key", Kind::Text, |row| text(&row.key)),
    field("value", Kind::Text, |row| text(&row.value)),
    field("default", Kind::Text, |row| text(&row.default)),
    field("changeable", Kind::Text, |row| text(if row.changeable { "yes" } else { "no" })),
];

const VERSION: &[Field<()>] =
    &[field("version", Kind::Text, |()| text(concat!("tenantgate ", env!("CARGO_PKG_VERSION"))))];

const HELP: &[Field<(String, &'static str)>] = &[
    field("command", Kind::Text, |row| text(&row.0)),
    field("does", Kind::Text, |row| text(row.1)),
];

/// Whether the gate has to be asked before `subject` can be shown.
pub fn needs_snapshot(subject: Subject) -> bool {
    !matches!(subject, Subject::Help | Subject::Version)
}

/// The columns of `subject`, which never depend on the rows.
pub fn columns(subject: Subject) -> Vec<Column> {
    table(subject, Snapshot::default()).columns
}

/// The table of `subject`.
pub fn table(subject: Subject, snapshot: Snapshot) -> Table {
    match subject {
        Subject::Budgets => filled(BUDGETS, snapshot.budgets),
        Subject::Catalog => filled(CATALOG, snapshot.catalog.whole),
        Subject::CatalogFaults => filled(CATALOG_FAULTS, snapshot.catalog.faults),
        Subject::Clients => joined(Socket::FIELDS, CLIENTS, snapshot.clients),
        Subject::Config => filled(CONFIG, snapshot.config),
        Subject::Databases => filled(DATABASES, snapshot.databases),
        Subject::Help => filled(HELP, help()),
        Subject::Lists => filled(figures::LISTS, figures::lists(&snapshot)),
        Subject::Mem => filled(figures::MEM, snapshot.memory),
        Subject::Hosts => filled(HOSTS, snapshot.hosts),
        Subject::Pools => filled(POOLS, snapshot.pools),
        Subject::Servers => joined(Socket::FIELDS, SERVERS, snapshot.servers),
        Subject::Sockets => joined(Socket::FIELDS, SOCKETS, sockets(snapshot)),
        Subject::Stats => joined(DATABASE, figures::STATS, snapshot.databases_stats),
        Subject::StatsAverages => joined(DATABASE, figures::AVERAGES, snapshot.databases_stats),
        Subject::StatsTenants => joined(figures::TENANT, figures::STATS, snapshot.tenants_stats),
        Subject::StatsTotals => joined(DATABASE, figures::TOTALS, snapshot.databases_stats),
        Subject::Tenants => filled(TENANTS, snapshot.tenants),
        Subject::Top => filled(figures::TOP, snapshot.top),
        Subject::Users => filled(USERS, snapshot.users),
        Subject::Version => filled(VERSION, vec![()]),
        Subject::WouldRefuse => filled(WOULD_REFUSE, snapshot.would_refuse),
    }
}

fn help() -> Vec<(String, &'static str)> {
    let shows = COMMANDS.iter().map(|show| (format!("SHOW {}", show.name), show.about));
    shows.chain(ORDERS.iter().map(|order| (order.usage.to_owned(), order.about))).collect()
}

/// Clients first; states have their side in front, as in PgBouncer.
fn sockets(snapshot: Snapshot) -> Vec<SocketRow> {
    let clients = snapshot.clients.into_iter().map(|row| row.socket);
    let servers = snapshot.servers.into_iter().map(|row| row.socket);
    let side = |row: SocketRow, kind, side: &str| SocketRow {
        kind,
        state: format!("{side}_{}", row.state),
        ..row
    };
    let clients = clients.map(|row| side(row, "C", "cl"));
    clients.chain(servers.map(|row| side(row, "S", "sv"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::snapshot::{MemoryRow, StatsRow, TopRow};

    fn snapshot() -> Snapshot {
        let pool = PoolRow { maxwait_us: 2_500_001, cl_active: u64::MAX, ..PoolRow::default() };
        let socket = SocketRow { state: "waiting".to_owned(), ..SocketRow::default() };
        let client = ClientRow { socket, ..ClientRow::default() };
        let budget = BudgetRow { used: Some("5s".to_owned()), ..BudgetRow::default() };
        Snapshot {
            tenants: vec![TenantRow::default()],
            pools: vec![pool],
            clients: vec![client],
            servers: vec![ServerRow::default()],
            hosts: vec![HostRow::default()],
            budgets: vec![budget],
            would_refuse: vec![WouldRefuseRow::default()],
            config: vec![ConfigRow::default()],
            databases: vec![DatabaseRow::default()],
            users: vec![UserRow::default()],
            databases_stats: vec![StatsRow::default()],
            tenants_stats: vec![StatsRow::default()],
            top: vec![TopRow::default()],
            memory: vec![MemoryRow::default()],
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_cell_is_of_its_columns_kind() {
        for command in &COMMANDS {
            let table = table(command.subject, snapshot());
            assert_eq!(table.columns, columns(command.subject));
            for row in table.rows {
                assert_eq!(row.len(), table.columns.len());
                for (cell, column) in row.iter().zip(&table.columns) {
                    let kind = match cell {
                        Cell::Text(_) => Some(Kind::Text),
                        Cell::Int4(_) => Some(Kind::Int4),
                        Cell::Int8(_) => Some(Kind::Int8),
                        Cell::Numeric(_) => Some(Kind::Numeric),
                        Cell::Null => None,
                    };
                    assert!(kind.is_none_or(|kind| kind == column.kind), "{}", column.name);
                }
            }
        }
    }

    #[test]
    fn waits_are_split_into_seconds_and_the_rest_as_pgbouncer_does() {
        let mut pools = table(Subject::Pools, snapshot());
        let row = pools.rows.next().unwrap();
        let named: Vec<_> = pools.columns.iter().map(|column| column.name).zip(row).collect();
        assert!(named.contains(&("maxwait", Cell::Int4(2))));
        assert!(named.contains(&("maxwait_us", Cell::Int4(500_001))));
        assert!(named.contains(&("cl_active", Cell::Int4(i32::MAX))));
    }

    #[test]
    fn sockets_are_clients_and_servers_with_their_side_in_front() {
        let rows = sockets(snapshot());
        let said: Vec<_> = rows.iter().map(|row| (row.kind, row.state.as_str())).collect();
        assert_eq!(said, [("C", "cl_waiting"), ("S", "sv_")]);
    }
}
