//! `tenantgate load` as its users run it: against a gate, against PostgreSQL with an application's
//! own prelude, and against something that leaks.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tenantgate::demo::{Cluster, Plan};

use crate::harness::cluster::{shared, superuser, template};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::unique;

const SELECT: &str = "\\set id random(1, 3)\n\
                      SELECT tenant_id, body FROM app.notes WHERE id = :id;\n";

/// The row tenants of an estate with their tokens, and an SQL file.
struct Files(TempDir);

impl Files {
    fn new(sql: &str, tenants: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("query.sql"), sql).unwrap();
        fs::write(folder.path().join("tokens.txt"), tenants).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Runs the load with these further words.
    fn load(&self, target: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
        command.args(["load", "--target", target, "--file", &self.path("query.sql")]);
        if !words.contains(&"--seconds") {
            command.args(["--seconds", "1"]);
        }
        command.args(words).current_dir(self.0.path()).output().unwrap()
    }
}

fn tokens(estate: &Estate) -> String {
    let lines = [&estate.acme, &estate.globex].map(|it| format!("{} {}\n", it.id, it.token));
    lines.concat()
}

fn gate_target(gate: &Gate) -> String {
    format!("host=127.0.0.1 port={} user=app dbname=app", gate.port)
}

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{out}\n{error}")
}

fn json(output: &Output) -> Value {
    let told = serde_json::from_slice(&output.stdout);
    told.unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[tokio::test]
async fn a_load_on_the_gate_checks_every_row_and_shows_each_tenant() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let files = Files::new(SELECT, &tokens(&estate));
    let plot = files.path("plot.svg");
    let checked = ["--tenants", "tokens.txt", "--check-column", "tenant_id"];
    let words = ["--clients", "5", "--plot", &plot, "--zipf", "1"];
    let output = files.load(&gate_target(&gate), &[&checked[..], &words].concat());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for told in [estate.acme.id.as_str(), &estate.globex.id, "p99.9 ms", "of other tenants: 0"] {
        assert!(text.contains(told), "no {told}:\n{text}");
    }
    assert!(!text.contains(&estate.acme.token), "{text}");
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("latency in ms, by quantile"));

    let output = files.load(&gate_target(&gate), &[&checked[..], &["--json"]].concat());
    let told = json(&output);
    let done = told["groups"][0]["done"].as_u64().unwrap();
    assert!(done > 10, "{told}");
    // Every transaction gives one row.
    assert_eq!(told["rows_checked"].as_u64(), Some(done));
    assert_eq!(told["by_tenant"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tokens_are_signed_for_a_pattern_of_tenants_and_arrivals_keep_their_rate() {
    let (estate, mark) = (Estate::new().await, unique());
    let tenants = (1..=3).map(|number| {
        format!(
            "[tenants.load-{mark}-{number}]\nisolation = \"row\"\ncluster = \"main\"\n\
             schema = \"app\"\nrole = \"app_rw\"\n\n"
        )
    });
    let more = tenants.collect::<String>();
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    let app = superuser(shared().await, "app").await;
    let rows = format!(
        "INSERT INTO app.notes SELECT 'load-{mark}-' || t, i, '' \
         FROM generate_series(1, 3) t, generate_series(1, 3) i"
    );
    app.batch_execute(&rows).await.unwrap();
    let files = Files::new(SELECT, "");
    let (key, ids) =
        (gate.folder().join("login.key").display().to_string(), format!("load-{mark}-#"));
    let signed = ["--jwt-key", &key, "--jwt-issuer", "https://login.test", "--jwt-audience"];
    let words = ["tenantgate", "--ids", &ids, "--count", "3", "--check-column", "tenant_id"];
    let paced = ["--rate", "100", "--clients", "12", "--noisy", &format!("load-{mark}-2")];
    let more = ["--noise", "5", "--seconds", "4", "--json", "--seed", "7"];
    let words = [&signed[..], &words, &paced, &more].concat();
    let output = files.load(&gate_target(&gate), &words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let told = json(&output);
    let done = |at: usize| {
        let group = &told["groups"][at];
        group["done"].as_f64().unwrap() + group["not_begun"].as_f64().unwrap()
    };
    // 100 a second for two seconds, then a third of them five times over. What was scheduled does
    // not depend on how fast the machine is.
    let (others, noisy) = (done(0) + done(2), (done(1), done(3)));
    assert!((190.0..340.0).contains(&others), "{others}: {told:#}");
    assert!(noisy.1 > 2.5 * noisy.0, "{noisy:?}: {told:#}");
    assert!(told["groups"][0]["name"].as_str().unwrap().contains("calm: the others"));
}

#[tokio::test]
async fn an_applications_own_prelude_is_measured_on_postgresql_itself() {
    let estate = Estate::new().await;
    let target = shared().await.conninfo("tg_login", LOGIN_PASSWORD, "app");
    let prelude = "SET LOCAL ROLE app_rw;\n\
                   SELECT set_config('app.tenant_id', '{tenant}', true) AS tenant_id";
    // Tokens would be passwords; here all log in alike, so only the ids are taken.
    let files = Files::new(SELECT, "");
    let ids = estate.acme.id.replacen("acme_", "#_", 1);
    let words = ["--ids", &ids, "--count", "4", "--prelude", prelude, "--json"];
    let output = files.load(&target, &[&words[..], &["--check-column", "tenant_id"]].concat());
    let told = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // No such tenant has rows, but each is told its own id by the prelude, once a transaction.
    assert_eq!(told["rows_checked"], told["groups"][0]["done"]);
}

#[tokio::test]
async fn who_waits_for_a_slow_transaction_was_slow_too() {
    let target = shared().await.superuser_conninfo("app");
    let files = Files::new("SELECT pg_sleep(0.05)", "");
    let words = ["--count", "1", "--clients", "1", "--rate", "100", "--json"];
    let told = json(&files.load(&target, &words));
    let group = &told["groups"][0];
    // One connection gets to twenty a second of the hundred that are due. Counted from when each
    // was sent, all would take 50 ms.
    assert!(group["p50"].as_f64().unwrap() > 200.0, "{told:#}");
    assert!(group["not_begun"].as_u64().unwrap() > 30, "{told:#}");
}

#[tokio::test]
async fn a_row_of_another_tenant_is_a_leak_and_an_exit_code() {
    let estate = Estate::new().await;
    // Row security does not hold for a superuser.
    let target = shared().await.superuser_conninfo("app");
    // Other tests have rows in the same table.
    let acme = &estate.acme.id;
    let sql = format!("SELECT tenant_id FROM app.notes WHERE tenant_id = '{acme}';\n");
    let files = Files::new(&sql, "");
    let ids = estate.acme.id.replacen("acme_", "#_", 1);
    let words = ["--ids", &ids, "--count", "2", "--check-column", "tenant_id"];
    let output = files.load(&target, &words);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("LEAK: tenant ") && text.contains(acme.as_str()), "{text}");
    assert!(text.contains("rows of other tenants were seen"), "{text}");
}

#[tokio::test]
async fn a_check_that_checked_nothing_is_no_success() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let files = Files::new("SELECT 1 AS one", &tokens(&estate));
    let words = ["--tenants", "tokens.txt", "--check-column", "tenant_id"];
    let output = files.load(&gate_target(&gate), &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nothing was checked"), "{}", said(&output));
}

#[tokio::test]
async fn errors_are_counted_by_sqlstate_with_their_hint_and_may_be_expected() {
    let estate = Estate::new().await;
    let tier = "queries_per_second = 5";
    let gate = Gate::start(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    let files = Files::new("SELECT 1", &tokens(&estate));
    let words = ["--tenants", "tokens.txt", "--rate", "200"];
    let output = files.load(&gate_target(&gate), &words);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("× 53400: ") && text.contains("(hint: "), "{text}");
    let output = files.load(&gate_target(&gate), &[&words[..], &["--expect", "53400"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let files = Files::new("BEGIN;\nSELECT 1 / 0;\nCOMMIT;", &tokens(&estate));
    let output = files.load(&gate_target(&gate), &["--tenants", "tokens.txt", "--clients", "2"]);
    assert!(said(&output).contains("× 22012: division by zero"), "{}", said(&output));
}

#[tokio::test]
async fn what_is_wrong_with_the_command_is_told_before_anything_runs() {
    let files = Files::new("\\sleep 1", "acme tg_1_2\nglobex tg_3_4");
    let target = "host=127.0.0.1 port=1 user=app";
    let tenants = ["--tenants", "tokens.txt"];
    for (target, words, told) in [
        (target, &tenants[..], "line 1: the only command is \\set"),
        ("prot=1", &tenants, "did you mean"),
        (target, &["--count", "2", "--ids", "t"], "has no #"),
        (target, &[], "--count"),
        (target, &["--tenants", "tokens.txt", "--clients", "1"], "--clients 2"),
        (target, &["--tenants", "query.sql"], "query.sql, line 1"),
        (target, &["--tenants", "tokens.txt", "--noisy", "acme"], "--rate"),
        (
            target,
            &["--tenants", "tokens.txt", "--noisy", "acne", "--rate", "1"],
            "did you mean \"acme\"?",
        ),
    ] {
        let output = files.load(target, words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(told), "{words:?}: {}", said(&output));
    }
    let files = Files::new("SELECT 1", "acme tg_1_2");
    let output = files.load(target, &tenants);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cannot log in: "), "{}", said(&output));
}

/// The fenced blocks of the manual's page that are marked with this word.
fn blocks<'page>(page: &'page str, mark: &str) -> Vec<&'page str> {
    let fence = format!("```{mark}\n");
    page.split(fence.as_str()).skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn the_manuals_example_runs_as_written() {
    let page = include_str!("../docs/load.md");
    let (sh, sql) = (blocks(page, "sh"), blocks(page, "sql"));
    let cluster = Cluster::start(template(), &Plan::default()).unwrap();
    let postgres = superuser(&cluster, "postgres").await;
    postgres.batch_execute("CREATE DATABASE app").await.unwrap();
    let app = superuser(&cluster, "app").await;
    app.batch_execute(
        "CREATE ROLE app_rw NOLOGIN;
         CREATE ROLE tg_login LOGIN NOINHERIT PASSWORD 'secret' IN ROLE app_rw;
         CREATE ROLE app_login LOGIN INHERIT PASSWORD 'secret' IN ROLE app_rw;",
    )
    .await
    .unwrap();
    app.batch_execute(include_str!("../config/rls.sql")).await.unwrap();
    app.batch_execute(sql[0]).await.unwrap();

    let files = Files::new("", "");
    fs::write(files.path("orders.sql"), sql[1]).unwrap();
    fs::write(files.path("tenantgate.toml"), blocks(page, "toml")[0]).unwrap();
    let run = |block: &str| {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_tenantgate")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-e", "-c", block]).env("PATH", path).current_dir(files.0.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{block}\n{}", said(&output));
        said(&output)
    };
    run(sh[0]);
    let read = |name: &str| fs::read_to_string(files.path(name)).unwrap();
    let upstream = format!("port={}", cluster.port());
    let settings = read("tenantgate.toml").replace("port=5432", &upstream);
    let settings = settings.replace("127.0.0.1:6432", "127.0.0.1:$PORT");
    let gate = Gate::start_with(&settings, &[("load.key", &read("load.key"))]).await;
    let told: Vec<String> = sh[1..]
        .iter()
        .map(|block| {
            let block = block.replace("port=6432", &format!("port={}", gate.port));
            let block = block.replace("port=5432", &upstream);
            run(&block.replace("--seconds 30", "--seconds 2"))
        })
        .collect();
    assert_eq!(told.len(), 3);
    assert!(read("load.svg").ends_with("</svg>\n"));
    assert!(told[1].contains("while tenant-03 sends 10 times as much"), "{}", told[1]);
    assert!(told.iter().all(|told| told.contains("of other tenants: 0")), "{told:?}");
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    let options = |text: &str| -> BTreeSet<String> {
        let words = text.split(|one: char| !(one.is_ascii_alphanumeric() || one == '-'));
        words
            .filter(|word| word.starts_with("--") && !word.starts_with("---"))
            .map(str::to_owned)
            .collect()
    };
    let page = include_str!("../docs/load.md");
    let table = page.split("## Options").nth(1).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    let help = command.args(["load", "--help"]).output().unwrap();
    let mut known = options(&String::from_utf8(help.stdout).unwrap());
    known.remove("--help");
    assert!(known.len() > 15, "{known:?}");
    assert_eq!(options(table), known);
}
