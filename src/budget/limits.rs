//! [`Limits`]: the numbers of a budget. [`Kind`]: what there are limits of.

use std::time::Duration;

use serde::Deserialize;

use crate::budget::amount::{Allowance, Amount, Trip};
use crate::error::Budget;

/// The limits of a tenant: its tier's, with its own laid over them. `None` means no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Client connections at the same time.
    pub clients: Option<u32>,
    /// Logins per second, averaged.
    pub logins_per_second: Option<u32>,
    /// Logins that may come at once after a quiet time; default: one second's worth.
    pub logins_burst: Option<u32>,
    /// Requests per second, averaged; transaction control is free.
    pub queries_per_second: Option<u32>,
    /// Requests that may come at once after a quiet time; default: one second's worth.
    pub queries_burst: Option<u32>,
    /// Transactions (or requests outside of one) at work at the same time.
    pub queries_at_once: Option<u32>,
    /// Time servers work for the tenant, in microseconds per window.
    pub database_time: Option<Allowance>,
    /// Bytes to clients per window.
    pub bytes_out: Option<Allowance>,
    /// Server connections at the same time.
    pub servers: Option<u32>,
    /// Sessions that keep their server between transactions, because it holds something of theirs;
    /// default: half of the cluster's capacity.
    pub pins: Option<u32>,
    /// How long such a session may be idle before it is ended.
    pub pin_idle: Option<Duration>,
    /// Longest run of one request; longer ones are cancelled (57014).
    pub query_time: Option<Duration>,
    /// Longest transaction; then the session ends (25P04).
    pub transaction_time: Option<Duration>,
    /// Longest silence of a client between two transactions; then its session ends (57P05).
    pub client_idle: Option<Duration>,
    /// Longest time a server waits for the client within a transaction; then the session ends
    /// (25P03).
    pub idle_in_transaction: Option<Duration>,
    /// So many requests cancelled for `query_time` among the last so many, and the tenant is
    /// refused for a while.
    pub breaker: Option<Trip>,
    /// For how long; 30 s without a value.
    pub breaker_pause: Option<Duration>,
    /// How long a request over its budget waits for it before it is refused (53400); zero refuses
    /// at once.
    pub budget_wait: Duration,
    /// The tenant's part of a capacity that others want as well, beside theirs; 1 without a value.
    pub weight: Option<u32>,
    /// Server connections it gets before all who have theirs; none without a value.
    pub servers_min: Option<u32>,
    /// What becomes of a request over its rate, its database time or its bytes.
    pub over_budget: Excessive,
    /// What is over a budget is only counted.
    pub only_report: bool,
}

/// What becomes of a request over a budget that is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Excessive {
    /// It waits for [`Limits::budget_wait`] and is refused then.
    #[default]
    Refuse,
    /// It is served, with what others leave: see [`Share`](crate::budget::Share).
    Share,
}

/// How long a breaker stays open.
const BREAKER_PAUSE: Duration = Duration::from_secs(30);

impl Limits {
    /// Whether a request must be held against any of them.
    #[inline]
    pub fn charges(&self) -> bool {
        self.queries_per_second.is_some()
            || self.database_time.is_some()
            || self.bytes_out.is_some()
            || self.breaker.is_some()
    }

    /// For how long a tripped breaker refuses.
    pub fn pause(&self) -> Duration {
        self.breaker_pause.unwrap_or(BREAKER_PAUSE)
    }
}

/// What there is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something that can be used up.
    Budget(Budget),
    Wait,
    Weight,
    ServersMin,
}

impl Kind {
    /// Every kind, in the order of SHOW BUDGETS.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::Wait, Self::Weight, Self::ServersMin];
        Budget::ALL.into_iter().map(Self::Budget).chain(others)
    }

    /// The key in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Budget(budget) => budget.key(),
            Self::Wait => "budget_wait",
            Self::Weight => "weight",
            Self::ServersMin => "servers_min",
        }
    }

    /// The kind of this name; `db_time` is short for `database_time`.
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("db_time") {
            return Some(Self::Budget(Budget::DatabaseTime));
        }
        Self::all().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Takes this one limit over from `other`. A rate brings its burst along, which would let
    /// through what the rate is to stop.
    pub(super) fn take(self, limits: &mut Limits, other: &Limits) {
        use Budget as B;
        match self {
            Self::Budget(B::Clients) => limits.clients = other.clients,
            Self::Budget(B::Logins) => {
                limits.logins_per_second = other.logins_per_second;
                limits.logins_burst = other.logins_burst;
            }
            Self::Budget(B::Rate) => {
                limits.queries_per_second = other.queries_per_second;
                limits.queries_burst = other.queries_burst;
            }
            Self::Budget(B::AtOnce) => limits.queries_at_once = other.queries_at_once,
            Self::Budget(B::DatabaseTime) => limits.database_time = other.database_time,
            Self::Budget(B::BytesOut) => limits.bytes_out = other.bytes_out,
            Self::Budget(B::Servers) => limits.servers = other.servers,
            Self::Budget(B::Pins) => limits.pins = other.pins,
            Self::Budget(B::PinIdle) => limits.pin_idle = other.pin_idle,
            Self::Budget(B::QueryTime) => limits.query_time = other.query_time,
            Self::Budget(B::TransactionTime) => limits.transaction_time = other.transaction_time,
            Self::Budget(B::ClientIdle) => limits.client_idle = other.client_idle,
            Self::Budget(B::IdleInTransaction) => {
                limits.idle_in_transaction = other.idle_in_transaction
            }
            Self::Budget(B::Breaker) => limits.breaker = other.breaker,
            Self::Wait => limits.budget_wait = other.budget_wait,
            Self::Weight => limits.weight = other.weight,
            Self::ServersMin => limits.servers_min = other.servers_min,
        }
    }

    /// The limit of this kind, and its window as people write it.
    pub fn limit(self, limits: &Limits) -> Option<(Amount, Option<String>)> {
        use Budget as B;
        let count = |limit: Option<u32>| limit.map(|limit| (Amount::Count(limit.into()), None));
        let second = |limit, burst: Option<u32>| {
            let bursts = burst.map_or_else(String::new, |burst| format!(", bursts of {burst}"));
            count(limit).map(|(amount, _)| (amount, Some(format!("1s{bursts}"))))
        };
        let time = |limit: Option<Duration>| limit.map(|limit| (Amount::Time(limit), None));
        let window = |it: Allowance| Some(Amount::Time(it.window).to_string());
        match self {
            Self::Budget(B::Clients) => count(limits.clients),
            Self::Budget(B::Logins) => second(limits.logins_per_second, limits.logins_burst),
            Self::Budget(B::Rate) => second(limits.queries_per_second, limits.queries_burst),
            Self::Budget(B::AtOnce) => count(limits.queries_at_once),
            Self::Budget(B::DatabaseTime) => {
                limits.database_time.map(|it| (Amount::micros(it.amount), window(it)))
            }
            Self::Budget(B::BytesOut) => {
                limits.bytes_out.map(|it| (Amount::Bytes(it.amount), window(it)))
            }
            Self::Budget(B::Servers) => count(limits.servers),
            Self::Budget(B::Pins) => count(limits.pins),
            Self::Budget(B::PinIdle) => time(limits.pin_idle),
            Self::Budget(B::QueryTime) => time(limits.query_time),
            Self::Budget(B::TransactionTime) => time(limits.transaction_time),
            Self::Budget(B::ClientIdle) => time(limits.client_idle),
            Self::Budget(B::IdleInTransaction) => time(limits.idle_in_transaction),
            Self::Budget(B::Breaker) => limits.breaker.map(|trip| {
                (Amount::Count(trip.timeouts.into()), Some(format!("{} queries", trip.of)))
            }),
            Self::Wait => {
                let waits = !limits.budget_wait.is_zero();
                waits.then_some((Amount::Time(limits.budget_wait), None))
            }
            Self::Weight => count(limits.weight),
            Self::ServersMin => count(limits.servers_min),
        }
    }
}
