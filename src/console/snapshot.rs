//! What the gate hands the console for one SHOW: plain rows, taken at one moment. The words of the
//! states and the meaning of each field are in `docs/console.md`.

use std::time::Duration;

/// Everything the SHOW commands need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub tenants: Vec<TenantRow>,
    pub pools: Vec<PoolRow>,
    pub clients: Vec<ClientRow>,
    pub servers: Vec<ServerRow>,
    pub budgets: Vec<BudgetRow>,
    pub config: Vec<ConfigRow>,
}

/// A tenant of the catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantRow {
    pub tenant: String,
    /// `row`, `schema` or `silo`.
    pub isolation: String,
    /// The level of protection in force: `plain`.
    pub level: String,
    pub cluster: String,
    pub database: String,
    /// The role the gate logs in with.
    pub login: String,
    /// The role the context sets, if it sets one.
    pub role: Option<String>,
    pub tier: String,
    /// `active` or `disabled`.
    pub state: String,
    /// Client connections at the moment.
    pub clients: u64,
    /// Server connections bound to it at the moment.
    pub servers: u64,
    /// Version of the tenant's facts; rises with every change.
    pub version: u64,
}

/// The server connections of one login to one database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolRow {
    pub cluster: String,
    pub database: String,
    /// The role the gate logs in with.
    pub user: String,
    /// The one tenant that uses the pool, or `*` if tenants share it.
    pub tenant: String,
    /// Clients that hold a server.
    pub cl_active: u64,
    /// Clients that wait for one.
    pub cl_waiting: u64,
    /// Servers at work for a client.
    pub sv_active: u64,
    /// Servers free for anybody the pool serves.
    pub sv_idle: u64,
    /// Servers parked with the session that used them last.
    pub sv_used: u64,
    /// Servers being connected and logged in.
    pub sv_login: u64,
    /// How long the first waiter has waited, in microseconds, in all.
    pub maxwait_us: u64,
    /// `transaction`.
    pub pool_mode: String,
}

/// A client connection that is logged in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientRow {
    pub id: u64,
    pub tenant: String,
    /// The label the client logged in with.
    pub user: String,
    pub database: String,
    /// `active`, `idle` or `waiting`.
    pub state: String,
    pub addr: String,
    pub port: u16,
    pub local_addr: String,
    pub local_port: u16,
    /// UTC, as text.
    pub connect_time: String,
    /// Start of the last request; UTC, as text.
    pub request_time: String,
    /// How long it has waited for a server, in microseconds, in all; 0 if it does not wait.
    pub wait_us: u64,
    /// Id of the server it holds, or empty.
    pub link: String,
    pub application_name: String,
    /// Version and cipher, or empty.
    pub tls: String,
    /// Id or issuer of the token, never the token.
    pub credential: String,
}

/// A connection to PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerRow {
    pub id: u64,
    pub cluster: String,
    pub database: String,
    /// The role the gate logged in with.
    pub user: String,
    /// `active`, `idle`, `used`, `login` or `scrub`.
    pub state: String,
    /// The tenant it is bound to, or empty.
    pub tenant: String,
    pub addr: String,
    pub port: u16,
    /// UTC, as text.
    pub connect_time: String,
    /// Process id of the backend; 0 until it is known.
    pub remote_pid: u64,
    /// Id of the client that holds it, or empty.
    pub link: String,
    /// `with rights` or `without rights`.
    pub kind: String,
    /// Version and cipher, or empty.
    pub tls: String,
}

/// What a tenant may spend and has left. `None` where there is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetRow {
    pub tenant: String,
    pub tier: String,
    pub clients: u64,
    pub clients_max: Option<u64>,
    pub queries_per_second: Option<u64>,
    pub burst: Option<u64>,
    /// Requests that could come at once now.
    pub available: Option<u64>,
    pub at_once: u64,
    pub at_once_max: Option<u64>,
    pub query_time_max: Option<Duration>,
    /// Requests refused for `queries_per_second` since the start.
    pub refused_rate: u64,
    /// Requests refused for `queries_at_once` since the start.
    pub refused_at_once: u64,
    /// Requests cancelled for `query_time` since the start.
    pub cancelled: u64,
}

/// A setting in force. Secrets are left out or starred by whoever makes the row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigRow {
    /// The path in the settings file, as in `gate.clients`.
    pub key: String,
    pub value: String,
    /// Empty where there is no default.
    pub default: String,
    /// Whether a reload applies it; otherwise it takes a restart.
    pub changeable: bool,
}
