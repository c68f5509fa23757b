//! The table of `docs/drivers.md`: `TENANTGATE_WRITE_DOCS=1` rewrites it, anything else compares.

use std::fmt::Write;
use std::path::Path;

use super::entries::Entry;
use super::{Outcome, Outcomes, SCENARIOS};

const BEGIN: &str = "<!-- written by tests/drivers: TENANTGATE_WRITE_DOCS=1 -->\n";
const END: &str = "<!-- end of what tests/drivers wrote -->\n";

/// Drivers and scenarios; a cell says whether the driver has something of the kind.
pub fn table<'row>(rows: impl Iterator<Item = (&'row Entry, &'row Outcomes)>) -> String {
    let titles = SCENARIOS.map(|name| name.replace('_', " ")).join(" | ");
    let mut text = format!("| Driver | Language | {titles} |\n|---|---{}|\n", "|---".repeat(20));
    for (entry, outcomes) in rows {
        let cells = SCENARIOS.map(|name| match outcomes.get(name) {
            Some(Outcome::Done) => "yes",
            Some(Outcome::Absent(_)) => "-",
            Some(Outcome::Failed(_)) => "**no**",
            None => "?",
        });
        let cells = cells.join(" | ");
        writeln!(text, "| {} | {} | {cells} |", entry.name, entry.language).unwrap();
    }
    text
}

/// Holds the page against the table, if all drivers are here.
pub fn compare(table: &str, missing: &[Entry]) {
    if !missing.is_empty() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/drivers.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, behind) = page.split_once(BEGIN).expect("a place for the table");
    let (is, after) = behind.split_once(END).expect("an end of the table");
    if std::env::var_os("TENANTGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(is == table, "docs/drivers.md has another table; TENANTGATE_WRITE_DOCS=1 rewrites it");
}
