//! [`Survey`]: a look at all rows of the tables, beside what is in force.

use crate::catalog::Catalog;
use crate::catalog::build::Builder;
use crate::catalog::rows::claims::Claims;
use crate::catalog::rows::compose::{FAULTS_MAX, claim_of};
use crate::catalog::rows::{Row, RowFault};

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
        let Self { file, claims, faults, .. } = self;
        let mut builder = Builder::over(&file.words, &file.clusters);
        for row in rows {
            let stands = match file.known(&row.id) {
                Some(_) => Err(vec![RowFault::of_file()]),
                None => claim_of(row, &mut builder, claims),
            };
            builder.clear();
            let wrong = match stands {
                Ok(claim) => claims.place(&row.id, row.rank, claim).map_err(|it| vec![it.fault]),
                Err(wrong) => {
                    claims.wrong(&row.id, row.rank);
                    Err(wrong)
                }
            };
            if let Err(wrong) = wrong
                && faults.len() < FAULTS_MAX
            {
                faults.push((row.id.clone(), wrong));
            }
        }
    }
}
