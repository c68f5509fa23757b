//! [`Composer`]: puts the file's tenants and those of a table together. The file's stand or fall as
//! a whole; of the table's each stands for itself, and a change of one touches no other.

mod moving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::build::Builder;
use crate::catalog::claims::{Claim, Claims};
use crate::catalog::plan::{CatalogPlan, Fault, Place, TenantPlan};
use crate::catalog::{Catalog, Tenant};
pub use moving::{Relocated, RoutePlan};

/// Most letters of a fault's words: what stands in a row may be long.
const WORDS_MAX: usize = 400;

/// A tenant of the table with its credentials, as far as they could be read.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    /// Of two rows that cannot stand beside each other the one with the higher number is at fault.
    pub rank: i64,
    /// What the row says, or what is wrong with it.
    pub plan: Result<Box<TenantPlan>, Vec<RowFault>>,
    /// What is wrong with credentials that were left out.
    pub faults: Vec<RowFault>,
}

/// One change of the table.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Row),
    Gone(String),
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// `tenants`, or `credentials` with the number of the row.
    pub row: String,
    /// Empty stands for the whole row.
    pub column: &'static str,
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// What became of a tenant whose rows changed; where its facts did not, it is the same value.
#[derive(Clone, Debug)]
pub struct Moved {
    pub before: Option<Arc<Tenant>>,
    pub after: Option<Arc<Tenant>>,
}

impl Moved {
    /// The tenant's id.
    pub fn id(&self) -> Option<&str> {
        self.after.as_ref().or(self.before.as_ref()).map(|tenant| tenant.id.as_str())
    }
}

/// Makes one catalog after the other. There is one of it in a process.
#[derive(Debug)]
pub struct Composer {
    /// As the file says it.
    file: Catalog,
    rows: BTreeMap<String, Row>,
    claims: Claims,
    /// Rows that are at fault only because of others, with their ranks.
    blocked: BTreeSet<(i64, String)>,
    catalog: Arc<Catalog>,
}

impl Composer {
    /// Begins with the file's tenants.
    pub fn new(file: Catalog) -> Self {
        let mut claims = Claims::default();
        file.tenants().for_each(|tenant| claims.take(Claim::of(tenant)));
        let (rows, blocked) = Default::default();
        Self { catalog: Arc::new(file.clone()), file, rows, claims, blocked }
    }

    /// The catalog of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    /// Takes another file over. Every row is looked at again.
    pub fn reload(&mut self, file: Catalog) {
        let mut next = Self::new(file);
        let rows = std::mem::take(&mut self.rows);
        next.apply(rows.into_values().map(Change::Put).collect());
        let catalog = Catalog::clone(&next.catalog).next(&self.catalog);
        *self = Self { catalog: Arc::new(catalog), ..next };
    }

    /// Takes changes of the table over. Says which tenants are others now.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Moved> {
        let mut next = Catalog::clone(&self.catalog);
        next.version += 1;
        let plan = next.words.clone();
        let mut work = Work { builder: Builder::over(&plan, &next.clusters), next, scram: false };
        let mut before: BTreeMap<String, Option<Arc<Tenant>>> = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        let mut released = false;
        for change in changes {
            let (Change::Gone(id) | Change::Put(Row { id, .. })) = &change;
            let former = self.take_out(id, &mut work);
            released |= former.is_some();
            before.entry(id.clone()).or_insert(former);
            match change {
                Change::Put(row) => {
                    waiting.insert((row.rank, row.id.clone()));
                    self.rows.insert(row.id.clone(), row);
                }
                Change::Gone(id) => drop(self.rows.remove(&id)),
            }
        }
        if released {
            waiting.append(&mut self.blocked);
        }
        let mut outranks = false;
        for (rank, id) in waiting {
            let former = before.entry(id.clone()).or_default().clone();
            if self.rows.get(&id).is_some_and(|row| row.rank == rank) {
                self.put_in(&id, former, &mut work);
                outranks |= self.blocked.contains(&(rank, id)) && self.is_behind(rank, &work.next);
            }
        }
        if outranks {
            self.place_all(&mut before, &mut work);
        }
        if work.scram {
            work.next.credentials.finish();
        }
        self.catalog = Arc::new(work.next);
        let moved = before.into_iter().map(|(id, before)| {
            let after = self.catalog.known(&id).filter(|_| self.file.known(&id).is_none());
            Moved { before, after: after.cloned() }
        });
        // Also one whose facts are the same: its credentials may not be.
        moved.filter(|moved| moved.id().is_some()).collect()
    }

    /// Whether a row that took its place later than this rank is in force.
    fn is_behind(&self, rank: i64, next: &Catalog) -> bool {
        let stands =
            |row: &&Row| self.file.known(&row.id).is_none() && next.known(&row.id).is_some();
        self.rows.values().filter(|row| row.rank > rank).any(|row| stands(&row))
    }

    /// Puts all rows in by rank, as a start does: another gate that starts now must not give two
    /// tenants what this one gives to one of them.
    fn place_all(
        &mut self,
        before: &mut BTreeMap<String, Option<Arc<Tenant>>>,
        work: &mut Work<'_>,
    ) {
        let ranked: BTreeSet<(i64, String)> =
            self.rows.values().map(|row| (row.rank, row.id.clone())).collect();
        for (_, id) in &ranked {
            let former = self.take_out(id, work);
            before.entry(id.clone()).or_insert(former);
        }
        for (_, id) in ranked {
            let former = before.get(&id).cloned().flatten();
            self.put_in(&id, former, work);
        }
    }

    /// Takes out what a row put in. Gives back the tenant it made.
    fn take_out(&mut self, id: &str, work: &mut Work<'_>) -> Option<Arc<Tenant>> {
        work.next.faults.remove_mut(id);
        let row = self.rows.get(id)?;
        self.blocked.remove(&(row.rank, id.to_owned()));
        if self.file.known(id).is_some() {
            return None;
        }
        let tenant = work.next.tenants.get(id).cloned()?;
        work.next.tenants.remove_mut(id);
        self.claims.release(Claim::of(&tenant));
        if let Ok(plan) = &row.plan {
            work.next.forget_tokens(&tenant.id, &plan.tokens);
            work.scram |= work.next.credentials.forget(&tenant.id, plan);
        }
        Some(tenant)
    }

    /// Puts a row's tenant in, or notes what is wrong with it.
    fn put_in(&mut self, id: &str, former: Option<Arc<Tenant>>, work: &mut Work<'_>) {
        let Some(row) = self.rows.get(id) else { return };
        work.next.faults.remove_mut(id);
        let mut faults = row.faults.clone();
        match self.admit(row, work) {
            Ok(tenant) => {
                let version = work.next.version;
                let tenant = tenant.follow(former.as_ref(), version);
                self.claims.take(Claim::of(&tenant));
                work.next.tenants.insert_mut(tenant.id.clone(), tenant);
                faults.extend(work.take_credentials());
            }
            Err(Wrong::Row(wrong)) => faults.extend(wrong),
            Err(Wrong::Beside(wrong)) => {
                faults.push(wrong);
                self.blocked.insert((row.rank, id.to_owned()));
            }
        }
        work.builder.clear();
        faults.iter_mut().for_each(RowFault::shorten);
        if !faults.is_empty() {
            work.next.faults.insert_mut(id.to_owned(), faults.into());
        }
    }

    fn admit(&self, row: &Row, work: &mut Work<'_>) -> Result<Arc<Tenant>, Wrong> {
        if self.file.known(&row.id).is_some() {
            let message = "the settings file has a tenant of this id, which is the one in force";
            let hint = "Take it out of the file, or the row out of the table.";
            return Err(Wrong::Row(vec![RowFault::whole(message, hint)]));
        }
        let plan = row.plan.as_ref().map_err(|faults| Wrong::Row(faults.clone()))?;
        let tenant = work.builder.tenant(&row.id, plan);
        let tenant = Arc::new(tenant.map_err(|faults| {
            let told = faults.iter().map(RowFault::of);
            let cluster = || RowFault::whole("its cluster cannot have tenants", "");
            let told: Vec<_> = if faults.is_empty() { vec![cluster()] } else { told.collect() };
            Wrong::Row(told)
        })?);
        let claim = Claim::of(&tenant);
        self.claims.check(&tenant, &claim).map_err(|fault| Wrong::Beside(RowFault::of(&fault)))?;
        Ok(tenant)
    }
}

/// Why a row makes no tenant.
enum Wrong {
    /// For what it says.
    Row(Vec<RowFault>),
    /// For what others have.
    Beside(RowFault),
}

/// A catalog in the making.
struct Work<'plan> {
    builder: Builder<'plan>,
    next: Catalog,
    /// Whether passwords came or went.
    scram: bool,
}

impl Work<'_> {
    /// Takes over the credentials of the tenant that was built last, but those that stand somewhere
    /// else already.
    fn take_credentials(&mut self) -> Vec<RowFault> {
        let mut faults = Vec::new();
        for (id, record) in std::mem::take(&mut self.builder.tokens) {
            if let Some(other) = self.next.tokens.get(&id) {
                let message = format!("token {id} stands at tenant \"{}\" too", other.tenant);
                let hint = "Every token belongs to exactly one tenant.";
                faults.push(RowFault::credential("hash", message, hint));
                continue;
            }
            self.next.tokens.insert_mut(id, record);
        }
        let credentials = std::mem::take(&mut self.builder.credentials);
        let (scram, wrong) = self.next.credentials.absorb(&credentials);
        self.scram |= scram;
        let hint = "A certificate stands for exactly one tenant.";
        let told = |message| RowFault::credential("cert_name", message, hint);
        faults.extend(wrong.into_iter().map(told));
        faults.extend(self.builder.token_faults.iter().map(RowFault::of));
        faults
    }
}

impl RowFault {
    fn whole(message: &str, hint: &str) -> Self {
        let (message, hint) = (message.to_owned(), hint.to_owned());
        Self { row: "tenants".to_owned(), column: "", message, hint }
    }

    fn credential(column: &'static str, message: String, hint: &str) -> Self {
        Self { row: "credentials".to_owned(), column, message, hint: hint.to_owned() }
    }

    /// A fault of a plan as one of a row.
    fn of(fault: &Fault) -> Self {
        let key = fault.key.unwrap_or_default();
        let (row, column) = match (&fault.place, key) {
            (Place::TenantLimits(_), _) => ("tenants", "overrides"),
            (_, "tokens" | "credentials") => ("credentials", ""),
            _ => ("tenants", key),
        };
        let (message, hint) = (fault.message.clone(), fault.hint.clone().unwrap_or_default());
        Self { row: row.to_owned(), column, message, hint }
    }

    /// Printable and short, whatever the row has in it.
    fn shorten(&mut self) {
        for text in [&mut self.message, &mut self.hint] {
            let unfit = text.chars().any(char::is_control) || text.len() > WORDS_MAX;
            if unfit {
                *text = text.chars().flat_map(char::escape_debug).take(WORDS_MAX).collect();
            }
        }
    }
}

impl CatalogPlan {
    /// What rows are built on: everything but the tenants.
    pub(super) fn ground(&self) -> Self {
        Self { tenants: BTreeMap::new(), ..self.clone() }
    }
}
