//! [`Service`]: a credential without a tenant of its own, for applications with one pool that serve
//! many tenants. Until such a session has chosen a tenant it has a login without rights.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::catalog::build::{Builder, check_name};
use crate::catalog::plan::{Fault, LimitsPlan, Place, TokenPlan};
use crate::catalog::{Pooling, Route, TIER_DEFAULT, Tenant, TenantId, TenantState};
use crate::isolation::{Context, Isolation};
use crate::server::Conninfo;

/// What a service may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The key in `[services.NAME]`.
    pub name: String,
    pub acts_for: ActsFor,
    /// It may choose a tenant for the whole session, not only for a transaction.
    pub session_wide: bool,
    /// It may choose tenants whose data is in another database than its own login's.
    pub across_databases: bool,
}

/// For whom a service may act without showing a token of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActsFor {
    Everybody,
    /// Ids; an empty list is nobody.
    Listed(Vec<String>),
}

impl ActsFor {
    /// Whether the tenant is meant.
    pub fn has(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Listed(ids) => ids.iter().any(|id| id == tenant.as_str()),
        }
    }
}

impl Service {
    /// Whether it may act for a tenant with this route at all, given its own.
    pub fn reaches(&self, own: &Tenant, tenant: &Tenant) -> bool {
        let place = |it: &Tenant| (it.route.cluster.name.clone(), it.route.conninfo.dbname.clone());
        self.across_databases || place(own) == place(tenant)
    }
}

/// A service's words.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    pub cluster: String,
    /// The login it has until it chooses a tenant.
    pub connection_string: String,
    pub tier: Option<String>,
    pub state: TenantState,
    pub tokens: Vec<TokenPlan>,
    pub limits: LimitsPlan,
    pub acts_for: ActsFor,
    pub session_wide: bool,
    pub across_databases: bool,
}

/// All services by name, each as what stands in a tenant's place until one is chosen.
pub type Services = BTreeMap<TenantId, Arc<Tenant>>;

/// Builds every service of the plan.
pub(super) fn build(builder: &mut Builder<'_>, faults: &mut Vec<Fault>) -> Services {
    let mut services = Services::new();
    for (name, plan) in &builder.plan().services {
        match service(builder, name, plan) {
            Ok(service) => drop(services.insert(service.id.clone(), Arc::new(service))),
            Err(wrong) => faults.extend(wrong),
        }
    }
    services
}

fn service(
    builder: &mut Builder<'_>,
    name: &str,
    plan: &ServicePlan,
) -> Result<Tenant, Vec<Fault>> {
    let place = Place::Service(name.to_owned());
    let mut faults = Vec::new();
    check_name(name, &place, &mut faults);
    let id = TenantId::of_service(name);
    builder.tokens(&id, &plan.tokens, &place);
    check_own(plan, &place, &mut faults);
    let tier = builder.tier(plan.tier.as_deref(), &place, &mut faults);
    if let ActsFor::Listed(ids) = &plan.acts_for {
        for (index, id) in ids.iter().enumerate() {
            // Who is in a table may come later; it is asked when the service chooses.
            let may_come = builder.plan().has_table && TenantId::new(id).is_some();
            if !builder.plan().tenants.contains_key(id) && !may_come {
                let message = format!("tenant \"{}\" does not exist", id.escape_debug());
                faults.push(Fault::new(place.clone(), "acts_for", message).element(index));
            }
        }
    }
    let cluster = builder.cluster(&plan.cluster, &place, &mut faults);
    let own = (&plan.limits, Place::ServiceLimits(name.to_owned()));
    faults.extend(builder.limits(own, (plan.tier.as_deref(), &*tier), cluster.as_deref()));
    let conninfo = match Conninfo::read(&plan.connection_string, &builder.plan().folder) {
        Ok(conninfo) => Some(Arc::new(conninfo.away_from(builder.plan().hosts.own()))),
        Err(error) => {
            faults.push(Fault::new(place.clone(), "connection_string", error.to_string()));
            None
        }
    };
    let (Some(cluster), Some(conninfo), true) = (cluster, conninfo, faults.is_empty()) else {
        return Err(faults);
    };
    let service = Service {
        name: name.to_owned(),
        acts_for: plan.acts_for.clone(),
        session_wide: plan.session_wide,
        across_databases: plan.across_databases,
    };
    Ok(Tenant {
        id,
        isolation: Isolation::Silo,
        state: plan.state,
        route: Route { cluster, conninfo, allow_superuser: false, reach: None },
        context: Arc::new(Context::of_service()),
        tier: plan.tier.clone().unwrap_or_else(|| TIER_DEFAULT.to_owned()),
        limits: plan.limits.over(&tier),
        pooling: Pooling::Transaction,
        prepare_threshold: None,
        report_only: plan.limits.reported(&tier),
        service: Some(Arc::new(service)),
        issuer: None,
        roles: BTreeMap::new(),
        default_role: None,
        read_only_role: None,
        read_only_face: ArcSwapOption::empty(),
        version: 1,
    })
}

/// What only tenants have.
fn check_own(plan: &ServicePlan, place: &Place, faults: &mut Vec<Fault>) {
    for (index, token) in plan.tokens.iter().enumerate() {
        if token.role.is_some() || token.read_only {
            let message = "a service's token has no role and writes what its tenants may";
            faults.push(Fault::new(place.clone(), "tokens", message).element(index));
        }
    }
    if matches!(plan.state, TenantState::ReadOnly | TenantState::Paused) {
        let message = "a service is \"active\" or \"disabled\"";
        let hint = "Its tenants are what can be read_only or paused.";
        faults.push(Fault::new(place.clone(), "state", message).hint(hint));
    }
}
