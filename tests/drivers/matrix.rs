//! The driver matrix: a script for every driver (`tests/drivers/matrix/`) plays the same scenarios
//! with the driver's own defaults, straight on PostgreSQL and through a gate that pools by
//! transaction, and prints a line for each. The lines must be the same.

pub mod entries;
mod page;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tenantgate::demo::{Cluster, Plan};
use tokio::process::Command;
use tokio::time::timeout;

use self::entries::Entry;
use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::{own, superuser, template};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks};

/// What every script plays, in this order.
const SCENARIOS: [&str; 20] = [
    "login",
    "tls_require",
    "tls_verify_full",
    "types",
    "prepared",
    "transaction",
    "savepoint",
    "errors",
    "copy_in",
    "copy_out",
    "listen",
    "cancel",
    "settings",
    "temporary_table",
    "advisory_lock",
    "sql_prepare",
    "large",
    "pool",
    "reconnect",
    "isolation",
];

/// What a row tenant cannot do: PostgreSQL refuses COPY FROM into a table with row security; who
/// shares a database would hear what others notify; and the role it acts as may not end, with
/// `pg_terminate_backend`, a process of the login.
const NOT_FOR_ROWS: [&str; 3] = ["copy_in", "listen", "reconnect"];

/// A script that takes longer hangs.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(180);

/// Ids of rows that a script may add, from here on, and how many.
const BASE: usize = 1000;
const ROWS: usize = 2000;

/// Scripts at work at the same time.
const AT_ONCE: usize = 2;

/// Sessions that take servers away from the scripts between two transactions.
const RIVALS: usize = 4;

/// How a scenario of a script ended: `ok`, `absent` or `not ok`, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Absent(String),
    Failed(String),
}

/// Outcomes of one run by scenario.
type Outcomes = BTreeMap<&'static str, Outcome>;

/// Two tenants and where they connect.
struct Target<'target> {
    port: u16,
    tenants: [&'target Tenant; 2],
    /// Straight to PostgreSQL, as the tenants' own logins.
    direct: bool,
}

/// A cluster and a gate, both with TLS, and the tenants of two estates behind them.
struct Stage {
    cluster: Cluster,
    gate: Gate,
    estate: Estate,
    /// A silo like the estate's own.
    other_silo: Tenant,
    authority: PathBuf,
    stranger: PathBuf,
    runs: AtomicUsize,
}

impl Stage {
    async fn new() -> Self {
        let authority = Authority::new();
        let Identity { certificate, key } = authority.server(&["127.0.0.1", "localhost"]);
        let tls = Some((certificate.clone(), key.clone()));
        let cluster = own(&Plan { tls, ..Plan::default() }).await;
        let (estate, others) = (Estate::within(&cluster).await, Estate::within(&cluster).await);
        let mut other_silo = others.initech;
        let silo = superuser(&cluster, &other_silo.dbname).await;
        silo.batch_execute("UPDATE notes SET body = body || ' of others'").await.unwrap();
        other_silo.notes.iter_mut().for_each(|(_, body)| body.push_str(" of others"));
        let settings = estate.settings(&Tweaks {
            listen: "tls = \"allow\"\ncertificate = \"gate.crt\"\nkey = \"gate.key\"\n\
                     plaintext_password = true",
            capacity: 6,
            // Two scripts at once keep two servers each while they try locks.
            tier: "pins = 4",
            more: other_silo.table(),
            ..Tweaks::default()
        });
        let stranger = Authority::new().pem();
        let files = [
            ("gate.crt", certificate.as_str()),
            ("gate.key", key.as_str()),
            ("authority.crt", &authority.pem()),
            ("stranger.crt", &stranger),
        ];
        let gate = Gate::start_with(&settings, &files).await;
        let folder = gate.folder();
        let (authority, stranger) = (folder.join("authority.crt"), folder.join("stranger.crt"));
        let runs = AtomicUsize::new(0);
        Self { cluster, gate, estate, other_silo, authority, stranger, runs }
    }

    fn targets(&self) -> [Target<'_>; 3] {
        let silos = [&self.estate.initech, &self.other_silo];
        let rows = [&self.estate.acme, &self.estate.globex];
        [
            Target { port: self.cluster.port(), tenants: silos, direct: true },
            Target { port: self.gate.port, tenants: silos, direct: false },
            Target { port: self.gate.port, tenants: rows, direct: false },
        ]
    }

    /// What a script said about every scenario, or why that is not known.
    async fn run(&self, entry: &Entry, target: &Target<'_>) -> Result<Outcomes, String> {
        let mut command = entry.command();
        for (prefix, tenant) in ["TG_", "TG_OTHER_"].into_iter().zip(target.tenants) {
            let bodies: Vec<&str> = tenant.notes.iter().map(|(_, body)| body.as_str()).collect();
            let (user, token) = match target.direct {
                true => (format!("tg_{}", tenant.id), LOGIN_PASSWORD),
                false => ("app".to_owned(), tenant.token.as_str()),
            };
            command
                .env(format!("{prefix}USER"), user)
                .env(format!("{prefix}TOKEN"), token)
                .env(format!("{prefix}DBNAME"), &tenant.dbname)
                .env(format!("{prefix}BODIES"), bodies.join("|"));
        }
        let running = Command::from(command)
            .env("TG_HOST", "127.0.0.1")
            .env("TG_BASE", (BASE + self.runs.fetch_add(1, Ordering::Relaxed) * ROWS).to_string())
            .env("TG_PORT", target.port.to_string())
            .env("TG_CA", &self.authority)
            .env("TG_WRONG_CA", &self.stranger)
            .env("PSQL", template().binaries().program("psql"))
            // Nothing is taken from this machine's own settings.
            .env("HOME", self.gate.folder())
            .env_remove("PGSSLMODE")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Ok(output) = timeout(SCRIPT_TIMEOUT, running).await else {
            return Err("it hangs".to_owned());
        };
        let output = output.map_err(|error| error.to_string())?;
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let outcomes: Outcomes = said.lines().filter_map(outcome).collect();
        match output.status.success() && outcomes.len() == SCENARIOS.len() {
            true => Ok(outcomes),
            false => Err(format!("it broke off:\n{said}{wrong}")),
        }
    }

    /// The outcomes straight on PostgreSQL, and every difference that the gate makes.
    async fn compare(&self, entry: &Entry) -> (Outcomes, Vec<String>) {
        let [direct, silo, row] = self.targets();
        let mut complaints = Vec::new();
        let wanted = match self.run(entry, &direct).await {
            Ok(outcomes) => outcomes,
            Err(why) => return (Outcomes::new(), vec![format!("{} direct: {why}", entry.name)]),
        };
        for (name, outcome) in &wanted {
            if let Outcome::Failed(why) = outcome {
                complaints.push(format!("{} direct, {name}: {why}", entry.name));
            }
        }
        for (kind, target, refused) in [("silo", silo, &[][..]), ("row", row, &NOT_FOR_ROWS)] {
            let got = match self.run(entry, &target).await {
                Ok(outcomes) => outcomes,
                Err(why) => {
                    complaints.push(format!("{} as {kind}: {why}", entry.name));
                    continue;
                }
            };
            for name in SCENARIOS {
                let is_right = match &got[name] {
                    Outcome::Failed(_) if refused.contains(&name) => true,
                    outcome => *outcome == wanted[name],
                };
                if !is_right {
                    let (got, wanted) = (&got[name], &wanted[name]);
                    let line = format!("{} as {kind}, {name}: {got:?}, not {wanted:?}", entry.name);
                    complaints.push(line);
                }
            }
        }
        (wanted, complaints)
    }
}

/// `ok name`, `absent name: why` or `not ok name: why`; what else a driver prints is nothing to us.
fn outcome(line: &str) -> Option<(&'static str, Outcome)> {
    let (outcome, rest): (fn(String) -> Outcome, &str) = match line.split_once(' ')? {
        ("ok", rest) => (|_| Outcome::Done, rest),
        ("absent", rest) => (Outcome::Absent, rest),
        ("not", rest) => (Outcome::Failed, rest.strip_prefix("ok ")?),
        _ => return None,
    };
    let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
    let name = SCENARIOS.into_iter().find(|known| *known == name.trim())?;
    Some((name, outcome(why.to_owned())))
}

/// Keeps servers changing hands: short transactions of the same tenant, one after the other.
async fn rival(gate: &Gate, tenant: &Tenant) {
    let client = gate.connect(tenant).await;
    loop {
        client.batch_execute("BEGIN; SELECT pg_sleep(0.02); END").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_driver_finds_through_the_gate_what_it_finds_without() {
    let (here, missing): (Vec<Entry>, Vec<Entry>) =
        entries::all().into_iter().partition(Entry::is_here);
    for entry in &missing {
        let _ = writeln!(std::io::stderr(), "ABSENT driver {}: {}", entry.name, entry.comes_with);
    }
    let stage = Stage::new().await;
    let played = async {
        let compared = here.iter().map(async |entry| (entry, stage.compare(entry).await));
        futures::stream::iter(compared).buffered(AT_ONCE).collect::<Vec<_>>().await
    };
    let rivals = (0..RIVALS).map(|_| rival(&stage.gate, &stage.estate.initech));
    let rows = tokio::select! {
        rows = played => rows,
        _ = futures::future::join_all(rivals) => unreachable!("rivals go on"),
    };
    let complaints: Vec<&String> =
        rows.iter().flat_map(|(_, (_, complaints))| complaints).collect();
    let table = page::table(rows.iter().map(|(entry, (outcomes, _))| (*entry, outcomes)));
    let _ = writeln!(std::io::stderr(), "\n{table}");
    assert!(complaints.is_empty(), "{complaints:#?}");
    page::compare(&table, &missing);
}

#[test]
fn a_line_of_a_script_is_read() {
    assert_eq!(outcome("ok login"), Some(("login", Outcome::Done)));
    let absent = Outcome::Absent("the driver has no COPY".to_owned());
    assert_eq!(outcome("absent copy_in: the driver has no COPY"), Some(("copy_in", absent)));
    let failed = Outcome::Failed("got 1, wanted 2: no".to_owned());
    assert_eq!(outcome("not ok types: got 1, wanted 2: no"), Some(("types", failed)));
    for other in ["okay login", "ok nothing", "not login", "Warning: ok login", ""] {
        assert_eq!(outcome(other), None);
    }
}
