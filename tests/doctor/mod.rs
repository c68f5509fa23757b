//! The doctor on a database in which something is broken for every code, on the same one repaired,
//! and its output as people, psql and programs read it.

mod of_tables;
mod output;
mod stage;

use std::collections::BTreeSet;

use tenantgate::doctor::{self, Severity};

use crate::doctor::stage::{Seen, Stage};

/// Codes that no database can show, and where they are shown instead.
const ELSEWHERE: [&str; 1] = ["TG951"];

/// What broken.sql must show: levels, database, code, object, as in expected.txt.
fn expected(level: &str) -> BTreeSet<String> {
    let lines = include_str!("expected.txt").lines();
    let lines = lines.filter_map(|line| line.split_once(' '));
    let here = lines.filter(|(levels, _)| levels.split(',').any(|one| one == level));
    here.map(|(_, line)| line.to_owned()).collect()
}

fn differences(found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> String {
    let lacks = wanted.difference(found).map(|line| format!("not found: {line}\n"));
    let invents = found.difference(wanted).map(|line| format!("found: {line}\n"));
    lacks.chain(invents).collect()
}

#[tokio::test]
async fn what_is_broken_is_found_where_it_is_and_nothing_else() {
    let stage = Stage::new().await;
    let mut codes = BTreeSet::new();
    for level in ["plain", "guard", "sealed"] {
        let seen = stage.look(level, &["--json"]).await;
        assert_eq!(seen.code, 1, "{}", seen.stderr);
        assert_eq!(differences(&seen.findings(), &expected(level)), "", "level {level}");
        codes.extend(seen.codes());
    }
    let known = doctor::all().map(|check| check.code).filter(|code| !ELSEWHERE.contains(code));
    let unseen: Vec<&str> = known.filter(|code| !codes.contains(*code)).collect();
    assert!(unseen.is_empty(), "broken.sql shows nothing for {unseen:?}");
}

#[tokio::test]
async fn without_an_administrator_the_login_finds_the_same_and_says_what_it_may_not_see() {
    let stage = Stage::new().await;
    let seen = stage.look_as_login("plain", &["--json"]).await;
    assert_eq!(seen.code, 1, "{}", seen.stderr);
    let mut wanted = expected("plain");
    wanted.retain(|line| !line.contains("TG953"));
    assert_eq!(differences(&seen.findings(), &wanted), "");
    let unseen = seen.unseen();
    assert!(unseen.iter().any(|what| what.starts_with("shop TG953")), "{unseen:?}");
}

#[tokio::test]
async fn what_the_repair_and_a_person_have_mended_is_not_found_again() {
    for level in ["plain", "guard", "sealed"] {
        let mut stage = Stage::new().await;
        stage.repair(level).await;
        let seen = stage.look(level, &["--json"]).await;
        assert_eq!((seen.code, seen.findings()), (0, BTreeSet::new()), "{level} {}", seen.stderr);
        // The probe has looked at a table with rows, as two tenants.
        let unseen = seen.unseen();
        assert!(!unseen.iter().any(|what| what.contains("app.orders")), "{level} {unseen:?}");
    }
}

#[test]
fn codes_are_in_order_and_say_what_to_do() {
    let codes: Vec<&str> = doctor::all().map(|check| check.code).collect();
    assert!(codes.is_sorted() && codes.len() > 40, "{codes:?}");
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    for check in doctor::all() {
        let sentences = [check.why, check.fix];
        assert!(sentences.iter().all(|text| text.ends_with('.')), "{}", check.code);
    }
}

/// The table of the manual, as it must be.
fn manual() -> String {
    let mut rows = String::from(
        "| Code | Severity | Finding | Why | What to do | SQL |\n|---|---|---|---|---|---|\n",
    );
    for check in doctor::all() {
        let severity = check.severity.name();
        let sql = if check.mends() { "yes" } else { "" };
        let cells = [check.title, check.why, check.fix, sql].join(" | ");
        rows.push_str(&format!("| `{}` | {severity} | {cells} |\n", check.code));
    }
    rows
}

#[test]
fn the_manual_has_every_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = manual();
    assert!(page.contains(&table), "docs/doctor.md must have this table:\n{table}");
    assert!(doctor::all().any(|check| check.severity == Severity::Advice));
}

impl Seen {
    /// `database code object` of each finding, line ends escaped.
    fn findings(&self) -> BTreeSet<String> {
        let line = |found: &serde_json::Value| {
            let text = |key: &str| found[key].as_str().unwrap().to_owned();
            let object = text("object").replace('\\', "\\\\").replace('\n', "\\n");
            format!("{} {} {object}", text("database"), text("code"))
        };
        self.json()["findings"].as_array().unwrap().iter().map(line).collect()
    }

    fn codes(&self) -> BTreeSet<String> {
        let code = |line: &String| line.split(' ').nth(1).unwrap().to_owned();
        self.findings().iter().map(code).collect()
    }

    /// `database what` of what was not looked at.
    fn unseen(&self) -> Vec<String> {
        let line = |unseen: &serde_json::Value| {
            let text = |key: &str| unseen[key].as_str().unwrap().to_owned();
            format!("{} {}", text("database"), text("what"))
        };
        self.json()["not_looked_at"].as_array().unwrap().iter().map(line).collect()
    }
}
