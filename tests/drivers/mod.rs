//! Real drivers against a real gate: every script here plays the same scenarios as an application
//! would, for a row, a schema and a silo tenant, and once without a gate to prove itself.

mod matrix;
mod recipes;
mod rust;
mod suites;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::guard::level::GUARDED;
use crate::harness::cluster::{shared, superuser, template};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant};

/// A script that takes longer hangs.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(180);

/// Where a script connects to and as whom.
pub struct Target<'target> {
    pub port: u16,
    pub user: String,
    pub token: &'target str,
    pub tenant: &'target Tenant,
}

/// A program and the script it runs.
pub struct Driver {
    pub name: &'static str,
    program: PathBuf,
    script: &'static str,
}

impl Driver {
    pub fn python(name: &'static str, script: &'static str) -> Self {
        Self { name, program: installed("python/bin/python"), script }
    }

    /// Whether it can be run here; if not, says so where everybody reads it, and fails on CI.
    pub fn is_here(&self) -> bool {
        let here = self.program.exists() || self.program.components().count() == 1;
        if !here {
            let name = self.name;
            // The test's own output is shown only on failure; this must be seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED driver {name}: make drivers installs it");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "driver {name} is missing");
        }
        here
    }

    async fn run(&self, target: &Target<'_>) {
        self.ran(target).await.unwrap_or_else(|said| panic!("{said}"));
    }

    /// What it did not like, if there was something.
    pub async fn ran(&self, target: &Target<'_>) -> Result<(), String> {
        let Target { port, user, token, tenant } = target;
        let bodies: Vec<&str> = tenant.notes.iter().map(|(_, body)| body.as_str()).collect();
        let binaries = template().binaries();
        let running = Command::new(&self.program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(self.script))
            .env("TG_HOST", "127.0.0.1")
            .env("TG_PORT", port.to_string())
            .env("TG_USER", user)
            .env("TG_DBNAME", &tenant.dbname)
            .env("TG_TOKEN", token)
            // PostgreSQL itself refuses COPY FROM into a row-secured table.
            .env("TG_COPY_IN", if tenant.isolation == "row" { "refused" } else { "works" })
            .env("TG_NOTES", serde_json::to_string(&bodies).unwrap())
            .env("PSQL", binaries.program("psql"))
            .env("PGBENCH", binaries.program("pgbench"))
            .env("NODE_PATH", installed("node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(SCRIPT_TIMEOUT, running).await.expect("script ends in time").unwrap();
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let (name, id) = (self.name, &tenant.id);
        match output.status.success() && said.contains("ok ") {
            true => Ok(()),
            false => Err(format!("{name} as {id}:\n{said}{wrong}")),
        }
    }

    /// Straight to PostgreSQL, as the silo's login: the script is right if this is.
    async fn proves_itself(&self) {
        if self.is_here() {
            let estate = Estate::new().await;
            let (port, tenant) = (shared().await.port(), &estate.initech);
            make_pgbench_tables(tenant).await;
            let user = format!("tg_{}", tenant.id);
            self.run(&Target { port, user, token: LOGIN_PASSWORD, tenant }).await;
        }
    }

    /// Through a gate, as a tenant of each isolation.
    async fn works_through_the_gate(&self) {
        if self.is_here() {
            let estate = Estate::new().await;
            // What works at the stricter level works at the other.
            let gate = Gate::start(&estate.settings(&GUARDED)).await;
            for tenant in estate.one_of_each() {
                make_pgbench_tables(tenant).await;
                let (port, user) = (gate.port, "app".to_owned());
                self.run(&Target { port, user, token: &tenant.token, tenant }).await;
            }
        }
    }
}

pub fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers").join(path)
}

pub fn node() -> Driver {
    // Node itself is found by PATH; what tells is whether the package is there.
    let program = if installed("node_modules/pg").exists() { "node" } else { "node_modules/pg" };
    Driver { name: "node-postgres", program: PathBuf::from(program), script: "node_pg.js" }
}

pub fn shell(name: &'static str, script: &'static str) -> Driver {
    Driver { name, program: PathBuf::from("sh"), script }
}

/// The tables of pgbench's default script, filled, where this tenant finds them.
async fn make_pgbench_tables(tenant: &Tenant) {
    let schema = match tenant.isolation {
        "row" => "app",
        "schema" => tenant.id.as_str(),
        _ => "public",
    };
    let client = superuser(shared().await, &tenant.dbname).await;
    let grantee = match tenant.isolation {
        "row" => "app_rw".to_owned(),
        "schema" => format!("rw_{}", tenant.id),
        _ => format!("tg_{}", tenant.id),
    };
    // Several tests may want those of row tenants, which all share.
    let sql = format!(
        "SELECT pg_advisory_lock(6432);
         CREATE TABLE IF NOT EXISTS {schema}.pgbench_branches
             (bid int PRIMARY KEY, bbalance int, filler char(88));
         CREATE TABLE IF NOT EXISTS {schema}.pgbench_tellers
             (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
         CREATE TABLE IF NOT EXISTS {schema}.pgbench_accounts
             (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
         CREATE TABLE IF NOT EXISTS {schema}.pgbench_history
             (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
         INSERT INTO {schema}.pgbench_branches SELECT 1, 0, '' ON CONFLICT DO NOTHING;
         INSERT INTO {schema}.pgbench_tellers
             SELECT n, 1, 0, '' FROM generate_series(1, 10) n ON CONFLICT DO NOTHING;
         INSERT INTO {schema}.pgbench_accounts
             SELECT n, 1, 0, '' FROM generate_series(1, 100000) n ON CONFLICT DO NOTHING;
         GRANT SELECT, INSERT, UPDATE ON {schema}.pgbench_branches, {schema}.pgbench_tellers,
             {schema}.pgbench_accounts, {schema}.pgbench_history TO {grantee};"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn psycopg_proves_itself() {
    Driver::python("psycopg", "psycopg_sync.py").proves_itself().await;
    Driver::python("psycopg", "psycopg_async.py").proves_itself().await;
}

#[tokio::test]
async fn psycopg_works_through_the_gate() {
    Driver::python("psycopg", "psycopg_sync.py").works_through_the_gate().await;
}

#[tokio::test]
async fn psycopg_on_asyncio_works_through_the_gate() {
    Driver::python("psycopg", "psycopg_async.py").works_through_the_gate().await;
}

#[tokio::test]
async fn asyncpg_proves_itself() {
    Driver::python("asyncpg", "asyncpg_pool.py").proves_itself().await;
}

#[tokio::test]
async fn asyncpg_works_through_the_gate() {
    Driver::python("asyncpg", "asyncpg_pool.py").works_through_the_gate().await;
}

#[tokio::test]
async fn node_postgres_proves_itself() {
    node().proves_itself().await;
}

#[tokio::test]
async fn node_postgres_works_through_the_gate() {
    node().works_through_the_gate().await;
}

#[tokio::test]
async fn psql_proves_itself() {
    shell("psql", "psql.sh").proves_itself().await;
}

#[tokio::test]
async fn psql_works_through_the_gate() {
    shell("psql", "psql.sh").works_through_the_gate().await;
}

#[tokio::test]
async fn pgbench_proves_itself() {
    shell("pgbench", "pgbench.sh").proves_itself().await;
}

#[tokio::test]
async fn pgbench_works_through_the_gate() {
    shell("pgbench", "pgbench.sh").works_through_the_gate().await;
}
