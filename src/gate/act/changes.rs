//! What the audit is told of tenants that became others.

use crate::catalog::{Moved, Tenant};
use crate::telemetry::{Audit, Event, What};

/// Notes each tenant whose state or route is another, and who said so.
pub fn note_changes(
    audit: &Audit,
    by: &str,
    moved: impl Iterator<Item = impl std::borrow::Borrow<Moved>>,
) {
    if !audit.is_kept() {
        return;
    }
    for moved in moved {
        let Moved { before, after } = moved.borrow();
        let Some(before) = before else { continue };
        let told = |words: String| {
            let event = Event::new(What::State).tenant(before.id.as_str());
            audit.record(&event.reason(&format!("{words}, by {by}")));
        };
        let state = |tenant: Option<&Tenant>| match tenant {
            Some(tenant) => tenant.state.name(),
            None => "gone",
        };
        let then = state(after.as_deref());
        if after.as_ref().is_none_or(|after| after.state != before.state) {
            told(format!("{} to {then}", before.state.name()));
        }
        if let Some(after) = after.as_ref().filter(|after| !after.is_routed_as(before)) {
            told(format!("from {} to {}", place(before), place(after)));
        }
    }
}

/// A route in words that hold no secret.
pub fn place(tenant: &Tenant) -> String {
    let (isolation, cluster) = (tenant.isolation.name(), &tenant.route.cluster.name);
    let (dbname, login) = (&tenant.route.conninfo.dbname, &tenant.route.conninfo.user);
    let schema = tenant.context.value("search_path");
    let schema = schema.map(|path| format!(", schema {path}")).unwrap_or_default();
    format!("{isolation} in {dbname}@{cluster} as {login}{schema}")
}
