//! What the gate hands the console for one SHOW: plain rows, taken at one moment. The words of the
//! states and the meaning of each field are in `docs/console.md`.

/// What a SHOW command needs; the rest is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub tenants: Vec<TenantRow>,
    pub pools: Vec<PoolRow>,
    pub clients: Vec<ClientRow>,
    pub servers: Vec<ServerRow>,
    pub hosts: Vec<HostRow>,
    pub budgets: Vec<BudgetRow>,
    pub would_refuse: Vec<WouldRefuseRow>,
    pub config: Vec<ConfigRow>,
    pub databases: Vec<DatabaseRow>,
    pub users: Vec<UserRow>,
    pub catalog: CatalogRows,
    pub databases_stats: Vec<StatsRow>,
    pub tenants_stats: Vec<StatsRow>,
    /// The tenants that servers worked most for, lately.
    pub top: Vec<TopRow>,
    /// For how long servers have worked on what runs now, by tenant; in microseconds.
    pub working: Vec<(String, u64)>,
    pub memory: Vec<MemoryRow>,
    /// Client connections, those that are not logged in included.
    pub connections: usize,
    /// Tenants of the catalog.
    pub tenants_known: usize,
}

/// A tenant of the catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantRow {
    pub tenant: String,
    /// `row`, `schema` or `silo`.
    pub isolation: String,
    /// The level of protection in force: `plain`, `guard`, `sealed` or `strict`, and whether the
    /// database is held to it.
    pub level: String,
    /// What the level does not stop, in a few words.
    pub leaves_open: String,
    pub cluster: String,
    pub database: String,
    /// The role the gate logs in with.
    pub login: String,
    /// The role the context sets, if it sets one.
    pub role: Option<String>,
    pub tier: String,
    /// `active`, `read_only`, `paused` or `disabled`.
    pub state: String,
    /// Client connections at the moment.
    pub clients: u64,
    /// Server connections bound to it at the moment.
    pub servers: u64,
    /// Version of the tenant's facts; rises with every change.
    pub version: u64,
    /// Places of its cluster that are due to it at the moment, in hundredths.
    pub share: u64,
    /// By which that is reckoned, in thousandths.
    pub weight: u64,
    /// Servers it gets before all who have theirs.
    pub servers_min: u64,
}

/// The catalog as a whole, and what is wrong in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogRows {
    pub whole: Vec<CatalogRow>,
    pub faults: Vec<FaultRow>,
}

/// The catalog as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogRow {
    /// `file`, or `table` where there are tables beside it.
    pub source: &'static str,
    /// Rises with every change.
    pub version: u64,
    pub tenants: u64,
    /// Tenants with a row at fault.
    pub faults: u64,
    pub connected: bool,
    /// The number of the last change that was read from the tables.
    pub table_version: Option<u64>,
    /// When nothing newer stood there; UTC, as text.
    pub synced: Option<String>,
    /// What is in force came from the copy on disk.
    pub from_copy: bool,
    /// Why there is no connection.
    pub error: String,
}

/// Something wrong with a row of a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultRow {
    pub tenant: String,
    pub row: String,
    pub column: String,
    pub message: String,
    pub hint: String,
}

/// A host of a cluster that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostRow {
    pub cluster: String,
    pub host: String,
    pub port: u16,
    /// `up`, `unsure` or `down`.
    pub state: &'static str,
    /// Since when, UTC.
    pub since: String,
    /// Failures in a row.
    pub failures: u64,
    pub last_error: Option<String>,
    /// Milliseconds to the next try, where it is down.
    pub next_try_ms: Option<u64>,
    /// Connections being opened there.
    pub attempts: u64,
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
    /// Clients that hold a server or want none.
    pub cl_active: u64,
    /// Clients that wait for one.
    pub cl_waiting: u64,
    /// Clients whose cancel request is on its way to the server.
    pub cl_cancel: u64,
    /// Servers that would be free, but for a cancel request on its way to them.
    pub sv_held: u64,
    /// Servers being scrubbed.
    pub sv_scrub: u64,
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
    /// `transaction` or `session`.
    pub pool_mode: String,
}

/// What SHOW CLIENTS and SHOW SERVERS have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketRow {
    /// `C` or `S`.
    pub kind: &'static str,
    /// The label a client logged in with, or the role the gate logged in with.
    pub user: String,
    pub database: String,
    /// Clients: `active`, `idle` or `waiting`; servers: `active`, `idle` or `used`.
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
    /// Ends at its next transaction boundary.
    pub close_needed: bool,
    /// Its name in `link`.
    pub ptr: String,
    /// `ptr` of the other side while both are leased to each other, or empty.
    pub link: String,
    /// Process id of the backend, or of a client on a Unix socket.
    pub remote_pid: u64,
    /// `TLS`, or empty.
    pub tls: String,
    pub application_name: String,
    /// The tenant it is bound to, or empty.
    pub tenant: String,
}

impl AsRef<Self> for SocketRow {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A client connection that is logged in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientRow {
    pub socket: SocketRow,
    pub id: u64,
    /// Id or issuer of the token, never the token.
    pub credential: String,
    /// Why it keeps its server between transactions, or empty.
    pub pin: String,
}

impl AsRef<SocketRow> for ClientRow {
    fn as_ref(&self) -> &SocketRow {
        &self.socket
    }
}

/// A connection to PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerRow {
    pub socket: SocketRow,
    pub cluster: String,
    /// `with rights` or `without rights`.
    pub kind: String,
}

impl AsRef<SocketRow> for ServerRow {
    fn as_ref(&self) -> &SocketRow {
        &self.socket
    }
}

/// A database that some tenant's route leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseRow {
    /// The name for commands: the database's, with `@cluster` if several clusters have one of it.
    pub name: String,
    pub cluster: String,
    pub database: String,
    pub host: String,
    pub port: u16,
    /// The role the gate logs in with, if it is one only.
    pub user: Option<String>,
    /// Most server connections of the cluster.
    pub capacity: u64,
    /// Server connections to the database.
    pub servers: u64,
    pub tenants: u64,
    pub paused: bool,
    pub disabled: bool,
}

/// A role the gate logs in with, or a console user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRow {
    pub name: String,
    /// `None` for console users.
    pub pool_mode: Option<&'static str>,
    /// `login`, `admin` or `stats`.
    pub kind: &'static str,
    pub cluster: Option<String>,
}

/// What was done, in all or on average.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub transactions: u64,
    pub requests: u64,
    /// Bytes from clients, and to them.
    pub received: u64,
    pub sent: u64,
    /// Microseconds in which a server was leased; in which it worked; in which clients waited.
    pub transaction_us: u64,
    pub request_us: u64,
    pub wait_us: u64,
}

/// Figures of a database or a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsRow {
    pub name: String,
    /// Since the gate started.
    pub totals: Figures,
    /// Over the last whole period.
    pub averages: Figures,
}

/// What servers did for a tenant lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopRow {
    pub tenant: String,
    pub figures: Figures,
    /// Of the time that servers worked for anybody, in thousandths.
    pub per_mille: u64,
    /// How long "lately" is.
    pub seconds: u64,
}

/// Memory of one kind of thing, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRow {
    pub name: &'static str,
    /// Of one.
    pub size: u64,
    pub used: Option<u64>,
    pub free: Option<u64>,
    pub total: u64,
}

/// One limit of a tenant and what is used of it, as people write such amounts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetRow {
    pub tenant: String,
    pub tier: String,
    /// The key in the settings.
    pub kind: &'static str,
    /// `None` for limits of each request's own.
    pub used: Option<String>,
    pub limit: Option<String>,
    pub window: Option<String>,
    /// Requests that wait for it.
    pub waiting: u64,
    /// Refused, cancelled or ended because of it since the tenant came.
    pub refused: u64,
    /// What would have been, were the tenant's budgets enforced.
    pub would_refuse: u64,
    /// When an override of it ends; UTC, as text.
    pub until: Option<String>,
}

/// Statements of one shape that a rule of level guard would have refused, were it not only
/// reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WouldRefuseRow {
    /// `*` for what there was no place for.
    pub tenant: String,
    pub rule: String,
    /// The first words, without any value.
    pub statement: String,
    /// Of the whole statement without its values, in hexadecimal digits.
    pub fingerprint: String,
    pub count: u64,
    /// UTC, as text.
    pub first_time: String,
    pub last_time: String,
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
