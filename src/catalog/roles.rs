//! Roles of a tenant: each is the tenant once more, with a login that can become one role, or with
//! the tenant's own login and nothing written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::catalog::build::{Builder, check_name};
use crate::catalog::plan::{Fault, Place, RolePlan, TenantPlan};
use crate::catalog::{Route, Tenant};
use crate::isolation::Isolation;
use crate::server::{Conninfo, Reach};

/// Most roles a tenant has; people have to keep them apart.
const ROLES_MAX: usize = 32;

/// Gives a tenant the roles that it and, for row tenants, its cluster name.
pub(super) fn give(
    builder: &mut Builder<'_>,
    tenant: Tenant,
    plan: &TenantPlan,
) -> Result<Tenant, Vec<Fault>> {
    let cluster = builder.plan().clusters.get(&plan.cluster);
    let shared = cluster.filter(|_| plan.isolation == Isolation::Row);
    let mut words: BTreeMap<&str, (&RolePlan, Place)> = BTreeMap::new();
    for (name, role) in shared.iter().flat_map(|cluster| &cluster.roles) {
        let place = Place::ClusterRole(Box::new((plan.cluster.clone(), name.clone())));
        words.insert(name, (role, place));
    }
    for (name, role) in &plan.roles {
        let place = Place::TenantRole(Box::new((tenant.id.to_string(), name.clone())));
        words.insert(name, (role, place));
    }
    let own = Place::Tenant(tenant.id.to_string());
    let mut faults = Vec::new();
    let default_role = plan.default_role.as_ref();
    let default_role = default_role.or(shared.and_then(|cluster| cluster.default_role.as_ref()));
    if let Some(name) = default_role.filter(|name| !words.contains_key(name.as_str())) {
        let message = format!("default_role \"{}\" is none of its roles", name.escape_debug());
        faults.push(Fault::new(own.clone(), "default_role", message));
    }
    let reader = plan.read_only_role.as_ref();
    let reader = reader.or(shared.and_then(|cluster| cluster.read_only_role.as_ref()));
    if let Some(name) = reader {
        let found = words.get(name.as_str());
        let wrong = match found {
            None => Some("is none of its roles"),
            Some((role, _)) if !role.read_only => Some("is not read_only"),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            let message = format!("read_only_role \"{}\" {wrong}", name.escape_debug());
            faults.push(Fault::new(own.clone(), "read_only_role", message));
        }
    }
    if words.len() > ROLES_MAX {
        let message = format!("it has {} roles, more than {ROLES_MAX}", words.len());
        faults.push(Fault::new(own, "roles", message));
    }
    let mut roles: BTreeMap<Box<str>, Arc<Tenant>> = BTreeMap::new();
    for (name, (role, place)) in words {
        check_name(name, &place, &mut faults);
        match face(builder, &tenant, plan, (role, &place)) {
            Ok(face) => drop(roles.insert(name.into(), Arc::new(face))),
            Err(fault) => faults.push(fault),
        }
    }
    match faults.is_empty() {
        true => {
            let name = |role: Option<&String>| role.map(|it| it.as_str().into());
            let (default_role, read_only_role) = (name(default_role), name(reader));
            Ok(Tenant { roles, default_role, read_only_role, ..tenant })
        }
        false => Err(faults),
    }
}

/// The tenant as one role.
fn face(
    builder: &mut Builder<'_>,
    tenant: &Tenant,
    plan: &TenantPlan,
    (role, place): (&RolePlan, &Place),
) -> Result<Tenant, Fault> {
    let fault = |key, message: &str| Fault::new(place.clone(), key, message);
    let Some(text) = &role.connection_string else {
        if role.role.is_some() && role.role != plan.role {
            let hint = "A login can become one role only: give the role a connection_string with \
                        a login of its own.";
            let message = "the tenant's own login cannot become another role";
            return Err(fault("role", message).hint(hint));
        }
        let context = match role.read_only {
            true => Arc::new(tenant.context.without_writes()),
            false => Arc::clone(&tenant.context),
        };
        return Ok(tenant.copy(context, tenant.version));
    };
    let conninfo = builder.conninfo(text).map_err(|error| fault("connection_string", &error))?;
    if conninfo.dbname != tenant.route.conninfo.dbname {
        let message = "a role's connection_string leads to another database than the tenant's";
        return Err(fault("connection_string", message));
    }
    if conninfo.user == tenant.route.conninfo.user {
        let hint = "Leave connection_string out for the tenant's own login.";
        let message = "a role with a connection_string has a login of its own";
        return Err(fault("connection_string", message).hint(hint));
    }
    let words = TenantPlan { role: role.role.clone(), ..plan.clone() };
    let context = builder.context(tenant.id.as_str(), &words, place)?;
    let context = if role.read_only { context.without_writes() } else { context };
    let reach = tenant.route.reach.as_ref().map(|own| {
        let (schema, shared) = (own.schema.clone(), own.shared.clone());
        Arc::new(Reach { schema, role: role.role.clone(), shared })
    });
    let route = Route { conninfo, reach, ..tenant.route.clone() };
    let face = tenant.copy(Arc::new(context), tenant.version);
    Ok(Tenant { route, read_only_face: ArcSwapOption::empty(), ..face })
}

impl Builder<'_> {
    /// A connection string, read once however many tenants have it.
    pub(super) fn conninfo(&mut self, text: &str) -> Result<Arc<Conninfo>, String> {
        // What was read with the file holds for rows as well: no password changes in between.
        if let Some(known) = self.plan().read.get(text).or_else(|| self.read.get(text)) {
            return Ok(Arc::clone(known));
        }
        let conninfo = Conninfo::read(text, &self.plan().folder);
        let conninfo = conninfo.map_err(|error| error.to_string())?;
        let conninfo = Arc::new(conninfo.away_from(self.plan().hosts.own()));
        self.read.insert(text.to_owned(), Arc::clone(&conninfo));
        Ok(conninfo)
    }
}
