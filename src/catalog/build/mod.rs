//! From a plan to a catalog: each entry is checked on its own here, then all together in
//! `apart.rs`. Everything that is wrong is reported, not only the first.

mod limits;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::catalog::build::limits::check_limits;
use crate::catalog::credential::Credentials;
use crate::catalog::names::Names;
use crate::catalog::plan::{
    CatalogPlan, ClusterPlan, Fault, LimitsPlan, Place, TenantPlan, TokenPlan,
};
use crate::catalog::token::{TOKEN_PREFIX, parse_line};
use crate::catalog::{
    Catalog, Cluster, Face, Route, TIER_DEFAULT, Tenant, TenantId, TokenRecord, apart, roles,
    service, spread,
};
use crate::isolation::{Context, ContextError, ContextPlan, Isolation, Level, NAME_BYTES_MAX};
use crate::server::{Conninfo, ConninfoError, Reach};
use crate::spelling;

/// More than any PostgreSQL can be told to accept (MAX_BACKENDS).
const CAPACITY_MAX: usize = 262_143;
const NAME_RULE: &str = "A name starts with a letter or digit and goes on with letters, digits, \
                         \"_\", \".\" or \"-\", 63 characters at most.";

pub(super) fn build(plan: &CatalogPlan) -> Result<Catalog, Vec<Fault>> {
    let mut faults = Vec::new();
    for (name, cluster) in &plan.clusters {
        check_cluster(name, cluster, &plan.folder, &mut faults);
    }
    for (name, limits) in &plan.tiers {
        let place = Place::Tier(name.clone());
        check_name(name, &place, &mut faults);
        check_limits(limits, limits, &place, &mut faults);
    }
    spread::check(plan, &mut faults);
    let mut builder = Builder::new(plan);
    builder.read_whole(&mut faults);
    let mut tenants = BTreeMap::new();
    for (id, tenant) in &plan.tenants {
        match builder.tenant(id, tenant) {
            Ok(tenant) => drop(tenants.insert(tenant.id.clone(), Arc::new(tenant))),
            Err(wrong) => faults.extend(wrong),
        }
    }
    let services = service::build(&mut builder, &mut faults);
    faults.append(&mut builder.token_faults);
    faults.extend(std::mem::take(&mut builder.tier_faults).into_values());
    faults.extend(apart::check(plan, &tenants));
    if !faults.is_empty() {
        return Err(faults);
    }
    let clusters = builder.clusters.iter().map(|(name, c)| ((*name).to_owned(), Arc::clone(c)));
    let clusters = Arc::new(clusters.collect());
    let read = std::mem::take(&mut builder.read);
    let defaults = builder.defaults.into_iter();
    let defaults = defaults.filter_map(|(name, read)| Some((name.to_owned(), read?))).collect();
    let Builder { tokens, mut credentials, .. } = builder;
    credentials.finish();
    Ok(Catalog {
        clusters,
        tenants: tenants.into_iter().collect(),
        services,
        tokens: tokens.into_iter().collect(),
        credentials,
        words: Arc::new(CatalogPlan { defaults, read, ..plan.ground() }),
        version: 1,
        ..Catalog::default()
    })
}

/// What grows while tenants are built one after the other.
pub(super) struct Builder<'plan> {
    plan: &'plan CatalogPlan,
    clusters: BTreeMap<&'plan str, Arc<Cluster>>,
    /// Default connection strings; one value for all tenants that use it. `None` has a fault of
    /// its own already.
    pub(super) defaults: BTreeMap<&'plan str, Option<Arc<Conninfo>>>,
    /// Clusters whose templates have a fault are not in it.
    names: BTreeMap<&'plan str, Names<'plan>>,
    pub(super) tokens: HashMap<String, Arc<TokenRecord>>,
    pub(super) credentials: Credentials,
    pub(super) token_faults: Vec<Fault>,
    /// Of each tier the first, where it is what its tenants have of it.
    tier_faults: BTreeMap<String, Fault>,
    /// Whether tenants are a table's rows, which may not lead everywhere.
    of_table: bool,
    /// Connection strings of roles, by their text.
    pub(super) read: HashMap<String, Arc<Conninfo>>,
}

impl<'plan> Builder<'plan> {
    fn new(plan: &'plan CatalogPlan) -> Self {
        let cluster = |(name, plan): (&'plan String, &ClusterPlan)| {
            let tenant_setting = plan.tenant_setting.clone();
            (name.as_str(), Arc::new(Cluster { tenant_setting, ..plan.cluster.clone() }))
        };
        let default = |(name, cluster): (&'plan String, &'plan ClusterPlan)| {
            let text = cluster.connection_string.as_ref()?;
            // Rows are built on what was read with the file: a password does not change in between.
            let known = plan.defaults.get(name).cloned();
            let own = plan.hosts.own();
            let read = || Some(Arc::new(Conninfo::read(text, &plan.folder).ok()?.away_from(own)));
            Some((name.as_str(), known.or_else(read)))
        };
        let names = |(name, cluster): (&'plan String, &'plan ClusterPlan)| {
            Some((name.as_str(), Names::read(name, cluster).ok()?))
        };
        Self {
            plan,
            clusters: plan.clusters.iter().map(cluster).collect(),
            defaults: plan.clusters.iter().filter_map(default).collect(),
            names: plan.clusters.iter().filter_map(names).collect(),
            of_table: false,
            tokens: HashMap::new(),
            credentials: Credentials::default(),
            token_faults: Vec::new(),
            tier_faults: BTreeMap::new(),
            read: HashMap::new(),
        }
    }

    /// Reads what rows are built on later; says if the second look at a cluster's secrets failed
    /// where the first did not.
    fn read_whole(&mut self, faults: &mut Vec<Fault>) {
        let told = |name: &str, faults: &[Fault]| {
            faults.iter().any(|it| it.place == Place::Cluster(name.to_owned()))
        };
        for (name, default) in &self.defaults {
            if default.is_none() && !told(name, faults) {
                let message = "its secrets cannot be read";
                let place = Place::Cluster((*name).to_owned());
                faults.push(Fault::new(place, "connection_string", message));
            }
        }
        let roles = self.plan.clusters.values().flat_map(|cluster| cluster.roles.values());
        for text in roles.filter_map(|role| role.connection_string.as_ref()) {
            // What is wrong with it is told at each tenant that has the role.
            drop(self.conninfo(text));
        }
    }

    /// A builder of rows of a table, for a catalog that has these clusters.
    pub(super) fn over(
        plan: &'plan CatalogPlan,
        clusters: &BTreeMap<String, Arc<Cluster>>,
    ) -> Self {
        let mut builder = Self::new(plan);
        for (name, cluster) in &mut builder.clusters {
            if let Some(known) = clusters.get(*name) {
                *cluster = known.clone();
            }
        }
        Self { of_table: true, ..builder }
    }

    /// Forgets what the last tenant left.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.credentials = Credentials::default();
        self.token_faults.clear();
        self.read.clear();
    }

    /// Builds one tenant. An empty list of faults means that somebody else's are to blame.
    pub(super) fn tenant(&mut self, name: &str, plan: &TenantPlan) -> Result<Tenant, Vec<Fault>> {
        let place = Place::Tenant(name.to_owned());
        let mut faults = Vec::new();
        let plan = &*spread::settle(self.plan, name, plan, &mut faults);
        let id = tenant_id(name, &place, &mut faults);
        if let Some(id) = &id {
            self.tokens(id, &plan.tokens, &place);
            self.credentials.add(id, plan, &mut self.token_faults);
        }
        if plan.allow_superuser && plan.isolation != Isolation::Silo {
            let message = "allow_superuser is for silo tenants only";
            faults.push(Fault::new(place.clone(), "allow_superuser", message).hint(
                "A superuser is above row security and schemas: every tenant would see all rows.",
            ));
        }
        let tier = self.tier(plan.tier.as_deref(), &place, &mut faults);
        let own = Place::TenantLimits(name.to_owned());
        let route = self.route(name, plan, &place, &mut faults);
        let cluster = route.as_ref().map(|route| &*route.cluster);
        let tier_named = (plan.tier.as_deref(), &*tier);
        faults.extend(self.limits((&plan.limits, own), tier_named, cluster));
        check_schema(plan, &place, &mut faults);
        check_level(plan, route.as_ref(), &place, &mut faults);
        let context = id.as_ref().map(|_| self.context(name, plan, &place));
        let context = context.and_then(|made| made.map_err(|fault| faults.push(fault)).ok());
        let (Some(id), Some(route), Some(context), true) = (id, route, context, faults.is_empty())
        else {
            return Err(faults);
        };
        let tenant = Tenant {
            id,
            isolation: plan.isolation,
            state: plan.state,
            route,
            context: Arc::new(context),
            tier: plan.tier.clone().unwrap_or_else(|| TIER_DEFAULT.to_owned()),
            limits: plan.limits.over(&tier),
            pooling: plan.limits.pooling(&tier),
            prepare_threshold: plan.limits.prepare_threshold(&tier),
            report_only: plan.limits.reported(&tier),
            service: None,
            issuer: plan.issuer.as_deref().map(Arc::from),
            roles: BTreeMap::new(),
            default_role: None,
            read_only_role: None,
            read_only_face: ArcSwapOption::empty(),
            version: 1,
        };
        let tenant = roles::give(self, tenant, plan)?;
        for (index, token) in plan.tokens.iter().enumerate() {
            if let Some(role) = token.role.as_ref().filter(|it| !tenant.roles.contains_key(&***it))
            {
                let message = format!("role \"{}\" is none of its roles", role.escape_debug());
                let fault = Fault::new(place.clone(), "tokens", message).element(index);
                if self.of_table {
                    // Only the credential is at fault.
                    self.tokens.retain(|_, it| it.face.role.as_deref() != Some(role));
                    self.token_faults.push(fault);
                } else {
                    faults.push(fault);
                }
            }
        }
        if faults.is_empty() { Ok(tenant) } else { Err(faults) }
    }

    pub(super) fn plan(&self) -> &'plan CatalogPlan {
        self.plan
    }

    pub(super) fn tokens(&mut self, tenant: &TenantId, tokens: &[TokenPlan], place: &Place) {
        for (index, words) in tokens.iter().enumerate() {
            let fault =
                |message: String| Fault::new(place.clone(), "tokens", message).element(index);
            if words.name.as_ref().is_some_and(|name| TenantId::new(name).is_none()) {
                let fault = fault("the token's name breaks the rule for names".to_owned());
                self.token_faults.push(fault.hint(NAME_RULE));
            }
            let Some((id, sha256)) = parse_line(&words.line) else {
                self.token_faults.push(not_a_line(&words.line, fault));
                continue;
            };
            let record = TokenRecord {
                id: id.clone(),
                tenant: tenant.clone(),
                sha256,
                name: words.name.as_deref().map(Box::from),
                expires_at: words.expires_at,
                revoked: words.revoked,
                face: Face {
                    role: words.role.as_deref().map(Box::from),
                    read_only: words.read_only,
                },
            };
            if let Some(other) = self.tokens.insert(id.clone(), Arc::new(record)) {
                let fault = fault(format!("token {id} stands at tenant \"{}\" too", other.tenant));
                self.token_faults.push(fault.hint("Every token belongs to exactly one tenant."));
            }
        }
    }

    pub(super) fn tier(
        &self,
        tier: Option<&str>,
        place: &Place,
        faults: &mut Vec<Fault>,
    ) -> Cow<'plan, LimitsPlan> {
        let name = tier.unwrap_or(TIER_DEFAULT);
        let found = self.plan.tiers.get(name);
        if found.is_none() && tier.is_some() {
            let known = self.plan.tiers.keys().map(String::as_str);
            faults.push(unknown(place, "tier", name, known));
        }
        found.map_or_else(Cow::default, Cow::Borrowed)
    }

    /// A tenant's own connection string. That of a row names no place for its password but by
    /// [`Self::bounded`].
    fn words(&self, text: &str) -> Result<Conninfo, ConninfoError> {
        let read = match self.of_table {
            true => Conninfo::parse(text),
            false => Conninfo::read(text, &self.plan.folder),
        };
        read.map(|conninfo| conninfo.away_from(self.plan.hosts.own()))
    }

    fn route(
        &self,
        id: &str,
        plan: &TenantPlan,
        place: &Place,
        faults: &mut Vec<Fault>,
    ) -> Option<Route> {
        let name = plan.cluster.as_str();
        let cluster = &self.cluster(name, place, faults)?;
        let conninfo = match (&plan.connection_string, self.defaults.get(name)) {
            (Some(text), _) => match self.words(text) {
                Ok(conninfo) if self.of_table => {
                    let bounded = self.bounded(id, &plan.cluster, conninfo, place);
                    bounded.map_err(|fault| faults.push(fault)).ok()?
                }
                Ok(conninfo) => Arc::new(conninfo),
                Err(error) => {
                    let key = "connection_string";
                    faults.push(Fault::new(place.clone(), key, error.to_string()));
                    return None;
                }
            },
            (None, Some(default)) => {
                let names = self.names.get(name)?;
                let made = names.conninfo(id, plan, default.as_ref()?);
                made.map_err(|fault| faults.push(fault)).ok()?
            }
            (None, None) => {
                let message = "neither the tenant nor its cluster has a connection_string";
                faults.push(Fault::entry(place.clone(), message));
                return None;
            }
        };
        let allow_superuser = plan.allow_superuser;
        let reach = self.reach(id, plan, cluster);
        Some(Route { cluster: Arc::clone(cluster), conninfo, allow_superuser, reach })
    }

    pub(super) fn cluster(
        &self,
        name: &str,
        place: &Place,
        faults: &mut Vec<Fault>,
    ) -> Option<Arc<Cluster>> {
        let cluster = self.clusters.get(name);
        if cluster.is_none() {
            // A service lives on one cluster.
            let spreads = self.plan.spreads.keys().filter(|_| matches!(place, Place::Tenant(_)));
            let known = self.clusters.keys().copied().chain(spreads.map(String::as_str));
            faults.push(unknown(place, "cluster", name, known));
        }
        cluster.cloned()
    }

    /// What a schema tenant's login may reach; a fault in its schema is told with its context.
    fn reach(&self, id: &str, plan: &TenantPlan, cluster: &Cluster) -> Option<Arc<Reach>> {
        if plan.isolation != Isolation::Schema || cluster.allow_shared_login {
            return None;
        }
        let names = self.names.get(plan.cluster.as_str())?;
        let schema = names.schema(id, plan).ok()??;
        let (role, shared) = (plan.role.clone(), cluster.shared_schemas.clone());
        Some(Arc::new(Reach { schema, role, shared }))
    }

    pub(super) fn context(
        &self,
        id: &str,
        plan: &TenantPlan,
        place: &Place,
    ) -> Result<Context, Fault> {
        let cluster = self.plan.clusters.get(&plan.cluster);
        let setting = cluster.map_or(super::TENANT_SETTING_DEFAULT, |c| c.tenant_setting.as_str());
        if let Some(role) = plan.role.as_deref().filter(|role| is_reserved(role)) {
            let message = format!("role \"{role}\" is PostgreSQL's own");
            return Err(Fault::new(place.clone(), "role", message)
                .hint("Name a role that was made for the application, or leave the key out."));
        }
        let schema = match self.names.get(plan.cluster.as_str()) {
            Some(names) => names.schema(id, plan)?,
            None => plan.schema.clone(),
        };
        let words = ContextPlan {
            isolation: plan.isolation,
            tenant: id,
            tenant_setting: setting,
            role: plan.role.as_deref(),
            schema: schema.as_deref(),
        };
        Context::new(words).map_err(|error| {
            let message = error.to_string();
            match &error {
                ContextError::SchemaMissing => Fault::entry(place.clone(), message),
                ContextError::RoleNone => Fault::new(place.clone(), "role", message),
                ContextError::TooLong { what, .. }
                | ContextError::Empty { what }
                | ContextError::Nul { what } => match *what {
                    "role" => Fault::new(place.clone(), "role", message),
                    "schema" => Fault::new(place.clone(), "schema", message),
                    _ => Fault::entry(place.clone(), message),
                },
            }
        })
    }
}

/// What is wrong with a text that should be a token's line.
fn not_a_line(text: &str, fault: impl Fn(String) -> Fault) -> Fault {
    if text.starts_with(TOKEN_PREFIX) {
        return fault("this is a token, and its line belongs here".to_owned()).hint(
            "Whoever has read the file may use it: make a new one with \"tenantgate token new\" \
             and write the line that it prints.",
        );
    }
    fault("not a token's line".to_owned()).hint(
        "A line is <id>:sha256:<64 hex digits>, as \"tenantgate token new\" prints it; the token \
         itself never stands here.",
    )
}

fn tenant_id(name: &str, place: &Place, faults: &mut Vec<Fault>) -> Option<TenantId> {
    let id = TenantId::new(name);
    if id.is_none() {
        let message = format!("\"{}\" is not a tenant id", name.escape_debug());
        faults.push(Fault::entry(place.clone(), message).hint(NAME_RULE));
    }
    if name.eq_ignore_ascii_case("tenantgate") {
        let message = "\"tenantgate\" is the console's name, not a tenant's";
        faults.push(Fault::entry(place.clone(), message));
    }
    id
}

fn check_cluster(name: &str, plan: &ClusterPlan, folder: &Path, faults: &mut Vec<Fault>) {
    let place = Place::Cluster(name.to_owned());
    check_name(name, &place, faults);
    let cluster = &plan.cluster;
    if cluster.capacity == 0 || cluster.capacity > CAPACITY_MAX {
        let message = format!("capacity is {}, allowed: 1 to {CAPACITY_MAX}", cluster.capacity);
        let hint = "Stay below the cluster's max_connections, less what others need.";
        faults.push(Fault::new(place.clone(), "capacity", message).hint(hint));
    }
    let waits = [
        ("query_wait", cluster.query_wait),
        ("server_idle_timeout", cluster.server_idle_timeout),
        ("server_lifetime", cluster.server_lifetime),
        ("scrub_timeout", cluster.scrub_timeout),
        ("server_login_retry", cluster.server_login_retry),
    ];
    for (key, _) in waits.into_iter().filter(|(_, wait)| wait.is_zero()) {
        let message = format!("{key} is zero");
        faults.push(Fault::new(place.clone(), key, message).hint("Zero does not mean forever."));
    }
    let read = |text| Conninfo::read(text, folder);
    if let Some(Err(error)) = plan.connection_string.as_deref().map(read) {
        faults.push(Fault::new(place.clone(), "connection_string", error.to_string()));
    }
    if let Err(wrong) = Names::read(name, plan) {
        faults.extend(wrong);
    }
    if !is_custom_setting(&plan.tenant_setting) {
        let message = format!("\"{}\" is not a custom setting's name", plan.tenant_setting);
        let hint = "Two or more names with dots between them, such as app.tenant_id; those that \
                    start with \"tenantgate.\" are the gate's.";
        faults.push(Fault::new(place, "tenant_setting", message).hint(hint));
    }
}

/// Clusters and tiers follow the same rule as tenants: their names go to logs and metrics.
pub(super) fn check_name(name: &str, place: &Place, faults: &mut Vec<Fault>) {
    if TenantId::new(name).is_none() {
        let message = format!("\"{}\" is not a name", name.escape_debug());
        faults.push(Fault::entry(place.clone(), message).hint(NAME_RULE));
    }
}

/// A row tenant shares its login, so PostgreSQL itself cannot tell it from the others.
fn check_level(plan: &TenantPlan, route: Option<&Route>, place: &Place, faults: &mut Vec<Fault>) {
    let strict = route.is_some_and(|route| route.cluster.level == Level::Strict);
    if strict && plan.isolation == Isolation::Row {
        let message = "a row tenant cannot be on a cluster of level \"strict\"";
        let hint = "Row tenants share a login: \"sealed\" is as far as they get.";
        faults.push(Fault::new(place.clone(), "isolation", message).hint(hint));
    }
}

fn check_schema(plan: &TenantPlan, place: &Place, faults: &mut Vec<Fault>) {
    let Some(schema) = plan.schema.as_deref() else { return };
    // PostgreSQL expands $user in a search_path even between double quotes.
    if schema == "$user" || schema == "information_schema" || is_reserved(schema) {
        let message = format!("schema \"{schema}\" is PostgreSQL's own");
        faults.push(Fault::new(place.clone(), "schema", message));
    }
}

/// Names PostgreSQL keeps for itself, and `none` in any case, which stands for no role.
fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "none" || lower.starts_with("pg_")
}

/// PostgreSQL's rule for settings it does not know (guc.c, valid_custom_variable_name).
fn is_custom_setting(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let fits = name.len() <= NAME_BYTES_MAX && parts.len() >= 2;
    let own = parts.first().is_some_and(|first| first.eq_ignore_ascii_case("tenantgate"));
    fits && !own
        && parts.iter().all(|part| {
            let mut bytes = part.bytes();
            let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            first && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
        })
}

fn unknown<'name>(
    place: &Place,
    key: &'static str,
    name: &str,
    known: impl Iterator<Item = &'name str>,
) -> Fault {
    let known: Vec<&str> = known.collect();
    let hint = match (spelling::nearest(name, known.iter().copied()), known.len()) {
        (Some(nearest), _) => format!("Did you mean \"{nearest}\"?"),
        (None, 0) => format!("There is no [{key}s.NAME] at all."),
        (None, 1..=20) => format!("There are: {}.", known.join(", ")),
        (None, count) => format!("There are {count} others."),
    };
    let message = format!("{key} \"{}\" does not exist", name.escape_debug());
    Fault::new(place.clone(), key, message).hint(hint)
}
