//! Rows that were looked up come in among those that are known.

use std::collections::{HashMap, HashSet};

use crate::catalog::lazy::{Key, Said};
use crate::catalog::rows::row::{keys_of, keys_of_id};
use crate::catalog::rows::work::Work;
use crate::catalog::rows::{Composer, Found, Row};

impl Composer {
    /// Takes rows over that were looked up, and puts them in force. Gives back the keys that have
    /// to be looked up again, since what was found is of another state than what is known here: of
    /// a former one, or of a later one in which that very row is another.
    pub fn admit(&mut self, keys: &[Key], found: Found) -> Vec<Key> {
        let known = self.position.filter(|known| self.is_partial && *known <= found.version);
        let Some(position) = known else { return keys.to_vec() };
        let is_later = |row: &Row| {
            let changed = found.changed.get(&row.id).copied().unwrap_or(found.version);
            found.version > position && changed > position
        };
        let mut open = HashSet::new();
        for row in found.rows.iter().filter(|row| is_later(row)) {
            let mut theirs = keys_of_id(&row.id);
            row.plan.iter().for_each(|plan| keys_of(plan, &mut theirs));
            open.extend(theirs);
        }
        let is_open = |key: &Key| match key {
            Key::Tenant(id) => open.contains(&Key::Tenant(id.to_ascii_lowercase())),
            key => open.contains(key),
        };
        let (later, settled): (Vec<Key>, Vec<Key>) = keys.iter().cloned().partition(is_open);
        let is_new = |row: &&Row| !is_later(row) && !self.rows.contains_key(&row.id);
        let rows: Vec<Row> = found.rows.iter().filter(is_new).cloned().collect();
        if !rows.is_empty() {
            let plan = self.catalog.words.clone();
            let mut work = Work::begin(&plan, &self.catalog);
            // Also those who are known already: somebody is about to use them.
            work.arrived = found.rows.iter().map(|row| row.id.clone()).collect();
            if let Some(lookups) = &self.lookups {
                work.arrived.iter().for_each(|id| lookups.touch(id));
            }
            self.admit_rows(rows, &mut work);
            self.finish(work);
        }
        if let Some(lookups) = &self.lookups {
            let small = |row: &Row| row.id.to_ascii_lowercase();
            let ids: HashMap<_, _> =
                found.rows.iter().map(|row| (small(row), row.id.as_str())).collect();
            lookups.learn(&self.catalog, &settled, &Said { whose: &found.whose, ids });
        }
        later
    }

    /// Puts rows in that are in force, and of the rank that this is for.
    pub(super) fn admit_rows(&mut self, rows: Vec<Row>, work: &mut Work<'_>) {
        for row in rows {
            if self.claims.standing(&row.id) == Some((row.rank, true)) {
                let id = row.id.clone();
                self.rows.insert(id.clone(), row);
                self.put_in(&id, work);
                self.moves += 1;
            }
        }
    }
}
