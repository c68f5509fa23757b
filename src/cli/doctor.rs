//! `tenantgate doctor`: prints what would leak in the databases of the tenants, and how to mend it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Write as _, stderr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use super::{Failure, File, tables};
use crate::catalog::Tenant;
use crate::config::Config;
use crate::doctor::{self, Finding, Plan, Progress, Report, Severity, Unseen, Ways};
use crate::gate::Sample;
use crate::server::Conninfo;
use crate::spelling;

/// Longest part of a detail in the table; JSON has all of it.
const DETAIL_CHARS_MAX: usize = 70;

/// Most things in one line of what was not looked at; JSON has all of them.
const UNSEEN_MAX: usize = 8;

#[derive(Args)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    file: File,
    /// A cluster, as in [clusters.NAME]; all without it
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<String>,
    /// A superuser's connection string; without it the tenants' own logins ask
    #[arg(long, value_name = "CONNINFO", env = "TENANTGATE_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// A column that holds tenants' ids, if it is not named like the tenant setting
    #[arg(long = "tenant-column", value_name = "NAME")]
    columns: Vec<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "fix_sql")]
    json: bool,
    /// Print only SQL that repairs what was found, for psql as a superuser
    #[arg(long)]
    fix_sql: bool,
}

/// Looks, and gives what is to be printed and how it ends.
pub(super) fn run(command: &DoctorCommand) -> Result<(String, Result<(), Failure>), Failure> {
    let config = command.file.load()?;
    let report = report(command, &config)?;
    let text = match (command.json, command.fix_sql) {
        (true, _) => json(&report),
        (_, true) => doctor::script(&report),
        _ => table(&report),
    };
    Ok((text, verdict(&report)))
}

fn report(command: &DoctorCommand, config: &Config) -> Result<Report, Failure> {
    let admin = administrator(command, config)?;
    let wanted =
        |name: &str| command.clusters.is_empty() || command.clusters.iter().any(|it| it == name);
    let mut ways = Ways::default();
    let keep = |tenant: &Arc<Tenant>| wanted(&tenant.route.cluster.name) && ways.take(tenant);
    let Sample { catalog, faulty } = tables::sample(config, "doctor", keep)?;
    let plan = Plan {
        catalog: &catalog,
        clusters: &command.clusters,
        admin: admin.as_ref(),
        columns: &command.columns,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(anyhow::Error::from)?;
    let told = Cell::new(Instant::now());
    let tell = |Progress { done, all, dbname, step }: Progress<'_>| {
        if told.get().elapsed() > tables::QUIET {
            told.set(Instant::now());
            let (dbname, step) = (shown(dbname), shown(step));
            // With nobody left to read it there is nothing to be done.
            let _ = writeln!(stderr(), "doctor: {done} of {all} databases, {dbname}: {step}");
        }
    };
    let examined = runtime.block_on(doctor::examine(&plan, tell));
    let mut report = examined.map_err(anyhow::Error::from)?;
    note_missing(&mut report, command, config, faulty);
    Ok(report)
}

/// What a clean bill would leave out: clusters without tenants, and rows that nobody can use.
fn note_missing(report: &mut Report, command: &DoctorCommand, config: &Config, faulty: usize) {
    let missing = |cluster: &str, what: &str, reason: String| {
        let (cluster, database, what) = (cluster.to_owned(), String::new(), what.to_owned());
        Unseen { cluster, database, what, reason, failed: true }
    };
    if faulty > 0 {
        let reason =
            format!("{faulty} at fault and not served: tenantgate catalog check names them");
        report.unseen.push(missing("", "rows of the tables", reason));
    }
    let tables = if config.table.is_some() { " or the tables" } else { "" };
    let nobody = format!("no tenant of the settings{tables} is");
    let places: Vec<_> = report.visited.iter().chain(&report.unreached).collect();
    let is_empty = |name: &&String| !places.iter().any(|(cluster, _)| cluster == *name);
    let empty = command.clusters.iter().filter(is_empty);
    let mut unseen: Vec<Unseen> = empty
        .map(|name| missing(name, "everything", format!("{nobody} on cluster \"{name}\"")))
        .collect();
    if places.is_empty() && command.clusters.is_empty() {
        unseen.push(missing("", "everything", format!("{nobody} on any cluster")));
    }
    report.unseen.extend(unseen);
}

/// Whom the command line names to ask, if it names anybody.
fn administrator(command: &DoctorCommand, config: &Config) -> Result<Option<Conninfo>, Failure> {
    for cluster in &command.clusters {
        let known = || config.catalog.clusters().map(|cluster| cluster.name.as_str());
        if !known().any(|name| name == cluster) {
            let meant = spelling::nearest(cluster, known());
            let meant = meant.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
            return Err(Failure::Usage(format!("there is no [clusters.{cluster}]{meant}")));
        }
    }
    let looked_at = match command.clusters.len() {
        0 => config.catalog.clusters().len(),
        some => some,
    };
    for (option, given) in [("admin", command.admin.is_some()), ("fix-sql", command.fix_sql)] {
        if given && looked_at > 1 {
            let message = format!("--{option} is for one cluster, name it with --cluster");
            return Err(Failure::Usage(message));
        }
    }
    let read = |text| Conninfo::read(text, Path::new(""));
    let admin = command.admin.as_deref().map(read).transpose();
    admin.map_err(|error| Failure::Usage(format!("--admin: {error}")))
}

/// 0 for nothing but advice, 1 for findings, 2 where something could not be asked.
fn verdict(report: &Report) -> Result<(), Failure> {
    if report.failed() {
        let how_much = if report.visited.is_empty() { "nothing" } else { "not everything" };
        return Err(Failure::Usage(format!("{how_much} could be looked at")));
    }
    match report.count(Severity::Leak) + report.count(Severity::Weak) {
        0 => Ok(()),
        _ => Err(Failure::Ran(counts(report))),
    }
}

fn counts(report: &Report) -> String {
    let [leak, weak, advice] =
        [Severity::Leak, Severity::Weak, Severity::Advice].map(|severity| report.count(severity));
    let leaks = if leak == 1 { "leak" } else { "leaks" };
    format!("{leak} {leaks}, {weak} weak, {advice} advice")
}

/// For people: the findings, what they mean, and what was not looked at.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    if !report.findings.is_empty() {
        let _ = writeln!(text, "{}\n", findings(report).trim_fmt());
    }
    let mut told = BTreeSet::new();
    for found in &report.findings {
        if told.insert(found.check.code) {
            let Finding { check, .. } = found;
            let _ = writeln!(text, "{}  {} {}", check.code, check.why, check.fix);
        }
    }
    if !report.unseen.is_empty() {
        text.push_str("\nNot looked at:\n");
        let mut grouped: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for Unseen { database, what, reason, .. } in &report.unseen {
            grouped.entry((database, reason)).or_default().push(what);
        }
        for ((database, reason), what) in grouped {
            let more = what.len().saturating_sub(UNSEEN_MAX);
            let what: Vec<&str> = what.into_iter().take(UNSEEN_MAX).collect();
            let what = shown(&what.join(", "));
            let what = if more == 0 { what } else { format!("{what} and {more} more") };
            let place = if database.is_empty() { String::new() } else { shown(database) + ": " };
            let _ = writeln!(text, "- {place}{what}: {}", shown(reason));
        }
    }
    let _ = write!(text, "\n{}", summary(report));
    text
}

/// The line that people read. Where nobody looked there are no counts.
fn summary(report: &Report) -> String {
    let databases = |count: usize| match count {
        1 => "1 database".to_owned(),
        count => format!("{count} databases"),
    };
    let unreached = databases(report.unreached.len()) + " could not be reached";
    match (report.visited.len(), report.unreached.len()) {
        (0, 0) => "nothing was looked at".to_owned(),
        (0, _) => format!("nothing was looked at: {unreached}"),
        (places, 0) => format!("{} in {}", counts(report), databases(places)),
        (places, _) => format!("{} in {}; {unreached}", counts(report), databases(places)),
    }
}

fn findings(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["severity", "code", "database", "object", "finding"]);
    for found in &report.findings {
        let detail = found.detail.as_deref().map(brief).unwrap_or_default();
        let finding = match detail.is_empty() {
            true => found.check.title.to_owned(),
            false => format!("{}: {detail}", found.check.title),
        };
        let (severity, code) = (found.check.severity.name(), found.check.code);
        let (database, object) = (shown(&found.database), shown(&found.object));
        table.add_row([severity, code, &database, &object, &finding]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The same for programs. `format` rises when a key changes its meaning or goes.
pub(super) fn json(report: &Report) -> String {
    let findings = report.findings.iter().map(|found| {
        json!({
            "code": found.check.code,
            "severity": found.check.severity.name(),
            "title": found.check.title,
            "cluster": found.cluster,
            "database": found.database,
            "object": found.object,
            "detail": found.detail,
            "why": found.check.why,
            "fix": found.check.fix,
            "sql": found.repair,
        })
    });
    let unseen = report.unseen.iter().map(|unseen| {
        json!({
            "cluster": unseen.cluster,
            "database": unseen.database,
            "what": unseen.what,
            "reason": unseen.reason,
            "failed": unseen.failed,
        })
    });
    let visited = report
        .visited
        .iter()
        .map(|(cluster, database)| json!({ "cluster": cluster, "database": database }));
    let count = |severity| report.count(severity);
    let value = json!({
        "format": 1,
        "databases": visited.collect::<Vec<Value>>(),
        "findings": findings.collect::<Vec<Value>>(),
        "not_looked_at": unseen.collect::<Vec<Value>>(),
        "counts": {
            "leak": count(Severity::Leak),
            "weak": count(Severity::Weak),
            "advice": count(Severity::Advice),
        },
    });
    format!("{value:#}")
}

fn brief(detail: &str) -> String {
    let detail = shown(detail);
    match detail.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", detail.get(..end).unwrap_or_default()),
        None => detail,
    }
}

/// A name from a database, without what could move a terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}
