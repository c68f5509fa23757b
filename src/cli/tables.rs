//! Tenants of the tables, for commands that want to know where tenants are.

use std::cell::Cell;
use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use crate::catalog::Tenant;
use crate::config::Config;
use crate::gate::{self, Sample};

/// Silence longer than this makes people wonder.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// The file's tenants, and of the tables' those that `keep` says yes to. Standard error hears how
/// far it is.
pub(super) fn sample(
    config: &Config,
    command: &str,
    keep: impl FnMut(&Arc<Tenant>) -> bool,
) -> Result<Sample, Failure> {
    let Some(table) = &config.table else {
        return Ok(Sample { catalog: Arc::new(config.catalog.clone()), faulty: 0 });
    };
    let told = Cell::new(Instant::now());
    let tell = |rows: usize| {
        if told.get().elapsed() > QUIET {
            told.set(Instant::now());
            // With nobody left to read it there is nothing to be done.
            let _ = writeln!(stderr(), "{command}: {rows} rows of the tables read");
        }
    };
    // Without them nothing can be said of anybody: those of the file alone are not the answer.
    let sample = gate::sample(table, &config.catalog, keep, tell);
    sample.map_err(|error| Failure::Usage(format!("{error:#}")))
}
