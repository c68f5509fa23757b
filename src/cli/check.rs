//! `tenantgate check`: what a settings file says about each tenant.

use std::collections::BTreeSet;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::catalog::Tenant;
use crate::config::Config;

/// A table for people, of settings that are good.
pub(super) fn table(config: &Config) -> String {
    let elsewhere = match config.table {
        Some(_) => "\ntenants of the tables: tenantgate catalog check",
        None => "",
    };
    let (table, counts) = facts_of_all(config);
    format!("{table}good: {counts}{elsewhere}")
}

/// The table alone, and how many there are of what.
pub(super) fn facts_of_all(config: &Config) -> (String, String) {
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
        (config.catalog.services().count(), "service"),
        (config.catalog.clusters().len(), "cluster"),
        (config.issuers.len(), "issuer"),
        (config.listen.len(), "listener"),
    ];
    let counts = counts.iter().filter(|(count, what)| *count > 0 || *what != "service");
    let counts: Vec<String> = counts
        .map(|(count, what)| format!("{count} {what}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let open: String = levels(config)
        .iter()
        .map(|(level, open)| format!("level {level} leaves open: {open}\n"))
        .collect();
    (format!("{}\n\n{open}", table.trim_fmt()), counts.join(", "))
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
