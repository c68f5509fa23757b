//! Checks across tenants: whether the plan really keeps them apart. What shares a database, a
//! login or a schema that it must not share is a fault, however well each entry reads alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::plan::{CatalogPlan, Fault, Place};
use crate::catalog::{Tenant, TenantId};
use crate::isolation::Isolation;
use crate::server::{Conninfo, Host};

type Tenants = BTreeMap<TenantId, Arc<Tenant>>;

/// Every fault between two tenants or clusters, in the order of ids.
pub(super) fn check(plan: &CatalogPlan, tenants: &Tenants) -> Vec<Fault> {
    let mut faults = case_twins(plan);
    faults.extend(cluster_of_each_place(plan, tenants));
    faults.extend(schema_logins(tenants));
    faults.extend(databases(plan, tenants));
    faults
}

/// `Acme` and `acme` would be told apart by the gate and confused by people.
fn case_twins(plan: &CatalogPlan) -> Vec<Fault> {
    let mut first: BTreeMap<String, &str> = BTreeMap::new();
    let mut faults = Vec::new();
    for id in plan.tenants.keys() {
        if let Some(twin) = first.insert(id.to_ascii_lowercase(), id) {
            let message = format!("tenant \"{id}\" differs from \"{twin}\" only in case");
            faults.push(Fault::entry(Place::Tenant(id.clone()), message));
        }
    }
    faults
}

/// A cluster is one PostgreSQL instance: the same host and port under two names would have two
/// capacities, and two silos on it could share a database unseen. Names are compared as written;
/// everything on this machine counts as one host.
fn cluster_of_each_place(plan: &CatalogPlan, tenants: &Tenants) -> Vec<Fault> {
    let mut owners: BTreeMap<(String, u16), &str> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut claim = |cluster, conninfo: &Conninfo, place: Place| {
        for host in &conninfo.hosts {
            let owner = *owners.entry(location(host)).or_insert(cluster);
            if owner != cluster {
                let message = format!("cluster \"{owner}\" is at the same host and port");
                let hint = "A cluster is one PostgreSQL instance with one capacity: give both \
                            the same cluster.";
                faults.push(Fault::new(place, "connection_string", message).hint(hint));
                return;
            }
        }
    };
    for (name, cluster) in &plan.clusters {
        let conninfo = cluster.connection_string.as_deref().map(Conninfo::parse);
        if let Some(Ok(conninfo)) = conninfo {
            claim(name.as_str(), &conninfo, Place::Cluster(name.clone()));
        }
    }
    for tenant in tenants.values().filter(|tenant| has_own_string(plan, tenant)) {
        let place = Place::Tenant(tenant.id.to_string());
        claim(tenant.route.cluster.name.as_str(), &tenant.route.conninfo, place);
    }
    for (tenant, role) in tenants.values().flat_map(|it| it.roles.values().map(move |r| (it, r))) {
        if role.route.conninfo != tenant.route.conninfo {
            let place = Place::Tenant(tenant.id.to_string());
            claim(tenant.route.cluster.name.as_str(), &role.route.conninfo, place);
        }
    }
    faults
}

/// A host and port as they are compared.
pub(super) fn location(host: &Host) -> (String, u16) {
    let name = match host {
        host if host.is_local() => "localhost".to_owned(),
        Host::Tcp { address: Some(address), .. } => address.to_canonical().to_string(),
        Host::Tcp { name, .. } => match name.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => name.trim_end_matches('.').to_ascii_lowercase(),
        },
        Host::Unix { folder, .. } => folder.display().to_string(),
    };
    (name, host.port())
}

/// A schema tenant is kept apart by what its login may do, so nobody else may have that login.
fn schema_logins(tenants: &Tenants) -> Vec<Fault> {
    let mut logins: BTreeMap<(&str, &str), Vec<&Tenant>> = BTreeMap::new();
    for tenant in tenants.values().flat_map(Tenant::faces) {
        let key = (tenant.route.cluster.name.as_str(), tenant.route.conninfo.user.as_str());
        logins.entry(key).or_default().push(tenant);
    }
    let mut faults = Vec::new();
    for ((_, login), sharers) in logins {
        let Some(schema) = sharers.iter().find(|tenant| tenant.isolation == Isolation::Schema)
        else {
            continue;
        };
        let allowed = |tenant: &&&Tenant| schema.may_share_login() && tenant.may_share_login();
        let others = sharers.iter().filter(|tenant| tenant.id != schema.id);
        for tenant in others.filter(|tenant| !allowed(tenant)) {
            let message = format!("login \"{login}\" is schema tenant \"{}\"'s", schema.id);
            faults.push(connection(tenant, message).hint(
                "A schema tenant needs a login of its own on its cluster: what the login may do \
                 is what keeps it apart (or name the risk: allow_shared_login).",
            ));
        }
    }
    faults
}

/// Who shares a database with whom.
fn databases(plan: &CatalogPlan, tenants: &Tenants) -> Vec<Fault> {
    let mut databases: BTreeMap<(&str, &str), Vec<&Tenant>> = BTreeMap::new();
    for tenant in tenants.values().flat_map(Tenant::faces) {
        let key = (tenant.route.cluster.name.as_str(), tenant.route.conninfo.dbname.as_str());
        databases.entry(key).or_default().push(tenant);
    }
    let mut faults = Vec::new();
    for ((cluster, dbname), sharers) in databases {
        let silo = sharers.iter().find(|tenant| tenant.isolation == Isolation::Silo);
        if let Some(silo) = silo {
            for tenant in sharers.iter().filter(|tenant| tenant.id != silo.id) {
                let message = format!(
                    "database \"{dbname}\" on cluster \"{cluster}\" is silo tenant \"{}\"'s",
                    silo.id
                );
                let hint = "A silo has its database to itself; on another PostgreSQL instance, \
                            make that a cluster of its own.";
                faults.push(connection(tenant, message).hint(hint));
            }
        }
        faults.extend(shared_schemas(&sharers));
        faults.extend(row_logins(plan, &sharers));
        faults.extend(one_role_each(&sharers));
    }
    faults
}

fn shared_schemas(sharers: &[&Tenant]) -> Vec<Fault> {
    let mut first: BTreeMap<&str, &Tenant> = BTreeMap::new();
    let mut faults = Vec::new();
    for tenant in sharers.iter().filter(|tenant| tenant.isolation == Isolation::Schema) {
        let Some(path) = tenant.context.value("search_path") else { continue };
        if let Some(other) = first.insert(path, tenant).filter(|other| other.id != tenant.id) {
            let message = format!("schema {path} is schema tenant \"{}\"'s", other.id);
            faults.push(Fault::new(Place::Tenant(tenant.id.to_string()), "schema", message));
        }
    }
    faults
}

/// Row tenants of one database share tables. With several logins it is the role that says what
/// each may do there; a login without one would bring rights that nobody wrote down here.
fn row_logins(plan: &CatalogPlan, sharers: &[&Tenant]) -> Vec<Fault> {
    let rows = sharers.iter().filter(|tenant| tenant.isolation == Isolation::Row);
    let rows: Vec<&Tenant> = rows.copied().collect();
    let logins: BTreeSet<&str> = rows.iter().map(|row| row.route.conninfo.user.as_str()).collect();
    if logins.len() < 2 {
        return Vec::new();
    }
    let bare = rows.iter().filter(|tenant| tenant.context.value("role").is_none());
    let own = bare.clone().filter(|tenant| has_own_string(plan, tenant)).count() > 0;
    let told = bare.filter(|tenant| !own || has_own_string(plan, tenant));
    let message = format!(
        "row tenants of one database have several logins ({}) and this one no role",
        logins.iter().copied().collect::<Vec<_>>().join(", ")
    );
    told.map(|tenant| {
        connection(tenant, message.clone())
            .hint("Give all of them the same login, or each of them a role.")
    })
    .collect()
}

/// A login is a member of one role that it can become. With two, SQL of a tenant that was given
/// one of them could SET ROLE to the other.
fn one_role_each(sharers: &[&Tenant]) -> Vec<Fault> {
    let mut first: BTreeMap<&str, (&str, &TenantId)> = BTreeMap::new();
    let mut faults = Vec::new();
    for tenant in sharers {
        let Some(role) = tenant.context.value("role") else { continue };
        let login = tenant.route.conninfo.user.as_str();
        let (other, owner) = *first.entry(login).or_insert((role, &tenant.id));
        if other != role {
            let message = format!("login \"{login}\" has role \"{other}\" at tenant \"{owner}\"");
            let hint = "A login can become one role only, or SQL could choose between them: give \
                        each role a login of its own.";
            faults
                .push(Fault::new(Place::Tenant(tenant.id.to_string()), "role", message).hint(hint));
        }
    }
    faults
}

fn has_own_string(plan: &CatalogPlan, tenant: &Tenant) -> bool {
    let words = plan.tenants.get(tenant.id.as_str());
    words.is_some_and(|words| words.connection_string.is_some())
}

fn connection(tenant: &Tenant, message: String) -> Fault {
    Fault::new(Place::Tenant(tenant.id.to_string()), "connection_string", message)
}
