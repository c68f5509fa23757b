//! [`Composer`]: puts the file's tenants and those of a table together. The file's stand or fall as
//! a whole; of the table's each stands for itself, and a change of one touches no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::build::Builder;
use crate::catalog::lazy::Lookups;
use crate::catalog::plan::CatalogPlan;
use crate::catalog::rows::claims::{Claim, Claims, Placing, Print};
use crate::catalog::rows::row::{keys_of, keys_of_id, last_of_each};
use crate::catalog::rows::survey::Survey;
use crate::catalog::rows::work::Work;
use crate::catalog::rows::{Change, Moved, Row, RowFault};
use crate::catalog::{Catalog, Map, Tenant};
use crate::secret::Secret;
use crate::secret::scram::Verifier;

/// Most rows at fault that are told one by one; the others are counted.
pub(super) const FAULTS_MAX: usize = 10_000;

/// Makes one catalog after the other. There is one of it in a process.
#[derive(Debug)]
pub struct Composer {
    /// As the file says it.
    pub(super) file: Catalog,
    /// Rows that are kept: all of them, or of those in force the ones that are known.
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) claims: Claims,
    /// Who is asked for rows that are not kept, and how many are.
    pub(super) lookups: Option<Arc<Lookups>>,
    pub(super) is_partial: bool,
    /// Up to which change of the tables the claims are right; none while they are not.
    pub(super) position: Option<i64>,
    /// What the tables have to make up verifiers of, once it was read.
    mocks: Option<(Secret, Vec<Verifier>)>,
    /// Counts the files.
    files: u64,
    /// Counts those who came because they were asked for, and those who left.
    pub(super) moves: u64,
    /// There are more than may be kept, since all are in use.
    is_crowded: bool,
    pub(super) catalog: Arc<Catalog>,
}

impl Composer {
    /// Begins with the file's tenants. All rows are kept.
    pub fn new(file: Catalog) -> Self {
        let claims = Self::claims_of(&file);
        let mut catalog = file.clone();
        catalog.of_file = Arc::new(file.tenants().map(|it| it.id.to_string()).collect());
        Self {
            catalog: Arc::new(catalog),
            file,
            claims,
            rows: BTreeMap::new(),
            lookups: None,
            is_partial: false,
            position: None,
            mocks: None,
            files: 0,
            moves: 0,
            is_crowded: false,
        }
    }

    /// The same for tables that may have more rows than are to be kept.
    pub fn with_lookups(file: Catalog, lookups: Option<Arc<Lookups>>) -> Self {
        let new = Self::new(file);
        let catalog = Catalog { lookups: lookups.clone(), ..Catalog::clone(&new.catalog) };
        Self { lookups, catalog: Arc::new(catalog), ..new }
    }

    /// What clusters and tenants of the file take up.
    fn claims_of(file: &Catalog) -> Claims {
        let mut claims = Claims::default();
        for (cluster, conninfo) in Builder::over(&file.words, &file.clusters).defaults {
            if let Some(conninfo) = conninfo {
                claims.take_cluster(cluster, &conninfo);
            }
        }
        file.tenants().for_each(|tenant| claims.take(tenant));
        claims
    }

    /// The catalog of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.claims.len()
    }

    /// How many tenants there are, in force or not known.
    pub fn tenants(&self) -> usize {
        self.file.tenants().len() + self.claims.len() - self.claims.faulty()
    }

    /// How a row stands: its rank, and whether it is in force.
    #[cfg(test)]
    pub(in crate::catalog) fn standing(&self, id: &str) -> Option<(i64, bool)> {
        self.claims.standing(id)
    }

    /// Ids of the rows that are known.
    pub fn known(&self) -> Vec<String> {
        self.rows.keys().cloned().collect()
    }

    /// Another number: others are known than before.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Whether rows are looked up when they are asked for.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Most rows that are kept.
    pub fn known_max(&self) -> usize {
        self.lookups.as_ref().map_or(usize::MAX, |lookups| lookups.known_max())
    }

    /// Takes another file over. Every row is looked at again: those that are not known when all are
    /// read the next time.
    pub fn reload(&mut self, file: Catalog) {
        let next = Self::with_lookups(file, self.lookups.clone());
        let mut next = Self { files: self.files + 1, moves: self.moves + 1, ..next };
        if let Some((secret, samples)) = &self.mocks {
            next.mock(secret.expose(), samples);
        }
        let rows = std::mem::take(&mut self.rows);
        let known: Vec<String> = rows.keys().cloned().collect();
        next.apply(rows.into_values().map(Change::Put).collect());
        if self.is_partial {
            // The others are not known here: nobody has another seat before all are held against
            // each other.
            let seat = |catalog: &Catalog, id: &str| catalog.known(id).map(Tenant::seat);
            let is_other = |id: &&String| seat(&self.catalog, id) != seat(&next.catalog, id);
            let others: Vec<String> = known.iter().filter(is_other).cloned().collect();
            next.keep_out(others);
            next.become_partial(None);
            // Who stands alone depends on the file, too.
            next.lookups.iter().for_each(|lookups| lookups.forget_all());
        }
        for id in known.iter().filter(|id| next.catalog.known(id).is_none()) {
            next.lookups.iter().for_each(|lookups| lookups.gone(id));
        }
        let catalog = Catalog::clone(&next.catalog).next(&self.catalog);
        *self = Self { catalog: Arc::new(catalog), ..next };
    }

    /// From now on rows are looked up; the claims are right up to this change.
    fn become_partial(&mut self, position: Option<i64>) {
        self.is_partial = true;
        let mut next = Catalog::clone(&self.catalog);
        next.is_partial = true;
        self.catalog = Arc::new(next);
        let claims = &self.claims;
        self.rows.retain(|id, _| claims.standing(id).is_some_and(|(_, is_in)| is_in));
        self.stand_at(position);
    }

    /// What stands here is right up to this change of the tables.
    pub fn stand_at(&mut self, position: Option<i64>) {
        self.position = position;
        if let Some(lookups) = &self.lookups {
            lookups.settle(position.is_some());
        }
    }

    /// Takes over what the tables have to make up verifiers of: a secret, and some to look like.
    pub fn mock(&mut self, secret: &[u8], samples: &[Verifier]) {
        let mut next = Catalog::clone(&self.catalog);
        next.credentials.finish_with(&self.file.credentials, secret, samples);
        self.mocks = Some((Secret::new(secret), samples.to_vec()));
        self.catalog = Arc::new(next);
    }

    /// Begins with what a gate knew when it wrote its copy: not all that there is. Only those are
    /// in force who have the seat that they had then, when they were held against all others.
    pub fn restore_part(&mut self, rows: Vec<(Row, Option<String>)>) -> Vec<Moved> {
        let (rows, seats): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|(row, seat)| (row.clone(), (row.id, seat))).unzip();
        let moved = self.apply(rows.into_iter().map(Change::Put).collect());
        let seat = |id: &str| self.catalog.known(id).map(Tenant::seat);
        let is_other = |(id, then): &(String, Option<String>)| then.is_none() || seat(id) != *then;
        let others = seats.into_iter().filter(is_other).map(|(id, _)| id).collect();
        self.keep_out(others);
        self.become_partial(None);
        moved
    }

    /// Has nobody take these for known before all rows are read.
    fn keep_out(&mut self, rows: Vec<String>) {
        if rows.is_empty() {
            return;
        }
        tracing::warn!(rows = rows.len(), "tenants wait until all rows of the tables are read");
        self.apply(rows.into_iter().map(Change::Gone).collect());
    }

    /// Takes over what changed of those who are known, while all rows are read: there may be more
    /// than are kept. Whoever has another seat than before waits until then.
    pub fn hear(&mut self, changes: Vec<Change>) -> Vec<Moved> {
        match self.is_partial {
            // Before the first of them: what all rows take up is not followed from here on.
            true => self.stand_at(None),
            false => self.become_partial(None),
        }
        let words = self.catalog.words.clone();
        let catalog = self.catalog.clone();
        let mut builder = Builder::over(&words, &catalog.clusters);
        let mut sits = |row: &Row| {
            let (Ok(plan), Some(known)) = (&row.plan, catalog.known(&row.id)) else { return false };
            let built = builder.tenant(&row.id, plan).map(Arc::new);
            builder.clear();
            let rank = self.claims.standing(&row.id).map(|(rank, _)| rank);
            rank == Some(row.rank) && built.is_ok_and(|it| it.seat() == known.seat())
        };
        let heard = |change: Change| {
            let (Change::Gone(id) | Change::Put(Row { id, .. })) = &change;
            let is_same = match &change {
                _ if !self.rows.contains_key(id) => return None,
                Change::Put(row) => sits(row),
                Change::Gone(_) => true,
            };
            Some(if is_same { change } else { Change::Gone(id.clone()) })
        };
        let changes: Vec<Change> = changes.into_iter().filter_map(heard).collect();
        if changes.is_empty() { Vec::new() } else { self.apply(changes) }
    }

    /// Takes changes of the table over that lead to this state of it. None if they cannot be held
    /// against what all rows take up, since that is not known: all must be read first.
    pub fn follow(&mut self, changes: Vec<Change>, version: i64) -> Option<Vec<Moved>> {
        if self.is_partial && self.position.is_none() {
            return None;
        }
        let moved = if changes.is_empty() { Vec::new() } else { self.apply(changes) };
        self.stand_at(Some(version));
        Some(moved)
    }

    /// Takes changes of the table over. Says which tenants are others now.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Moved> {
        let plan = self.catalog.words.clone();
        let mut work = Work::begin(&plan, &self.catalog);
        let mut freed = BTreeSet::new();
        let (mut order, mut placed) = self.note(changes, &mut freed, &mut work);
        let released = self.claims.released(&freed);
        let mut others = !released.is_empty();
        order.extend(released);
        order.sort_unstable_by(|one, two| (one.0, &one.1).cmp(&(two.0, &two.1)));
        others |= self.place(order, &mut placed, &mut work);
        for id in placed {
            self.put_in(&id, &mut work);
        }
        if let Some(lookups) = self.lookups.as_ref().filter(|_| others) {
            // What these are looked up by is not known here.
            lookups.forget_all();
        }
        self.finish(work)
    }

    /// Takes rows as they are now. Gives back those that must be placed, and those that have their
    /// place.
    fn note(
        &mut self,
        changes: Vec<Change>,
        freed: &mut BTreeSet<Print>,
        work: &mut Work<'_>,
    ) -> (Vec<Placing>, BTreeSet<Box<str>>) {
        let (mut order, mut placed) = (Vec::new(), BTreeSet::new());
        for (id, change) in last_of_each(changes) {
            let is_kept = !self.is_partial || self.is_wanted(&id);
            self.take_out(&id, work);
            self.forget(&id, &change);
            self.rows.remove(&id);
            let Change::Put(row) = change else {
                self.claims.remove(&id, freed);
                continue;
            };
            let claim = self.claim_of(&row, &mut work.builder);
            let is_same = |claim: &Claim| self.claims.is_same(&id, row.rank, claim);
            if claim.as_ref().is_ok_and(is_same) {
                placed.insert(Box::from(id.as_str()));
            } else {
                self.claims.remove(&id, freed);
            }
            match claim {
                Ok(_) if self.claims.standing(&id).is_some() => {}
                Ok(claim) => order.push((row.rank, Box::from(id.as_str()), claim)),
                Err(faults) => {
                    self.claims.wrong(&id, row.rank);
                    work.tell(&id, [&row.faults[..], &faults].concat());
                    if self.is_partial {
                        continue;
                    }
                }
            }
            if is_kept {
                self.rows.insert(id, row);
            }
        }
        (order, placed)
    }

    /// Gives rows their places, in this order. Says whether others had to give way.
    fn place(
        &mut self,
        order: Vec<Placing>,
        placed: &mut BTreeSet<Box<str>>,
        work: &mut Work<'_>,
    ) -> bool {
        let mut outranks = false;
        for (rank, id, claim) in order {
            // Also one that waited.
            self.take_out(&id, work);
            match self.claims.place(&id, rank, claim) {
                Ok(()) => drop(placed.insert(id)),
                Err(beside) => {
                    outranks |= beside.outranks;
                    self.tell_beside(&id, beside.fault, work);
                }
            }
        }
        if !outranks {
            return false;
        }
        for (id, stands) in self.claims.place_all() {
            self.take_out(&id, work);
            match stands {
                Ok(()) => drop(placed.insert(id)),
                Err(fault) => {
                    placed.remove(&id);
                    self.tell_beside(&id, fault, work);
                }
            }
        }
        true
    }

    /// Who is known, or in use while another row has what is its own.
    fn is_wanted(&self, id: &str) -> bool {
        let pinned = |lookups: &Arc<Lookups>| lookups.is_pinned(id);
        self.rows.contains_key(id) || self.lookups.as_ref().is_some_and(pinned)
    }

    /// What was said of a tenant and its credentials counts no more.
    fn forget(&self, id: &str, change: &Change) {
        let Some(lookups) = self.lookups.as_ref().filter(|_| self.is_partial) else { return };
        let mut keys = keys_of_id(id);
        let now = match change {
            Change::Put(row) => row.plan.as_ref().ok(),
            Change::Gone(_) => None,
        };
        let before = self.rows.get(id).and_then(|row| row.plan.as_ref().ok());
        now.into_iter().chain(before).for_each(|plan| keys_of(plan, &mut keys));
        lookups.forget(keys.iter());
    }

    fn tell_beside(&mut self, id: &str, fault: RowFault, work: &mut Work<'_>) {
        let others = self.rows.get(id).map_or(Vec::new(), |row| row.faults.clone());
        work.tell(id, [&others[..], &[fault]].concat());
        if self.is_partial {
            self.rows.remove(id);
        }
    }

    /// What a row takes up, if nothing is wrong with itself.
    fn claim_of(&mut self, row: &Row, builder: &mut Builder<'_>) -> Result<Claim, Vec<RowFault>> {
        if self.file.known(&row.id).is_some() {
            return Err(vec![RowFault::of_file()]);
        }
        claim_of(row, builder, &mut self.claims)
    }

    /// Takes out what a row put in.
    fn take_out(&mut self, id: &str, work: &mut Work<'_>) {
        let is_of_file = self.file.known(id).is_some();
        let former = work.next.tenants.get(id).filter(|_| !is_of_file).cloned();
        work.before.entry(id.to_owned()).or_insert_with(|| former.clone());
        work.next.faults.remove_mut(id);
        let Some(tenant) = former else { return };
        work.next.tenants.remove_mut(id);
        if let Some(Row { plan: Ok(plan), .. }) = self.rows.get(id) {
            work.next.forget_tokens(&tenant.id, &plan.tokens);
            work.next.credentials.forget(&tenant.id, plan);
        }
    }

    /// Puts the tenant of a row in that is in force, if the row is kept.
    pub(super) fn put_in(&mut self, id: &str, work: &mut Work<'_>) {
        let Some(row) = self.rows.get(id) else { return };
        let Ok(plan) = &row.plan else { return };
        let mut faults = row.faults.clone();
        match work.builder.tenant(id, plan) {
            Ok(tenant) => {
                let former = work.before.get(id).cloned().flatten();
                let tenant = Arc::new(tenant).follow(former.as_ref(), work.next.version);
                work.next.tenants.insert_mut(tenant.id.clone(), tenant);
                faults.extend(work.take_credentials());
                self.lookups.iter().for_each(|lookups| lookups.came(id));
            }
            // It could be built before: a secret's file has changed just now.
            Err(wrong) => {
                faults.extend(wrong.iter().map(RowFault::of));
                if self.is_partial {
                    // Who asks next has it looked up again.
                    self.rows.remove(id);
                }
            }
        }
        work.builder.clear();
        work.tell(id, faults);
    }

    /// Lets go of those whom nobody needs, and puts the catalog in force.
    pub(super) fn finish(&mut self, mut work: Work<'_>) -> Vec<Moved> {
        if !self.is_partial && self.rows.len() > self.known_max() {
            tracing::info!(rows = self.rows.len(), "tenants are looked up from now on");
            self.is_partial = true;
            work.next.is_partial = true;
            let claims = &self.claims;
            self.rows.retain(|id, _| claims.standing(id).is_some_and(|(_, is_in)| is_in));
        }
        while self.is_partial && self.rows.len() > self.known_max() {
            // Who came just now is about to be used.
            let may_go = |id: &str| !work.arrived.contains(id);
            let oldest = self.lookups.as_ref().and_then(|lookups| lookups.oldest(may_go));
            let Some(id) = oldest else { break };
            self.moves += 1;
            // Nobody has it, so nobody need hear that it goes.
            let told = work.before.contains_key(&id);
            self.take_out(&id, &mut work);
            if !told {
                work.before.remove(&id);
            }
            if let (Some(row), Some(lookups)) = (self.rows.remove(&id), &self.lookups) {
                let mut keys = keys_of_id(&id);
                row.plan.iter().for_each(|plan| keys_of(plan, &mut keys));
                lookups.forget(keys.iter());
            }
        }
        let is_crowded = self.is_partial && self.rows.len() > self.known_max();
        if is_crowded && !self.is_crowded {
            let (known, most) = (self.rows.len(), self.known_max());
            tracing::warn!(known, most, "more tenants of the tables are in use than may be known");
        }
        self.is_crowded = is_crowded;
        let Work { mut next, before, .. } = work;
        next.faulty = self.claims.faulty();
        self.catalog = Arc::new(next);
        let mut moved = Vec::new();
        for (id, before) in before {
            let after = self.catalog.known(&id).filter(|_| self.file.known(&id).is_none());
            if let (None, Some(lookups)) = (after, &self.lookups) {
                lookups.gone(&id);
            }
            let one = Moved { before, after: after.cloned() };
            // Also one whose facts are the same: its credentials may not be.
            moved.extend(one.id().is_some().then_some(one));
        }
        moved
    }

    /// Begins to look at all rows, beside what is in force.
    pub fn survey(&self) -> Survey {
        let claims = Self::claims_of(&self.file);
        Survey { file: self.file.clone(), files: self.files, claims, faults: Vec::new() }
    }

    /// Takes a survey over, and the rows of those that are known as they were then. None if the
    /// file is another one by now.
    pub fn take_survey(
        &mut self,
        survey: Survey,
        rows: Vec<Row>,
        version: i64,
    ) -> Option<Vec<Moved>> {
        if survey.files != self.files {
            return None;
        }
        let plan = self.catalog.words.clone();
        let mut work = Work::begin(&plan, &self.catalog);
        let former: Vec<String> = self.rows.keys().cloned().collect();
        former.iter().for_each(|id| self.take_out(id, &mut work));
        self.rows.clear();
        self.claims = survey.claims;
        work.next.faults = Map::default();
        survey.faults.into_iter().for_each(|(id, faults)| work.tell(&id, faults));
        self.is_partial = true;
        work.next.is_partial = true;
        self.admit_rows(rows, &mut work);
        self.lookups.iter().for_each(|lookups| lookups.forget_all());
        let moved = self.finish(work);
        self.stand_at(Some(version));
        Some(moved)
    }

    /// Which change of the tables the claims are right up to.
    pub fn position(&self) -> Option<i64> {
        self.position
    }
}

pub(super) fn claim_of(
    row: &Row,
    builder: &mut Builder<'_>,
    claims: &mut Claims,
) -> Result<Claim, Vec<RowFault>> {
    let plan = row.plan.as_ref().map_err(Clone::clone)?;
    let built = builder.tenant(&row.id, plan);
    let told = built.map(|tenant| claims.of(&Arc::new(tenant))).map_err(|faults| {
        let cluster = || vec![RowFault::whole("its cluster cannot have tenants", "")];
        if faults.is_empty() { cluster() } else { faults.iter().map(RowFault::of).collect() }
    });
    builder.clear();
    told
}

impl CatalogPlan {
    /// What of the file makes a row another tenant.
    pub(super) fn grounds(&self) -> impl PartialEq + '_ {
        let Self { folder, clusters, spreads, tiers, hosts, secrets_folder, .. } = self;
        let Self { defaults, read, .. } = self;
        ((folder, clusters, spreads, tiers), (hosts, secrets_folder, defaults, read))
    }

    /// What rows are built on: everything but the tenants.
    pub(in crate::catalog) fn ground(&self) -> Self {
        Self { tenants: BTreeMap::new(), ..self.clone() }
    }
}
