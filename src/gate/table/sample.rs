//! All rows of the tables, of which only some are kept: for who wants to know where tenants are,
//! and not who all of them are.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Builder;

use crate::catalog::{Catalog, Change, Composer, Row, TableSettings, Tenant};
use crate::gate::table::read;
use crate::gate::table::records::TenantRecord;

/// What was kept of the tables.
#[derive(Debug)]
pub struct Sample {
    /// The file's tenants and those that were kept, without what proves these.
    pub catalog: Arc<Catalog>,
    /// How many rows are at fault: they are nobody's tenants.
    pub faulty: usize,
}

/// Reads all rows of the tables, some at a time, and keeps those in force that `keep` says yes to.
/// `tell` hears how many were read.
///
/// # Errors
///
/// The tables cannot be read.
pub fn sample(
    settings: &TableSettings,
    file: &Catalog,
    mut keep: impl FnMut(&Arc<Tenant>) -> bool,
    mut tell: impl FnMut(usize),
) -> anyhow::Result<Sample> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut composer = Composer::new(file.clone());
    let mut survey = composer.survey();
    let (mut kept, mut count) = (Vec::new(), 0);
    let take = |records: Vec<TenantRecord>| {
        let rows: Vec<Row> = records.iter().map(TenantRecord::row).collect();
        survey.add_each(&rows, |row, tenant| {
            if keep(tenant) {
                kept.push(Change::Put(row.clone()));
            }
        });
        count += rows.len();
        tell(count);
    };
    let read = runtime.block_on(async {
        let line = read::Line::open(&settings.conninfo, None).await?;
        line.all(take, &[]).await
    });
    read.with_context(|| unreadable(settings))?;
    let faulty = survey.faulty();
    composer.apply(kept);
    Ok(Sample { catalog: composer.catalog(), faulty })
}

/// Where the tables are, and who was to read them.
pub(super) fn unreadable(settings: &TableSettings) -> String {
    let conninfo = &settings.conninfo;
    let hosts: Vec<String> = conninfo.hosts.iter().map(ToString::to_string).collect();
    format!(
        "cannot read the tables in database \"{}\" at {} as \"{}\" ([catalog] connection_string)",
        conninfo.dbname,
        hosts.join(", "),
        conninfo.user
    )
}
