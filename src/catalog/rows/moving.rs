//! A tenant on another route, before it is there: what the tables or the file would make of it,
//! held against all other tenants.

use std::sync::Arc;

use crate::catalog::build::Builder;
use crate::catalog::plan::TenantPlan;
use crate::catalog::rows::Change;
use crate::catalog::rows::claims::Claim;
use crate::catalog::{Catalog, Composer, Tenant, TenantState};
use crate::isolation::Isolation;

/// Most others that an error names.
const NAMED_MAX: usize = 5;

/// What a row says of its tenant's route.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct RoutePlan {
    pub isolation: Isolation,
    pub cluster: String,
    pub connection_string: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
}

/// A tenant as it is, and as it would be.
#[derive(Clone, Debug)]
pub struct Relocated {
    pub now: Arc<Tenant>,
    pub then: Arc<Tenant>,
}

impl RoutePlan {
    fn of(plan: &TenantPlan) -> Self {
        Self {
            isolation: plan.isolation,
            cluster: plan.cluster.clone(),
            connection_string: plan.connection_string.clone(),
            schema: plan.schema.clone(),
            role: plan.role.clone(),
        }
    }
}

impl Composer {
    /// A tenant of the tables as it is, as it would be on another route, and the route that its row
    /// has now.
    ///
    /// # Errors
    ///
    /// Why it cannot be moved there, for the operator.
    pub fn on_route(
        &mut self,
        id: &str,
        route: &RoutePlan,
    ) -> Result<(Relocated, RoutePlan), String> {
        if self.file.known(id).is_some() {
            return Err("the tenant stands in the settings file: change its route there, and \
                        leave out what follows its name here"
                .to_owned());
        }
        self.is_told()?;
        let row = self.rows.get(id);
        let (now, row) = self.catalog.known(id).cloned().zip(row).ok_or_else(|| {
            "the tenant's row is at fault, or gone: see SHOW CATALOG_FAULTS".to_owned()
        })?;
        let plan = row.plan.as_ref().map_err(|_| "the tenant's row is at fault".to_owned())?;
        let former = RoutePlan::of(plan);
        let RoutePlan { isolation, cluster, connection_string, schema, role } = route.clone();
        let words =
            TenantPlan { isolation, cluster, connection_string, schema, role, ..(**plan).clone() };
        let catalog = self.catalog.clone();
        let mut builder = Builder::over(&catalog.words, &catalog.clusters);
        let then = builder.tenant(id, &words).map_err(|faults| {
            let told: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            told.join("; ")
        })?;
        let then = Arc::new(then);
        let claim = self.stands(&now, &then)?;
        let heirs: Vec<String> = self
            .claims
            .heirs(&claim)
            .map(|id| id.escape_debug().to_string())
            .take(NAMED_MAX)
            .collect();
        if !heirs.is_empty() {
            let heirs = heirs.join(", ");
            return Err(format!(
                "other rows would come into force with what it leaves, and its data is still \
                 there: correct or delete them first: {heirs}"
            ));
        }
        Ok((Relocated { now, then }, former))
    }

    /// The route that the row of a tenant has who was looked up just now; none where there is no
    /// such row, or it is at fault.
    ///
    /// # Errors
    ///
    /// It is not known before all rows are held against each other.
    pub fn route_of(&self, id: &str) -> Result<Option<RoutePlan>, String> {
        self.is_told()?;
        let plan = self.rows.get(id).and_then(|row| row.plan.as_ref().ok());
        Ok(plan.map(|plan| RoutePlan::of(plan)))
    }

    /// The same for a tenant of the file, when that is read again. Nothing else of what tenants and
    /// services are may change with it, be they of the file or of the tables: nobody else is held
    /// back meanwhile.
    ///
    /// # Errors
    ///
    /// Why it cannot be moved there, for the operator.
    pub fn in_file(&mut self, id: &str, file: &Catalog) -> Result<Relocated, String> {
        let Some(now) = self.file.known(id).cloned() else {
            return Err("the tenant stands in the catalog's tables: say TO what to move it".into());
        };
        let then = file.known(id).cloned().ok_or("the settings file has the tenant no more")?;
        self.is_told()?;
        let changed = match self.is_partial {
            true => self.changed_unseen(file, &now)?,
            false => Vec::new(),
        };
        let changed = if changed.is_empty() { self.changed_by(file, &now) } else { changed };
        if !changed.is_empty() {
            let changed = changed.join(", ");
            return Err(format!("others change with the settings file as well: {changed}"));
        }
        self.stands(&now, &then)?;
        Ok(Relocated { now, then })
    }

    /// That it is known what all rows take up.
    fn is_told(&self) -> Result<(), String> {
        match self.is_partial && self.position.is_none() {
            false => Ok(()),
            true => {
                Err("the catalog's tables are being read as a whole: try again later".to_owned())
            }
        }
    }

    /// The same for rows that are not known, of which only is known what they take up: nothing that
    /// they are built on may be another, and nobody's place.
    ///
    /// # Errors
    ///
    /// They are built on something else.
    fn changed_unseen(&mut self, file: &Catalog, now: &Arc<Tenant>) -> Result<Vec<String>, String> {
        if self.file.words.grounds() != file.words.grounds() {
            let what = "clusters, tiers, spreads or hosts change with the settings file as well, \
                        and so may tenants of the tables";
            return Err(what.to_owned());
        }
        let left = self.claims.of(now);
        let mut changed: Vec<String> =
            self.claims.heirs(&left).map(str::to_owned).take(NAMED_MAX).collect();
        for tenant in file.tenants().filter(|it| self.file.known(it.id.as_str()).is_none()) {
            let claim = self.claims.of(tenant);
            let is_new = self.claims.standing(tenant.id.as_str()).is_none();
            if !is_new || self.claims.is_free_without(&claim, &left).is_err() {
                changed.push(tenant.id.to_string());
            }
        }
        changed.truncate(NAMED_MAX);
        Ok(changed)
    }

    /// Who else would be another, gone, or there if this were the file. Five at most. A tenant that
    /// the file alone has new takes nothing from anybody.
    fn changed_by(&mut self, file: &Catalog, now: &Tenant) -> Vec<String> {
        let mut composer = Self::new(file.clone());
        // Lent, since there may be many.
        let rows = std::mem::take(&mut self.rows);
        composer.apply(rows.into_values().map(Change::Put).collect());
        self.rows = std::mem::take(&mut composer.rows);
        let (catalog, next) = (&self.catalog, &composer.catalog);
        let is_other = |it: &Tenant, next: Option<&Arc<Tenant>>| {
            it.id != now.id && !next.is_some_and(|next| next.same_facts(it))
        };
        let tenants = catalog.tenants().filter(|it| is_other(it, next.known(it.id.as_str())));
        let services = catalog.services().filter(|it| is_other(it, next.service(it.id.as_str())));
        let is_new = |it: &&Arc<Tenant>| {
            let id = it.id.as_str();
            catalog.known(id).is_none() && file.known(id).is_none()
        };
        let new = next.tenants().filter(is_new);
        let changed = tenants.chain(services).chain(new);
        changed.map(|it| it.id.to_string()).take(NAMED_MAX).collect()
    }

    /// Whether a tenant can take another's place: that it goes somewhere else, that it may be used
    /// there, and that nobody has what it would have. Gives back what it leaves.
    fn stands(&mut self, now: &Arc<Tenant>, then: &Arc<Tenant>) -> Result<Claim, String> {
        if [now, then].iter().any(|it| it.state == TenantState::Disabled) {
            return Err("the tenant is disabled".to_owned());
        }
        if now.is_routed_as(then) {
            return Err("the tenant is on this route already".to_owned());
        }
        let (left, wanted) = (self.claims.of(now), self.claims.of(then));
        let checked = self.claims.is_free_without(&wanted, &left);
        checked.map(|()| left).map_err(|fault| fault.message)
    }
}

impl Tenant {
    /// Whether it and its roles lead to the same servers, and are bound there in the same way.
    pub fn is_routed_as(&self, other: &Self) -> bool {
        let same = |one: &Self, other: &Self| {
            one.isolation == other.isolation
                && one.route == other.route
                && one.context == other.context
        };
        same(self, other)
            && self.roles.len() == other.roles.len()
            && self
                .roles
                .iter()
                .zip(&other.roles)
                .all(|((name, one), (other_name, other))| name == other_name && same(one, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::plan::RolePlan;
    use crate::catalog::tests::{plan, tenant};
    use crate::catalog::{Face, Holds, Scope};

    fn reads_by(state: TenantState, reader: &str) -> Result<Catalog, Vec<String>> {
        let role = |user: &str, read_only: bool| RolePlan {
            connection_string: Some(format!("host=127.0.0.1 user={user} dbname=app")),
            role: Some(user.to_uppercase()),
            read_only,
        };
        let roles = [("editor", role("e", false)), ("viewer", role("v", true))];
        let roles = roles.into_iter().chain([("other", role("o", false))]);
        let acme = TenantPlan {
            state,
            roles: roles.map(|(name, role)| (name.to_owned(), role)).collect(),
            default_role: Some("editor".to_owned()),
            read_only_role: Some(reader.to_owned()),
            ..tenant(Isolation::Silo)
        };
        let plan = plan([("acme", acme)]);
        let told = |faults: Vec<crate::catalog::Fault>| {
            faults.into_iter().map(|fault| fault.message).collect()
        };
        Catalog::build(&plan).map_err(told)
    }

    #[test]
    fn the_read_only_role_takes_the_default_ones_place_and_no_other() {
        let user = |state, role: Option<&str>, holds: &Holds| {
            let catalog = reads_by(state, "viewer").unwrap();
            let face = Face { role: role.map(Box::from), read_only: false };
            let seen = catalog.known("acme").unwrap().seen_under(&face, holds).unwrap();
            (seen.route.conninfo.user.clone(), seen.is_read_only())
        };
        let mut said = Holds::default();
        said.read_only.add(&Scope::Tenant("acme".to_owned()));
        let (free, said) = (&Holds::default(), &said);
        for (state, holds) in [(TenantState::ReadOnly, free), (TenantState::Active, said)] {
            assert_eq!(user(state, None, holds), ("v".to_owned(), true));
            assert_eq!(user(state, Some("editor"), holds), ("v".to_owned(), true));
            // It would get more by it than it has.
            assert_eq!(user(state, Some("other"), holds), ("o".to_owned(), true));
        }
        assert_eq!(user(TenantState::Active, None, free), ("e".to_owned(), false));
        assert_eq!(user(TenantState::Paused, None, free), ("e".to_owned(), false));
        for (reader, why) in [("editor", "is not read_only"), ("lost", "is none of its roles")] {
            let faults = reads_by(TenantState::Active, reader).err().unwrap();
            assert!(faults.len() == 1 && faults[0].contains(why), "{faults:?}");
        }
    }
}
