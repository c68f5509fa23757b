//! Applications with one pool: ten connections serve 1,000 tenants, another one at random in each
//! transaction. Through the gate a service chooses the tenant; beside it the same tenants with
//! sessions of their own, and an application that sets its tenant itself through PgBouncer.

use std::time::Duration;

use anyhow::Result;
use tenantgate::catalog::{NewToken, new_token};

use crate::Bench;
use crate::driver::{self, Work};
use crate::levels;
use crate::lines::{self, Line, Outcome};
use crate::sheet::Aim;
use crate::stage::{Door, GatePlan, PASSWORD, PgBouncerPlan, Proxy, SERVICE, Stage, TENANTS};
use crate::tenants::{COLUMNS, LoggedIn, clients};

/// Connections of the application's pool, and servers.
const POOL: usize = 10;

const SET: &str = "begin; set_config; select; commit";
const OWN: &str = "begin; select; commit";

pub fn run(bench: &mut Bench) -> Result<()> {
    let stage = &bench.stage;
    let tenants = if bench.is_smoke() { POOL } else { TENANTS };
    let token = new_token().ok_or_else(|| anyhow::anyhow!("the system has no random numbers"))?;
    let mut lines = Vec::new();
    let plan = PgBouncerPlan { servers: POOL, ..PgBouncerPlan::default() };
    let pgbouncer = stage.pgbouncer.as_ref().map(|_| stage.pgbouncer(plan)).transpose()?;
    if let Some(pgbouncer) = &pgbouncer {
        let doors = vec![stage.application(pgbouncer); POOL];
        let run = working(bench, clients(bench, doors)?, Work::SetTenant);
        lines.push(Line::new(&[SET], lines::BASELINE, Some(pgbouncer.pid()), run));
    }
    let gates = [("", None), (", guard", Some("guard")), (", sealed", Some("sealed"))];
    let mut started = Vec::new();
    for (name, level) in gates {
        started.push((name, gate(stage, level, &token)?));
    }
    for (name, gate) in &started {
        let service = stage.service(gate, &token);
        let pool = clients(bench, vec![service; POOL])?;
        let own = (0..tenants).map(|number| stage.tenant(gate, number)).collect();
        let own = clients(bench, own)?;
        for (what, through, who, work) in [
            (SET, format!("a service, tenantgate{name}"), pool, Work::ActForTenant),
            (OWN, format!("sessions, tenantgate{name}"), own, Work::Transaction),
        ] {
            let run = working(bench, who, work);
            lines.push(Line::new(&[what], through.leak(), Some(gate.pid()), run));
        }
    }
    lines::take(bench, "acting", &mut lines)?;
    let (rows, aim) = (crate::tenants::rows(&lines, &COLUMNS), aim(&lines));
    drop(lines);
    bench.sheet.aim(aim);
    let title = format!("A pool of {POOL} for {tenants} tenants, {POOL} servers");
    bench.sheet.table(&title, 2, &rows);
    Ok(())
}

/// A gate with a service that may act for everybody.
fn gate(stage: &Stage, level: Option<&'static str>, token: &NewToken) -> Result<Proxy> {
    let more = format!("{}tokens = [\"{}\"]\n", table(stage, level), token.line);
    stage.gate(GatePlan { servers: POOL, level, more: &more, ..GatePlan::default() })
}

/// The service in a gate's settings, without its tokens.
pub fn table(stage: &Stage, level: Option<&str>) -> String {
    let (port, dbname) = (stage.cluster.port(), levels::dbname(level));
    format!(
        "\n[services.backend]\ncluster = \"main\"\nacts_for = \"*\"\nconnection_string = \
         \"host=127.0.0.1 port={port} user={SERVICE} password={PASSWORD} dbname={dbname} \
         sslmode=disable\"\n"
    )
}

fn working(
    bench: &Bench,
    clients: LoggedIn,
    work: Work,
) -> impl Fn(Duration) -> Result<Outcome> + use<'_> {
    move |length| bench.runtime.block_on(driver::run_some(&clients, POOL, work, 0.0, length))
}

fn aim(lines: &[Line<'_>]) -> Aim {
    let find = |through: &str| lines.iter().find(|line| line.through == through);
    let ours = find("a service, tenantgate").zip(find("sessions, tenantgate"));
    let measured =
        ours.and_then(|(ours, its)| ours.series.against(&its.series, &|sample| sample.postgres_us));
    Aim::at_most("PostgreSQL CPU of a choice, × a session of the tenant's own", 1.1, measured)
}

impl Stage {
    /// The application at a gate, for whomever it chooses.
    fn service(&self, gate: &Proxy, token: &NewToken) -> Door {
        Door { user: "app".to_owned(), password: token.text.clone(), ..self.tenant(gate, 0) }
    }
}
