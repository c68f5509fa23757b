//! The test suites of drivers, from their source packages: each is run straight on PostgreSQL and
//! through a gate that pools by transaction, as a superuser of a silo. What fails only through the
//! gate is printed, and must be among the differences that are known and have a reason.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tenantgate::demo::{Cluster, Plan};

use super::installed;
use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};

/// A suite of Python's unittest.
struct Suite {
    name: &'static str,
    /// What the folder of its sources is called where `make driver-suites` puts it.
    folder: &'static str,
    /// Modules that are left out, and why is said beside them.
    without: &'static [&'static str],
    /// The variables it reads the place, the database, the login and the password from.
    variables: [&'static str; 5],
    /// Tests that fail through the gate, by a part of their names, and the reason.
    differs: &'static [(&'static str, &'static str)],
}

const PID: &str = "the process id of the login is the gate's; pg_backend_pid() is the server's";
const BETWEEN: &str = "a session that is not at work has no server that could be ended";
const TWO_PHASE: &str = "prepared transactions are refused: they outlive their session";
const LOGIN: &str = "session_authorization belongs to the route";
const DATABASES: &str = "it makes a database and connects to it; a tenant has one";

const SUITES: [Suite; 2] = [
    Suite {
        name: "psycopg2",
        folder: "psycopg2",
        without: &[],
        variables: [
            "PSYCOPG2_TESTDB_HOST",
            "PSYCOPG2_TESTDB_PORT",
            "PSYCOPG2_TESTDB",
            "PSYCOPG2_TESTDB_USER",
            "PSYCOPG2_TESTDB_PASSWORD",
        ],
        differs: &[
            ("TestConnectionInfo.test_backend_pid", PID),
            ("test_notify.NotifiesTests", PID),
            ("AsyncTests.test_notify", PID),
            ("ConnectionTwoPhaseTests", TWO_PHASE),
            ("Psycopg2TPCTests", TWO_PHASE),
            ("LargeObjectTests.test_read_after_tpc", TWO_PHASE),
            ("CursorTests.test_external_close", BETWEEN),
        ],
    },
    Suite {
        name: "asyncpg",
        folder: "asyncpg",
        // They start clusters of their own, or look at the project and not at the driver.
        without: &[
            "test__environment",
            "test__sourcecode",
            "test_adversity",
            "test_connect",
            "test_scram",
            "test_subinterpreters",
        ],
        variables: ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"],
        differs: &[
            ("TestListeners.test_listen", PID),
            ("TestPool.test_pool_min_size_restored_after_idle_connection_loss", PID),
            ("TestCodecs.test_relacl_array_type", LOGIN),
            ("TestCacheInvalidation.test_type_cache_invalidation_in_pool", DATABASES),
            ("TestIntrospection.test_introspection_loads_basetypes_of_domains", DATABASES),
            ("TestIntrospection.test_introspection_on_large_db", DATABASES),
        ],
    },
];

/// The outcome of a test that only fails among others.
const ALONE: &str = "passes by itself";

/// Outcomes (`ok`, `skipped` or `not ok`, then why) by test.
type Outcomes = BTreeMap<String, String>;

impl Suite {
    fn folder(&self) -> std::path::PathBuf {
        installed("suites").join(self.folder)
    }

    fn modules(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("tests")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let modules = names.filter_map(|name| Some(name.strip_suffix(".py")?.to_owned()));
        let mut modules: Vec<String> = modules
            .filter(|name| name.starts_with("test_") && !self.without.contains(&name.as_str()))
            .map(|name| format!("tests.{name}"))
            .collect();
        modules.sort();
        modules
    }

    /// Runs modules or single tests.
    fn run(&self, port: u16, password: &str, names: &[String]) -> Outcomes {
        let mut command = Command::new(installed("python/bin/python"));
        let script = "tests/drivers/suites/unittests.py";
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        command.arg(self.folder()).args(names);
        let port = port.to_string();
        let values = ["127.0.0.1", &port, "postgres", "suite", password];
        command.envs(self.variables.into_iter().zip(values));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} broke off:\n{wrong}", self.name);
        said.lines().filter_map(outcome).collect()
    }
}

impl Suite {
    /// The known reason why a test differs.
    fn reason(&self, test: &str) -> Option<&'static str> {
        self.differs.iter().find(|(known, _)| test.contains(known)).map(|(_, reason)| *reason)
    }

    /// The tests that pass straight and not through the gate, and what became of them there. What
    /// has no reason is tried once more by itself: these suites also report what earlier tests
    /// left in their event loop.
    fn differences(&self, direct: &Outcomes, port: u16, token: &str) -> Outcomes {
        let passes = |test: &String| direct.get(test).is_some_and(|outcome| outcome == "ok");
        let mut differs = self.run(port, token, &self.modules());
        for test in direct.keys() {
            differs.entry(test.clone()).or_insert_with(|| "not run".to_owned());
        }
        differs.retain(|test, outcome| passes(test) && outcome != "ok");
        for (test, outcome) in differs.iter_mut().filter(|(test, _)| self.reason(test).is_none()) {
            let alone = self.run(port, token, std::slice::from_ref(test));
            if alone.get(test).is_some_and(|outcome| outcome == "ok") {
                *outcome = ALONE.to_owned();
            }
        }
        differs
    }
}

fn outcome(line: &str) -> Option<(String, String)> {
    let outcomes = ["not ok ", "ok ", "skipped "];
    let (outcome, rest) =
        outcomes.iter().find_map(|word| Some((word.trim(), line.strip_prefix(word)?)))?;
    let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
    Some((name.to_owned(), format!("{outcome} {why}").trim().to_owned()))
}

#[test]
#[ignore = "minutes; make driver-suites runs it"]
fn the_suites_of_drivers_find_through_the_gate_what_they_find_without() {
    let mut unknown = Vec::new();
    for suite in &SUITES {
        assert!(suite.folder().exists(), "{} is not there: make driver-suites", suite.name);
        let (direct, differences) = both(suite);
        let say = |line: String| {
            let _ = writeln!(std::io::stderr(), "{}: {line}", suite.name);
        };
        for (test, got) in &differences {
            match suite.reason(test) {
                Some(reason) => say(format!("{test}: {reason}")),
                None if got == ALONE => say(format!("{test}: {got}")),
                None => unknown.push(format!("{}: {test}: {got}", suite.name)),
            }
        }
        let passed = direct.values().filter(|outcome| *outcome == "ok").count();
        say(format!("{passed} of {} pass straight, of these", direct.len()));
        say(format!("{} differ through the gate", differences.len()));
        assert!(passed > 100, "{direct:?}");
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// What came out straight, and what differs through a gate; each on a cluster of its own.
fn both(suite: &Suite) -> (Outcomes, Outcomes) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (cluster, _gate, _) = runtime.block_on(stage());
    let direct = suite.run(cluster.port(), LOGIN_PASSWORD, &suite.modules());
    let (_cluster, gate, token) = runtime.block_on(stage());
    let differences = suite.differences(&direct, gate.port, &token);
    (direct, differences)
}

/// A cluster, and a gate for which its database `postgres` is a silo; the silo's token.
async fn stage() -> (Cluster, Gate, String) {
    let cluster = own(&Plan::default()).await;
    let client = superuser(&cluster, "postgres").await;
    let login = format!("CREATE ROLE suite LOGIN SUPERUSER PASSWORD '{LOGIN_PASSWORD}'");
    client.batch_execute(&login).await.unwrap();
    let token = tenantgate::catalog::new_token().unwrap();
    let place = format!("127.0.0.1:{}/postgres?sslmode=disable", cluster.port());
    let more = format!(
        "[tenants.postgres]\nisolation = \"silo\"\ncluster = \"main\"\n\
         allow_superuser = true\ntokens = [\"{}\"]\n\
         connection_string = \"postgresql://suite:{LOGIN_PASSWORD}@{place}\"\n",
        token.line
    );
    let estate = Estate::within(&cluster).await;
    let gate = "statement_bytes = \"512MiB\"";
    let tweaks = Tweaks { gate, capacity: 30, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    (cluster, gate, token.text)
}
