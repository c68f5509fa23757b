//! The gate's settings for a round, and the ways in which reloads change them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::harness::tenants::LOGIN_PASSWORD;
use crate::torture::plan::{Level, Plan};
use crate::torture::town::{Kind, Tenant};

/// The number in the name of the gate's Unix socket.
const UNIX_PORT: u16 = 6499;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The hop in front of the cluster, and the cluster itself.
    pub hop: u16,
    pub cluster: u16,
    pub cluster_folder: PathBuf,
    /// The folder of the gate's Unix socket.
    pub unix: PathBuf,
    /// The console user's verifier.
    pub verifier: String,
}

impl Places {
    /// The gate's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.unix.join(format!(".s.PGSQL.{UNIX_PORT}"))
    }
}

/// What a reload may change. The default is what holds in a calm.
#[derive(Clone, Debug, Default)]
pub struct Variant {
    pub servers_more: usize,
    pub short_lives: bool,
    pub linger_ms: u64,
    pub other_tier: bool,
    pub report_only: bool,
    /// The tenants of these numbers have no token, are disabled.
    pub without_token: Option<usize>,
    pub disabled: Option<usize>,
}

/// The whole file.
pub fn text(plan: &Plan, tenants: &[Arc<Tenant>], places: &Places, variant: &Variant) -> String {
    let (workers, level) = (plan.workers, plan.level.name());
    let servers = plan.servers + variant.servers_more;
    let Places { hop, unix, verifier, .. } = places;
    let unix = unix.display();
    let lives = match variant.short_lives {
        true => "server_lifetime = \"500ms\"\nserver_idle_timeout = \"200ms\"\n",
        false => "",
    };
    let linger = variant.linger_ms;
    let seal = match plan.level {
        Level::Sealed => "seal_key_file = \"seal.key\"\n",
        Level::Plain | Level::Guard => "",
    };
    let report = if variant.report_only { "report_only = [\"all\"]\n" } else { "" };
    let more = if variant.other_tier {
        "queries_at_once = 50\nservers = 20\nprepare_threshold = 1\n"
    } else {
        ""
    };
    let mut text = format!(
        "[gate]\nworkers = {workers}\nlog_level = \"warn\"\n\
         [[listen]]\naddress = \"127.0.0.1:$PORT\"\ntls = \"allow\"\nplaintext_password = true\n\
         certificate = \"gate.crt\"\nkey = \"gate.key\"\n\
         [[listen]]\nunix = \"{unix}\"\nport = {UNIX_PORT}\n\
         [issuers.login]\nissuer = \"https://login.test\"\naudience = \"tenantgate\"\n\
         algorithm = \"HS256\"\nkey_file = \"login.key\"\n\
         [console.users]\nadmin = \"{verifier}\"\n\
         [clusters.main]\nlevel = \"{level}\"\ncapacity = {servers}\nlinger = \"{linger}ms\"\n\
         {lives}{seal}connection_string = \"host=127.0.0.1 port={hop} dbname=app user=tg_login \
         password={LOGIN_PASSWORD} sslmode=disable\"\n\
         [tiers.free]\n{report}\n[tiers.other]\n{report}{more}\n"
    );
    for tenant in tenants {
        text.push_str(&table(tenant, places, variant));
    }
    text
}

fn table(tenant: &Tenant, places: &Places, variant: &Variant) -> String {
    let is = |number: Option<usize>| number == Some(tenant.number);
    let tier = if variant.other_tier { "other" } else { "free" };
    let state = if is(variant.disabled) { "disabled" } else { "active" };
    let token = match is(variant.without_token) {
        true => String::new(),
        false => format!("tokens = [\"{}\"]\n", tenant.token_line),
    };
    let (id, dbname, login) = (&tenant.id, tenant.dbname(), tenant.login());
    let reached = |host: String| {
        format!(
            "connection_string = \"{host} dbname={dbname} user={login} password={LOGIN_PASSWORD}"
        )
    };
    let over_hop = format!("host=127.0.0.1 port={}", places.hop);
    // Servers are reached in every way there is.
    let route = match (tenant.kind, tenant.number % 2) {
        (Kind::Row, _) => "isolation = \"row\"\nschema = \"app\"\nrole = \"app_rw\"".to_owned(),
        (Kind::Schema, 0) => format!("{} sslmode=require\"", reached(over_hop)),
        (Kind::Schema, _) => {
            let direct = format!("host=127.0.0.1 port={}", places.cluster);
            format!("{} sslmode=disable\"", reached(direct))
        }
        (Kind::Silo, 0) => {
            let folder = places.cluster_folder.display();
            format!("{}\"", reached(format!("host={folder} port={}", places.cluster)))
        }
        (Kind::Silo, _) => format!("{} sslmode=disable\"", reached(over_hop)),
    };
    let isolation = match tenant.kind {
        Kind::Row => String::new(),
        Kind::Schema => format!("isolation = \"schema\"\nschema = \"{id}\"\n"),
        Kind::Silo => "isolation = \"silo\"\n".to_owned(),
    };
    format!(
        "[tenants.{id}]\ncluster = \"main\"\ntier = \"{tier}\"\nstate = \"{state}\"\n\
         {isolation}{token}{route}\n"
    )
}
