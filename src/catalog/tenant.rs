//! [`Tenant`] and what it is made of. All of these are immutable: a change is a new value.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::budget::Limits;
use crate::catalog::Service;
use crate::guard::{Denials, Watch};
use crate::isolation::{Context, Isolation, Level, SealKeys};
use crate::server::{Conninfo, Reach};

/// A checked tenant id: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Longest id, in bytes: what PostgreSQL keeps of a name.
    pub const BYTES_MAX: usize = 63;

    /// Takes a text that follows the rule above; anything else is `None`.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let first = bytes.next()?;
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let fits = text.len() <= Self::BYTES_MAX;
        (fits && first.is_ascii_alphanumeric() && bytes.all(rest)).then(|| Self(text.into()))
    }

    /// What a service is known by where tenants are: no tenant can have such an id.
    pub fn of_service(name: &str) -> Self {
        Self(format!("service:{name}").into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A customer whose data must stay apart: everything the catalog knows about it.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub isolation: Isolation,
    pub state: TenantState,
    pub route: Route,
    /// What makes a server connection this tenant's.
    pub context: Arc<Context>,
    /// Name of the tier, for people.
    pub tier: String,
    /// The tier's limits with the tenant's own laid over them.
    pub limits: Limits,
    pub pooling: Pooling,
    /// How often the text of an unnamed statement comes on a server before it is prepared there;
    /// `None`: it is parsed each time.
    pub prepare_threshold: Option<u32>,
    /// Rules of level guard that are counted for this tenant and refuse nothing.
    pub report_only: Denials,
    /// It is no tenant but what a service has until it chooses one: see [`Service`].
    pub service: Option<Arc<Service>>,
    /// The only issuer whose JSON Web Tokens it takes; `None`: any that is configured.
    pub issuer: Option<Arc<str>>,
    /// The tenant once more for each of its roles: another login, another context.
    pub roles: BTreeMap<Box<str>, Arc<Tenant>>,
    /// The role of credentials that name none.
    pub default_role: Option<Box<str>>,
    /// The role that is bound in that one's place while the tenant is `read_only`.
    pub read_only_role: Option<Box<str>>,
    /// The tenant once more, writing nothing: see `face.rs`.
    pub(super) read_only_face: ArcSwapOption<Tenant>,
    /// Rises whenever anything above changes; a session looks its tenant up again when it does.
    pub version: u64,
}

impl Tenant {
    /// Whether everything but the version is the same.
    pub fn same_facts(&self, other: &Self) -> bool {
        let Self { id, isolation, state, route, context, tier, limits, pooling, .. } = self;
        let Self { prepare_threshold, report_only, service, issuer, roles, default_role, .. } =
            self;
        let Self { read_only_role, .. } = self;
        let mut same_roles = roles
            .iter()
            .zip(&other.roles)
            .map(|((name, role), (other, known))| name == other && role.same_facts(known));
        *id == other.id
            && *isolation == other.isolation
            && *state == other.state
            && *route == other.route
            && *context == other.context
            && *tier == other.tier
            && *limits == other.limits
            && *pooling == other.pooling
            && *prepare_threshold == other.prepare_threshold
            && *report_only == other.report_only
            && *service == other.service
            && *issuer == other.issuer
            && *default_role == other.default_role
            && *read_only_role == other.read_only_role
            && roles.len() == other.roles.len()
            && same_roles.all(|same| same)
    }

    /// The successor of another: the very same value if nothing changed, else of this version.
    pub(super) fn follow(self: Arc<Self>, former: Option<&Arc<Self>>, version: u64) -> Arc<Self> {
        match former {
            Some(former) if former.same_facts(&self) => Arc::clone(former),
            // Servers are known to be bound to a context by its identity: one that did not change
            // stays the same, so that no change has them bound anew for nothing.
            Some(former) if former.context == self.context => {
                Arc::new(self.copy(Arc::clone(&former.context), version))
            }
            _ => Arc::new(self.copy(self.context.clone(), version)),
        }
    }

    /// The same tenant with this context and version, its roles with the same version.
    pub(super) fn copy(&self, context: Arc<Context>, version: u64) -> Self {
        let roles = self.roles.iter();
        let roles = roles
            .map(|(name, role)| (name.clone(), Arc::new(role.copy(role.context.clone(), version))));
        Self {
            id: self.id.clone(),
            isolation: self.isolation,
            state: self.state,
            route: self.route.clone(),
            context,
            tier: self.tier.clone(),
            limits: self.limits.clone(),
            pooling: self.pooling,
            prepare_threshold: self.prepare_threshold,
            report_only: self.report_only,
            service: self.service.clone(),
            issuer: self.issuer.clone(),
            roles: roles.collect(),
            default_role: self.default_role.clone(),
            read_only_role: self.read_only_role.clone(),
            read_only_face: ArcSwapOption::empty(),
            version,
        }
    }

    /// The level of protection in force.
    pub fn level(&self) -> Level {
        let level = self.route.cluster.level.in_force(self.isolation);
        if self.may_share_login() { level.min(Level::Guard) } else { level }
    }

    /// Whether it is kept apart by its `search_path` alone.
    pub fn may_share_login(&self) -> bool {
        self.isolation == Isolation::Schema && self.route.cluster.allow_shared_login
    }

    /// What the level leaves open, in a few words for log and console.
    pub fn leaves_open(&self) -> &'static str {
        match self.may_share_login() {
            true => "names with another tenant's schema in front: logins may be shared",
            false => self.level().leaves_open(self.isolation),
        }
    }

    /// The same as people are told it: whether the database was held to it is part of it.
    pub fn level_in_words(&self) -> String {
        let enforced = self.route.cluster.enforce_level || self.level() == Level::Plain;
        let note = if enforced { "" } else { " (not enforced)" };
        format!("{}{note}", self.level().name())
    }

    /// What statement texts of the tenant are looked through for.
    pub fn watch(&self) -> Watch {
        match (self.route.cluster.level, self.isolation) {
            (Level::Plain, _) => Watch::Off,
            (_, Isolation::Silo) => Watch::Silo,
            (_, Isolation::Schema) => Watch::Schema,
            (_, Isolation::Row) => Watch::Row,
        }
    }
}

/// For how long a session has a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// For a transaction, or as long as it holds something there.
    #[default]
    Transaction,
    /// For as long as it lives.
    Session,
}

impl Pooling {
    /// The word used in settings and console.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// What a tenant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    Active,
    /// Transactions do not write, unless they ask for it where no login keeps them from it.
    ReadOnly,
    /// Requests wait.
    Paused,
    /// Logins are refused, sessions end.
    Disabled,
}

impl TenantState {
    const ALL: [Self; 4] = [Self::Active, Self::ReadOnly, Self::Paused, Self::Disabled];

    /// The word used in settings and console.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::ReadOnly => "read_only",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// The one of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == word)
    }
}

/// Where a tenant's requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub cluster: Arc<Cluster>,
    pub conninfo: Arc<Conninfo>,
    /// Silo routes only: the login may be a superuser. Off unless the settings name the risk.
    pub allow_superuser: bool,
    /// Schema routes only: what the login may reach.
    pub reach: Option<Arc<Reach>>,
}

/// One PostgreSQL instance and what the gate may ask of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The key in `[clusters.NAME]`.
    pub name: String,
    /// Most server connections the gate opens, over all databases, logins and tenants.
    pub capacity: usize,
    /// Longest wait for a server connection before 53300; default 120 s.
    pub query_wait: Duration,
    /// A server connection unused for this long is closed; default 600 s.
    pub server_idle_timeout: Duration,
    /// A server connection older than this is closed at its next release; default 3600 s.
    pub server_lifetime: Duration,
    /// How long a server stays with the session that used it while nobody waits; default 10 ms.
    pub linger: Duration,
    /// Longest a bind or scrub may take before the server is closed; default 5 s.
    pub scrub_timeout: Duration,
    /// Longest rest between two tries at a host that is down, or of a login that is turned away;
    /// default 15 s.
    pub server_login_retry: Duration,
    /// The setting that row security policies read; default `app.tenant_id`.
    pub tenant_setting: String,
    /// Schemas that logins of schema tenants may use beside their own; default none.
    pub shared_schemas: Vec<String>,
    /// How far its tenants are protected; default plain.
    pub level: Level,
    /// Whether a server that does not hold the level is refused; default yes. Otherwise it is
    /// only told of in the log.
    pub enforce_level: bool,
    /// Schema tenants may have a login in common: one statement can then name another's schema.
    pub allow_shared_login: bool,
    /// What row tenants are sealed with.
    pub seal_keys: Option<Arc<SealKeys>>,
}

impl Cluster {
    /// A cluster with every default; capacity has none.
    pub fn new(name: String, capacity: usize) -> Self {
        Self {
            name,
            capacity,
            query_wait: Duration::from_secs(120),
            server_idle_timeout: Duration::from_secs(600),
            server_lifetime: Duration::from_secs(3600),
            linger: Duration::from_millis(10),
            scrub_timeout: Duration::from_secs(5),
            server_login_retry: Duration::from_secs(15),
            tenant_setting: "app.tenant_id".to_owned(),
            shared_schemas: Vec::new(),
            level: Level::default(),
            enforce_level: true,
            allow_shared_login: false,
            seal_keys: None,
        }
    }
}
