//! What the page shows and `/status.json` says: the gate at a glance. Plain names and numbers; no
//! secret, nothing of a tenant's data.

use serde::Serialize;
use tokio::sync::oneshot;

/// Asks the gate for its status.
#[derive(Debug)]
pub struct Look(pub oneshot::Sender<Status>);

/// The gate at a glance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub uptime_seconds: u64,
    /// No new session may start.
    pub draining: bool,
    pub workers: usize,
    pub tenants: usize,
    /// Client connections, logged in or on their way, and the most there may be.
    pub clients: usize,
    pub clients_max: usize,
    /// Clients that wait for a server connection.
    pub waiting: u64,
    /// Whether the catalog's tables are followed; `None` without `[catalog]`.
    pub catalog_connected: Option<bool>,
    /// Tenants with a row at fault.
    pub catalog_faults: usize,
    pub clusters: Vec<ClusterStatus>,
    /// The busiest tenants first.
    pub busiest: Vec<TenantStatus>,
    /// Clients that wait, the most patient first.
    pub patient: Vec<WaitingClient>,
    /// The last minutes, a point every five seconds, oldest first.
    pub history: Vec<Moment>,
}

/// A cluster and its server connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterStatus {
    pub cluster: String,
    /// Level of protection.
    pub level: &'static str,
    pub capacity: usize,
    /// Server connections at work for a client.
    pub active: u64,
    /// Free, or parked with the session that used them last.
    pub idle: u64,
    /// Being connected and logged in.
    pub connecting: u64,
    /// Hosts that are down.
    pub hosts_down: u64,
    /// Clients that wait for one.
    pub waiting: u64,
    /// How long the first of them has waited, in microseconds.
    pub longest_wait_us: u64,
}

/// A tenant and what it does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TenantStatus {
    pub tenant: String,
    pub cluster: String,
    pub tier: String,
    pub state: String,
    pub clients: u64,
    /// Server connections bound to it.
    pub servers: u64,
    /// Over the last half minute or so.
    pub requests_per_second: f64,
    pub refusals_per_second: f64,
    /// Since the start.
    pub requests: u64,
    pub refusals: u64,
}

/// A client that waits for a server connection.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WaitingClient {
    pub tenant: String,
    /// As the client says.
    pub user: String,
    pub application_name: String,
    pub waited_us: u64,
}

/// A point of the plots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Moment {
    pub clients: usize,
    pub requests_per_second: f64,
    pub refusals_per_second: f64,
}
