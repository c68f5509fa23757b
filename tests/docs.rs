//! The manual agrees with the code: lists and tables are compared, links lead somewhere, and the
//! quick start and the SQL of each isolation mode are tried on a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, Plan};

use crate::harness::cluster::{connect, superuser, template};
use crate::harness::gate::Gate;
use crate::tidy;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks.
fn ticked(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The fenced blocks that are marked with this word.
fn blocks<'page>(page: &'page str, mark: &str) -> Vec<&'page str> {
    let fence = format!("```{mark}\n");
    let ends = |block: &'page str| block.split("```").next().unwrap();
    page.split(fence.as_str()).skip(1).map(ends).collect()
}

/// The first cells of a page's tables, without their backticks.
fn first_cells(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(cell, _)| cell).collect()
}

/// The texts between double quotes.
fn quoted(code: &str) -> BTreeSet<&str> {
    code.split('"').skip(1).step_by(2).collect()
}

/// The part of a text between two marks.
fn between<'text>(text: &'text str, start: &str, end: &str) -> &'text str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}")).0
}

#[test]
fn every_key_of_the_annotated_settings_is_in_the_manual() {
    let settings = read("config/tenantgate.toml");
    let page = read("docs/configuration.md");
    let known = ticked(&page);
    let mut keys = 0;
    for line in settings.lines() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(['#', ' ']))
        else {
            continue;
        };
        // Names of console users are examples, not keys.
        if !matches!(key, "admin" | "watcher") {
            assert!(known.contains(key), "docs/configuration.md lacks `{key}`");
            keys += 1;
        }
    }
    assert!(keys > 40, "only {keys} keys were found");
}

#[test]
fn every_key_of_connection_strings_is_in_the_manual() {
    let code = read("src/server/conninfo/keys.rs");
    let page = read("docs/configuration.md");
    let known = ticked(between(&page, "## Connection strings", "\nPasswords of logins"));
    let table = between(&code, "const KEYS", "];");
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let keys: Vec<&str> = rows.filter_map(|row| row.split_once('"')).map(|(key, _)| key).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let lacking: Vec<_> = keys.iter().filter(|key| !known.contains(*key)).collect();
    assert!(lacking.is_empty(), "docs/configuration.md lacks {lacking:?}");
}

#[test]
fn settings_that_are_the_gates_own_business_are_those_of_the_code() {
    let (code, page) = (read("src/client/carry/carried.rs"), read("docs/compatibility.md"));
    let in_code = quoted(between(&code, "const OF_THE_GATE", "];"));
    let in_page: BTreeSet<&str> = blocks(&page, "refused")[0].lines().collect();
    assert_eq!(in_page, in_code);
}

#[test]
fn everything_that_is_refused_is_in_the_manual() {
    let (code, page) = (read("src/guard/rules.rs"), read("docs/compatibility.md"));
    let known = between(&page, "## What is refused", "\n## ");
    let arms = between(&code, "match self {", "\n        }\n").split("Self::").skip(1);
    let mut rules = 0;
    for arm in arms {
        let what = arm.split('"').nth(1).unwrap();
        assert!(known.contains(what), "docs/compatibility.md lacks {what:?}");
        rules += 1;
    }
    assert!(rules >= 5, "only {rules} rules were found");
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_its_dependency() {
    let page = read("docs/decisions/dependencies.md");
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let mut names = BTreeSet::new();
    for table in ["dependencies", "dev-dependencies"] {
        names.extend(manifest[table].as_table().unwrap().keys().map(String::as_str));
    }
    assert_eq!(first_cells(&page), names);
}

#[test]
fn the_layers_of_the_manual_are_those_that_are_checked() {
    let page = read("docs/architecture.md");
    let in_page: Vec<Vec<&str>> =
        blocks(&page, "layers")[0].lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(in_page, tidy::LAYERS.map(<[&str]>::to_vec));
}

/// Every page a person reads, from the root of the tree.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = ["", "docs", "docs/decisions", "docker", "tests", "benches", "config"];
    for folder in folders.map(|folder| root().join(folder)) {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    found
}

/// A heading as the anchor a browser makes of it.
fn anchor(heading: &str) -> String {
    let kept = |one: &char| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_');
    let text: String = heading.trim_start_matches('#').trim().chars().filter(kept).collect();
    text.to_lowercase().replace(' ', "-")
}

fn broken_link(page: &Path, target: &str) -> Option<String> {
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.parent()?.join(file) };
    if !path.exists() {
        return Some(format!("{}: {target} does not exist", page.display()));
    }
    let text = if fragment.is_empty() { return None } else { fs::read_to_string(&path).ok()? };
    let found = text.lines().any(|line| line.starts_with('#') && anchor(line) == fragment);
    (!found).then(|| format!("{}: {target} has no such heading", page.display()))
}

#[test]
fn links_of_the_manual_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        // A checkout without the benches has no page on them either.
        let whole = root().join("benches").exists();
        let ours = links.filter(|link| !link.contains("://"));
        let ours = ours.filter(|link| whole || !link.starts_with("benches/"));
        broken.extend(ours.filter_map(|target| broken_link(&page, target)));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What a page names as files of ours (those of src without it, for short) and is not there.
fn gone(page: &str) -> Vec<&str> {
    let is_file = |name: &&str| name.ends_with(".rs") || name.ends_with(".sql");
    let is_there = |name: &&str| ["", "src"].iter().any(|at| root().join(at).join(name).exists());
    let files = ticked(page)
        .into_iter()
        .filter(|name| name.contains('/') && !name.contains('*'))
        .filter(is_file);
    files.filter(|name| !is_there(name)).collect()
}

#[test]
fn files_that_the_manual_names_are_there() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let gone = gone(&text);
        assert!(gone.is_empty(), "{}: {gone:?}", page.display());
    }
    assert_eq!(gone("`src/lib.rs`, `client/gone.rs`, `lib.rs`"), ["client/gone.rs"]);
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = root().join("README.md");
    assert!(broken_link(&page, "docs/gone.md").is_some());
    assert!(broken_link(&page, "docs/errors.md#gone").is_some());
    assert_eq!(broken_link(&page, "docs/errors.md#errors"), None);
}

/// Runs a program of the quick start and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn psql(cluster: &Cluster, dbname: &str, sql: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), sql).unwrap();
    let mut psql = Command::new(template().binaries().program("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file.path());
    // What is printed goes to its own user's database, which `\connect` needs no password for.
    run(psql.arg(cluster.superuser_conninfo(dbname)).env("PGPASSWORD", cluster.password()));
}

/// The settings of the quick start, with the tokens that step 2 made, on this cluster.
fn quick_start(cluster: &Cluster, tokens: [&str; 2]) -> String {
    let readme = read("README.md");
    // The block is indented under its step.
    let block = between(&readme, "```toml\n", "```");
    let mut settings: String = block.lines().map(|line| format!("{}\n", line.trim())).collect();
    for token in tokens {
        settings = settings.replacen("tokens = []", &format!("tokens = [\"{token}\"]"), 1);
    }
    on(cluster, &settings).replace("127.0.0.1:6432", "127.0.0.1:$PORT")
}

/// The same settings, with PostgreSQL where this cluster is.
fn on(cluster: &Cluster, settings: &str) -> String {
    settings.replace("port=5432", &format!("port={}", cluster.port()))
}

#[tokio::test]
async fn the_quick_start_and_the_sql_of_each_isolation_work_as_written() {
    let cluster = Cluster::start(template(), &Plan::default()).unwrap();
    superuser(&cluster, "postgres").await.batch_execute("CREATE DATABASE app").await.unwrap();
    let tokens = [(); 4].map(|()| new_token().unwrap());
    let [acme, globex, beta, gamma] = &tokens;
    let settings = quick_start(&cluster, [&acme.line, &globex.line]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenantgate.toml");
    fs::write(&file, settings.replace("$PORT", "6432")).unwrap();
    let tenantgate = || Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    let install = ["install", "--cluster", "main", "--print", "--config"];
    psql(&cluster, "postgres", &run(tenantgate().args(install).arg(&file)));
    psql(&cluster, "postgres", "ALTER ROLE tg_login PASSWORD 'secret'");
    psql(&cluster, "app", &read("config/rls.sql"));
    assert!(run(tenantgate().args(["check", "--config"]).arg(&file)).contains("good: 2 tenants"));

    let page = read("docs/isolation.md");
    let (sql, toml) = (blocks(&page, "sql"), blocks(&page, "toml"));
    let with = |mark: &str| *sql.iter().find(|block| block.contains(mark)).unwrap();
    psql(&cluster, "app", with("CREATE SCHEMA beta"));
    psql(&cluster, "postgres", with("CREATE DATABASE gamma"));
    let more = [beta, gamma].into_iter().zip(&toml);
    let more = more.map(|(token, toml)| format!("{toml}tokens = [\"{}\"]\n", token.line));
    let settings = settings + &on(&cluster, &more.collect::<String>());
    let gate = Gate::start(&settings).await;

    let conninfo = |port: u16, dbname: &str, token: &str| {
        format!("host=127.0.0.1 port={port} user=app dbname={dbname} password={token}")
    };
    let client = async |dbname: &str, token: &str| {
        connect(&conninfo(gate.port, dbname, token)).await.unwrap()
    };
    let count = "SELECT count(*) FROM orders";
    let count = async |client: &tokio_postgres::Client| -> i64 {
        client.query_one(count, &[]).await.unwrap().get(0)
    };
    let insert = "INSERT INTO orders (item) VALUES ('anvil')";
    let acme = client("app", &acme.text).await;
    acme.batch_execute(insert).await.unwrap();
    assert_eq!(count(&acme).await, 1);
    assert_eq!(count(&client("app", &globex.text).await).await, 0);
    let beta = client("app", &beta.text).await;
    beta.batch_execute(insert).await.unwrap();
    assert_eq!(count(&beta).await, 1);
    assert!(beta.batch_execute("SELECT * FROM public.orders").await.is_err());
    let gamma = client("gamma", &gamma.text).await;
    gamma.batch_execute("CREATE TABLE orders (item text)").await.unwrap();
    assert_eq!(count(&gamma).await, 0);

    // What the front page says of its two levels.
    client("app", &globex.text).await.batch_execute(insert).await.unwrap();
    let readme = read("README.md");
    let forged = blocks(&readme, "sql")[0];
    acme.batch_execute("DELETE FROM orders").await.unwrap();
    acme.batch_execute(forged).await.unwrap();
    assert_eq!(count(&acme).await, 1, "level plain lets acme see globex's row");
    let guarded = settings.replace(
        "[clusters.main]\n",
        "[clusters.main]\nlevel = \"guard\"\nenforce_level = false\n",
    );
    let guarded = Gate::start(&guarded).await;
    let acme = connect(&conninfo(guarded.port, "app", &tokens[0].text)).await.unwrap();
    let refused = acme.batch_execute(forged).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
}

#[test]
fn the_demonstration_prints_what_the_front_page_shows() {
    let shown = run(Command::new(env!("CARGO_BIN_EXE_tenantgate")).args(["demo", "--once"]));
    let readme = read("README.md");
    let table = blocks(&readme, "text")[0];
    let words: BTreeSet<&str> = shown.split([' ', '\n', '|', '│', '┆']).collect();
    let lacking: Vec<&str> =
        table.split_whitespace().filter(|word| !words.contains(word)).collect();
    assert!(table.lines().count() > 5 && lacking.is_empty(), "{lacking:?} not in\n{shown}");
}
