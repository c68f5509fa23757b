//! Reload: read the file again, take over what can change live, and leave everything as it is if
//! the file is wrong in any place.

use std::path::Path;

use crate::auth::Authenticator;
use crate::config::{self, Config, Setting};
use crate::gate::Common;
use crate::gate::worker::{Order, Worker};

/// Reads settings and catalog again and says which settings are in force now. A bad file changes
/// nothing and says why in the log.
pub async fn reload(
    common: &Common,
    workers: &[Worker],
    path: &Path,
    started: &Config,
) -> Option<Vec<Setting>> {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            common.metrics.reloads.rejected.increment(1);
            tracing::error!("reload rejected, everything stays as it was\n{error}");
            return None;
        }
    };
    let authenticator = match Authenticator::new(&loaded.issuers) {
        Ok(authenticator) => authenticator,
        Err(error) => {
            common.metrics.reloads.rejected.increment(1);
            tracing::error!(%error, "reload rejected, everything stays as it was");
            return None;
        }
    };
    let changed = loaded.needs_restart(started);
    if !changed.is_empty() {
        let keys = changed.join(", ");
        tracing::warn!(keys, "changed settings that only a restart applies");
    }
    let fixed = started.table().into_iter().filter(|setting| !setting.live);
    let live = loaded.table().into_iter().filter(|setting| setting.live);
    let in_force = fixed.chain(live).collect();
    let next = loaded.catalog.next(&common.catalog.load());
    let tenants = next.tenants().len();
    common.catalog.replace(next);
    common.authenticator.replace(authenticator);
    common.metrics.catalog_tenants.set(tenants as f64);
    common.metrics.reloads.applied.increment(1);
    for worker in workers {
        worker.order(Order::Reload);
    }
    tracing::info!(tenants, "reloaded the catalog and the issuers");
    Some(in_force)
}
