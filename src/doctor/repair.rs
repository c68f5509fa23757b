//! SQL that repairs: templates filled with names that the server quoted, and the script for psql.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::doctor::report::{Finding, Report};
use crate::isolation::quote;

/// A template with `{name}` replaced by values; `None` if it is empty or a value is missing.
pub(super) fn filled(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}')?;
        text.push_str(before);
        text.push_str(&value(name)?);
        rest = behind;
    }
    text.push_str(rest);
    (!text.is_empty()).then_some(text)
}

/// A script for psql, to be run by a superuser of the cluster that the report is about: what SQL
/// can repair, and as comments what a person must.
pub fn script(report: &Report) -> String {
    let mut sql =
        "-- Repairs what `tenantgate doctor` found. Read it, then run it with psql as a\n\
                   -- superuser: each statement for itself, the first error stops it. What stands\n\
                   -- behind \"by hand\" is not repaired by it. Then run the doctor again.\n\
                   \\set ON_ERROR_STOP on\n"
            .to_owned();
    if report.findings.iter().any(|found| repairs(found).contains(":\"owner\"")) {
        sql.push_str(OWNER);
    }
    let places: BTreeSet<(&str, &str)> =
        report.findings.iter().map(|f| (f.cluster.as_str(), f.database.as_str())).collect();
    for (cluster, database) in places {
        let here = report.findings.iter();
        let here = here.filter(|f| f.cluster == cluster && f.database == database);
        // psql reads a quoted name up to the next quote, and a line up to its end.
        if database.contains(['"', '\\', '\'', '`']) || database.chars().any(char::is_control) {
            let database = one_line(database);
            let _ = writeln!(sql, "\n-- Database {database} has a name that psql cannot be given.");
            continue;
        }
        let _ = writeln!(sql, "\n\\connect {}", quote::identifier(database));
        sql.push_str("SET search_path TO pg_catalog, pg_temp;\n");
        let mut done = BTreeSet::new();
        let mut here: Vec<&Finding> = here.collect();
        here.sort_by_key(|found| found.check.code);
        for found in here {
            write_repair(&mut sql, found, &mut done);
        }
    }
    sql
}

/// Tables that tenants own go to a role without login; `psql -v owner=NAME` names another.
const OWNER: &str = "
-- Whoever shall own what tenants own now: psql -v owner=NAME
\\if :{?owner}
\\else
\\set owner tenants_owner
\\endif
SELECT format('CREATE ROLE %I NOLOGIN', :'owner')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec
";

fn repairs(found: &Finding) -> &str {
    found.repair.as_deref().unwrap_or_default()
}

/// Each statement once, in the order of the codes.
fn write_repair<'report>(
    sql: &mut String,
    found: &'report Finding,
    done: &mut BTreeSet<&'report str>,
) {
    let Finding { check, object, detail, .. } = found;
    let detail = detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let head = one_line(&format!("{} {}: {object}{detail}", check.code, check.title));
    // Writing to a String cannot fail.
    let _ = match &found.repair {
        Some(repair) if done.insert(repair) => writeln!(sql, "\n-- {head}\n{repair}"),
        Some(_) => writeln!(sql, "\n-- {head}\n-- as above"),
        None => writeln!(sql, "\n-- {head}\n-- by hand: {}", check.fix),
    };
}

/// A comment ends with its line, and a name can have line ends in it.
fn one_line(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::find;

    #[test]
    fn a_template_with_a_value_missing_gives_nothing() {
        let value = |name: &str| (name == "a").then(|| "1".to_owned());
        assert_eq!(filled("x {a};{a}", value).as_deref(), Some("x 1;1"));
        assert_eq!(filled("x {a} {b}", value), None);
        assert_eq!(filled("", value), None);
    }

    #[test]
    fn a_name_with_a_line_end_stays_in_its_comment() {
        let mut report = Report::default();
        report.findings.push(Finding {
            check: find("TG105").unwrap(),
            cluster: "main".to_owned(),
            database: "app".to_owned(),
            object: "table \"x\nDROP TABLE y; --\"".to_owned(),
            detail: Some("a\r\n\\! id".to_owned()),
            repair: None,
        });
        let sql = script(&report);
        let allowed = ["--", "\\set ON_ERROR_STOP", "\\connect \"app\"", "SET search_path"];
        for line in sql.lines().filter(|line| !line.is_empty()) {
            assert!(allowed.iter().any(|start| line.starts_with(start)), "{line}");
        }
        report.findings[0].database = "a\n\\! id".to_owned();
        assert!(!script(&report).contains("\\connect"));
    }
}
