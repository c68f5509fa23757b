//! What the doctor prints, how it ends, and a server that is too old.

use serde_json::Value;
use tenantgate::demo::{Cluster, Plan, Template};

use crate::doctor::stage::Stage;
use crate::harness::cluster::superuser;
use crate::harness::messages::parameter_status;
use crate::harness::server::Meddler;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_document_for_programs_keeps_its_shape() {
    let stage = Stage::new().await;
    let seen = stage.look("plain", &["--json"]).await;
    let document = seen.json();
    assert_eq!(keys(&document), ["counts", "databases", "findings", "format", "not_looked_at"]);
    assert_eq!(document["format"], 1);
    let databases = document["databases"].as_array().unwrap();
    let names: Vec<&str> = databases.iter().map(|it| it["database"].as_str().unwrap()).collect();
    assert_eq!(names, ["attic", "shop", "vault"]);
    assert_eq!(keys(&document["counts"]), ["advice", "leak", "weak"]);
    let findings = document["findings"].as_array().unwrap();
    let bare = findings.iter().find(|found| found["object"] == "table app.bare").unwrap();
    let wanted = [
        "cluster", "code", "database", "detail", "fix", "object", "severity", "sql", "title", "why",
    ];
    assert_eq!(keys(bare), wanted);
    assert_eq!((bare["code"].as_str(), bare["severity"].as_str()), (Some("TG101"), Some("leak")));
    assert!(bare["sql"].as_str().unwrap().contains("ENABLE ROW LEVEL SECURITY"));
    let rule = findings.iter().find(|found| found["code"] == "TG504").unwrap();
    assert_eq!(rule["sql"], Value::Null);
    let severities: Vec<&str> =
        findings.iter().map(|found| found["severity"].as_str().unwrap()).collect();
    let worst_first = ["leak", "weak", "advice"];
    let place = |severity: &&str| worst_first.iter().position(|one| one == severity);
    assert!(severities.is_sorted_by_key(place), "{severities:?}");
    let unseen = document["not_looked_at"].as_array().unwrap();
    assert_eq!(keys(&unseen[0]), ["cluster", "database", "failed", "reason", "what"]);
}

#[tokio::test]
async fn people_get_lines_that_line_up_and_no_control_characters() {
    let stage = Stage::new().await;
    let seen = stage.look("plain", &[]).await;
    let table: Vec<&str> = seen.stdout.lines().take_while(|line| !line.is_empty()).collect();
    assert!(table.len() > 40, "{}", seen.stdout);
    let column = table[0].find("finding").unwrap();
    for line in &table {
        let mut before = line.chars().skip(column - 2);
        let gap: String = before.by_ref().take(2).collect();
        assert_eq!(gap, "  ", "{line}");
        assert!(before.next().is_some_and(|one| !one.is_whitespace()), "{line}");
    }
    let end = seen.stdout.lines().last().unwrap();
    assert!(end.ends_with("in 3 databases"), "{end}");
    assert!(seen.stderr.contains("leaks"), "{}", seen.stderr);
    assert!(seen.stdout.contains("Not looked at:\n"));
    assert!(!seen.stdout.chars().any(|one| one.is_control() && one != '\n'));
    assert!(!seen.stdout.contains("\n\\quit"), "a name's line end was printed");
    assert!(!seen.stdout.contains("secret"), "a password was printed");
}

#[tokio::test]
async fn what_cannot_be_asked_ends_with_2() {
    let stage = Stage::new().await;
    let settings = stage.settings("plain", stage.cluster.port());
    let seen = stage.run_with(&settings, &["--cluster", "mian"]).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("did you mean \"main\"?"), "{}", seen.stderr);
    let nobody = stage.settings("plain", 1);
    let seen = stage.run_with(&nobody, &["--json"]).await;
    assert_eq!(seen.code, 2);
    let unseen = seen.json()["not_looked_at"].clone();
    assert_eq!(
        (unseen[0]["what"].as_str(), unseen[0]["failed"].as_bool()),
        (Some("everything"), Some(true))
    );
    let two = format!("{settings}[clusters.other]\ncapacity = 1\n");
    let seen = stage.run_with(&two, &["--fix-sql"]).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("--cluster"), "{}", seen.stderr);
}

#[tokio::test]
async fn an_administrator_of_another_cluster_is_noticed() {
    let stage = Stage::new().await;
    let settings = stage.settings("plain", stage.cluster.port());
    // Copies of one template are one cluster to PostgreSQL.
    let template = Template::new().unwrap();
    let other = Cluster::start(&template, &Plan::default()).unwrap();
    let postgres = superuser(&other, "postgres").await;
    for dbname in ["shop", "attic", "vault"] {
        postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
    }
    let admin = other.superuser_conninfo("postgres");
    let seen = stage.run_with(&settings, &["--admin", &admin]).await;
    assert_eq!(seen.code, 2, "{}", seen.stdout);
    assert!(seen.stdout.contains("another cluster"), "{}", seen.stdout);
}

#[tokio::test]
async fn a_release_with_known_holes_is_a_leak() {
    let stage = Stage::new().await;
    let meddler = Meddler::start(stage.cluster.port(), |_, frame| {
        let old = frame.tag == b'S' && frame.texts()[0] == "server_version";
        Some(if old { parameter_status("server_version", "15.8") } else { frame.bytes() })
    });
    let meddler = meddler.await;
    let settings = stage.settings("plain", meddler.port);
    let seen = stage.run_with(&settings, &["--json"]).await;
    let findings = seen.json()["findings"].clone();
    let old = findings.as_array().unwrap().iter().find(|found| found["code"] == "TG951").unwrap();
    assert!(old["detail"].as_str().unwrap().contains("15.8"), "{old}");
}
