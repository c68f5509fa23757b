//! What the console's targets mean: tenants and databases of the catalog, by name.

use std::collections::{BTreeSet, HashMap};

use crate::catalog::{Catalog, Composer, Database, Key, Scope, database_of};
use crate::console::{Act, Fault, Target};
use crate::gate::Common;

/// The names that databases have in the console.
#[derive(Debug, Default)]
pub struct Names<'all>(HashMap<&'all str, u32>);

impl<'all> Names<'all> {
    /// Of these databases. Costs as much as there are, once for all of them.
    pub fn of(all: &'all BTreeSet<Database>) -> Self {
        let mut names = HashMap::new();
        all.iter().for_each(|(_, name)| *names.entry(name.as_str()).or_default() += 1);
        Self(names)
    }

    /// The name of one: with its cluster behind it if others have one of it.
    pub fn of_database(&self, database: &Database) -> String {
        let (cluster, name) = database;
        match self.0.get(name.as_str()) {
            None | Some(0 | 1) => name.clone(),
            Some(_) => format!("{name}@{cluster}"),
        }
    }
}

/// Every database that a tenant's route leads to.
pub fn databases(catalog: &Catalog) -> BTreeSet<Database> {
    catalog.tenants().map(|tenant| database_of(tenant)).collect()
}

/// Has the tenant looked up that an order may mean, so that what is known of it counts. Whoever is
/// to be stopped is stopped without, and nobody waits for an answer that cannot come.
pub async fn look_up(act: &Act, common: &Common) {
    let catalog = common.catalog.load();
    let Some(name) = asked(act, &common.composer.lock()) else { return };
    if let Err(error) = catalog.with(&[Key::Tenant(name.clone())]).await {
        tracing::warn!(%error, "the console's order may mean a tenant that is not known");
    }
}

/// The name that must be looked up to know what an order means.
fn asked<'act>(act: &'act Act, all: &Composer) -> Option<&'act String> {
    let name = match act {
        Act::Budget(order) => &order.tenant,
        Act::Pause(target)
        | Act::Resume(target)
        | Act::Kill(target)
        | Act::Reconnect(target)
        | Act::ReadOnly(target)
        | Act::ReadWrite(target)
        | Act::Enable(target)
        | Act::Disable(target) => match target {
            Target::Named(name) | Target::Tenant(name) => name,
            Target::All | Target::Database(_) => return None,
        },
        // A move looks for its tenant itself.
        Act::Move(_) | Act::Reload | Act::KillClient(_) | Act::Drain | Act::Shutdown(_) => {
            return None;
        }
    };
    let needs = match act {
        Act::Pause(target) | Act::Kill(target) | Act::Disable(target) => {
            // One name may be a tenant's and its database's.
            matches!(target, Target::Named(name) if !all.databases(name).is_empty())
        }
        _ => true,
    };
    (all.is_partial() && all.position().is_some() && needs).then_some(name)
}

/// Finds what a target means, of all tenants there are.
pub fn resolve(target: &Target, all: &Composer) -> Result<Scope, Fault> {
    let (name, tenant, database) = match target {
        Target::All => return Ok(Scope::All),
        Target::Named(name) => (name, true, true),
        Target::Tenant(name) => (name, true, false),
        Target::Database(name) => (name, false, true),
    };
    let databases = if database { all.databases(name) } else { Vec::new() };
    match (tenant && all.has(name), databases.is_empty()) {
        (false, true) => {
            let other = match target {
                Target::Tenant(name) => !all.databases(name).is_empty(),
                Target::Database(name) => all.has(name),
                Target::All | Target::Named(_) => false,
            };
            Err(Fault::UnknownTarget { target: target.clone(), other })
        }
        (false, false) => Ok(Scope::Databases(databases)),
        (true, true) => Ok(Scope::Tenant(name.clone())),
        (true, false) => {
            // A silo's database often has its tenant's name, and then both mean the same.
            let catalog = all.catalog();
            let known = catalog.known(name);
            let same = known.is_some_and(|it| databases == [database_of(it)])
                && known.is_some_and(|it| !all.is_shared(&database_of(it), it));
            match same {
                true => Ok(Scope::Tenant(name.clone())),
                false => Err(Fault::AmbiguousTarget { name: name.clone() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::tests::{build, plan, row, silo};
    use crate::catalog::{Live, Lookups};

    #[test]
    fn nobody_is_looked_up_who_is_to_be_stopped_or_cannot_be() {
        let lookups = Lookups::new(Arc::new(Live::new(Catalog::default())), 1);
        let mut all = Composer::with_lookups(build(&plan([])), Some(Arc::new(lookups)));
        all.apply(vec![row("a", 1, silo("a")), row("b", 2, silo("b"))]);
        all.stand_at(Some(1));
        let named = |name: &str| Target::Named(name.to_owned());
        let tenant = || Target::Tenant("a".to_owned());
        let stops: [fn(Target) -> Act; 3] = [Act::Pause, Act::Kill, Act::Disable];
        for stop in stops {
            assert_eq!(asked(&stop(tenant()), &all), None);
            assert_eq!(asked(&stop(named("x")), &all), None);
            assert_eq!(asked(&stop(named("b")), &all).unwrap(), "b", "is the database its own?");
        }
        let others: [fn(Target) -> Act; 3] = [Act::Resume, Act::Enable, Act::ReadOnly];
        for other in others {
            assert_eq!(asked(&other(tenant()), &all).unwrap(), "a");
        }
        all.stand_at(None);
        for act in stops.into_iter().chain(others) {
            assert_eq!(asked(&act(named("b")), &all), None, "nobody could answer");
        }
    }

    #[test]
    fn only_databases_of_the_same_name_have_their_cluster_with_it() {
        let database = |cluster: &str, name: &str| (cluster.to_owned(), name.to_owned());
        let all = [database("a", "app"), database("b", "app"), database("b", "acme")].into();
        let names = Names::of(&all);
        let named: Vec<String> = all.iter().map(|it| names.of_database(it)).collect();
        assert_eq!(named, ["app@a", "acme", "app@b"]);
        // One that has left the catalog.
        assert_eq!(names.of_database(&database("c", "gone")), "gone");
    }
}
