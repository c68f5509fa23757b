//! What each level of protection costs: the same statement on a table without row security and on
//! one with it, at level plain, guard and sealed; by one tenant all the time, and by another one in
//! each transaction. Databases of the higher levels are prepared by `tenantgate install`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::acting;
use crate::driver::{self, Work};
use crate::lines::{self, Line};
use crate::sheet::{Aim, cell, percent};
use crate::stage::{Door, GatePlan, Stage, TENANTS, run};
use crate::tenants::{CLIENTS, SERVERS};
use crate::ways::Ways;
use crate::{Bench, say};

/// The one tenant that is at work all the time, and tenants that take turns.
const SAME: &str = "the same tenant";
const OTHER: &str = "another tenant";

/// The line that all others of its group are held against: level plain, no row security.
const BARE: (&str, &str) = ("tenantgate", "no");

/// The database of a level: a copy of `app`, so that what is taken from PUBLIC in one is there in
/// the others.
pub fn dbname(level: Option<&str>) -> &'static str {
    match level {
        Some("guard") => "app_guard",
        Some("sealed") => "app_sealed",
        _ => "app",
    }
}

/// Makes the databases of the higher levels, as a DBA would.
pub async fn prepare(stage: &Stage) -> Result<()> {
    for level in ["guard", "sealed"] {
        let (dbname, folder) = (dbname(Some(level)), tempfile::tempdir()?);
        let copy = format!("CREATE DATABASE {dbname} TEMPLATE app");
        run(&stage.cluster, "postgres", &[&copy]).await?;
        let plan = GatePlan { servers: 1, level: Some(level), ..GatePlan::default() };
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\n{}{}",
            stage.settings(plan, folder.path())?,
            acting::table(stage, Some(level))
        );
        // Policies can call what the lower level has installed; only then the higher one is whole.
        let lower = settings.replace("level = \"sealed\"", "level = \"guard\"");
        install(stage, &lower, folder.path())?;
        if level == "sealed" {
            seal_policies(stage).await?;
            install(stage, &settings, folder.path())?;
        }
    }
    Ok(())
}

async fn seal_policies(stage: &Stage) -> Result<()> {
    let tables = "SELECT format('ALTER POLICY own_rows ON %s USING (tenant_id = \
                  (SELECT tenantgate.tenant_id()))', polrelid::regclass) FROM pg_policy";
    let policies = format!(
        "SET search_path TO pg_catalog; DO $$ DECLARE change text; BEGIN FOR change IN {tables} \
         LOOP EXECUTE change; END LOOP; END $$"
    );
    run(&stage.cluster, dbname(Some("sealed")), &[&policies]).await
}

fn install(stage: &Stage, settings: &str, folder: &Path) -> Result<()> {
    let file = folder.join("tenantgate.toml");
    fs::write(&file, settings)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    command.args(["install", "--cluster", "main", "--config"]).arg(&file);
    command.env("TENANTGATE_ADMIN", stage.cluster.superuser_conninfo("postgres"));
    let output = command.output().context("cannot run tenantgate install")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("tenantgate install failed:\n{}", String::from_utf8_lossy(&text));
    }
    Ok(())
}

pub fn take(bench: &mut Bench) -> Result<()> {
    let ways = Ways::start(bench, SERVERS, false)?;
    let stage = &bench.stage;
    let tenants = if bench.is_smoke() { CLIENTS } else { TENANTS };
    let mut lines = Vec::new();
    for (name, gate) in ways.gates().into_iter().filter(|(name, _)| *name != "before") {
        say(&format!("levels: clients log in at {name}"));
        let same: Vec<Door> = (0..CLIENTS).map(|_| stage.tenant(gate, 0)).collect();
        let other: Vec<Door> = (0..tenants).map(|number| stage.tenant(gate, number)).collect();
        for (who, doors) in [(SAME, same), (OTHER, other)] {
            let clients = crate::tenants::clients(bench, doors)?;
            for (secured, work) in [("no", Work::SelectOpen), ("yes", Work::Select)] {
                let clients = clients.clone();
                let runtime = &bench.runtime;
                let run = move |length| {
                    runtime.block_on(driver::run_some(&clients, CLIENTS, work, 0.0, length))
                };
                lines.push(Line::new(&[who, secured], name, Some(gate.pid()), run));
            }
        }
    }
    lines::take(bench, "levels", &mut lines)?;
    let rows = rows(&lines);
    let sealed = cost(&lines, OTHER, ("tenantgate, sealed", "yes"), BARE);
    drop(lines);
    let name = "sealed, tenants change each time, tps × plain without row security";
    bench.sheet.aim(Aim::at_least(name, 0.5, sealed));
    let title = format!("What each level costs: {CLIENTS} clients at work, {SERVERS} servers");
    bench.sheet.table(&title, 3, &rows);
    Ok(())
}

fn rows(lines: &[Line<'_>]) -> Vec<Vec<String>> {
    let header = ["each transaction by", "through", "row security", "tps", "× bare", "latency µs"];
    let end = ["proxy CPU µs", "PostgreSQL CPU µs", "more than bare", "spread"];
    let mut rows = vec![header.iter().chain(&end).map(|word| (*word).to_owned()).collect()];
    for line in lines {
        let [who, secured] = line.what.as_slice() else { continue };
        let bare = find(lines, who, BARE);
        let more =
            bare.and_then(|bare| Some(line.series.postgres_us()? - bare.series.postgres_us()?));
        rows.push(vec![
            who.clone(),
            line.through.to_owned(),
            secured.clone(),
            cell(line.series.per_second()),
            cell(cost(lines, who, (line.through, secured), BARE)),
            cell(line.series.latency_us()),
            cell(line.series.proxy_us()),
            cell(line.series.postgres_us()),
            cell(more),
            percent(line.series.spread()),
        ]);
    }
    rows
}

fn find<'lines, 'stage>(
    lines: &'lines [Line<'stage>],
    who: &str,
    (through, secured): (&str, &str),
) -> Option<&'lines Line<'stage>> {
    lines.iter().find(|line| line.through == through && line.what == [who, secured])
}

/// Throughput of one line against another of the same group.
fn cost(lines: &[Line<'_>], who: &str, ours: (&str, &str), its: (&str, &str)) -> Option<f64> {
    let (ours, its) = (find(lines, who, ours)?, find(lines, who, its)?);
    ours.series.against(&its.series, &|sample| Some(sample.per_second))
}
