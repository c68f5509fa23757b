//! From TOML to [`Config`], collecting every problem on the way. Tables are read one by one, so
//! that a mistake in one does not hide those in the next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::check;
use super::credentials::{self, IssuerShape};
use super::error::{Names, Problem};
use super::listen;
use super::rows;
use super::secrets;
use super::shapes::{
    AuditShape, CatalogShape, ClusterShape, ConsoleUserShape, GateShape, HttpShape, LimitsWords,
    ListenShape, SECTIONS, ServiceShape, SpreadShape, TenantShape, UsageShape,
};
use super::units;
use super::words::{self, Reworded, allowed, missing, reworded};
use super::{Config, GateSettings};
use crate::auth::{GuessLimits, IssuerSettings};
use crate::catalog::{
    Catalog, CatalogPlan, Cluster, ClusterPlan, Fault, Hosts, NamesPlan, Place,
    TENANT_SETTING_DEFAULT, TableSettings, TenantPlan, TenantState,
};
use crate::client::ClientSettings;
use crate::console::{ConsoleSettings, ConsoleUser};
use crate::isolation::SealKeys;
use crate::isolation::tenancy::LoginSecret;
use crate::net::{ListenSettings, OwnPlaces};
use crate::telemetry::{self, AuditSettings, HttpSettings, LogSettings, UsageSettings};

/// Most problems that are collected.
const PROBLEMS_MAX: usize = 100;

type Value<'text> = Spanned<DeValue<'text>>;

/// Reads a whole file's text. `folder` is where relative paths start; no route may lead to one of
/// these places either.
pub(super) fn read(text: &str, folder: &Path, own: &OwnPlaces) -> Result<Config, Vec<Problem>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(words::syntax(text, root.get_ref(), &errors));
    }
    let mut reader = Reader::new(text, root.get_ref(), folder);
    let config = reader.config(own);
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| (problem.line, problem.column));
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

pub(super) struct Reader<'text> {
    text: &'text str,
    root: &'text DeTable<'text>,
    pub(super) folder: &'text Path,
    /// What may be shown of the text.
    names: Names<'text>,
    problems: Vec<Problem>,
}

impl<'text> Reader<'text> {
    fn new(text: &'text str, root: &'text DeTable<'text>, folder: &'text Path) -> Self {
        Self { text, root, folder, names: Names::of(root), problems: Vec::new() }
    }

    fn config(&mut self, own: &OwnPlaces) -> Option<Config> {
        let root = self.root;
        for key in root.keys().filter(|key| !SECTIONS.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let hint = allowed(name, &SECTIONS);
            self.problem(key.span(), format!("unknown key \"{}\"", name.escape_debug()), hint);
        }
        let gate = match root.get("gate") {
            Some(value) => self.table::<GateShape>(value),
            None => Some(GateShape::default()),
        };
        let rooms = gate.map(|shape| self.gate(shape));
        let listen = self.listeners();
        let issuers = self.issuers();
        let console = self.console();
        let http = self.http();
        let audit = self.audit();
        let usage = self.usage();
        listen::distinct(self, &listen, http.as_ref());
        let (table, hosts) = self.table_of_tenants().unzip();
        let hosts =
            hosts.unwrap_or_default().with_own(own.and(&listen::own(&listen, http.as_ref())));
        let catalog = self.catalog(hosts, table.as_ref());
        if let Some(catalog) = &catalog {
            check::tenants_issuers(self, catalog, &issuers);
            check::issuers_services(self, catalog, &issuers);
        }
        let (gate, client, log) = rooms?;
        let catalog = catalog?;
        Some(Config {
            gate,
            listen,
            client,
            issuers,
            catalog,
            table,
            console,
            http,
            audit,
            usage,
            log,
        })
    }

    fn gate(&mut self, shape: GateShape) -> (GateSettings, ClientSettings, LogSettings) {
        let (gate, client, log) =
            (GateSettings::default(), ClientSettings::default(), LogSettings::default());
        let workers = shape.workers.unwrap_or(gate.workers);
        let gate = GateSettings {
            workers,
            doors: shape.doors.unwrap_or_else(|| GateSettings::doors_for(workers)),
            clients: shape.clients.unwrap_or(gate.clients),
            drain_timeout: shape.drain_timeout.unwrap_or(gate.drain_timeout),
        };
        let client = ClientSettings {
            login_timeout: shape.login_timeout.unwrap_or(client.login_timeout),
            startup_bytes: shape.startup_bytes.unwrap_or(client.startup_bytes),
            statement_bytes: shape.statement_bytes.unwrap_or(client.statement_bytes),
            password_bytes: shape.password_bytes.unwrap_or(client.password_bytes),
            stall_timeout: shape.stall_timeout.unwrap_or(client.stall_timeout),
            credential_grace: shape.credential_grace.unwrap_or(client.credential_grace),
            guesses: GuessLimits {
                per_address: shape.failures_per_address.unwrap_or(client.guesses.per_address),
                per_tenant: shape.failures_per_tenant.unwrap_or(client.guesses.per_tenant),
            },
        };
        let log = LogSettings {
            format: shape.log_format.unwrap_or(log.format),
            level: shape.log_level.unwrap_or(log.level),
        };
        check::gate(self, &gate, &client, &log);
        (gate, client, log)
    }

    fn listeners(&mut self) -> Vec<ListenSettings> {
        let entries = match self.root.get("listen").map(|value| (value.span(), value.get_ref())) {
            Some((_, DeValue::Array(entries))) => entries.iter().collect(),
            Some((span, _)) => {
                self.problem(span, "listen is written [[listen]]".to_owned(), None);
                return Vec::new();
            }
            None => Vec::new(),
        };
        if entries.is_empty() {
            let hint = "Add [[listen]] with address = \"127.0.0.1:6432\".".to_owned();
            self.problem(0..0, "there is no [[listen]]".to_owned(), Some(hint));
        }
        let mut listeners = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            if let Some(shape) = self.table::<ListenShape>(entry) {
                listeners.extend(listen::entry(self, index, shape));
            }
        }
        listeners
    }

    fn issuers(&mut self) -> Vec<IssuerSettings> {
        let before = self.problems.len();
        let shapes = self.entries::<IssuerShape>("issuers");
        let sound = self.problems.len() == before;
        credentials::issuers(self, shapes, sound)
    }

    fn console(&mut self) -> ConsoleSettings {
        let mut settings = ConsoleSettings::default();
        for (key, value) in self.members("console") {
            if key.get_ref() == "stats_period" {
                let period = units::duration(ValueDeserializer::from(value.clone()));
                let period = check::stats_period(self, value.span(), period);
                settings.stats_period = period.unwrap_or(settings.stats_period);
                continue;
            }
            if key.get_ref() != "users" {
                let hint = allowed(key.get_ref(), &["users", "stats_period"]);
                let message = format!("unknown key \"{}\"", key.get_ref().escape_debug());
                self.problem(key.span(), message, hint);
                continue;
            }
            let DeValue::Table(table) = value.get_ref() else {
                let message = "users is written { NAME = \"SCRAM-SHA-256$…\" }".to_owned();
                self.problem(value.span(), message, None);
                continue;
            };
            for (name, value) in table {
                let user = self.console_user(name.get_ref(), value);
                settings.users.extend(user);
            }
        }
        settings
    }

    fn console_user(&mut self, name: &str, value: &Value<'_>) -> Option<ConsoleUser> {
        let shape = match value.get_ref() {
            DeValue::String(scram) => {
                ConsoleUserShape { scram: scram.to_string(), rights: Default::default() }
            }
            _ => self.table::<ConsoleUserShape>(value)?,
        };
        let user = ConsoleUser { name: name.to_owned(), scram: shape.scram, rights: shape.rights };
        check::console_user(self, &user).then_some(user)
    }

    fn http(&mut self) -> Option<HttpSettings> {
        let shape = self.table::<HttpShape>(self.root.get("http")?)?;
        let address = listen::address(self, &["http", "address"], &shape.address)?;
        let default = HttpSettings::new(address);
        let tenants_top = shape.tenants_top.unwrap_or(default.tenants_top);
        check::tenants_top(self, tenants_top);
        Some(HttpSettings { address, tenants_top, tenants: shape.tenants })
    }

    fn audit(&mut self) -> Option<AuditSettings> {
        let AuditShape { file, required } = self.table(self.root.get("audit")?)?;
        Some(AuditSettings { file: self.folder.join(file), required })
    }

    fn usage(&mut self) -> Option<UsageSettings> {
        let UsageShape { file, interval } = self.table(self.root.get("usage")?)?;
        let interval = interval.unwrap_or(telemetry::INTERVAL_DEFAULT);
        check::usage_interval(self, interval);
        Some(UsageSettings { file: self.folder.join(file), interval })
    }

    /// Where tenants stand beside those of the file, and where these may lead.
    fn table_of_tenants(&mut self) -> Option<(TableSettings, Hosts)> {
        let shape = self.table::<CatalogShape>(self.root.get("catalog")?)?;
        rows::table(self, shape)
    }

    /// The catalog, if clusters and tiers could be read: without them a tenant's faults would
    /// only be echoes of theirs.
    fn catalog(&mut self, hosts: Hosts, table: Option<&TableSettings>) -> Option<Catalog> {
        let before = self.problems.len();
        let mut clusters = BTreeMap::new();
        for (name, shape) in self.entries::<ClusterShape>("clusters") {
            let secret = secrets::login_secret(self, &name, &shape);
            let seal_keys = secrets::seal_keys(self, &name, &shape);
            clusters.insert(name.clone(), cluster(name, shape, secret, seal_keys));
        }
        let spreads = self.entries::<SpreadShape>("spreads");
        let tiers = self.entries::<LimitsWords>("tiers");
        let sound = self.problems.len() == before;
        let tenants = self.entries::<TenantShape>("tenants");
        let services = self.entries::<ServiceShape>("services");
        if !sound {
            return None;
        }
        let plan = CatalogPlan {
            has_table: table.is_some(),
            folder: self.folder.to_owned(),
            clusters,
            spreads: spreads.into_iter().map(|(name, it)| (name, it.clusters)).collect(),
            tiers: tiers.into_iter().map(|(name, tier)| (name, tier.0)).collect(),
            tenants: tenants.into_iter().map(|(id, shape)| (id, tenant(shape))).collect(),
            services: services.into_iter().map(|(name, shape)| (name, shape.into())).collect(),
            hosts,
            secrets_folder: table.and_then(|table| table.secrets_folder.clone()),
            ..CatalogPlan::default()
        };
        match Catalog::build(&plan) {
            Ok(catalog) => Some(catalog),
            Err(faults) => {
                faults.iter().for_each(|fault| self.fault(fault));
                None
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        let mut path = match &fault.place {
            Place::Cluster(name) => vec!["clusters", name.as_str()],
            Place::Spread(name) => vec!["spreads", name.as_str()],
            Place::Tier(name) => vec!["tiers", name.as_str()],
            Place::Tenant(id) => vec!["tenants", id.as_str()],
            Place::TenantLimits(id) => vec!["tenants", id.as_str(), "limits"],
            Place::Service(name) => vec!["services", name.as_str()],
            Place::ServiceLimits(name) => vec!["services", name.as_str(), "limits"],
            Place::TenantRole(of) => vec!["tenants", of.0.as_str(), "roles", of.1.as_str()],
            Place::ClusterRole(of) => vec!["clusters", of.0.as_str(), "roles", of.1.as_str()],
        };
        path.extend(fault.key);
        let span = self.locate(&path, fault.element);
        self.problem(span, fault.message.clone(), fault.hint.clone());
    }

    /// Reads every table of a section, by name.
    fn entries<T: DeserializeOwned>(&mut self, section: &'static str) -> BTreeMap<String, T> {
        let mut entries = BTreeMap::new();
        for (key, value) in self.members(section) {
            if let Some(shape) = self.table::<T>(value) {
                entries.insert(key.get_ref().to_string(), shape);
            }
        }
        entries
    }

    fn members(
        &mut self,
        section: &'static str,
    ) -> Vec<(&'text Spanned<std::borrow::Cow<'text, str>>, &'text Value<'text>)> {
        match self.root.get(section).map(|value| (value.span(), value.get_ref())) {
            Some((_, DeValue::Table(table))) => table.iter().collect(),
            Some((span, _)) => {
                self.problem(span, format!("{section} is written as a table"), None);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Reads one table. After a mistake its key is left out and the rest is read again, until
    /// there is nothing more to find.
    fn table<T: DeserializeOwned>(&mut self, value: &Value<'_>) -> Option<T> {
        let DeValue::Table(whole) = value.get_ref() else {
            let message = format!("this is written as a table, not as a {}", kind(value.get_ref()));
            self.problem(value.span(), message, None);
            return None;
        };
        let mut table = whole.clone();
        // Keys that were left out for a mistake, or misspelled: they are not missing as well.
        let mut told = Vec::new();
        loop {
            let rest = Spanned::new(value.span(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(rest)) {
                Ok(shape) if table.len() == whole.len() => return Some(shape),
                Ok(_) => return None,
                Err(error) => error,
            };
            let span = error.span().unwrap_or(value.span());
            let within = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
            let wrong =
                table.iter().find(|(key, value)| within(key.span()) || within(value.span()));
            let wrong = wrong.map(|(key, _)| key.get_ref().to_string());
            let Reworded { message, nearest, mut hint } = reworded(error.message());
            if error.message() == words::NO_CHOICE {
                hint = choices::<T>(value.span(), &table, wrong.as_deref());
            }
            let Some(key) = wrong else {
                if !told.iter().any(|key: &String| message == missing(key)) {
                    self.problem(span, message, hint);
                }
                return None;
            };
            self.problem(span, message, hint);
            table.remove(key.as_str());
            told.push(key);
            told.extend(nearest);
        }
    }

    /// Notes a problem at a range of the text.
    pub(super) fn problem(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        // Finding a place takes a walk through the text; a file that is wrong a thousand times is
        // not worth a thousand walks.
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let message = words::without_values(self.root, &span, message);
        self.problems.push(Problem::new(self.text, span, &self.names, message).hint(hint));
    }

    /// Notes a problem at a path of keys, or at as much of it as there is.
    pub(super) fn problem_at(&mut self, path: &[&str], message: String, hint: Option<&str>) {
        let span = self.locate(path, None);
        self.problem(span, message, hint.map(str::to_owned));
    }

    /// Where a value stands; a key that is not there is looked for at its table's name. Numbers in
    /// the path count elements of lists.
    fn locate(&self, path: &[&str], element: Option<usize>) -> Range<usize> {
        let mut span = 0..0;
        let mut here = None;
        for (depth, name) in path.iter().enumerate() {
            let table = if depth == 0 { Some(self.root) } else { here.and_then(as_table) };
            let found = table.and_then(|table| table.get_key_value(*name));
            let listed = || here.and_then(as_array)?.get(name.parse::<usize>().ok()?);
            match (found, listed()) {
                (Some((key, value)), _) => {
                    let leaf = depth + 1 == path.len() && as_table(value.get_ref()).is_none();
                    span = if leaf { value.span() } else { key.span() };
                    here = Some(value.get_ref());
                }
                (None, Some(value)) => {
                    span = value.span();
                    here = Some(value.get_ref());
                }
                (None, None) => return span,
            }
        }
        let element = element.and_then(|index| here.and_then(as_array)?.get(index));
        element.map_or(span, Spanned::span)
    }
}

fn cluster(
    name: String,
    shape: ClusterShape,
    secret: Option<LoginSecret>,
    seal_keys: Option<SealKeys>,
) -> ClusterPlan {
    let default = Cluster::new(name, shape.capacity);
    ClusterPlan {
        cluster: Cluster {
            query_wait: shape.query_wait.unwrap_or(default.query_wait),
            server_idle_timeout: shape.server_idle_timeout.unwrap_or(default.server_idle_timeout),
            server_lifetime: shape.server_lifetime.unwrap_or(default.server_lifetime),
            linger: shape.linger.unwrap_or(default.linger),
            scrub_timeout: shape.scrub_timeout.unwrap_or(default.scrub_timeout),
            server_login_retry: shape.server_login_retry.unwrap_or(default.server_login_retry),
            shared_schemas: shape.shared_schemas,
            level: shape.level.unwrap_or(default.level),
            allow_shared_login: shape.allow_shared_login.unwrap_or(default.allow_shared_login),
            enforce_level: shape.enforce_level.unwrap_or(default.enforce_level),
            seal_keys: seal_keys.map(Arc::new),
            ..default
        },
        connection_string: shape.connection_string,
        tenant_setting: shape.tenant_setting.unwrap_or_else(|| TENANT_SETTING_DEFAULT.to_owned()),
        names: NamesPlan {
            login: shape.tenant_login,
            secret,
            schema: shape.tenant_schema,
            database: shape.tenant_database,
        },
        roles: credentials::roles(shape.roles),
        default_role: shape.default_role,
        read_only_role: shape.read_only_role,
    }
}

fn tenant(shape: TenantShape) -> TenantPlan {
    TenantPlan {
        isolation: shape.isolation,
        cluster: shape.cluster,
        connection_string: shape.connection_string,
        role: shape.role,
        schema: shape.schema,
        tier: shape.tier,
        state: shape.state.unwrap_or(TenantState::Active),
        tokens: shape.tokens.into_iter().map(Into::into).collect(),
        credentials: shape.credentials,
        allow_from: shape.allow_from,
        limits: shape.limits.0,
        allow_superuser: shape.allow_superuser,
        issuer: shape.issuer,
        roles: credentials::roles(shape.roles),
        default_role: shape.default_role,
        read_only_role: shape.read_only_role,
    }
}

/// What may stand at a key of a table that has a few words to choose from.
fn choices<T: DeserializeOwned>(
    span: Range<usize>,
    table: &DeTable<'_>,
    key: Option<&str>,
) -> Option<String> {
    let mut table = table.clone();
    // Serde names them for a word that is none.
    let value = table.get_mut(key?)?;
    *value = Spanned::new(value.span(), DeValue::String("".into()));
    let rest = Spanned::new(span, DeValue::Table(table));
    let error = T::deserialize(ValueDeserializer::from(rest)).err()?;
    if error.message().starts_with("unknown variant") {
        reworded(error.message()).hint
    } else {
        None
    }
}

fn as_table<'value, 'text>(value: &'value DeValue<'text>) -> Option<&'value DeTable<'text>> {
    value.as_table()
}

fn as_array<'value, 'text>(
    value: &'value DeValue<'text>,
) -> Option<&'value toml::de::DeArray<'text>> {
    value.as_array()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    value.type_str()
}
