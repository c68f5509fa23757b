//! The files people copy must work. No container engine runs here, so what one would do with the
//! files in docker/ is done by hand: SQL into real clusters, the gate's own command, the health
//! check, every metric of the board asked for at a real gate.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;
use tenantgate::demo::{Cluster, Plan, signal};

use crate::harness::cluster::{self, superuser, template};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http;
use crate::harness::messages::transcript;
use crate::harness::wire::{Login, Wire};

const README: &str = include_str!("../docker/README.md");

fn docker(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(docker(path)).unwrap_or_else(|error| panic!("docker/{path}: {error}"))
}

fn yaml(text: &str) -> Yaml<'_> {
    Yaml::load_from_str(text).unwrap().remove(0)
}

fn texts(list: &Yaml<'_>) -> Vec<String> {
    list.as_sequence().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A tenant of the example, as the table in its README has it.
struct Row<'readme> {
    id: &'readme str,
    dbname: &'readme str,
    token: &'readme str,
}

fn rows() -> Vec<Row<'static>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    };
    let lines = README.lines().filter(|line| line.contains("| `tg_"));
    let rows = lines.map(cells).map(|of| Row { id: of[1], dbname: of[3], token: of[4] });
    rows.collect()
}

/// What a container of PostgreSQL does with its environment and the scripts mounted into it.
async fn loaded(service: &str) -> Cluster {
    let text = read("compose.yaml");
    let compose = yaml(&text);
    let service = &compose["services"][service];
    let dbname = service["environment"]["POSTGRES_DB"].as_str().unwrap();
    let mut scripts: Vec<(String, String)> = texts(&service["volumes"])
        .iter()
        .filter_map(|mount| mount.split_once(":/docker-entrypoint-initdb.d/"))
        .map(|(from, to)| (to.to_owned(), read(from)))
        .collect();
    scripts.sort();
    let cluster = Cluster::start(template(), &Plan::default()).unwrap();
    let postgres = superuser(&cluster, "postgres").await;
    postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
    let client = superuser(&cluster, dbname).await;
    for (name, sql) in scripts {
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    cluster
}

#[tokio::test]
async fn the_container_examples_sql_gives_logins_what_they_need_and_no_more() {
    let (shared, silo) = (loaded("shared").await, loaded("silo").await);
    let password = "login-of-the-example";
    let login = shared.conninfo("tg_login", password, "app");
    let client = cluster::connect(&login).await.unwrap();
    assert!(client.batch_execute("SELECT * FROM app.notes").await.is_err());
    let bind = "SET ROLE app_rw; SET app.tenant_id = 'acme'";
    client.batch_execute(bind).await.unwrap();
    assert_eq!(client.query("SELECT * FROM app.notes", &[]).await.unwrap().len(), 2);
    assert!(client.batch_execute("SELECT * FROM umbrella.notes").await.is_err());
    let login = silo.conninfo("tg_initech", password, "initech");
    let client = cluster::connect(&login).await.unwrap();
    assert_eq!(client.query("SELECT * FROM notes", &[]).await.unwrap().len(), 2);
}

/// A folder for `PATH` in which `tenantgate` is the program of this build.
fn program() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("tenantgate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tenantgate"), link).unwrap();
    folder
}

/// A command with `tenantgate` in its path and the container's two folders both here.
fn within(folder: &Path, bin: &Path, words: &[String]) -> Command {
    let here = |word: &String| {
        let word = word.replace("/run/tenantgate/", "./");
        word.replace("/etc/tenantgate/", "./")
    };
    let words: Vec<String> = words.iter().map(here).collect();
    let mut command = Command::new(&words[0]);
    let path = std::env::var("PATH").unwrap();
    command.args(&words[1..]).current_dir(folder);
    command.env("PATH", format!("{}:{path}", bin.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The gate as compose starts it: its entry point, its command, its settings.
async fn composed(shared: &Cluster, silo: &Cluster, bin: &Path) -> Gate {
    let text = read("compose.yaml");
    let compose = yaml(&text);
    let service = &compose["services"]["gate"];
    let words = [texts(&service["entrypoint"]), texts(&service["command"])].concat();
    let settings = read("tenantgate.toml")
        .replace("@shared:5432", &format!("@127.0.0.1:{}", shared.port()))
        .replace("@silo:5432", &format!("@127.0.0.1:{}", silo.port()))
        .replace("0.0.0.0:6432", "127.0.0.1:$PORT")
        .replace("0.0.0.0:9187", "127.0.0.1:$HTTP")
        .replace("/run/tenantgate/", "");
    let gate = Gate::launched(&settings, |command| {
        let config = PathBuf::from(command.get_args().last().unwrap());
        within(config.parent().unwrap(), bin, &words)
    });
    gate.is_ready().await;
    gate
}

async fn connected(gate: &Gate, row: &Row<'_>, token: &str) -> (Wire, String) {
    let certificate = fs::read_to_string(gate.folder().join("gate.crt")).unwrap();
    let config = crate::harness::certs::trusting(&certificate);
    let mut wire = Wire::connect_tls(gate.port, config, "localhost").await.unwrap();
    let login = Login { user: "app", dbname: row.dbname, password: token, more: &[] };
    let frames = wire.authenticate(&login).await;
    (wire, transcript(&frames))
}

#[tokio::test]
async fn the_container_example_serves_the_tenants_of_its_readme_and_feeds_its_board() {
    let (shared, silo, bin) = (loaded("shared").await, loaded("silo").await, program());
    let gate = composed(&shared, &silo, bin.path()).await;
    let seen = [
        ("acme", "T D(anvil) D(rocket skates) C(SELECT 2) Z(I)"),
        ("globex", "T D(weather machine) C(SELECT 1) Z(I)"),
        ("umbrella", "T D(green herb) D(red herb) C(SELECT 2) Z(I)"),
        ("initech", "T D(cover sheet) D(stapler) C(SELECT 2) Z(I)"),
    ];
    for (row, (id, notes)) in rows().iter().zip(seen) {
        assert_eq!(row.id, id);
        let (mut wire, said) = connected(&gate, row, row.token).await;
        assert!(said.ends_with("Z(I)"), "{id}: {said}");
        assert_eq!(wire.query("SELECT body FROM notes ORDER BY id").await, notes, "{id}");
        assert!(wire.query("LOAD 'x'").await.starts_with("E("));
    }
    assert!(connected(&gate, &rows()[0], "tg_wrong").await.1.ends_with("E(28P01)"));

    let dockerfile = read("Dockerfile");
    let health = words_of(&dockerfile.replace("\\\n", " "), "HEALTHCHECK");
    let folder = gate.folder();
    assert!(within(&folder, bin.path(), &health).status().unwrap().success());
    let ready = [health, vec!["--ready".to_owned()]].concat();
    assert!(within(&folder, bin.path(), &ready).status().unwrap().success());

    let board: Value = serde_json::from_str(&read("grafana/tenantgate.json")).unwrap();
    let metrics = metrics_of(&board);
    assert!(metrics.len() > 15, "{metrics:?}");
    // Workers hand their counts over once a second.
    for name in &metrics {
        eventually(&format!("{name}, which the board shows, is told"), async || {
            let (_, told) = http::get(gate.http, "/metrics").await;
            let mut names = told.lines().filter_map(|line| line.split(['{', ' ']).next());
            names.any(|told| told == name).then_some(())
        })
        .await;
    }
    let (_, health) = ready.split_last().unwrap();
    // A gate that hangs is not healthy.
    let mut asked = within(&folder, bin.path(), health);
    signal(gate.pid(), "STOP").unwrap();
    let output = asked.stderr(Stdio::piped()).output();
    signal(gate.pid(), "CONT").unwrap();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        said.starts_with(&format!("tenantgate: http://127.0.0.1:{}/live: ", gate.http)),
        "{said}"
    );
}

/// Every name of ours in the expressions of a board's panels.
fn metrics_of(board: &Value) -> BTreeSet<String> {
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut names = BTreeSet::new();
    for target in targets {
        let words = target["expr"].as_str().unwrap();
        let words = words.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
        names.extend(words.filter(|word| word.starts_with("tenantgate_")).map(str::to_owned));
    }
    names
}

#[test]
fn the_board_and_its_data_source_fit_together() {
    let board: Value = serde_json::from_str(&read("grafana/tenantgate.json")).unwrap();
    let (source, boards) = (read("grafana/datasource.yml"), read("grafana/boards.yml"));
    let (source, boards) = (yaml(&source), yaml(&boards));
    let prometheus = &source["datasources"][0];
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"].as_str(), prometheus["uid"].as_str());
        }
    }
    let text = read("compose.yaml");
    let compose = yaml(&text);
    let mounts = texts(&compose["services"]["grafana"]["volumes"]);
    let folder = boards["providers"][0]["options"]["path"].as_str().unwrap();
    let board = format!("./grafana/tenantgate.json:{folder}/tenantgate.json:ro");
    assert!(mounts.contains(&board), "{mounts:?}");
    assert_eq!(prometheus["url"].as_str(), Some("http://prometheus:9090"));
    let scrape = read("prometheus.yml");
    let targets = texts(&yaml(&scrape)["scrape_configs"][0]["static_configs"][0]["targets"]);
    assert_eq!(targets, ["gate:9187"]);
}

#[test]
fn what_compose_mounts_is_there_and_every_service_is_bounded() {
    let text = read("compose.yaml");
    let compose = yaml(&text);
    let services = compose["services"].as_mapping().unwrap();
    assert_eq!(services.len(), 5);
    for (name, service) in services {
        let name = name.as_str().unwrap();
        let has = |key: &str| service.as_mapping_get(key).is_some();
        assert!(has("mem_limit") && has("cpus"), "{name} may take the whole machine");
        if let Some(image) = service.as_mapping_get("image") {
            let (_, tag) = image.as_str().unwrap().split_once(':').expect("a version");
            assert_ne!(tag, "latest");
        }
        for mount in service.as_mapping_get("volumes").map(texts).unwrap_or_default() {
            let (from, to) = mount.split_once(':').unwrap();
            assert!(docker(from).is_file(), "{name}: {from}");
            assert!(to.starts_with('/') && to.ends_with(":ro"), "{name}: {to}");
        }
        for port in service.as_mapping_get("ports").map(texts).unwrap_or_default() {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
    }
    for needed in texts_of_keys(&compose["services"]["gate"]["depends_on"]) {
        let health = compose["services"][needed.as_str()].as_mapping_get("healthcheck");
        assert!(health.is_some(), "{needed} has no health to wait for");
    }
}

fn texts_of_keys(mapping: &Yaml<'_>) -> Vec<String> {
    let mapping = mapping.as_mapping().unwrap();
    mapping.iter().map(|(key, _)| key.as_str().unwrap().to_owned()).collect()
}

/// The list behind an instruction of a Dockerfile, the last one of its kind.
fn words_of(dockerfile: &str, instruction: &str) -> Vec<String> {
    let line = dockerfile.lines().rfind(|line| line.starts_with(instruction)).unwrap();
    let list = &line[line.find('[').unwrap()..];
    serde_json::from_str(list).unwrap()
}

#[test]
fn the_image_is_built_from_files_that_are_there_and_reach_the_builder() {
    let dockerfile = read("Dockerfile");
    let ignored = read("Dockerfile.dockerignore");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let context = tempfile::tempdir().unwrap();
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ")) {
        let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
        if words[0].starts_with("--from") {
            continue;
        }
        let to = words.pop().unwrap();
        for from in words {
            assert!(root.join(from).exists(), "{from}");
            assert!(ignored.lines().any(|line| line == format!("!{from}")), "{from} is ignored");
            let to = if to == "./" { from } else { to };
            copy(&root.join(from), &context.path().join(to));
        }
    }
    // Cargo finds every target it is told of, and the lock file fits. What only other platforms
    // need has not been downloaded.
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--format-version=1",
            "--filter-platform",
            host,
        ])
        .current_dir(context.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let ours = packages.find(|package| package["name"] == "tenantgate").unwrap();
    let targets = ours["targets"].as_array().unwrap();
    for target in targets {
        let path = target["src_path"].as_str().unwrap();
        assert!(Path::new(path).is_file(), "{path}");
    }
    let settings = words_of(&dockerfile, "CMD").pop().unwrap();
    assert!(read("compose.yaml").contains(&format!("./tenantgate.toml:{settings}:ro")));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-R").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
