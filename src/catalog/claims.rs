//! [`Claims`]: what tenants take up that others must not have, by key, so that a row can be held
//! against all others without looking at them. The rules are those of `apart.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::catalog::plan::{Fault, Place};
use crate::catalog::{Tenant, apart};
use crate::isolation::Isolation;

/// Something that only equals may have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Thing {
    /// An id in small letters.
    Id(String),
    /// A host and port: one cluster.
    Instance(String, u16),
    /// A login on a cluster.
    Login(String, String),
    /// A database on a cluster.
    Database(String, String),
    /// A schema tenant's path in a database.
    Path(String, String, String),
    /// A login in a database: one role.
    Role(String, String, String),
}

/// As what a tenant has a thing. Two tenants can have it if they say the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    /// For itself.
    Own(String),
    /// With all others that say so.
    Shared,
    /// With others that are kept apart by their path alone.
    SharedByPath,
    Named(String),
}

/// A row tenant's login in a database, and whether it has no role there.
type RowLogin = ((String, String), String, bool);

/// What all tenants have.
#[derive(Debug, Default)]
pub(super) struct Claims {
    things: HashMap<Thing, (As, usize)>,
    /// Row tenants' logins by database, with and without a role.
    rows: HashMap<(String, String), RowLogins>,
}

#[derive(Debug, Default)]
struct RowLogins {
    with_role: BTreeMap<String, usize>,
    bare: BTreeMap<String, usize>,
}

/// What one tenant takes up.
pub(super) struct Claim {
    things: BTreeSet<(Thing, As)>,
    rows: BTreeSet<RowLogin>,
}

impl Claim {
    /// Everything that this tenant and its roles take up.
    pub fn of(tenant: &Arc<Tenant>) -> Self {
        let own = || As::Own(tenant.id.to_string());
        let mut claim = Self { things: BTreeSet::new(), rows: BTreeSet::new() };
        let twin = Thing::Id(tenant.id.as_str().to_ascii_lowercase());
        claim.things.insert((twin, own()));
        for face in tenant.faces() {
            let cluster = &face.route.cluster.name;
            let (dbname, user) = (&face.route.conninfo.dbname, &face.route.conninfo.user);
            for host in &face.route.conninfo.hosts {
                let (name, port) = apart::location(host);
                claim.things.insert((Thing::Instance(name, port), As::Named(cluster.clone())));
            }
            let how = match (face.isolation, face.may_share_login()) {
                (Isolation::Schema, false) => own(),
                (Isolation::Schema, true) => As::SharedByPath,
                _ => As::Shared,
            };
            claim.things.insert((Thing::Login(cluster.clone(), user.clone()), how));
            let database = (cluster.clone(), dbname.clone());
            let how = if face.isolation == Isolation::Silo { own() } else { As::Shared };
            claim.things.insert((Thing::Database(cluster.clone(), dbname.clone()), how));
            if let (Isolation::Schema, Some(path)) =
                (face.isolation, face.context.value("search_path"))
            {
                let path = Thing::Path(cluster.clone(), dbname.clone(), path.to_owned());
                claim.things.insert((path, own()));
            }
            let role = face.context.value("role");
            if let Some(role) = role {
                let login = Thing::Role(cluster.clone(), dbname.clone(), user.clone());
                claim.things.insert((login, As::Named(role.to_owned())));
            }
            if face.isolation == Isolation::Row {
                claim.rows.insert((database, user.clone(), role.is_none()));
            }
        }
        claim
    }
}

impl Claims {
    /// Whether a tenant can stand beside all who have claims. What it is told is the first fault.
    pub fn check(&self, tenant: &Tenant, claim: &Claim) -> Result<(), Fault> {
        for (thing, how) in &claim.things {
            if let Some((theirs, _)) = self.things.get(thing).filter(|(theirs, _)| theirs != how) {
                return Err(conflict(tenant, thing, theirs));
            }
        }
        for (database, login, is_bare) in &claim.rows {
            let Some(there) = self.rows.get(database) else { continue };
            let other = |logins: &BTreeMap<String, usize>| logins.keys().any(|it| it != login);
            if other(&there.bare) || (*is_bare && other(&there.with_role)) {
                let message = "row tenants of one database have several logins and no role each";
                let hint = "Give all of them the same login, or each of them a role.";
                let place = Place::Tenant(tenant.id.to_string());
                return Err(Fault::new(place, "connection_string", message).hint(hint));
            }
        }
        Ok(())
    }

    /// Takes a tenant's claims in.
    pub fn take(&mut self, claim: Claim) {
        for (thing, how) in claim.things {
            self.things.entry(thing).or_insert((how, 0)).1 += 1;
        }
        for (database, login, is_bare) in claim.rows {
            let there = self.rows.entry(database).or_default();
            let logins = if is_bare { &mut there.bare } else { &mut there.with_role };
            *logins.entry(login).or_default() += 1;
        }
    }

    /// Gives a tenant's claims back.
    pub fn release(&mut self, claim: Claim) {
        for (thing, _) in claim.things {
            if let Some((_, count)) = self.things.get_mut(&thing) {
                *count -= 1;
                if *count == 0 {
                    self.things.remove(&thing);
                }
            }
        }
        for (database, login, is_bare) in claim.rows {
            let Some(there) = self.rows.get_mut(&database) else { continue };
            let logins = if is_bare { &mut there.bare } else { &mut there.with_role };
            if let Some(count) = logins.get_mut(&login) {
                *count -= 1;
                if *count == 0 {
                    logins.remove(&login);
                }
            }
            if there.bare.is_empty() && there.with_role.is_empty() {
                self.rows.remove(&database);
            }
        }
    }
}

fn conflict(tenant: &Tenant, thing: &Thing, theirs: &As) -> Fault {
    let whose = match theirs {
        As::Own(id) => format!("tenant \"{id}\"'s"),
        As::Shared | As::SharedByPath => "other tenants'".to_owned(),
        As::Named(name) => format!("\"{}\"", name.escape_debug()),
    };
    let place = Place::Tenant(tenant.id.to_string());
    let fault = |key, message: String, hint: &str| Fault::new(place, key, message).hint(hint);
    match thing {
        Thing::Id(_) => {
            let message = format!("its id differs only in case from {whose}");
            fault("id", message, "People would take one for the other.")
        }
        Thing::Instance(..) => fault(
            "connection_string",
            format!("cluster {whose} is at the same host and port"),
            "A cluster is one PostgreSQL instance with one capacity: give both the same cluster.",
        ),
        Thing::Login(_, login) => fault(
            "connection_string",
            format!("login \"{}\" is {whose}", login.escape_debug()),
            "A schema tenant needs a login of its own on its cluster.",
        ),
        Thing::Database(cluster, dbname) => fault(
            "connection_string",
            format!("database \"{}\" on cluster \"{cluster}\" is {whose}", dbname.escape_debug()),
            "A silo has its database to itself.",
        ),
        Thing::Path(_, _, path) => fault(
            "schema",
            format!("schema {} is {whose}", path.escape_debug()),
            "A schema belongs to one tenant.",
        ),
        Thing::Role(_, _, login) => fault(
            "role",
            format!("login \"{}\" has role {whose} in this database", login.escape_debug()),
            "A login can become one role only: give each role a login of its own.",
        ),
    }
}
