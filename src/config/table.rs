//! The settings in force as a plain table, for SHOW CONFIG and for what a reload cannot apply.

use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;

use super::{Config, GateSettings};
use crate::auth::{
    IssuerSettings, KeySource, LEEWAY_DEFAULT, LIFETIME_DEFAULT, PAUSE_DEFAULT, REFRESH_DEFAULT,
};
use crate::catalog::{Cluster, TableSettings};
use crate::client::ClientSettings;
use crate::console::ConsoleSettings;
use crate::net::{ClientCertificate, ListenAddress, ListenSettings, Origins, TlsPolicy};
use crate::telemetry::{HttpSettings, INTERVAL_DEFAULT, LogFormat, LogSettings};

/// One setting in force. Secrets are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its path in the file, `gate.clients` or `clusters.main.capacity`.
    pub key: String,
    pub value: String,
    /// `None` if there is none.
    pub default: Option<String>,
    /// Whether a reload applies it; otherwise the gate must be started again.
    pub live: bool,
}

impl Config {
    /// Every setting outside of tiers and tenants, in the order of the annotated file.
    pub fn table(&self) -> Vec<Setting> {
        let mut table = gate(&self.gate, &self.client, &self.log);
        for (index, listen) in self.listen.iter().enumerate() {
            table.extend(listener(index, listen));
        }
        table.extend(self.issuers.iter().flat_map(issuer));
        table.extend(self.catalog.clusters().flat_map(|named| cluster(named)));
        table.extend(self.catalog.spreads().iter().map(|(name, clusters)| {
            live(format!("spreads.{name}.clusters"), clusters.join(", "), None)
        }));
        table.extend(self.table.iter().flat_map(catalog));
        let period = time(ConsoleSettings::default().stats_period);
        let key = "console.stats_period".to_owned();
        table.push(live(key, time(self.console.stats_period), Some(period)));
        for user in &self.console.users {
            let key = format!("console.users.{}", user.name);
            table.push(live(key, format!("{:?}", user.rights).to_lowercase(), None));
        }
        if let Some(audit) = &self.audit {
            table.push(restart("audit.file".into(), audit.file.display().to_string(), None));
            let required = audit.required.to_string();
            table.push(restart("audit.required".into(), required, Some("false".to_owned())));
        }
        if let Some(usage) = &self.usage {
            table.push(restart("usage.file".into(), usage.file.display().to_string(), None));
            let default = Some(time(INTERVAL_DEFAULT));
            table.push(restart("usage.interval".into(), time(usage.interval), default));
        }
        if let Some(http) = &self.http {
            let default = HttpSettings::new(http.address).tenants_top.to_string();
            table.push(restart("http.address".into(), http.address.to_string(), None));
            let top = http.tenants_top.to_string();
            table.push(restart("http.tenants_top".into(), top, Some(default)));
            table.push(restart("http.tenants".into(), http.tenants.join(", "), None));
        }
        table
    }

    /// Keys of settings that differ from a running gate's and that a reload cannot apply.
    pub fn needs_restart(&self, running: &Self) -> Vec<String> {
        let fixed = |config: &Self| -> Vec<Setting> {
            config.table().into_iter().filter(|setting| !setting.live).collect()
        };
        let (new, old) = (fixed(self), fixed(running));
        let changed = new.iter().filter(|setting| !old.contains(setting));
        let gone = old.iter().filter(|setting| !new.iter().any(|new| new.key == setting.key));
        let keys = changed.chain(gone).map(|setting| setting.key.clone());
        // What is shown of it has no secret in it, and a secret may be what changed.
        let conninfo = |config: &Self| config.table.as_ref().map(|table| table.conninfo.clone());
        let key = "catalog.connection_string".to_owned();
        let mut keys: Vec<String> = keys.filter(|other| *other != key).collect();
        keys.extend((conninfo(self) != conninfo(running)).then_some(key));
        keys
    }
}

fn gate(gate: &GateSettings, client: &ClientSettings, log: &LogSettings) -> Vec<Setting> {
    let values = |gate: &GateSettings, client: &ClientSettings, log: &LogSettings| {
        [
            ("workers", gate.workers.to_string()),
            ("doors", gate.doors.to_string()),
            ("clients", gate.clients.to_string()),
            ("login_timeout", time(client.login_timeout)),
            ("startup_bytes", bytes(client.startup_bytes)),
            ("statement_bytes", bytes(client.statement_bytes)),
            ("password_bytes", bytes(client.password_bytes)),
            ("stall_timeout", time(client.stall_timeout)),
            ("failures_per_address", client.guesses.per_address.to_string()),
            ("failures_per_tenant", client.guesses.per_tenant.to_string()),
            ("drain_timeout", time(gate.drain_timeout)),
            ("credential_grace", time(client.credential_grace)),
            ("log_format", format_name(log.format).to_owned()),
            ("log_level", log.level.clone()),
        ]
    };
    let defaults = (GateSettings::default(), ClientSettings::default(), LogSettings::default());
    let defaults = values(&defaults.0, &defaults.1, &defaults.2);
    let pairs = values(gate, client, log).into_iter().zip(defaults);
    let setting = |((name, value), (_, default))| Setting {
        key: format!("gate.{name}"),
        value,
        default: Some(default),
        live: !["workers", "doors", "log_format"].contains(&name),
    };
    pairs.map(setting).collect()
}

fn catalog(table: &TableSettings) -> Vec<Setting> {
    let conninfo = &table.conninfo;
    let key = |name: &str| format!("catalog.{name}");
    let place = format!("{} of {}", conninfo.dbname, conninfo.user);
    let file = table.cache_file.as_ref().map(|file| file.display().to_string());
    let mut settings = vec![
        restart(key("connection_string"), place, None),
        restart(key("poll"), time(table.poll), Some(time(TableSettings::POLL_DEFAULT))),
    ];
    let (known, default) = (table.known.to_string(), TableSettings::KNOWN_DEFAULT.to_string());
    settings.push(restart(key("known"), known, Some(default)));
    let mover = table.mover.iter().map(|mover| format!("{} of {}", mover.dbname, mover.user));
    settings.extend(mover.map(|place| restart(key("mover_connection_string"), place, None)));
    settings.push(live(key("hosts"), table.hosts.join(", "), Some(String::new())));
    settings.extend(file.map(|file| restart(key("cache_file"), file, None)));
    let folder = table.secrets_folder.as_ref().map(|folder| folder.display().to_string());
    settings.extend(folder.map(|folder| live(key("secrets_folder"), folder, None)));
    settings
}

fn listener(index: usize, listen: &ListenSettings) -> Vec<Setting> {
    let key = |name: &str| format!("listen.{index}.{name}");
    let systemd = listen.systemd.iter().map(|name| restart(key("systemd"), name.clone(), None));
    let address = match &listen.address {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(unix) => {
            let table = [
                restart(key("unix"), unix.folder.display().to_string(), None),
                restart(key("port"), unix.port.to_string(), Some("6432".to_owned())),
                restart(key("mode"), format!("{:04o}", unix.mode), Some("0777".to_owned())),
            ];
            let rules = rules(listen, &key);
            return table.into_iter().chain(rules).chain(systemd).collect();
        }
    };
    let require = Some(tls_name(TlsPolicy::default()).to_owned());
    let mut table = vec![
        restart(key("address"), address.to_string(), None),
        live(key("tls"), tls_name(listen.tls).to_owned(), require),
    ];
    for (index, (certificate, private)) in listen.identities.iter().enumerate() {
        let of = |name: &str| match index {
            0 => key(name),
            index => key(&format!("certificates.{}.{name}", index - 1)),
        };
        table.push(live(of("certificate"), certificate.display().to_string(), None));
        table.push(live(of("key"), private.display().to_string(), None));
    }
    if let Some(file) = &listen.client_authority {
        table.push(live(key("client_ca"), file.display().to_string(), None));
    }
    if let Some(suffix) = &listen.sni_suffix {
        table.push(live(key("sni_suffix"), suffix.clone(), None));
    }
    let plaintext = listen.plaintext_password.to_string();
    table.push(live(key("plaintext_password"), plaintext, Some("false".to_owned())));
    if listen.proxies != Origins::default() {
        table.push(live(key("proxies"), listen.proxies.to_string(), None));
    }
    table.extend(rules(listen, &key));
    table.extend(systemd);
    table
}

fn issuer(issuer: &IssuerSettings) -> Vec<Setting> {
    let key = |name: &str| format!("issuers.{}.{name}", issuer.name);
    let mut table = vec![
        live(key("issuer"), issuer.issuer.clone(), None),
        live(key("audience"), issuer.audience.clone(), None),
    ];
    let (algorithm, place) = match &issuer.keys {
        KeySource::File { path, algorithm } => (Some(*algorithm), ("key_file", path.to_string())),
        KeySource::SetFile { path, algorithm } => {
            (*algorithm, ("jwks_file", path.display().to_string()))
        }
        KeySource::SetUrl(remote) => (remote.algorithm, ("jwks_url", remote.url.clone())),
    };
    table.extend(algorithm.map(|it| live(key("algorithm"), it.name().to_owned(), None)));
    table.push(live(key(place.0), place.1, None));
    if let KeySource::SetUrl(remote) = &issuer.keys {
        let ca = remote.ca_file.as_ref().map(|path| path.display().to_string());
        table.extend(ca.map(|path| live(key("jwks_ca_file"), path, None)));
        let (refresh, pause) = (time(remote.refresh), time(remote.pause));
        table.push(live(key("jwks_refresh"), refresh, Some(time(REFRESH_DEFAULT))));
        table.push(live(key("jwks_pause"), pause, Some(time(PAUSE_DEFAULT))));
    }
    let claims = &issuer.claims;
    let claim = crate::auth::TENANT_CLAIM_DEFAULT.to_owned();
    table.push(live(key("tenant_claim"), claims.tenant.clone(), Some(claim)));
    let named = [("role_claim", &claims.role), ("read_only_claim", &claims.read_only)];
    for (name, path) in named {
        table.extend(path.as_ref().map(|path| live(key(name), path.clone(), None)));
    }
    if let Some(vouching) = &claims.vouching {
        table.push(live(key("acts_for_claim"), vouching.claim.clone(), None));
        table.push(live(key("service"), vouching.service.clone(), None));
    }
    table.push(live(key("leeway"), time(issuer.leeway), Some(time(LEEWAY_DEFAULT))));
    table.push(live(key("lifetime"), time(issuer.lifetime), Some(time(LIFETIME_DEFAULT))));
    let denied = issuer.denied_file.as_ref().map(|path| path.display().to_string());
    table.extend(denied.map(|path| live(key("denied_file"), path, None)));
    table.push(live(key("any_tenant"), issuer.any_tenant.to_string(), None));
    table
}

/// The rules in one row, in their order.
fn rules(listen: &ListenSettings, key: &dyn Fn(&str) -> String) -> Option<Setting> {
    let rules = listen.rules.iter().map(|rule| {
        let certificate = match rule.client_certificate {
            None => "",
            Some(ClientCertificate::VerifyCa) => " verify-ca",
            Some(ClientCertificate::VerifyFull) => " verify-full",
        };
        format!("{}={}{certificate}", rule.user, rule.method.name())
    });
    let text = rules.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| live(key("rules"), text, None))
}

fn cluster(cluster: &Cluster) -> Vec<Setting> {
    let default = Cluster::new(cluster.name.clone(), cluster.capacity);
    let key = |name: &str| format!("clusters.{}.{name}", cluster.name);
    let times = |cluster: &Cluster| {
        [
            ("query_wait", cluster.query_wait),
            ("server_idle_timeout", cluster.server_idle_timeout),
            ("server_lifetime", cluster.server_lifetime),
            ("linger", cluster.linger),
            ("scrub_timeout", cluster.scrub_timeout),
            ("server_login_retry", cluster.server_login_retry),
        ]
    };
    let mut table = vec![live(key("capacity"), cluster.capacity.to_string(), None)];
    let (level, plain) = (cluster.level.name().to_owned(), default.level.name().to_owned());
    table.push(live(key("level"), level, Some(plain)));
    let enforced = |cluster: &Cluster| cluster.enforce_level.to_string();
    table.push(live(key("enforce_level"), enforced(cluster), Some(enforced(&default))));
    let shared = |cluster: &Cluster| cluster.allow_shared_login.to_string();
    table.push(live(key("allow_shared_login"), shared(cluster), Some(shared(&default))));
    let pairs = times(cluster).into_iter().zip(times(&default));
    table
        .extend(pairs.map(|((name, value), (_, default))| {
            live(key(name), time(value), Some(time(default)))
        }));
    table
}

fn live(key: String, value: String, default: Option<String>) -> Setting {
    Setting { key, value, default, live: true }
}

fn restart(key: String, value: String, default: Option<String>) -> Setting {
    Setting { key, value, default, live: false }
}

fn time(duration: Duration) -> String {
    format_duration(duration).to_string()
}

fn bytes(size: usize) -> String {
    ByteSize::b(size as u64).display().iec().to_string()
}

fn format_name(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn tls_name(policy: TlsPolicy) -> &'static str {
    match policy {
        TlsPolicy::Require => "require",
        TlsPolicy::Allow => "allow",
        TlsPolicy::Disable => "disable",
    }
}
