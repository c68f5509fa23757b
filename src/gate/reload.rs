//! Reload: read the file again, take over what can change live, and leave everything as it is if
//! the file is wrong in any place.

use std::sync::atomic::Ordering;

use crate::catalog::Moved;
use crate::config::{self, Config};
use crate::gate::act;
use crate::gate::desk::Desk;
use crate::gate::listen::Terms;
use crate::gate::table;
use crate::gate::worker::Order;

impl Desk {
    /// Reads settings and catalog again. Says which changed settings need a restart. An error is
    /// the text for the person who wrote the file; then nothing has changed.
    pub fn apply_settings(&self) -> Result<Vec<String>, String> {
        if let Some(tenant) = self.moves.under_way() {
            return Err(format!(
                "tenant \"{tenant}\" is being moved: try again when it is done, or end that with \
                 RESUME TENANT"
            ));
        }
        let loaded = config::load_beside(&self.path, &self.started.own())
            .map_err(|error| error.to_string())?;
        self.take_over(loaded)
    }

    /// Has settings and catalog that were read in force.
    pub fn take_over(&self, loaded: Config) -> Result<Vec<String>, String> {
        let former = self.common.authenticator.load();
        let mut authenticator = former.next(&loaded.issuers).map_err(|error| error.to_string())?;
        let terms = self.terms_of(&loaded)?;
        authenticator.start(Some(&former)).map_err(|error| error.to_string())?;
        // Nothing below can fail.
        let fixed = loaded.needs_restart(&self.started);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            tracing::warn!(keys, "changed settings that only a restart applies");
        }
        let kept = self.started.table().into_iter().filter(|setting| !setting.live);
        let mut in_force: Vec<_> = kept.collect();
        in_force.extend(loaded.table().into_iter().filter(|setting| setting.live));
        *self.settings.borrow_mut() = in_force;
        for (place, terms) in self.terms.iter().zip(terms) {
            if let Some(terms) = terms {
                place.replace(terms);
            }
        }
        let common = &self.common;
        let mut composer = common.composer.lock();
        let before = composer.catalog();
        composer.reload(loaded.catalog);
        let next = composer.catalog();
        let (tenants, faults) = (composer.tenants(), next.faulty());
        common.catalog.share(next.clone());
        let pairs = before.tenants().map(|tenant| Moved {
            before: Some(tenant.clone()),
            after: next.known(tenant.id.as_str()).cloned(),
        });
        // Whoever is only not known any more is not gone.
        let is_noted =
            |it: &Moved| it.after.is_some() || it.id().is_some_and(|id| !composer.has(id));
        let pairs: Vec<Moved> = pairs.filter(is_noted).collect();
        drop(composer);
        act::note_changes(&common.audit, "the settings file", pairs.iter());
        next.faults().take(table::FAULTS_TOLD).for_each(|(id, faults)| table::tell(id, faults));
        if let Some(table) = &self.table {
            table.read_again();
        }
        common.authenticator.replace(authenticator);
        common.client.replace(loaded.client);
        common.clients_max.store(loaded.gate.clients, Ordering::Relaxed);
        self.drain_timeout.set(loaded.gate.drain_timeout);
        self.console.replace(loaded.console);
        common.audit.reopen();
        if let Err(error) = self.log.set_level(&loaded.log) {
            tracing::error!(%error, "could not change the log level");
        }
        common.metrics.catalog_tenants.set(tenants as f64);
        common.metrics.catalog_faults.set(faults as f64);
        self.workers.iter().for_each(|worker| worker.order(Order::Reload));
        tracing::info!(tenants, "reloaded the catalog and the settings");
        Ok(fixed)
    }

    /// New terms for each running listener that the file still has at its address.
    fn terms_of(&self, loaded: &Config) -> Result<Vec<Option<Terms>>, String> {
        let running = self.started.listen.iter();
        let terms = running.map(|running| {
            let same = loaded.listen.iter().find(|it| it.address == running.address);
            same.map(Terms::new).transpose().map_err(|error| error.to_string())
        });
        terms.collect()
    }
}
