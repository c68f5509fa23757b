//! Who would be led to other data by other settings: a route is only words, and data does not
//! follow it by itself.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::catalog::{Catalog, Tenant};
use crate::server::Host;

/// Tenants of both catalogs whose data would be looked for elsewhere, as a table for people.
pub(super) fn table(old: &Catalog, new: &Catalog) -> String {
    let known: BTreeMap<&str, &Tenant> =
        old.tenants().map(|tenant| (tenant.id.as_str(), &**tenant)).collect();
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["tenant", "from", "to"]);
    let mut moved = 0;
    for tenant in new.tenants() {
        let Some(former) = known.get(tenant.id.as_str()) else { continue };
        let (from, to) = (place(former), place(tenant));
        if from != to {
            table.add_row([tenant.id.to_string(), from, to]);
            moved += 1;
        }
    }
    match moved {
        0 => "no tenant would be looked for elsewhere".to_owned(),
        1 => format!("{}\n\n1 tenant would be looked for elsewhere", table.trim_fmt()),
        _ => format!("{}\n\n{moved} tenants would be looked for elsewhere", table.trim_fmt()),
    }
}

/// Where a tenant's rows are: which of these it sees is not a matter of place.
fn place(tenant: &Tenant) -> String {
    let (cluster, conninfo) = (&tenant.route.cluster.name, &tenant.route.conninfo);
    let hosts: Vec<String> = conninfo.hosts.iter().map(spot).collect();
    let path = tenant.context.value("search_path");
    let path = path.map(|path| format!(", {path}")).unwrap_or_default();
    format!("{cluster}: {} at {}{path}", conninfo.dbname, hosts.join(", "))
}

/// A host and its port.
fn spot(host: &Host) -> String {
    match host {
        Host::Unix { folder, port } => format!("{}:{port}", folder.display()),
        Host::Tcp { name, port, .. } => format!("{name}:{port}"),
    }
}
