//! [`Target`]: a database that tenants of a catalog use, and the ways they get there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{Catalog, Cluster, Tenant};
use crate::isolation::Isolation;

/// Most tenants of a login that the probe binds: a leak that none of the first few shows is one of
/// single rows, which no sample finds.
const PROBED_TENANTS_MAX: usize = 8;

/// One database of one cluster.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) cluster: Arc<Cluster>,
    pub(super) dbname: String,
    /// One for each login and role; every tenant's own for schema and silo tenants.
    pub(super) routes: Vec<Route>,
}

/// A login, the role that is set after it, and some of the tenants who come that way.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) tenants: Vec<Arc<Tenant>>,
}

/// The ways to databases, and how many tenants of each there were: of many more than fit into
/// memory, those that are looked at.
#[derive(Debug, Default)]
pub struct Ways(HashMap<[String; 5], usize>);

impl Ways {
    /// Whether this tenant is one of the first that come its way.
    pub fn take(&mut self, tenant: &Arc<Tenant>) -> bool {
        let mut is_wanted = false;
        for face in Tenant::faces(tenant) {
            let ((cluster, dbname), (user, role, isolation)) = (place_of(face), way_of(face));
            // No role has an empty name.
            let way = [cluster, dbname, user, role.unwrap_or_default(), isolation];
            let count = self.0.entry(way.map(str::to_owned)).or_default();
            *count += 1;
            is_wanted |= *count <= PROBED_TENANTS_MAX;
        }
        is_wanted
    }
}

fn place_of(tenant: &Tenant) -> (&str, &str) {
    (tenant.route.cluster.name.as_str(), tenant.route.conninfo.dbname.as_str())
}

fn way_of(tenant: &Tenant) -> (&str, Option<&str>, &'static str) {
    let login = tenant.route.conninfo.user.as_str();
    (login, tenant.context.value("role"), tenant.isolation.name())
}

/// All databases of these clusters' tenants, in order of names.
pub(super) fn targets(catalog: &Catalog, wanted: impl Fn(&str) -> bool) -> Vec<Target> {
    let mut found: BTreeMap<(&str, &str), BTreeMap<_, Route>> = BTreeMap::new();
    let faces = catalog.tenants().flat_map(Tenant::faces);
    for tenant in faces.filter(|tenant| wanted(&tenant.route.cluster.name)) {
        let routes = found.entry(place_of(tenant)).or_default();
        let route = routes.entry(way_of(tenant)).or_insert_with(|| Route { tenants: Vec::new() });
        if route.tenants.len() < PROBED_TENANTS_MAX {
            route.tenants.push(Arc::clone(tenant));
        }
    }
    let target = |((_, dbname), routes): ((_, &str), BTreeMap<_, Route>)| {
        let routes: Vec<Route> = routes.into_values().collect();
        let cluster = Arc::clone(&routes.first()?.first()?.route.cluster);
        Some(Target { cluster, dbname: dbname.to_owned(), routes })
    };
    found.into_iter().filter_map(target).collect()
}

impl Target {
    /// How its tenants are kept apart.
    pub(super) fn isolations(&self) -> Vec<Isolation> {
        self.routes.iter().filter_map(|route| Some(route.first()?.isolation)).collect()
    }
}

impl Route {
    /// Whoever stands for all of them. There is always one.
    pub(super) fn first(&self) -> Option<&Arc<Tenant>> {
        self.tenants.first()
    }
}
