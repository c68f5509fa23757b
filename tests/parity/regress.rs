//! PostgreSQL's own regression files, run by psql directly and through a gate in transaction
//! pooling, as a superuser of a silo: what psql prints must be equal. The files come with Debian's
//! source package (`.ci/install pg_regress`) and are not ours.
//!
//! `PG_REGRESS=names` runs only these files, and those before them that they need.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, Plan};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::cluster::{own, superuser, template};
use crate::harness::gate::Gate;

/// The longest one file may take.
const FILE_TIME: Duration = Duration::from_secs(120);

/// What other files need.
const FIRST: [&str; 3] = ["test_setup", "create_index", "create_misc"];

/// As PostgreSQL's own runner makes the database.
const DATABASE: [&str; 8] = [
    "CREATE DATABASE regression TEMPLATE template0",
    "ALTER DATABASE regression SET lc_messages TO 'C'",
    "ALTER DATABASE regression SET lc_monetary TO 'C'",
    "ALTER DATABASE regression SET lc_numeric TO 'C'",
    "ALTER DATABASE regression SET lc_time TO 'C'",
    "ALTER DATABASE regression SET bytea_output TO 'hex'",
    "ALTER DATABASE regression SET timezone_abbreviations TO 'Default'",
    "ALTER ROLE postgres SET statement_timeout TO '60s'",
];

/// `tests/protocol/regress.toml`: files whose output differs, and why.
#[derive(Deserialize)]
struct Known {
    differs: BTreeMap<String, String>,
}

/// Where psql goes.
struct Side {
    port: u16,
    password: String,
    /// A copy of the files, which the server may read and write.
    files: PathBuf,
}

impl Side {
    fn new(port: u16, password: &str, folder: &Path, from: &Path) -> Self {
        fs::create_dir_all(folder.join("results")).unwrap();
        for part in ["sql", "data", "expected"] {
            let to = folder.join(part);
            let mut copy = std::process::Command::new("cp");
            let copied = copy.arg("-R").arg(from.join(part)).arg(&to).status().unwrap();
            assert!(copied.success());
        }
        for open in [folder.to_owned(), folder.join("results")] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
        }
        Self { port, password: password.to_owned(), files: folder.to_owned() }
    }

    /// What psql prints for a file, without the places that differ by nature.
    async fn output(&self, name: &str) -> String {
        let sql = fs::File::open(self.files.join(format!("sql/{name}.sql"))).unwrap();
        let said = fs::File::create(self.files.join("said")).unwrap();
        let mut psql = Command::new(template().binaries().program("psql"));
        psql.args(["-X", "-a", "-q", "-d", "regression"])
            .args(["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"])
            .stdin(sql)
            .stderr(Stdio::from(said.try_clone().unwrap()))
            .stdout(said)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &self.password)
            .env("PGSSLMODE", "disable")
            .env("PGAPPNAME", format!("pg_regress/{name}"))
            .env("PGTZ", "PST8PDT")
            .env("PGDATESTYLE", "Postgres, MDY")
            .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
            .env("LC_MESSAGES", "C")
            .env("PG_ABS_SRCDIR", &self.files)
            .env("PG_ABS_BUILDDIR", &self.files)
            .env("PG_LIBDIR", &self.files)
            .env("PG_DLSUFFIX", ".so")
            .kill_on_drop(true);
        let ended = timeout(FILE_TIME, psql.status()).await;
        let said = fs::read(self.files.join("said")).unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        let said = said.replace(&self.files.display().to_string(), "FILES");
        let said = said.replace(&format!("port {}", self.port), "port PORT");
        match ended {
            Ok(_) => said,
            Err(_) => said + "\nnot ended in time\n",
        }
    }
}

/// The files in the order of the suite's schedule.
fn schedule(from: &Path) -> Vec<String> {
    let text = fs::read_to_string(from.join("parallel_schedule")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("test: "));
    let names = lines.flat_map(str::split_whitespace).map(str::to_owned);
    let chosen = std::env::var("PG_REGRESS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split_whitespace().collect();
    let wanted = |name: &String| {
        let name = name.as_str();
        chosen.is_empty() || chosen.contains(&name) || FIRST.contains(&name)
    };
    names.filter(wanted).filter(|name| from.join(format!("sql/{name}.sql")).exists()).collect()
}

async fn prepared() -> Cluster {
    let cluster = own(&Plan::default()).await;
    let postgres = superuser(&cluster, "postgres").await;
    for sql in DATABASE {
        postgres.batch_execute(sql).await.unwrap();
    }
    cluster
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The first lines that differ.
fn difference(direct: &str, gated: &str) -> Option<String> {
    let (mut direct, mut gated) = (direct.lines(), gated.lines());
    loop {
        match (direct.next(), gated.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => {
                let (one, other) = (one.unwrap_or("(end)"), other.unwrap_or("(end)"));
                return Some(format!("- {one}\n    + {other}"));
            }
        }
    }
}

#[tokio::test]
#[ignore = "minutes, and files that are not ours: make pg-regress"]
async fn the_regression_files_of_postgresql_print_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let from = root.join("target/pg-regress/src/test/regress");
    if !from.exists() {
        return say("SKIPPED PostgreSQL's regression files: .ci/install pg_regress gets them");
    }
    let known = fs::read_to_string(root.join("tests/protocol/regress.toml")).unwrap();
    let known: Known = toml::from_str(&known).unwrap();
    let (direct, behind) = (prepared().await, prepared().await);
    let token = new_token().unwrap();
    let settings = format!(
        "[gate]\n\n[[listen]]\naddress = \"127.0.0.1:$PORT\"\ntls = \"disable\"\n\
         plaintext_password = true\n\n[clusters.main]\ncapacity = 8\n\n\
         [tenants.suite]\nisolation = \"silo\"\ncluster = \"main\"\nallow_superuser = true\n\
         tokens = [\"{}\"]\nconnection_string = \"host=127.0.0.1 port={} user=postgres \
         password={} dbname=regression sslmode=disable\"\n",
        token.line,
        behind.port(),
        behind.password()
    );
    let gate = Gate::start(&settings).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let direct = Side::new(direct.port(), direct.password(), &folder.path().join("d"), &from);
    let gated = Side::new(gate.port, &token.text, &folder.path().join("g"), &from);
    let (mut same, mut listed, mut wrong) = (0, 0, Vec::new());
    for name in schedule(&from) {
        let (one, other) = tokio::join!(direct.output(&name), gated.output(&name));
        match (difference(&one, &other), known.differs.get(&name)) {
            (None, _) => same += 1,
            (Some(_), Some(reason)) => {
                listed += 1;
                say(&format!("differs   {name}: {reason}"));
            }
            (Some(lines), None) => {
                say(&format!("DIFFERS   {name}\n    {lines}"));
                wrong.push(name);
            }
        }
    }
    say(&format!("{same} files print the same, {listed} differ as listed, {} else", wrong.len()));
    assert!(wrong.is_empty(), "{wrong:?}");
}
