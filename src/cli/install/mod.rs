//! `tenantgate install`: what a cluster needs for its row tenants at the level the settings name,
//! as SQL for psql or applied over a superuser's connection; and how it is taken away again.

mod apply;
mod own;
mod removal;
mod standing;
mod step;
mod steps;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{Write as _, stderr};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::{Failure, File, print, tables as rows, token};
use crate::catalog::{Catalog, Tenant, TenantId};
use crate::config::Config;
use crate::gate::Sample;
use crate::isolation::{Isolation, Level, Seal, StoredKey, quote};
use crate::server::Conninfo;
use crate::spelling;
pub(super) use apply::{connect, lost};
use step::Step;
pub(super) use tables::{TablesCommand, no_table};

/// The app role of tenants that name none.
const APP_ROLE_DEFAULT: &str = "app_rw";

#[derive(Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["print", "admin"]))]
pub(super) struct InstallCommand {
    #[command(flatten)]
    file: File,
    /// The cluster, as in [clusters.NAME]
    #[arg(long)]
    cluster: String,
    /// Only what this tenant's database and login need; the one way for a schema tenant
    #[arg(long, value_name = "ID", value_parser = token::tenant_id)]
    tenant: Option<TenantId>,
    /// Print the SQL for psql; nothing is run
    #[arg(long)]
    print: bool,
    /// Run it over this connection, a superuser's
    #[arg(long, value_name = "CONNINFO", env = "TENANTGATE_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// Take everything away again; roles and logins stay
    #[arg(long)]
    uninstall: bool,
    /// Do so without asking
    #[arg(long, requires = "uninstall")]
    yes: bool,
}

/// One database, and who logs in there.
pub(super) struct Place {
    dbname: String,
    logins: Vec<Pair>,
    /// Logins of services, which may connect and nothing else.
    services: Vec<String>,
    level: Level,
    tenant_setting: String,
    /// What the database must know of every key; none without a key file.
    keys: Vec<StoredKey>,
    /// What the gate signs with there.
    seal: Option<Seal>,
    /// Whether a tenant of it names no role, and so has no rights.
    bare: bool,
}

/// A login, and the role its tenants act as.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    login: String,
    role: String,
}

impl Pair {
    fn of(tenant: &Tenant) -> Self {
        let role = tenant.context.value("role").unwrap_or(APP_ROLE_DEFAULT);
        Self { login: tenant.route.conninfo.user.clone(), role: role.to_owned() }
    }
}

/// Whether a tenant names no role, and so has no rights.
fn is_bare(tenant: &Tenant) -> bool {
    tenant.context.value("role").is_none()
}

impl Place {
    /// Logins and roles.
    fn roles(&self) -> impl Iterator<Item = &str> {
        self.logins.iter().flat_map(|pair| [pair.login.as_str(), pair.role.as_str()])
    }
}

/// Does what the command line says.
pub(super) fn run(command: &InstallCommand) -> Result<(), Failure> {
    let config = command.file.load()?;
    let config = with_tables(config, &command.cluster, command.tenant.as_ref())?;
    if let Some(tenant) = own::find(&config, &command.cluster, command.tenant.as_ref()) {
        return run_for(command, tenant);
    }
    let places = places(&config, &command.cluster, command.tenant.as_ref())?;
    if command.print {
        return print(&sql(&command.cluster, &places, command.uninstall));
    }
    if command.uninstall && !command.yes {
        let message = "nothing was done: add --yes to take it away, or --print to see what that is";
        return Err(Failure::Usage(message.to_owned()));
    }
    let admin = admin(command.admin.as_deref().unwrap_or_default())?;
    runtime()?.block_on(apply::apply(&admin, &places, command.uninstall))
}

/// The settings with those of the tables' tenants that make a difference: one for each login and
/// role of row tenants in a database, or the one that is named.
fn with_tables(config: Config, cluster: &str, only: Option<&TenantId>) -> Result<Config, Failure> {
    let mut known = BTreeSet::new();
    let keep = |tenant: &Arc<Tenant>| {
        let is_one = match only {
            Some(id) => tenant.id == *id,
            None => tenant.isolation == Isolation::Row,
        };
        let way = || (tenant.route.conninfo.dbname.clone(), Pair::of(tenant), is_bare(tenant));
        tenant.route.cluster.name == cluster && is_one && known.insert(way())
    };
    let Sample { catalog, faulty } = rows::sample(&config, "install", keep)?;
    if faulty > 0 {
        let text = format!("{faulty} rows of the tables are at fault and not prepared for");
        // With nobody left to read it there is nothing to be done.
        let _ = writeln!(stderr(), "install: {text}: tenantgate catalog check names them");
    }
    Ok(Config { catalog: Catalog::clone(&catalog), ..config })
}

/// The same for a schema tenant.
fn run_for(command: &InstallCommand, tenant: &Tenant) -> Result<(), Failure> {
    if command.uninstall {
        let message = "a schema tenant's login and schema hold its data: DROP them yourself";
        return Err(Failure::Usage(message.to_owned()));
    }
    if command.print {
        return print(&own::sql(tenant)?);
    }
    let admin = admin(command.admin.as_deref().unwrap_or_default())?;
    runtime()?.block_on(own::apply(&admin, tenant))
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(anyhow::Error::from)?)
}

fn steps_of(place: &Place, uninstall: bool) -> Vec<Step> {
    if uninstall { removal::steps(place) } else { steps::steps(place) }
}

pub(super) fn admin(text: &str) -> Result<Conninfo, Failure> {
    let conninfo = Conninfo::read(text, Path::new(""));
    conninfo.map_err(|error| Failure::Usage(format!("--admin: {error}")))
}

/// The databases of a cluster that row tenants use.
pub(super) fn places(
    config: &Config,
    cluster: &str,
    only: Option<&TenantId>,
) -> Result<Vec<Place>, Failure> {
    let known = || config.catalog.clusters().map(|cluster| cluster.name.as_str());
    if !known().any(|name| name == cluster) {
        let meant = spelling::nearest(cluster, known());
        let meant = meant.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
        return Err(Failure::Usage(format!("there is no [clusters.{cluster}]{meant}")));
    }
    let mut places: Vec<Place> = Vec::new();
    for tenant in config.catalog.tenants() {
        let here = tenant.route.cluster.name == cluster && tenant.isolation == Isolation::Row;
        if here && only.is_none_or(|id| *id == tenant.id) {
            add(&mut places, tenant);
        }
    }
    if places.is_empty() {
        let message = match only {
            None => format!(
                "cluster \"{cluster}\" has no row tenant, so there is nothing to do; \
                 schema tenants' logins are made with --tenant ID"
            ),
            Some(id) => {
                format!("there is no row or schema tenant \"{id}\" on cluster \"{cluster}\"")
            }
        };
        return Err(Failure::Usage(message));
    }
    for service in config.catalog.services().filter(|it| it.route.cluster.name == cluster) {
        let conninfo = &service.route.conninfo;
        let place = places.iter_mut().find(|place| place.dbname == conninfo.dbname);
        if let Some(place) = place.filter(|place| !place.services.contains(&conninfo.user)) {
            place.services.push(conninfo.user.clone());
        }
    }
    // Comments and the bodies of DO blocks are not quoted, so names must not be able to end them.
    let plain = |name: &str| !name.contains('$') && !name.chars().any(char::is_control);
    let services = places.iter().flat_map(|place| &place.services);
    let services_are_plain = { services }.all(|login| plain(login));
    let places_are = |place: &Place| plain(&place.dbname) && place.roles().all(plain);
    if !services_are_plain || !places.iter().all(places_are) {
        let message = "a name has control characters or a $ in it, which this SQL cannot carry";
        return Err(Failure::Usage(message.to_owned()));
    }
    Ok(places)
}

fn add(places: &mut Vec<Place>, tenant: &Tenant) {
    let (conninfo, cluster) = (&tenant.route.conninfo, &tenant.route.cluster);
    let (pair, is_bare) = (Pair::of(tenant), is_bare(tenant));
    if let Some(place) = places.iter_mut().find(|place| place.dbname == conninfo.dbname) {
        place.bare |= is_bare;
        if !place.logins.contains(&pair) {
            place.logins.push(pair);
            place.logins.sort();
        }
        return;
    }
    let keys = cluster.seal_keys.as_ref();
    places.push(Place {
        dbname: conninfo.dbname.clone(),
        logins: vec![pair],
        services: Vec::new(),
        level: cluster.level,
        tenant_setting: cluster.tenant_setting.clone(),
        keys: keys.map(|keys| keys.stored(&conninfo.dbname)).unwrap_or_default(),
        seal: keys.and_then(|keys| keys.seal(&conninfo.dbname)),
        bare: is_bare,
    });
}

/// What psql is fed with.
pub(super) fn sql(cluster: &str, places: &[Place], uninstall: bool) -> String {
    let purpose = match uninstall {
        true => "Takes away what tenantgate install has made, for",
        false => "Prepares for row tenants",
    };
    let mut sql = format!(
        "-- {purpose} cluster {cluster}. Run it with psql as a superuser. Works on PostgreSQL 15\n\
         -- to 18, and may be run again.\n"
    );
    // Writing to a String cannot fail.
    if !uninstall && places.iter().any(|place| !place.keys.is_empty()) {
        let _ = writeln!(sql, "-- It holds keys: keep it as you keep the key file.");
    }
    let _ = writeln!(sql, "\\set ON_ERROR_STOP on");
    for place in places {
        let dbname = quote::identifier(&place.dbname);
        let level = place.level.name();
        let _ = writeln!(sql, "\n-- ---- database {dbname}, level {level}\n\\connect {dbname}");
        let _ = writeln!(sql, "SET search_path TO pg_catalog;");
        if place.bare {
            let _ = writeln!(sql, "-- {}", bare());
        }
        for step in steps_of(place, uninstall) {
            step.print(&mut sql);
        }
    }
    sql
}

/// What tenants without a role are told.
fn bare() -> String {
    format!(
        "Tenants here name no role. Add role = \"{APP_ROLE_DEFAULT}\": without it they have \
         none of its rights."
    )
}
