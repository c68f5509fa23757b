//! What each SHOW command shows: its columns with their types, and the cell each row has for them.
//! PgBouncer's names and order come first where the thing is the same, ours behind them.

use std::time::Duration;

use crate::console::command::{COMMANDS, Subject};
use crate::console::snapshot::{
    BudgetRow, ClientRow, ConfigRow, PoolRow, ServerRow, Snapshot, TenantRow,
};
use crate::console::table::{Cell, Column, Kind, Table};

const US_PER_SECOND: u64 = 1_000_000;

/// A column and how a row fills it.
struct Field<R: 'static> {
    column: Column,
    cell: fn(&R) -> Cell,
}

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
];

const POOLS: &[Field<PoolRow>] = &[
    field("database", Kind::Text, |row| text(&row.database)),
    field("user", Kind::Text, |row| text(&row.user)),
    field("cl_active", Kind::Int4, |row| count(row.cl_active)),
    field("cl_waiting", Kind::Int4, |row| count(row.cl_waiting)),
    field("sv_active", Kind::Int4, |row| count(row.sv_active)),
    field("sv_idle", Kind::Int4, |row| count(row.sv_idle)),
    field("sv_used", Kind::Int4, |row| count(row.sv_used)),
    field("sv_login", Kind::Int4, |row| count(row.sv_login)),
    field("maxwait", Kind::Int4, |row| count(row.maxwait_us / US_PER_SECOND)),
    field("maxwait_us", Kind::Int4, |row| count(row.maxwait_us % US_PER_SECOND)),
    field("pool_mode", Kind::Text, |row| text(&row.pool_mode)),
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("tenant", Kind::Text, |row| text(&row.tenant)),
];

const CLIENTS: &[Field<ClientRow>] = &[
    field("type", Kind::Text, |_| text("C")),
    field("user", Kind::Text, |row| text(&row.user)),
    field("database", Kind::Text, |row| text(&row.database)),
    field("state", Kind::Text, |row| text(&row.state)),
    field("addr", Kind::Text, |row| text(&row.addr)),
    field("port", Kind::Int4, |row| Cell::Int4(row.port.into())),
    field("local_addr", Kind::Text, |row| text(&row.local_addr)),
    field("local_port", Kind::Int4, |row| Cell::Int4(row.local_port.into())),
    field("connect_time", Kind::Text, |row| text(&row.connect_time)),
    field("request_time", Kind::Text, |row| text(&row.request_time)),
    field("wait", Kind::Int4, |row| count(row.wait_us / US_PER_SECOND)),
    field("wait_us", Kind::Int4, |row| count(row.wait_us % US_PER_SECOND)),
    field("link", Kind::Text, |row| text(&row.link)),
    field("tls", Kind::Text, |row| text(&row.tls)),
    field("application_name", Kind::Text, |row| text(&row.application_name)),
    field("id", Kind::Int8, |row| large(row.id)),
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("credential", Kind::Text, |row| text(&row.credential)),
];

const SERVERS: &[Field<ServerRow>] = &[
    field("type", Kind::Text, |_| text("S")),
    field("user", Kind::Text, |row| text(&row.user)),
    field("database", Kind::Text, |row| text(&row.database)),
    field("state", Kind::Text, |row| text(&row.state)),
    field("addr", Kind::Text, |row| text(&row.addr)),
    field("port", Kind::Int4, |row| Cell::Int4(row.port.into())),
    field("connect_time", Kind::Text, |row| text(&row.connect_time)),
    field("link", Kind::Text, |row| text(&row.link)),
    field("remote_pid", Kind::Int4, |row| count(row.remote_pid)),
    field("tls", Kind::Text, |row| text(&row.tls)),
    field("id", Kind::Int8, |row| large(row.id)),
    field("cluster", Kind::Text, |row| text(&row.cluster)),
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("kind", Kind::Text, |row| text(&row.kind)),
];

const BUDGETS: &[Field<BudgetRow>] = &[
    field("tenant", Kind::Text, |row| text(&row.tenant)),
    field("tier", Kind::Text, |row| text(&row.tier)),
    field("clients", Kind::Int4, |row| count(row.clients)),
    field("clients_max", Kind::Int4, |row| row.clients_max.map_or(Cell::Null, count)),
    field("queries_per_second", Kind::Int4, |row| limit(row.queries_per_second)),
    field("burst", Kind::Int4, |row| limit(row.burst)),
    field("available", Kind::Int4, |row| limit(row.available)),
    field("at_once", Kind::Int4, |row| count(row.at_once)),
    field("at_once_max", Kind::Int4, |row| limit(row.at_once_max)),
    field("query_time_max_ms", Kind::Int8, |row| row.query_time_max.map_or(Cell::Null, ms)),
    field("refused_rate", Kind::Int8, |row| large(row.refused_rate)),
    field("refused_at_once", Kind::Int8, |row| large(row.refused_at_once)),
    field("cancelled", Kind::Int8, |row| large(row.cancelled)),
];

const LISTS: &[Field<(&'static str, usize)>] = &[
    field("list", Kind::Text, |row| text(row.0)),
    field("items", Kind::Int4, |row| count(row.1 as u64)),
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
    field("shows", Kind::Text, |row| text(row.1)),
];

/// Whether the gate has to be asked before `subject` can be shown.
pub fn needs_snapshot(subject: Subject) -> bool {
    !matches!(subject, Subject::Help | Subject::Version)
}

/// The columns of `subject`, which never depend on the rows.
pub fn columns(subject: Subject) -> Vec<Column> {
    match subject {
        Subject::Budgets => heads(BUDGETS),
        Subject::Clients => heads(CLIENTS),
        Subject::Config => heads(CONFIG),
        Subject::Help => heads(HELP),
        Subject::Lists => heads(LISTS),
        Subject::Pools => heads(POOLS),
        Subject::Servers => heads(SERVERS),
        Subject::Tenants => heads(TENANTS),
        Subject::Version => heads(VERSION),
    }
}

/// The table of `subject`.
pub fn table(subject: Subject, snapshot: Snapshot) -> Table {
    match subject {
        Subject::Budgets => filled(BUDGETS, snapshot.budgets),
        Subject::Clients => filled(CLIENTS, snapshot.clients),
        Subject::Config => filled(CONFIG, snapshot.config),
        Subject::Help => filled(HELP, help()),
        Subject::Lists => filled(LISTS, lists(&snapshot)),
        Subject::Pools => filled(POOLS, snapshot.pools),
        Subject::Servers => filled(SERVERS, snapshot.servers),
        Subject::Tenants => filled(TENANTS, snapshot.tenants),
        Subject::Version => filled(VERSION, vec![()]),
    }
}

fn help() -> Vec<(String, &'static str)> {
    COMMANDS.iter().map(|command| (format!("SHOW {}", command.name), command.about)).collect()
}

fn lists(snapshot: &Snapshot) -> Vec<(&'static str, usize)> {
    let clients = |state: &str| snapshot.clients.iter().filter(|row| row.state == state).count();
    let servers = |state: &str| snapshot.servers.iter().filter(|row| row.state == state).count();
    vec![
        ("tenants", snapshot.tenants.len()),
        ("pools", snapshot.pools.len()),
        ("clients", snapshot.clients.len()),
        ("active_clients", clients("active")),
        ("waiting_clients", clients("waiting")),
        ("servers", snapshot.servers.len()),
        ("active_servers", servers("active")),
        ("idle_servers", servers("idle")),
    ]
}

fn heads<R>(fields: &[Field<R>]) -> Vec<Column> {
    fields.iter().map(|field| field.column).collect()
}

fn filled<R: Send + Sync + 'static>(fields: &'static [Field<R>], rows: Vec<R>) -> Table {
    let cells = move |row: R| fields.iter().map(|field| (field.cell)(&row)).collect();
    Table { columns: heads(fields), rows: Box::new(rows.into_iter().map(cells)) }
}

const fn field<R>(name: &'static str, kind: Kind, cell: fn(&R) -> Cell) -> Field<R> {
    Field { column: Column { name, kind }, cell }
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

/// Counts are int4 as in PgBouncer; what does not fit is shown as the largest that does.
fn count(value: u64) -> Cell {
    Cell::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

fn large(value: u64) -> Cell {
    Cell::Int8(i64::try_from(value).unwrap_or(i64::MAX))
}

fn limit(value: Option<u64>) -> Cell {
    value.map_or(Cell::Null, count)
}

fn ms(value: Duration) -> Cell {
    large(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let pool = PoolRow { maxwait_us: 2_500_001, cl_active: u64::MAX, ..PoolRow::default() };
        let client = ClientRow { state: "waiting".to_owned(), ..ClientRow::default() };
        let budget =
            BudgetRow { query_time_max: Some(Duration::from_secs(30)), ..BudgetRow::default() };
        Snapshot {
            tenants: vec![TenantRow::default()],
            pools: vec![pool],
            clients: vec![client],
            servers: vec![ServerRow::default()],
            budgets: vec![budget],
            config: vec![ConfigRow::default()],
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
    fn lists_count_by_state() {
        assert!(lists(&snapshot()).contains(&("waiting_clients", 1)));
        assert!(lists(&snapshot()).contains(&("active_clients", 0)));
    }
}
