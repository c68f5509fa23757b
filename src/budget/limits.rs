//! [`Limits`]: the numbers of a budget.

use std::time::Duration;

/// The limits of a tenant: its tier's, with its own laid over them. `None` means no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Client connections at the same time.
    pub clients: Option<u32>,
    /// Requests per second, averaged; transaction control is free.
    pub queries_per_second: Option<u32>,
    /// Requests that may come at once after a quiet time; default: one second's worth.
    pub queries_burst: Option<u32>,
    /// Transactions (or requests outside of one) at work at the same time.
    pub queries_at_once: Option<u32>,
    /// Server connections at the same time.
    pub servers: Option<u32>,
    /// Sessions that keep their server between transactions, because it holds something of theirs;
    /// default: half of the cluster's capacity.
    pub pins: Option<u32>,
    /// How long such a session may be idle before it is ended.
    pub pin_idle: Option<Duration>,
    /// Longest run of one request; longer ones are cancelled (57014).
    pub query_time: Option<Duration>,
    /// Longest silence of a client between two transactions; then its session ends (57P05).
    pub client_idle: Option<Duration>,
    /// Longest time a server waits for the client within a transaction; then the session ends
    /// (25P03).
    pub idle_in_transaction: Option<Duration>,
    /// How long a request over its budget waits for it before it is refused (53400); zero refuses
    /// at once.
    pub budget_wait: Duration,
}
