//! `tenantgate check`: what a settings file says about each tenant.

use std::collections::BTreeSet;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::catalog::Tenant;
use crate::config::Config;

/// A table for people.
pub(super) fn table(config: &Config) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let titles = ["id", "isolation", "cluster", "database", "login", "role", "tier", "level"];
    table.set_header(titles.iter().chain(&["state"]));
    for tenant in config.catalog.tenants() {
        let row = facts(tenant).map(|(_, value)| value.unwrap_or_else(|| "-".to_owned()));
        table.add_row(row);
    }
    let counts = [
        (config.catalog.tenants().len(), "tenant"),
        (config.catalog.clusters().len(), "cluster"),
        (config.issuers.len(), "issuer"),
        (config.listen.len(), "listener"),
    ];
    let counts = counts.map(|(count, what)| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    });
    let counts = format!("good: {}", counts.join(", "));
    let open: String = levels(config)
        .iter()
        .map(|(level, open)| format!("level {level} leaves open: {open}\n"))
        .collect();
    format!("{}\n\n{open}{counts}", table.trim_fmt())
}

/// The levels in force and what each leaves open, once each.
fn levels(config: &Config) -> BTreeSet<(String, &'static str)> {
    let tenants = config.catalog.tenants();
    tenants.map(|it| (it.level_in_words(), it.leaves_open())).collect()
}

/// The same for programs.
pub(super) fn json(config: &Config) -> String {
    let tenants = config.catalog.tenants().map(|tenant| {
        let facts = facts(tenant).map(|(key, value)| (key.to_owned(), Value::from(value)));
        Value::Object(facts.into_iter().collect())
    });
    let clusters = config.catalog.clusters();
    let clusters = clusters.map(|c| json!({ "name": c.name, "capacity": c.capacity }));
    let levels = levels(config);
    let levels = levels.iter().map(|(level, open)| json!({ "level": level, "leaves_open": open }));
    let value = json!({
        "levels": levels.collect::<Vec<_>>(),
        "tenants": tenants.collect::<Vec<_>>(),
        "clusters": clusters.collect::<Vec<_>>(),
        "issuers": config.issuers.iter().map(|issuer| &issuer.name).collect::<Vec<_>>(),
        "listen": config.listen.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(),
    });
    format!("{value:#}")
}

fn facts(tenant: &Tenant) -> [(&'static str, Option<String>); 9] {
    let conninfo = &tenant.route.conninfo;
    [
        ("id", Some(tenant.id.to_string())),
        ("isolation", Some(tenant.isolation.name().to_owned())),
        ("cluster", Some(tenant.route.cluster.name.clone())),
        ("database", Some(conninfo.dbname.clone())),
        ("login", Some(conninfo.user.clone())),
        ("role", tenant.context.value("role").map(str::to_owned)),
        ("tier", Some(tenant.tier.clone())),
        ("level", Some(tenant.level_in_words())),
        ("state", Some(tenant.state.name().to_owned())),
    ]
}
