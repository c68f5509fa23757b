//! The workload the gate is for: 64 clients at work over 20 servers, a random tenant of 1,000 in
//! each transaction. Beside it what an application does without a gate: it sets the tenant itself,
//! in four round trips through PgBouncer; and a pool for each tenant, 200 servers in all.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;

use crate::driver::{self, Client, Work};
use crate::lines::{self, Columns, Line, Outcome};
use crate::sheet::Aim;
use crate::stage::{Door, PgBouncerPlan, TENANTS};
use crate::ways::Ways;
use crate::{Bench, say};

pub const SERVERS: usize = 20;
pub const CLIENTS: usize = 64;

/// The servers that a pool for each tenant may have in all.
const POOL_SERVERS: usize = 200;

/// How many transactions are by the tenant of the last one, in the lines that say so.
const AGAIN: f64 = 0.4;

const SELECT: &str = "select";
const AGAIN_SELECT: &str = "select, 40 % by the last one's tenant";

pub const COLUMNS: Columns = Columns {
    what: &["what a transaction is"],
    rate: "tps",
    proxy: "proxy CPU µs",
    postgres: "PostgreSQL CPU µs",
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let ways = Ways::start(bench, SERVERS, false)?;
    let stage = &bench.stage;
    let tenants = if bench.is_smoke() { CLIENTS } else { TENANTS };
    let mut lines = Vec::new();
    let clients = |doors: Vec<Door>| clients(bench, doors);
    if let Some(pgbouncer) = &ways.pgbouncer {
        let doors = vec![stage.application(pgbouncer); CLIENTS];
        let run = working(bench, clients(doors)?, Work::SetTenant, 0.0);
        let what = "begin; set_config; select; commit";
        lines.push(Line::new(&[what], lines::BASELINE, Some(pgbouncer.pid()), run));
    }
    for (name, gate) in ways.gates() {
        let doors: Vec<Door> = (0..tenants).map(|number| stage.tenant(gate, number)).collect();
        say(&format!("tenants: {tenants} clients log in at {name}"));
        let whats = [
            (SELECT, Work::Select, 0.0),
            (AGAIN_SELECT, Work::Select, AGAIN),
            ("begin; select; commit", Work::Transaction, 0.0),
        ];
        let logged_in = clients(doors)?;
        for (what, work, again) in whats {
            let run = working(bench, logged_in.clone(), work, again);
            lines.push(Line::new(&[what], name, Some(gate.pid()), run));
        }
    }
    // A pool for each tenant closes and opens servers all the time, which hits the other lines of
    // its round; so it is last, and has few tenants at first to get its servers.
    let plan =
        PgBouncerPlan { servers: 4, servers_in_all: Some(POOL_SERVERS), ..Default::default() };
    let pools = stage.pgbouncer.as_ref().map(|_| stage.pgbouncer(plan)).transpose()?;
    if let Some(pools) = &pools {
        let doors = (0..tenants).map(|number| stage.pooled(pools, number)).collect();
        say(&format!("tenants: {tenants} clients log in at PgBouncer"));
        let run = working(bench, clients(doors)?, Work::Select, 0.0);
        let name = "PgBouncer, a pool per tenant";
        lines.push(Line::new(&[SELECT], name, Some(pools.pid()), run));
    }
    lines::take(bench, "tenants", &mut lines)?;
    let (rows, aims) = (rows(&lines, &COLUMNS), aims(&lines));
    drop(lines);
    aims.into_iter().for_each(|aim| bench.sheet.aim(aim));
    let title = format!("{CLIENTS} clients at work, {tenants} tenants, {SERVERS} servers");
    bench.sheet.table(&title, 2, &rows);
    Ok(())
}

/// Clients that stay logged in from round to round.
pub type LoggedIn = std::rc::Rc<RefCell<Vec<Client>>>;

pub fn clients(bench: &Bench, doors: Vec<Door>) -> Result<LoggedIn> {
    let clients = bench.runtime.block_on(driver::log_in(&doors))?;
    Ok(LoggedIn::new(RefCell::new(clients)))
}

fn working(
    bench: &Bench,
    clients: LoggedIn,
    work: Work,
    again: f64,
) -> impl Fn(Duration) -> Result<Outcome> {
    move |length| bench.runtime.block_on(driver::run_some(&clients, CLIENTS, work, again, length))
}

/// All lines are held against the first: it is what the others are instead of.
pub fn rows(lines: &[Line<'_>], columns: &Columns) -> Vec<Vec<String>> {
    let same = |line: &Line<'_>| Line {
        what: Vec::new(),
        through: line.through,
        proxy: None,
        run: Box::new(|_| anyhow::bail!("only its figures are wanted")),
        series: line.series.clone(),
    };
    let bare: Vec<Line<'_>> = lines.iter().map(same).collect();
    let mut rows = lines::rows(columns, &bare);
    for (row, line) in rows.iter_mut().skip(1).zip(lines) {
        row.splice(0..0, line.what.iter().cloned());
    }
    rows
}

fn aims(lines: &[Line<'_>]) -> Vec<Aim> {
    let ratio = |what: &str, through: &str| {
        let find = |through: &str, what: Option<&str>| {
            lines.iter().find(|line| {
                line.through == through && what.is_none_or(|it| line.what.iter().any(|w| w == it))
            })
        };
        let (ours, its) = (find(through, Some(what))?, find(lines::BASELINE, None)?);
        ours.series.against(&its.series, &|sample| Some(sample.per_second))
    };
    let aim = |name: &str, least, measured| Aim::at_least(name, least, measured);
    let mut aims = vec![aim(
        "tenants change each time, tps × the application's four round trips",
        1.4,
        ratio(SELECT, "tenantgate"),
    )];
    for (name, what, through, least) in [
        ("the same at level guard", SELECT, "tenantgate, guard", 1.25),
        ("the same at level sealed", SELECT, "tenantgate, sealed", 0.9),
        ("level guard, 40 % by the last one's tenant", AGAIN_SELECT, "tenantgate, guard", 1.6),
    ] {
        aims.push(aim(name, least, ratio(what, through)));
    }
    aims
}
