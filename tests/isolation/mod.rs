//! Attacks: what one tenant leaves, forges, breaks or hoards must never reach another. Clusters
//! have one server connection unless a test says otherwise, so that every transaction changes
//! tenant on the same PostgreSQL backend.

mod acting;
mod acting_again;
mod acting_hostile;
mod acting_rights;
mod acting_trips;
mod deaths;
mod entering;
mod forgery;
mod greetings;
mod held;
mod levels;
mod neighbours;
mod order;
mod pins;
mod readings;
mod residue;
mod waiting;

use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

/// Five tenants and a gate with one server connection for all of them.
async fn one_server() -> (Estate, Gate) {
    one_server_with(&Tweaks::default()).await
}

/// The same, with other settings besides.
async fn one_server_with(tweaks: &Tweaks<'_>) -> (Estate, Gate) {
    let estate = Estate::within(shared().await).await;
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..tweaks.clone() })).await;
    (estate, gate)
}

/// A tenant's raw session that gives start-up parameters of its own.
async fn wire_with(gate: &Gate, tenant: &Tenant, more: &[(&str, &str)]) -> Wire {
    let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
    Wire::login(gate.port, &Login { user: "app", dbname, password, more }).await
}

/// What a tenant reads of its notes, in the notation.
fn own_notes(tenant: &Tenant) -> String {
    let rows = tenant.notes.iter().map(|(_, body)| format!("D({body}) "));
    format!("T {}C(SELECT 3) Z(I)", rows.collect::<String>())
}

/// Reads them.
const NOTES: &str = "SELECT body FROM notes ORDER BY id";
