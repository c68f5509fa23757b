//! Who would be led to other data by other settings: a route is only words, and data does not
//! follow it by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::catalog::{Catalog, Tenant};
use crate::server::Host;

/// Tenants whose data would be looked for elsewhere, or who would be gone, as a table for people.
pub(super) fn table(old: &Catalog, new: &Catalog) -> String {
    let known: BTreeMap<&str, &Arc<Tenant>> =
        new.tenants().map(|tenant| (tenant.id.as_str(), tenant)).collect();
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["tenant", "from", "to"]);
    let (mut moved, mut gone) = (0, 0);
    for former in old.tenants() {
        let (id, from) = (former.id.as_str(), places(former));
        match known.get(id).map(|tenant| places(tenant)) {
            Some(to) if to == from => {}
            Some(to) => {
                table.add_row([id, &from, &to]);
                moved += 1;
            }
            None => {
                table.add_row([id, &from, "(out)"]);
                gone += 1;
            }
        }
    }
    let tenants =
        |count| if count == 1 { "1 tenant".to_owned() } else { format!("{count} tenants") };
    match (moved, gone) {
        (0, 0) => "no tenant would be looked for elsewhere".to_owned(),
        _ => format!(
            "{}\n\n{} would be looked for elsewhere, {} would be out",
            table.trim_fmt(),
            tenants(moved),
            tenants(gone)
        ),
    }
}

/// Where a tenant's rows are, for each of its roles: which of these it sees is no matter of place.
fn places(tenant: &Arc<Tenant>) -> String {
    let places: BTreeSet<String> = tenant.faces().map(|face| place(face)).collect();
    places.into_iter().collect::<Vec<_>>().join("; ")
}

fn place(tenant: &Tenant) -> String {
    let (cluster, conninfo) = (&tenant.route.cluster.name, &tenant.route.conninfo);
    let hosts: Vec<String> = conninfo.hosts.iter().map(spot).collect();
    let path = tenant.context.value("search_path");
    let path = path.map(|path| format!(", {path}")).unwrap_or_default();
    format!("{cluster}: {} at {}{path}", conninfo.dbname, hosts.join(", "))
}

/// A host and its port, by the address if one is given.
fn spot(host: &Host) -> String {
    match host {
        Host::Unix { folder, port } => format!("{}:{port}", folder.display()),
        Host::Tcp { address: Some(address), port, .. } => {
            std::net::SocketAddr::new(*address, *port).to_string()
        }
        Host::Tcp { name, port, .. } => format!("{name}:{port}"),
    }
}
