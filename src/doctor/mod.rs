//! Looks at the databases of a catalog's tenants, object by object, for what would leak: asks the
//! server's catalogs, lets the gate's own check speak, and looks at rows as one tenant and then as
//! another. It changes nothing.

mod ask;
mod check;
mod checks;
mod prelude;
mod probe;
mod repair;
mod report;
mod target;

use std::io;

pub use check::{Severity, all};
pub use repair::script;
pub use report::{Finding, Report, Unseen};
pub use target::Ways;

use crate::catalog::Catalog;
use crate::doctor::ask::Asker;
use crate::doctor::check::find;
use crate::net::{Buffers, Clock};
use crate::server::Conninfo;

/// What to look at, and as whom.
#[derive(Debug)]
pub struct Plan<'plan> {
    pub catalog: &'plan Catalog,
    /// Names of clusters; all if there are none.
    pub clusters: &'plan [String],
    /// A superuser's connection string, whose database does not matter. Without it the routes'
    /// own logins ask, and what they may not see is reported as not looked at.
    pub admin: Option<&'plan Conninfo>,
    /// Further names of tenant columns, beside the last part of the tenant setting.
    pub columns: &'plan [String],
}

/// How far it is: databases done, databases in all, the one it is at, and what it does there.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'name> {
    pub done: usize,
    pub all: usize,
    pub dbname: &'name str,
    pub step: &'name str,
}

/// Looks at every database. A database that cannot be reached is in the report.
///
/// # Errors
///
/// The system gives no thread for timers.
pub async fn examine(plan: &Plan<'_>, progress: impl Fn(Progress<'_>)) -> io::Result<Report> {
    let (buffers, clock) = (Buffers::default(), Clock::start()?);
    let wanted =
        |name: &str| plan.clusters.is_empty() || plan.clusters.iter().any(|one| one == name);
    let targets = target::targets(plan.catalog, wanted);
    let mut report = Report::default();
    for (done, target) in targets.iter().enumerate() {
        let (all, dbname) = (targets.len(), target.dbname.as_str());
        let tell = |step: &str| progress(Progress { done, all, dbname, step });
        let mut room = report.room(target, &tell);
        let asker = Asker::connect(plan, target, &mut room).await;
        room.note_visit(asker.is_some());
        let Some(asker) = asker else { continue };
        asker.ask_all(&mut room).await;
        let tables = asker.tables(&mut room).await;
        probe::look(target, &tables, asker.server_id(), (&buffers, &clock), &mut room).await;
    }
    report.settle();
    Ok(report)
}
