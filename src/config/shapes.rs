//! The file as it is written, table by table. Whatever is left out stays `None`: defaults belong
//! to the rooms.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::credentials::{RoleShape, TokenShape};
use super::units;
use crate::catalog::{CredentialPlan, LimitsPlan, Pooling, TenantState};
use crate::console::Rights;
use crate::isolation::{Isolation, Level};
use crate::net::{ClientCertificate, LoginMethod, TlsPolicy};
use crate::telemetry::LogFormat;

/// The keys at the top.
pub(super) const SECTIONS: [&str; 9] =
    ["gate", "listen", "issuers", "clusters", "tiers", "tenants", "console", "http", "audit"];

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
    #[serde(default)]
    pub roles: BTreeMap<String, RoleShape>,
    pub default_role: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsShape {
    pub clients: Option<u32>,
    pub queries_per_second: Option<u32>,
    pub queries_burst: Option<u32>,
    pub queries_at_once: Option<u32>,
    pub servers: Option<u32>,
    pub pins: Option<u32>,
    #[serde(deserialize_with = "units::duration")]
    pub pin_idle: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub query_time: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub client_idle: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub idle_in_transaction: Option<Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub budget_wait: Option<Duration>,
    pub pooling: Option<Pooling>,
    pub report_only: Option<Vec<String>>,
}

impl From<LimitsShape> for LimitsPlan {
    fn from(shape: LimitsShape) -> Self {
        Self {
            clients: shape.clients,
            queries_per_second: shape.queries_per_second,
            queries_burst: shape.queries_burst,
            queries_at_once: shape.queries_at_once,
            servers: shape.servers,
            pins: shape.pins,
            pin_idle: shape.pin_idle,
            query_time: shape.query_time,
            client_idle: shape.client_idle,
            idle_in_transaction: shape.idle_in_transaction,
            budget_wait: shape.budget_wait,
            pooling: shape.pooling,
            report_only: shape.report_only,
        }
    }
}

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
    #[serde(default)]
    pub credentials: Vec<CredentialPlan>,
    #[serde(default)]
    pub allow_from: Vec<String>,
    #[serde(default)]
    pub limits: LimitsShape,
    #[serde(default)]
    pub allow_superuser: bool,
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
