//! The file as it is written, table by table. Whatever is left out stays `None`: defaults belong
//! to the rooms.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::credentials::{RoleShape, TokenShape};
use super::{allowance, units};
use crate::budget::{Allowance, Excessive, Trip};
use crate::catalog::{
    ActsFor, CredentialPlan, LimitsPlan, Pooling, ServicePlan, TenantState, TokenPlan,
};
use crate::console::Rights;
use crate::isolation::{Isolation, Level};
use crate::net::{ClientCertificate, LoginMethod, TlsPolicy};
use crate::telemetry::LogFormat;

/// The keys at the top.
pub(super) const SECTIONS: [&str; 13] = [
    "gate", "listen", "issuers", "clusters", "spreads", "tiers", "tenants", "services", "catalog",
    "console", "http", "audit", "usage",
];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GateShape {
    pub workers: Option<usize>,
    pub doors: Option<usize>,
    pub clients: Option<usize>,
    #[serde(deserialize_with = "units::duration")]
    pub login_timeout: Option<Duration>,
    #[serde(deserialize_with = "units::size")]
    pub startup_bytes: Option<usize>,
    #[serde(deserialize_with = "units::size")]
    pub statement_bytes: Option<usize>,
    #[serde(deserialize_with = "units::size")]
    pub password_bytes: Option<usize>,
    #[serde(deserialize_with = "units::duration")]
    pub stall_timeout: Option<Duration>,
    pub failures_per_address: Option<u32>,
    pub failures_per_tenant: Option<u32>,
    #[serde(deserialize_with = "units::duration")]
    pub drain_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub credential_grace: Option<Duration>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenShape {
    pub address: Option<String>,
    pub tls: Option<TlsPolicy>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    #[serde(default)]
    pub certificates: Vec<IdentityShape>,
    pub client_ca: Option<PathBuf>,
    pub sni_suffix: Option<String>,
    #[serde(default)]
    pub proxies: Vec<String>,
    #[serde(default)]
    pub rules: Vec<RuleShape>,
    pub plaintext_password: Option<bool>,
    pub unix: Option<PathBuf>,
    pub port: Option<u16>,
    pub mode: Option<String>,
    pub systemd: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityShape {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleShape {
    pub user: Option<String>,
    pub method: LoginMethod,
    pub client_certificate: Option<ClientCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterShape {
    pub capacity: usize,
    pub connection_string: Option<String>,
    pub tenant_setting: Option<String>,
    pub tenant_login: Option<String>,
    pub tenant_login_secret_file: Option<PathBuf>,
    pub tenant_schema: Option<String>,
    pub tenant_database: Option<String>,
    #[serde(default)]
    pub shared_schemas: Vec<String>,
    pub level: Option<Level>,
    pub enforce_level: Option<bool>,
    pub allow_shared_login: Option<bool>,
    pub seal_key_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "units::duration")]
    pub query_wait: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub server_idle_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub server_lifetime: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub linger: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub scrub_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    pub server_login_retry: Option<Duration>,
    #[serde(default)]
    pub roles: BTreeMap<String, RoleShape>,
    pub default_role: Option<String>,
    pub read_only_role: Option<String>,
}

/// Read as what it stands for.
#[derive(Default, Deserialize)]
#[serde(remote = "LimitsPlan", deny_unknown_fields, default)]
pub(super) struct LimitsShape {
    pub clients: Option<u32>,
    pub logins_per_second: Option<u32>,
    pub logins_burst: Option<u32>,
    pub queries_per_second: Option<u32>,
    pub queries_burst: Option<u32>,
    pub queries_at_once: Option<u32>,
    #[serde(deserialize_with = "allowance::of_time")]
    pub database_time: Option<Allowance>,
    #[serde(deserialize_with = "allowance::of_bytes")]
    pub bytes_out: Option<Allowance>,
    pub servers: Option<u32>,
    pub pins: Option<u32>,
    #[serde(deserialize_with = "units::duration")]
    pub pin_idle: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub query_time: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub transaction_time: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub client_idle: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub idle_in_transaction: Option<Duration>,
    #[serde(deserialize_with = "allowance::trip")]
    pub breaker: Option<Trip>,
    #[serde(deserialize_with = "units::duration")]
    pub breaker_pause: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub budget_wait: Option<Duration>,
    pub weight: Option<u32>,
    pub servers_min: Option<u32>,
    pub over_budget: Option<Excessive>,
    pub enforce_budgets: Option<bool>,
    pub pooling: Option<Pooling>,
    pub prepare_threshold: Option<u32>,
    pub report_only: Option<Vec<String>>,
}

/// Limits as a value of the file.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(super) struct LimitsWords(#[serde(with = "LimitsShape")] pub LimitsPlan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantShape {
    pub isolation: Isolation,
    pub cluster: String,
    pub connection_string: Option<String>,
    pub role: Option<String>,
    pub schema: Option<String>,
    pub tier: Option<String>,
    pub state: Option<TenantState>,
    #[serde(default)]
    pub tokens: Vec<TokenShape>,
    pub issuer: Option<String>,
    #[serde(default)]
    pub roles: BTreeMap<String, RoleShape>,
    pub default_role: Option<String>,
    pub read_only_role: Option<String>,
    #[serde(default)]
    pub credentials: Vec<CredentialPlan>,
    #[serde(default)]
    pub allow_from: Vec<String>,
    #[serde(default)]
    pub limits: LimitsWords,
    #[serde(default)]
    pub allow_superuser: bool,
}

/// `[spreads.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpreadShape {
    pub clusters: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceShape {
    pub cluster: String,
    pub connection_string: String,
    pub tier: Option<String>,
    pub state: Option<TenantState>,
    #[serde(default)]
    pub tokens: Vec<TokenShape>,
    #[serde(default)]
    pub limits: LimitsWords,
    #[serde(default)]
    pub acts_for: ActsForShape,
    #[serde(default)]
    pub session_wide: bool,
    #[serde(default)]
    pub across_databases: bool,
}

/// A list of ids, or `"*"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "acts_for is a list of tenant ids, or \"*\"")]
pub(super) enum ActsForShape {
    Everybody(Star),
    Listed(Vec<String>),
}

#[derive(Deserialize)]
pub(super) enum Star {
    #[serde(rename = "*")]
    Star,
}

impl Default for ActsForShape {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl From<ServiceShape> for ServicePlan {
    fn from(shape: ServiceShape) -> Self {
        Self {
            cluster: shape.cluster,
            connection_string: shape.connection_string,
            tier: shape.tier,
            state: shape.state.unwrap_or(TenantState::Active),
            tokens: shape.tokens.into_iter().map(TokenPlan::from).collect(),
            limits: shape.limits.0,
            acts_for: match shape.acts_for {
                ActsForShape::Everybody(Star::Star) => ActsFor::Everybody,
                ActsForShape::Listed(ids) => ActsFor::Listed(ids),
            },
            session_wide: shape.session_wide,
            across_databases: shape.across_databases,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogShape {
    pub connection_string: String,
    pub mover_connection_string: Option<String>,
    pub cache_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "units::duration")]
    pub poll: Option<Duration>,
    pub known: Option<usize>,
    #[serde(default)]
    pub hosts: Vec<String>,
    pub secrets_folder: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsoleUserShape {
    pub scram: String,
    #[serde(default)]
    pub rights: Rights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpShape {
    pub address: String,
    pub tenants_top: Option<usize>,
    #[serde(default)]
    pub tenants: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditShape {
    pub file: PathBuf,
    #[serde(default)]
    pub required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageShape {
    pub file: PathBuf,
    #[serde(default, deserialize_with = "units::duration")]
    pub interval: Option<Duration>,
}
