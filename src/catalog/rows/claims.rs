//! [`Claims`]: every tenant with its place in the order, and what it takes up that others must not
//! have, so that a row can be held against all others without looking at them. The rules are those
//! of `apart.rs`. A million tenants stand in here, so what they have is kept as hashes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use crate::catalog::{RowFault, Tenant, apart};
use crate::isolation::Isolation;
use crate::server::Conninfo;

/// Something that only equals may have in common, or as what it is had, by its hash. The key is the
/// process's own, so that nobody can think up two that meet.
pub(super) type Print = u64;

/// What kind of thing it is: the lowest bits of its print.
#[derive(Clone, Copy, Debug, Hash)]
enum Kind {
    /// An id in small letters.
    Id,
    /// A host and port: one cluster.
    Instance,
    /// A login on a cluster.
    Login,
    /// A database on a cluster.
    Database,
    /// A schema tenant's path in a database.
    Path,
    /// A login in a database: one role.
    Role,
    /// A database whose row tenants have several logins.
    Rows,
}

/// Bits of a print that say the kind.
const KIND_BITS: Print = 7;

/// What one tenant takes up.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// What many have in the same way.
    shape: Arc<Shape>,
    own: Box<[(Print, Print)]>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Shape {
    /// What is had, and as what: two tenants can have it if they say the same.
    things: BTreeSet<(Print, Print)>,
    /// Row tenants' databases and logins, and whether they have no role there.
    rows: BTreeSet<(Print, Print, bool)>,
}

/// Every row of the tables in its place, and what is had by those in force, and by the file's.
#[derive(Debug, Default)]
pub(super) struct Claims {
    keys: RandomState,
    slots: BTreeMap<Print, Slot>,
    things: BTreeMap<Print, Held>,
    /// Row tenants' logins by database, with and without a role.
    rows: BTreeMap<Print, [BTreeMap<Print, Held>; 2]>,
    shapes: HashSet<Arc<Shape>>,
    /// Names of the file's tenants, for messages.
    file: BTreeMap<Print, Box<str>>,
    /// Who waits for what, by rank.
    waiting: BTreeMap<Print, BTreeSet<(i64, Print)>>,
    /// Rows at fault.
    faulty: usize,
}

#[derive(Debug)]
struct Slot {
    id: Box<str>,
    rank: i64,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    In(Claim),
    /// Others have what it wants: the print is what it waits for.
    Blocked(Claim, Print),
    /// It is at fault for what it says.
    Wrong,
}

/// Something that is had.
#[derive(Debug)]
struct Held {
    how: Print,
    count: u32,
    /// Whoever had the lowest rank may have let go of it.
    stale: bool,
    /// Nobody who has it has a lower rank.
    low: i64,
}

/// A row's id, and why it is not in force if it is not.
pub(super) type Stands = (Box<str>, Result<(), RowFault>);

/// A row that is to have its place: rank, id and claim.
pub(super) type Placing = (i64, Box<str>, Claim);

/// Why a row cannot be in force.
#[derive(Debug)]
pub(super) struct Beside {
    pub fault: RowFault,
    by: Print,
    /// Whoever has it may have come later: all must be placed anew.
    pub outranks: bool,
}

impl Held {
    /// Says whether those who wait for it may have it now: nobody has it any more, or only those
    /// who came after them.
    fn release(&mut self, rank: i64) -> bool {
        self.count -= 1;
        self.stale |= rank <= self.low;
        self.count == 0 || rank <= self.low
    }

    fn may_be_behind(&self, rank: i64) -> bool {
        self.stale || self.low > rank
    }
}

impl Claims {
    /// What a tenant and its roles take up.
    pub fn of(&mut self, tenant: &Arc<Tenant>) -> Claim {
        let own = self.keys.hash_one(("own", tenant.id.as_str()));
        let shared = self.keys.hash_one("shared");
        let by_path = self.keys.hash_one("shared by path");
        let named = |name: &str| self.keys.hash_one(("named", name));
        let thing = |kind: Kind, words: &[&str]| self.thing(kind, words);
        let (mut mine, mut shape) = (BTreeSet::new(), Shape::default());
        mine.insert((thing(Kind::Id, &[&tenant.id.as_str().to_ascii_lowercase()]), own));
        for face in tenant.faces() {
            let cluster = face.route.cluster.name.as_str();
            let conninfo = &face.route.conninfo;
            let (dbname, user) = (conninfo.dbname.as_str(), conninfo.user.as_str());
            shape.things.extend(self.instances(cluster, conninfo));
            let how = match (face.isolation, face.may_share_login()) {
                (Isolation::Schema, false) => own,
                (Isolation::Schema, true) => by_path,
                _ => shared,
            };
            let is_silo = face.isolation == Isolation::Silo;
            let database = thing(Kind::Database, &[cluster, dbname]);
            let mut had = vec![
                (thing(Kind::Login, &[cluster, user]), how),
                (database, if is_silo { own } else { shared }),
            ];
            let path = face.context.value("search_path");
            if let Some(path) = path.filter(|_| face.isolation == Isolation::Schema) {
                had.push((thing(Kind::Path, &[cluster, dbname, path]), own));
            }
            let role = face.context.value("role");
            if let Some(role) = role {
                let login = thing(Kind::Role, &[cluster, dbname, user]);
                let is_alone = face.isolation != Isolation::Row;
                if is_alone {
                    mine.insert((login, named(role)))
                } else {
                    shape.things.insert((login, named(role)))
                };
            }
            for (thing, how) in had {
                if how == own {
                    mine.insert((thing, how))
                } else {
                    shape.things.insert((thing, how))
                };
            }
            if face.isolation == Isolation::Row {
                let rows = thing(Kind::Rows, &[cluster, dbname]);
                shape.rows.insert((rows, self.keys.hash_one(user), role.is_none()));
            }
        }
        let shape = match self.shapes.get(&shape) {
            Some(known) => known.clone(),
            None => {
                let shape = Arc::new(shape);
                self.shapes.insert(shape.clone());
                shape
            }
        };
        Claim { shape, own: mine.into_iter().collect() }
    }

    fn instances(
        &self,
        cluster: &str,
        conninfo: &Conninfo,
    ) -> impl Iterator<Item = (Print, Print)> {
        let how = self.keys.hash_one(("named", cluster));
        let thing = move |host| {
            let (name, port) = apart::location(host);
            (self.thing(Kind::Instance, &[&name, &port.to_string()]), how)
        };
        conninfo.hosts.iter().map(thing)
    }

    fn thing(&self, kind: Kind, words: &[&str]) -> Print {
        self.keys.hash_one((kind, words)) & !KIND_BITS | kind as Print
    }

    fn print(&self, id: &str) -> Print {
        self.keys.hash_one(("own", id))
    }

    /// Takes a tenant of the file in, which comes before all rows.
    pub fn take(&mut self, tenant: &Arc<Tenant>) {
        let claim = self.of(tenant);
        self.grab(&claim, i64::MIN);
        self.file.insert(self.print(tenant.id.as_str()), tenant.id.as_str().into());
    }

    /// Takes a cluster in: its hosts are no other cluster's, whether or not a tenant is there.
    pub fn take_cluster(&mut self, name: &str, conninfo: &Conninfo) {
        let things = self.instances(name, conninfo).collect();
        let shape = Arc::new(Shape { things, rows: BTreeSet::new() });
        self.grab(&Claim { shape, own: Box::default() }, i64::MIN);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of them are at fault.
    pub fn faulty(&self) -> usize {
        self.faulty
    }

    /// How a row stands: its rank, and whether it is in force. None if there is no such row.
    pub fn standing(&self, id: &str) -> Option<(i64, bool)> {
        let slot = self.slots.get(&self.print(id)).filter(|slot| *slot.id == *id)?;
        Some((slot.rank, matches!(slot.standing, Standing::In(_))))
    }

    /// Notes a row that is at fault for what it says.
    pub fn wrong(&mut self, id: &str, rank: i64) {
        self.put(id, rank, Standing::Wrong);
    }

    /// Takes a row in, if it can stand beside all who are.
    pub fn place(&mut self, id: &str, rank: i64, claim: Claim) -> Result<(), Beside> {
        let checked = match self.slots.get(&self.print(id)) {
            // Chance does not bring this about.
            Some(slot) if *slot.id != *id => {
                let fault = RowFault::whole("its id looks like another's", "Take another id.");
                return Err(Beside { fault, by: 0, outranks: false });
            }
            _ => self.check(&claim, rank),
        };
        match checked {
            Ok(()) => {
                self.grab(&claim, rank);
                self.put(id, rank, Standing::In(claim));
                Ok(())
            }
            Err(beside) => {
                let place = (rank, self.print(id));
                self.waiting.entry(beside.by).or_default().insert(place);
                self.put(id, rank, Standing::Blocked(claim, beside.by));
                Err(beside)
            }
        }
    }

    fn put(&mut self, id: &str, rank: i64, standing: Standing) {
        self.faulty += usize::from(!matches!(standing, Standing::In(_)));
        self.slots.insert(self.print(id), Slot { id: id.into(), rank, standing });
    }

    /// Whether a row is in force and takes up the same.
    pub fn is_same(&self, id: &str, rank: i64, claim: &Claim) -> bool {
        let slot = self.slots.get(&self.print(id)).filter(|slot| *slot.id == *id);
        slot.is_some_and(|slot| match &slot.standing {
            Standing::In(known) => {
                slot.rank == rank && known.own == claim.own && known.shape == claim.shape
            }
            _ => false,
        })
    }

    /// Takes a row out. What others waited for is noted.
    pub fn remove(&mut self, id: &str, freed: &mut BTreeSet<Print>) {
        let print = self.print(id);
        if self.slots.get(&print).is_none_or(|slot| *slot.id != *id) {
            return;
        }
        let Some(slot) = self.slots.remove(&print) else { return };
        self.faulty -= usize::from(!matches!(slot.standing, Standing::In(_)));
        match slot.standing {
            Standing::In(claim) => self.release(&claim, slot.rank, freed),
            Standing::Blocked(_, by) => {
                if let Some(others) = self.waiting.get_mut(&by) {
                    others.remove(&(slot.rank, print));
                    if others.is_empty() {
                        self.waiting.remove(&by);
                    }
                }
            }
            Standing::Wrong => {}
        }
    }

    /// Takes those out that waited for what is free now.
    pub fn released(&mut self, freed: &BTreeSet<Print>) -> Vec<Placing> {
        let waited = freed.iter().filter_map(|thing| self.waiting.remove(thing)).flatten();
        let waited: Vec<_> = waited.collect();
        let mut found = Vec::new();
        for (_, print) in waited {
            self.faulty -= 1;
            if let Some(Slot { id, rank, standing: Standing::Blocked(claim, _) }) =
                self.slots.remove(&print)
            {
                found.push((rank, id, claim));
            }
        }
        found
    }

    /// Puts all rows in by rank, as a start does: another gate that starts now must not give two
    /// tenants what this one gives to one of them. Says which are or were at fault for others.
    pub fn place_all(&mut self) -> Vec<Stands> {
        let slots = std::mem::take(&mut self.slots);
        let mut order: Vec<Slot> = slots.into_values().collect();
        order.sort_unstable_by(|one, two| (one.rank, &one.id).cmp(&(two.rank, &two.id)));
        let mut freed = BTreeSet::new();
        for slot in &order {
            if let Standing::In(claim) = &slot.standing {
                self.release(claim, slot.rank, &mut freed);
            }
        }
        self.waiting.clear();
        self.faulty = 0;
        let mut told = Vec::new();
        for Slot { id, rank, standing } in order {
            let (was_in, claim) = match standing {
                Standing::In(claim) => (true, claim),
                Standing::Blocked(claim, _) => (false, claim),
                Standing::Wrong => {
                    self.wrong(&id, rank);
                    continue;
                }
            };
            let placed = self.place(&id, rank, claim).map_err(|beside| beside.fault);
            if !was_in || placed.is_err() {
                told.push((id, placed));
            }
        }
        told
    }

    fn check(&self, claim: &Claim, rank: i64) -> Result<(), Beside> {
        self.check_but(claim, rank, None)
    }

    /// How many lead to a database.
    pub fn in_database(&self, cluster: &str, name: &str) -> usize {
        let database = self.thing(Kind::Database, &[cluster, name]);
        self.things.get(&database).map_or(0, |held| held.count as usize)
    }

    /// Whether something can be had once whoever has this let go of it.
    pub fn is_free_without(&self, claim: &Claim, gone: &Claim) -> Result<(), RowFault> {
        self.check_but(claim, i64::MAX, Some(gone)).map_err(|beside| beside.fault)
    }

    /// Rows that would come into force if whoever has this let go of it.
    pub fn heirs(&self, gone: &Claim) -> impl Iterator<Item = &str> {
        let things = gone.shape.things.iter().chain(&gone.own).map(|(thing, _)| *thing);
        let databases = gone.shape.rows.iter().map(|(database, ..)| *database);
        let things: BTreeSet<Print> = things.chain(databases).collect();
        let waiting = things.into_iter().filter_map(|thing| self.waiting.get(&thing)).flatten();
        let slots = waiting.filter_map(|(_, print)| self.slots.get(print));
        slots.filter_map(|slot| match &slot.standing {
            Standing::Blocked(claim, _) if self.is_free_without(claim, gone).is_ok() => {
                Some(&*slot.id)
            }
            _ => None,
        })
    }

    /// Whether something can be had beside all who are, but one of them.
    fn check_but(&self, claim: &Claim, rank: i64, but: Option<&Claim>) -> Result<(), Beside> {
        let by_one = |thing: &Print| {
            let had = but.map(|but| but.shape.things.iter().chain(&but.own));
            had.map_or(0, |had| had.filter(|(it, _)| it == thing).count())
        };
        let is_others = |thing: &Print, held: &Held| held.count as usize > by_one(thing);
        let mut things: Vec<_> = claim.shape.things.iter().chain(&claim.own).collect();
        things.sort_unstable_by_key(|(thing, _)| thing & KIND_BITS);
        for (thing, how) in things {
            let held = self.things.get(thing).filter(|held| held.how != *how);
            if let Some(held) = held.filter(|held| is_others(thing, held)) {
                let (fault, outranks) = (self.conflict(*thing, held), held.may_be_behind(rank));
                return Err(Beside { fault, by: *thing, outranks });
            }
        }
        for (database, login, is_bare) in &claim.shape.rows {
            let Some([with_role, bare]) = self.rows.get(database) else { continue };
            let with_role = is_bare.then_some(with_role).into_iter().flatten();
            let by_one = |login: &Print| {
                let had = but.map(|but| but.shape.rows.iter());
                let is_it = |it: &&(Print, Print, bool)| (&it.0, &it.1) == (database, login);
                had.map_or(0, |had| had.filter(is_it).count())
            };
            let is_others =
                |(it, held): &(&Print, &Held)| *it != login && held.count as usize > by_one(it);
            let mut others = bare.iter().chain(with_role).filter(is_others).peekable();
            if others.peek().is_some() {
                let message = "row tenants of one database have several logins and no role each";
                let hint = "Give all of them the same login, or each of them a role.";
                let fault = RowFault::column("connection_string", message.to_owned(), hint);
                let outranks = others.all(|(_, held)| held.may_be_behind(rank));
                return Err(Beside { fault, by: *database, outranks });
            }
        }
        Ok(())
    }

    fn grab(&mut self, claim: &Claim, rank: i64) {
        let new = |how| Held { how, count: 0, stale: false, low: rank };
        let take = |held: &mut Held| {
            held.count += 1;
            held.low = held.low.min(rank);
        };
        for (thing, how) in claim.shape.things.iter().chain(&claim.own) {
            take(self.things.entry(*thing).or_insert_with(|| new(*how)));
        }
        for (database, login, is_bare) in &claim.shape.rows {
            let [with_role, bare] = self.rows.entry(*database).or_default();
            let logins = if *is_bare { bare } else { with_role };
            take(logins.entry(*login).or_insert_with(|| new(0)));
        }
    }

    fn release(&mut self, claim: &Claim, rank: i64, freed: &mut BTreeSet<Print>) {
        for (thing, _) in claim.shape.things.iter().chain(&claim.own) {
            let Some(held) = self.things.get_mut(thing) else { continue };
            if held.release(rank) && self.waiting.contains_key(thing) {
                freed.insert(*thing);
            }
            if held.count == 0 {
                self.things.remove(thing);
            }
        }
        for (database, login, is_bare) in &claim.shape.rows {
            let Some([with_role, bare]) = self.rows.get_mut(database) else { continue };
            let logins = if *is_bare { bare } else { with_role };
            let Some(held) = logins.get_mut(login) else { continue };
            if held.release(rank) && self.waiting.contains_key(database) {
                freed.insert(*database);
            }
            if held.count == 0 {
                logins.remove(login);
            }
        }
        // The set's, and this one's.
        if Arc::strong_count(&claim.shape) <= 2 {
            self.shapes.remove(&claim.shape);
        }
    }

    fn conflict(&self, thing: Print, theirs: &Held) -> RowFault {
        let owner = self.slots.get(&theirs.how).map(|slot| &slot.id);
        let owner = owner.or_else(|| self.file.get(&theirs.how));
        let whose = match owner {
            Some(id) => format!("tenant \"{id}\"'s"),
            None => "other tenants'".to_owned(),
        };
        let connection = |message, hint| RowFault::column("connection_string", message, hint);
        match thing & KIND_BITS {
            kind if kind == Kind::Id as Print => {
                let message = format!("its id differs only in case from {whose}");
                RowFault::column("id", message, "People would take one for the other.")
            }
            kind if kind == Kind::Instance as Print => connection(
                "another cluster is at the same host and port".to_owned(),
                "A cluster is one PostgreSQL instance with one capacity: give both the same one.",
            ),
            kind if kind == Kind::Login as Print => connection(
                format!("login of its connection is {whose}"),
                "A schema tenant needs a login of its own on its cluster.",
            ),
            kind if kind == Kind::Database as Print => connection(
                format!("database of its connection is {whose}"),
                "A silo has its database to itself.",
            ),
            kind if kind == Kind::Path as Print => {
                let message = format!("schema is {whose}");
                RowFault::column("schema", message, "A schema belongs to one tenant.")
            }
            _ => RowFault::column(
                "role",
                "its login has another role in this database".to_owned(),
                "A login can become one role only: give each role a login of its own.",
            ),
        }
    }
}
