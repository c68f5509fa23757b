//! The words of a source before they are checked: what a TOML file or a table says about
//! clusters, tiers and tenants. `build` makes a catalog of them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::budget::{Allowance, Excessive, Limits, Trip};
use crate::catalog::{Cluster, CredentialPlan, Hosts, Pooling, ServicePlan, TenantState};
use crate::guard::Denials;
use crate::isolation::Isolation;
use crate::isolation::tenancy::LoginSecret;
use crate::server::Conninfo;

/// The setting that row security policies read unless a cluster names another.
pub const TENANT_SETTING_DEFAULT: &str = "app.tenant_id";
/// The tier of a tenant that names none.
pub const TIER_DEFAULT: &str = "default";

/// Everything a source says, by name.
#[derive(Clone, Debug, Default)]
pub struct CatalogPlan {
    /// There are tenants in tables, too.
    pub has_table: bool,
    /// Where relative paths in connection strings start.
    pub folder: PathBuf,
    pub clusters: BTreeMap<String, ClusterPlan>,
    /// Names that stand for several clusters, which tenants are spread over by their ids.
    pub spreads: BTreeMap<String, Vec<String>>,
    pub tiers: BTreeMap<String, LimitsPlan>,
    pub tenants: BTreeMap<String, TenantPlan>,
    pub services: BTreeMap<String, ServicePlan>,
    /// Where rows of a table may lead beside their clusters' hosts.
    pub hosts: Hosts,
    /// Where the files are that rows may name for their passwords; without it they may not.
    pub secrets_folder: Option<PathBuf>,
    /// Connection strings of clusters, where they were read already.
    pub defaults: BTreeMap<String, Arc<Conninfo>>,
    /// Connection strings of roles, by their text, as they were read with the file.
    pub read: HashMap<String, Arc<Conninfo>>,
}

/// A cluster's words.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPlan {
    pub cluster: Cluster,
    /// For tenants that bring none of their own.
    pub connection_string: Option<String>,
    pub tenant_setting: String,
    pub names: NamesPlan,
    /// Roles of all row tenants of the cluster, and what those get who name none.
    pub roles: BTreeMap<String, RolePlan>,
    pub default_role: Option<String>,
    /// What is bound in that one's place while the tenant is `read_only`.
    pub read_only_role: Option<String>,
}

/// Templates of names that are made of tenants' ids; see `isolation::tenancy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamesPlan {
    pub login: Option<String>,
    /// What the passwords of these logins are made of.
    pub secret: Option<LoginSecret>,
    pub schema: Option<String>,
    pub database: Option<String>,
}

/// A tenant's words.
#[derive(Clone, Debug)]
pub struct TenantPlan {
    pub isolation: Isolation,
    pub cluster: String,
    pub connection_string: Option<String>,
    pub role: Option<String>,
    pub schema: Option<String>,
    pub tier: Option<String>,
    pub state: TenantState,
    pub tokens: Vec<TokenPlan>,
    pub credentials: Vec<CredentialPlan>,
    /// From where its clients may come; empty is everywhere.
    pub allow_from: Vec<String>,
    pub limits: LimitsPlan,
    pub allow_superuser: bool,
    /// The name in `[issuers.NAME]` of the only one whose tokens it takes.
    pub issuer: Option<String>,
    pub roles: BTreeMap<String, RolePlan>,
    pub default_role: Option<String>,
    /// What is bound in that one's place while the tenant is `read_only`.
    pub read_only_role: Option<String>,
}

impl TenantPlan {
    /// One that says nothing but this.
    pub fn new(isolation: Isolation, cluster: String) -> Self {
        Self {
            isolation,
            cluster,
            connection_string: None,
            role: None,
            schema: None,
            tier: None,
            state: TenantState::Active,
            tokens: Vec::new(),
            credentials: Vec::new(),
            allow_from: Vec::new(),
            limits: LimitsPlan::default(),
            allow_superuser: false,
            issuer: None,
            roles: BTreeMap::new(),
            default_role: None,
            read_only_role: None,
        }
    }
}

/// An opaque token's words.
#[derive(Clone, Debug, Default)]
pub struct TokenPlan {
    /// As `tenantgate token new` prints it.
    pub line: String,
    /// For people.
    pub name: Option<String>,
    pub expires_at: Option<SystemTime>,
    pub revoked: bool,
    pub role: Option<String>,
    pub read_only: bool,
}

/// A role's words: another login of the same tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolePlan {
    /// The login that can become the role; without it the tenant's own.
    pub connection_string: Option<String>,
    pub role: Option<String>,
    pub read_only: bool,
}

/// Limits, and rules without force, as a tier or a tenant writes them; what is `None` is left to
/// whoever is below.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsPlan {
    pub clients: Option<u32>,
    pub logins_per_second: Option<u32>,
    pub logins_burst: Option<u32>,
    pub queries_per_second: Option<u32>,
    pub queries_burst: Option<u32>,
    pub queries_at_once: Option<u32>,
    pub database_time: Option<Allowance>,
    pub bytes_out: Option<Allowance>,
    pub servers: Option<u32>,
    pub pins: Option<u32>,
    pub pin_idle: Option<Duration>,
    pub query_time: Option<Duration>,
    pub transaction_time: Option<Duration>,
    pub client_idle: Option<Duration>,
    pub idle_in_transaction: Option<Duration>,
    pub breaker: Option<Trip>,
    pub breaker_pause: Option<Duration>,
    pub budget_wait: Option<Duration>,
    pub weight: Option<u32>,
    pub servers_min: Option<u32>,
    pub over_budget: Option<Excessive>,
    pub enforce_budgets: Option<bool>,
    pub pooling: Option<Pooling>,
    pub prepare_threshold: Option<u32>,
    /// Names of rules of level guard, or `all`.
    pub report_only: Option<Vec<String>>,
}

impl LimitsPlan {
    /// The limits that hold when these are laid over a tier's.
    pub fn over(&self, tier: &Self) -> Limits {
        Limits {
            clients: self.clients.or(tier.clients),
            logins_per_second: self.logins_per_second.or(tier.logins_per_second),
            logins_burst: self.logins_burst.or(tier.logins_burst),
            queries_per_second: self.queries_per_second.or(tier.queries_per_second),
            queries_burst: self.queries_burst.or(tier.queries_burst),
            queries_at_once: self.queries_at_once.or(tier.queries_at_once),
            database_time: self.database_time.or(tier.database_time),
            bytes_out: self.bytes_out.or(tier.bytes_out),
            servers: self.servers.or(tier.servers),
            pins: self.pins.or(tier.pins),
            pin_idle: self.pin_idle.or(tier.pin_idle),
            query_time: self.query_time.or(tier.query_time),
            transaction_time: self.transaction_time.or(tier.transaction_time),
            client_idle: self.client_idle.or(tier.client_idle),
            idle_in_transaction: self.idle_in_transaction.or(tier.idle_in_transaction),
            breaker: self.breaker.or(tier.breaker),
            breaker_pause: self.breaker_pause.or(tier.breaker_pause),
            budget_wait: self.budget_wait.or(tier.budget_wait).unwrap_or_default(),
            weight: self.weight.or(tier.weight),
            servers_min: self.servers_min.or(tier.servers_min),
            over_budget: self.over_budget.or(tier.over_budget).unwrap_or_default(),
            only_report: !self.enforce_budgets.or(tier.enforce_budgets).unwrap_or(true),
        }
    }

    /// For how long a session has a server when these are laid over a tier's.
    pub(super) fn pooling(&self, tier: &Self) -> Pooling {
        self.pooling.or(tier.pooling).unwrap_or_default()
    }

    /// How often an unnamed statement comes before it is prepared, if ever.
    pub(super) fn prepare_threshold(&self, tier: &Self) -> Option<u32> {
        self.prepare_threshold.or(tier.prepare_threshold)
    }

    /// The rules that only report when these words are laid over a tier's. Words that name no rule
    /// are a fault of their own.
    pub(super) fn reported(&self, tier: &Self) -> Denials {
        let words = self.report_only.as_ref().or(tier.report_only.as_ref());
        words.and_then(|words| Denials::named(words).ok()).unwrap_or_default()
    }

    /// The keys that say zero, which is no limit anybody could live within.
    pub fn zeros(&self) -> impl Iterator<Item = &'static str> {
        let counts = [
            ("clients", self.clients),
            ("logins_per_second", self.logins_per_second),
            ("logins_burst", self.logins_burst),
            ("queries_per_second", self.queries_per_second),
            ("queries_burst", self.queries_burst),
            ("queries_at_once", self.queries_at_once),
            ("servers", self.servers),
            ("weight", self.weight),
            ("prepare_threshold", self.prepare_threshold),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count == Some(0)).map(|(key, _)| key);
        let times = [
            ("query_time", self.query_time),
            ("transaction_time", self.transaction_time),
            ("breaker_pause", self.breaker_pause),
            ("client_idle", self.client_idle),
            ("idle_in_transaction", self.idle_in_transaction),
            ("pin_idle", self.pin_idle),
        ];
        let times = times.into_iter().filter(|(_, time)| *time == Some(Duration::ZERO));
        counts.chain(times.map(|(key, _)| key))
    }
}

/// What is wrong with a plan, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    /// The key it concerns; `None` stands for the whole entry.
    pub key: Option<&'static str>,
    /// Which element of the key's list.
    pub element: Option<usize>,
    pub message: String,
    /// What to do about it, a sentence.
    pub hint: Option<String>,
}

/// The entry of a plan that a fault is in, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Cluster(String),
    Spread(String),
    Tier(String),
    Tenant(String),
    /// The tenant's own limits.
    TenantLimits(String),
    Service(String),
    /// The service's own limits.
    ServiceLimits(String),
    /// A tenant's, or a cluster's, and one of its roles.
    TenantRole(Box<(String, String)>),
    ClusterRole(Box<(String, String)>),
}

impl Fault {
    pub(super) fn new(place: Place, key: &'static str, message: impl Into<String>) -> Self {
        Self { place, key: Some(key), element: None, message: message.into(), hint: None }
    }

    pub(super) fn entry(place: Place, message: impl Into<String>) -> Self {
        Self { place, key: None, element: None, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn element(mut self, index: usize) -> Self {
        self.element = Some(index);
        self
    }
}
