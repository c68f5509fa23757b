//! What a tenant can use up, and how it is told: whose it is, what, how much there is, how much is
//! used, and when there is more.

use std::time::Duration;

use crate::error::{SESSION_IDLE, Severity, Side};

/// PostgreSQL's own words (ProcessInterrupts).
const TRANSACTION_IDLE: &str = "terminating connection due to idle-in-transaction timeout";
const TRANSACTION_TIME: &str = "terminating connection due to transaction timeout";

/// A budget that is used up, as its tenant is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    pub budget: Budget,
    pub tenant: String,
    /// As people write it, its window and its burst included.
    pub limit: String,
    pub used: String,
    /// `None` where no time of day brings it back: see [`Budget::hint`].
    pub retry_after: Option<Duration>,
}

impl Excess {
    pub(super) fn detail(&self) -> String {
        let Self { budget, tenant, limit, used, .. } = self;
        let key = budget.key();
        format!("Tenant \"{tenant}\", {key}: limit {limit}, used {used}.")
    }
}

/// What can be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Clients,
    Logins,
    Rate,
    AtOnce,
    DatabaseTime,
    BytesOut,
    Servers,
    /// Sessions that keep a server between transactions.
    Pins,
    /// Time that such a session is idle.
    PinIdle,
    QueryTime,
    TransactionTime,
    ClientIdle,
    IdleInTransaction,
    Breaker,
}

impl Budget {
    /// Every one, in the order of SHOW BUDGETS.
    pub const ALL: [Self; 14] = [
        Self::Clients,
        Self::Logins,
        Self::Rate,
        Self::AtOnce,
        Self::DatabaseTime,
        Self::BytesOut,
        Self::Servers,
        Self::Pins,
        Self::PinIdle,
        Self::QueryTime,
        Self::TransactionTime,
        Self::ClientIdle,
        Self::IdleInTransaction,
        Self::Breaker,
    ];

    /// The key of its limit in the settings.
    pub fn key(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Logins => "logins_per_second",
            Self::Rate => "queries_per_second",
            Self::AtOnce => "queries_at_once",
            Self::DatabaseTime => "database_time",
            Self::BytesOut => "bytes_out",
            Self::Servers => "servers",
            Self::Pins => "pins",
            Self::PinIdle => "pin_idle",
            Self::QueryTime => "query_time",
            Self::TransactionTime => "transaction_time",
            Self::ClientIdle => "client_idle",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::Breaker => "breaker",
        }
    }

    pub(super) fn facts(self) -> (&'static str, &'static str, Severity, Side) {
        use Severity::{Error as E, Fatal as F};
        use Side::{Client, Tenant};
        match self {
            Self::Clients => ("over_clients", "53300", F, Tenant),
            Self::Logins => ("over_logins", "53400", F, Tenant),
            Self::Rate => ("over_rate", "53400", E, Tenant),
            Self::AtOnce => ("over_concurrency", "53400", E, Tenant),
            Self::DatabaseTime => ("over_database_time", "53400", E, Tenant),
            Self::BytesOut => ("over_bytes_out", "53400", E, Tenant),
            Self::Servers => ("over_servers", "53300", E, Tenant),
            Self::Pins => ("over_pins", "53400", E, Tenant),
            Self::PinIdle => ("pin_idle", "57P05", F, Tenant),
            Self::QueryTime => ("query_time_exceeded", "57014", E, Tenant),
            Self::TransactionTime => ("transaction_time_exceeded", "25P04", F, Tenant),
            Self::ClientIdle => ("client_idle", "57P05", F, Client),
            Self::IdleInTransaction => ("idle_in_transaction", "25P03", F, Client),
            Self::Breaker => ("breaker_open", "53400", E, Tenant),
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Clients => "too many connections for tenant",
            Self::Logins => "tenant exceeded its logins per second",
            Self::Rate => "tenant exceeded its queries per second",
            Self::AtOnce => "tenant exceeded its queries at once",
            Self::DatabaseTime => "tenant exceeded its database time",
            Self::BytesOut => "tenant exceeded its bytes out",
            Self::Servers => "tenant exceeded its server connections",
            Self::Pins => "too many sessions of the tenant keep a server connection",
            Self::PinIdle | Self::ClientIdle => SESSION_IDLE,
            Self::QueryTime => "canceling statement due to the tenant's query time limit",
            Self::TransactionTime => TRANSACTION_TIME,
            Self::IdleInTransaction => TRANSACTION_IDLE,
            Self::Breaker => "too many of the tenant's queries ran out of time",
        }
    }

    /// When there is more, where that is no matter of waiting for so long.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Clients => {
                "Retry when another connection is closed, or raise the tier's \"clients\"."
            }
            Self::AtOnce => "Retry when another transaction has ended.",
            Self::Servers => {
                "Retry when another transaction has ended, or raise the tier's \"servers\"."
            }
            Self::Pins => {
                "Retry when another session has let go of its temporary objects, session locks, \
                 held cursors or LISTEN (DISCARD ALL), or raise the tier's \"pins\"."
            }
            Self::PinIdle => {
                "Reconnect, and release what the session holds (DISCARD ALL) before it goes idle, \
                 or raise the tier's \"pin_idle\"."
            }
            Self::QueryTime => {
                "Retry with less to do at a time, or raise the tier's \"query_time\"."
            }
            Self::TransactionTime => {
                "Reconnect and retry in shorter transactions, or raise the tier's \
                 \"transaction_time\"."
            }
            Self::ClientIdle => "Reconnect when there is something to do.",
            Self::IdleInTransaction => {
                "Reconnect and retry; end transactions before the client goes idle, or raise the \
                 tier's \"idle_in_transaction\"."
            }
            // These have a time.
            Self::Logins | Self::Rate | Self::DatabaseTime | Self::BytesOut | Self::Breaker => {
                "Retry later."
            }
        }
    }
}
