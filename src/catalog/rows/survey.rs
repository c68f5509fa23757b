//! [`Survey`]: a look at all rows of the tables, beside what is in force.

use std::sync::Arc;

use crate::catalog::build::Builder;
use crate::catalog::rows::claims::Claims;
use crate::catalog::rows::compose::{FAULTS_MAX, claim_of};
use crate::catalog::rows::{Row, RowFault};
use crate::catalog::{Catalog, Tenant};

/// All rows of the tables with what they take up, before it is in force.
#[derive(Debug)]
pub struct Survey {
    pub(super) file: Catalog,
    pub(super) files: u64,
    pub(super) claims: Claims,
    pub(super) faults: Vec<(String, Vec<RowFault>)>,
}

impl Survey {
    /// Looks at more rows, which come in the order of their ranks.
    pub fn add(&mut self, rows: &[Row]) {
        let (words, clusters) = (self.file.words.clone(), self.file.clusters.clone());
        let mut builder = Builder::over(&words, &clusters);
        for row in rows {
            self.add_one(row, &mut builder);
        }
    }

    /// The same; calls `each` with every tenant that is in force, in the order of the rows.
    pub fn add_each(&mut self, rows: &[Row], mut each: impl FnMut(&Row, &Arc<Tenant>)) {
        let (words, clusters) = (self.file.words.clone(), self.file.clusters.clone());
        let mut builder = Builder::over(&words, &clusters);
        for row in rows {
            let is_in_force = self.add_one(row, &mut builder);
            let Some(plan) = row.plan.as_ref().ok().filter(|_| is_in_force) else { continue };
            if let Ok(tenant) = builder.tenant(&row.id, plan) {
                each(row, &Arc::new(tenant));
            }
            builder.clear();
        }
    }

    /// How many rows are at fault so far.
    pub fn faulty(&self) -> usize {
        self.claims.faulty()
    }

    /// Says whether the row is in force.
    fn add_one(&mut self, row: &Row, builder: &mut Builder<'_>) -> bool {
        let Self { file, claims, faults, .. } = self;
        let stands = match file.known(&row.id) {
            Some(_) => Err(vec![RowFault::of_file()]),
            None => claim_of(row, builder, claims),
        };
        builder.clear();
        let wrong = match stands {
            Ok(claim) => claims.place(&row.id, row.rank, claim).map_err(|it| vec![it.fault]),
            Err(wrong) => {
                claims.wrong(&row.id, row.rank);
                Err(wrong)
            }
        };
        let is_in_force = wrong.is_ok();
        if let Err(wrong) = wrong
            && faults.len() < FAULTS_MAX
        {
            faults.push((row.id.clone(), wrong));
        }
        is_in_force
    }
}
