//! What a tenant's own tools and drivers do at each level of protection, in a database that
//! `tenantgate install` has prepared for it. `docs/compatibility.md` has the same table.

mod corpus;
mod page;
mod player;
mod regress;
mod script;
mod spell;
mod stage;
mod thieves;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tenantgate::demo::{Cluster, Plan};

use crate::drivers::{Driver, Target, node, shell};
use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::install::tools::{OLD, Setup};

/// What psql asks the catalogs for.
pub const DESCRIBE: [&str; 14] = [
    "\\d",
    "\\dt",
    "\\d notes",
    "\\d+ notes",
    "\\df",
    "\\l",
    "\\dn",
    "\\du",
    "\\dp",
    "\\di",
    "\\dv",
    "\\dx",
    "\\dT",
    "\\ds",
];

/// Statements of one session, each of which shows the tenant's notes.
const SCRIPTS: [(&str, &str); 5] = [
    (
        "savepoints",
        "BEGIN; SAVEPOINT s; DELETE FROM notes; ROLLBACK TO s; SELECT body FROM notes; END",
    ),
    (
        "cursors",
        "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT body FROM notes ORDER BY id; FETCH ALL c; \
         MOVE BACKWARD ALL c; FETCH 1 c; CLOSE c; END",
    ),
    ("COPY TO", "COPY (SELECT body FROM notes) TO STDOUT"),
    (
        "set_config",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', false); SHOW TimeZone; SELECT body FROM notes",
    ),
    ("settings", "SET TimeZone = 'Asia/Tokyo'; SHOW TimeZone; RESET ALL; SELECT body FROM notes"),
];

/// Outcomes by use and level: whether every tenant of the level could.
type Outcomes = BTreeMap<String, BTreeMap<&'static str, bool>>;

async fn tool(gate: &Gate, tenant: &Tenant, program: &str, arguments: &[&str]) -> Option<String> {
    let output = gate.program(tenant, program, arguments).await;
    let wrong = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || wrong.contains("ERROR") {
        println!("{program} {arguments:?} as {}: {wrong}", tenant.id);
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tries everything as one tenant.
async fn try_all(gate: &Gate, tenant: &Tenant, level: &'static str, outcomes: &mut Outcomes) {
    let mut note = |what: &str, could: bool| {
        let of = outcomes.entry(what.to_owned()).or_default().entry(level).or_insert(true);
        *of &= could;
    };
    let has_notes = |text: &str| tenant.notes.iter().all(|(_, body)| text.contains(body));
    for command in DESCRIBE {
        let could = tool(gate, tenant, "psql", &["-X", "-c", command]).await.is_some();
        note("psql's `\\d` commands", could);
    }
    for (what, script) in SCRIPTS {
        let arguments = ["-X", "-v", "ON_ERROR_STOP=1", "-c", script];
        let separate: Vec<&str> = script.split("; ").flat_map(|sql| ["-c", sql]).collect();
        let arguments = [&arguments[..3], &separate].concat();
        let said = tool(gate, tenant, "psql", &arguments).await;
        note(what, said.is_some_and(|said| has_notes(&said)));
    }
    let schema = if tenant.isolation == "silo" { "public" } else { &tenant.id };
    let (what, arguments) = match tenant.isolation {
        "row" => (
            "pg_dump of a row tenant's data",
            vec!["--data-only", "--enable-row-security", "--table", "app.notes", "--inserts"],
        ),
        _ => ("pg_dump of schema and data", vec!["--schema", schema]),
    };
    let said = tool(gate, tenant, "pg_dump", &arguments).await;
    note(what, said.is_some_and(|said| has_notes(&said)));
    let drivers = [
        Driver::python("psycopg", "psycopg_sync.py"),
        Driver::python("asyncpg", "asyncpg_pool.py"),
        node(),
        shell("psql", "psql.sh"),
    ];
    for driver in drivers.into_iter().filter(Driver::is_here) {
        let (port, user) = (gate.port, "app".to_owned());
        let ran = driver.ran(&Target { port, user, token: &tenant.token, tenant }).await;
        note(driver.name, ran.map_err(|said| println!("{said}")).is_ok());
    }
}

/// Policies ask the function, as those of sealed tenants must.
const POLICIES: &str = "ALTER POLICY own_rows ON app.notes \
    USING (tenant_id = (SELECT tenantgate.tenant_id())) \
    WITH CHECK (tenant_id = (SELECT tenantgate.tenant_id())); \
    ALTER TABLE app.notes ALTER tenant_id SET DEFAULT tenantgate.tenant_id()";

/// A cluster that is prepared for a level.
async fn prepared(level: &str) -> Cluster {
    let cluster = own(&Plan::default()).await;
    if level == "plain" {
        return cluster;
    }
    let setup = Setup::new(&cluster, "guard", OLD);
    let said = setup.install(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    if level == "sealed" {
        superuser(&cluster, "app").await.batch_execute(POLICIES).await.unwrap();
        setup.write("sealed", OLD);
        let said = setup.install(&[]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    cluster
}

/// The table of the manual: use, then yes or no for each level.
fn manual() -> Outcomes {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = fs::read_to_string(page).unwrap();
    let table = page.split_once("| Use | plain | guard | sealed | strict |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut manual = Outcomes::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        for (level, cell) in ["plain", "guard", "sealed", "strict"].into_iter().zip(&cells[1..]) {
            if *cell != "-" {
                let could = cell.starts_with("yes");
                manual.entry(cells[0].to_owned()).or_default().insert(level, could);
            }
        }
    }
    manual
}

#[tokio::test]
async fn what_tenants_may_use_at_each_level_is_what_the_manual_says() {
    let mut outcomes = Outcomes::new();
    for level in ["plain", "guard", "sealed"] {
        let cluster = prepared(level).await;
        let estate = Estate::within(&cluster).await;
        // Installing takes it from PUBLIC, and grants it to the logins it knows of.
        let (umbrella, stark) = (&estate.umbrella.id, &estate.stark.id);
        let connect = format!("GRANT CONNECT ON DATABASE app TO tg_{umbrella}, tg_{stark}");
        superuser(&cluster, "app").await.batch_execute(&connect).await.unwrap();
        let keys = if level == "sealed" { "\nseal_key_file = \"seal.key\"" } else { "" };
        let lines = format!("level = \"{level}\"{keys}");
        let settings = estate.settings(&Tweaks { cluster: &lines, ..Tweaks::default() });
        let gate = Gate::start_with(&settings, &[("seal.key", OLD)]).await;
        try_all(&gate, &estate.acme, level, &mut outcomes).await;
        // Schema and silo tenants are strict wherever a level is in force.
        let own = if level == "plain" { "plain" } else { "strict" };
        for tenant in [&estate.umbrella, &estate.initech] {
            try_all(&gate, tenant, own, &mut outcomes).await;
        }
    }
    let manual = manual();
    for (what, levels) in &outcomes {
        assert_eq!(manual.get(what), Some(levels), "{what}; all: {outcomes:#?}");
    }
    let drivers = ["psycopg", "asyncpg", "node-postgres"];
    for what in manual.keys().filter(|what| !drivers.contains(&what.as_str())) {
        assert!(outcomes.contains_key(what), "{what} is in the manual and not tried");
    }
}
