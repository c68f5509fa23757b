//! What a query costs in instructions and system calls: numbers that hardly change from run to run.
//! The proxy's start is not counted, one login is.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenantgate::demo::{Keeper, User, command, signal};

use crate::driver::{self, Work};
use crate::lines::BASELINE;
use crate::pgbench::{Length, Manner, Script};
use crate::sheet::{Aim, cell};
use crate::stage::{GatePlan, PgBouncerPlan, Proxy, Stage};
use crate::{Bench, proc, say, tenants};

const SERVERS: usize = 8;
const WARM_UP: u64 = 100;
const INSTRUCTIONS_QUERIES: u64 = 2000;
const CALLS_QUERIES: u64 = 5000;

const MODES: [&str; 3] = ["simple", "extended", "prepared"];
const PROXIES: [&str; 2] = ["tenantgate", BASELINE];

/// How long a tool may take to do what it is told.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

pub fn run(bench: &mut Bench) -> Result<()> {
    let header = ["protocol", "through", "instructions", "system calls"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut of_simple = None;
    let proxies: Vec<&str> = PROXIES.into_iter().filter(|name| bench.has(name)).collect();
    for mode in MODES {
        for name in &proxies {
            let instructions = missing("valgrind", || instructions(bench, name, mode))?;
            let calls = missing("strace", || system_calls(bench, name, mode))?;
            say(&format!(
                "{mode}, {name}: {} instructions, {} system calls",
                cell(instructions),
                cell(calls)
            ));
            let name = (*name).to_owned();
            rows.push(vec![mode.to_owned(), name, cell(instructions), cell(calls)]);
            if mode == "simple" && rows.len() == 2 {
                of_simple = instructions;
            }
        }
    }
    let of_tenants = [("tenantgate", Work::Select), (BASELINE, Work::SetTenant)];
    for (name, work) in of_tenants.into_iter().filter(|(name, _)| bench.has(name)) {
        let instructions = missing("valgrind", || instructions_of_tenants(bench, name, work))?;
        say(&format!("64 tenants, {name}: {} instructions", cell(instructions)));
        let what = "64 tenants, 20 servers".to_owned();
        rows.push(vec![what, name.to_owned(), cell(instructions), cell(None)]);
    }
    bench.sheet.aim(Aim::at_most("user instructions per simple query", 5000.0, of_simple));
    bench.sheet.table("Per transaction: user instructions, system calls", 2, &rows);
    Ok(())
}

/// Nothing, said aloud, where the tool is not on this machine.
fn missing(tool: &str, count: impl FnOnce() -> Result<f64>) -> Result<Option<f64>> {
    if proc::said(tool, &["--version"]).is_empty() {
        say(&format!("SKIPPED, {tool} is not on this machine"));
        return Ok(None);
    }
    count().map(Some)
}

fn instructions(bench: &Bench, name: &str, mode: &'static str) -> Result<f64> {
    let run = |proxy: &Proxy, number| {
        query(bench, name, proxy, mode, number)?;
        Ok(number as f64)
    };
    collected(bench, name, mode, &run)
}

/// The workload of `tenants.rs` with one client for each tenant, who are logged in before anything
/// is counted.
fn instructions_of_tenants(bench: &Bench, name: &str, work: Work) -> Result<f64> {
    let logged_in = RefCell::new(None);
    let run = |proxy: &Proxy, number| {
        let warm_up = number == WARM_UP;
        let clients = match logged_in.take() {
            Some(clients) => clients,
            None => {
                let door = |number| match name {
                    BASELINE => bench.stage.application(proxy),
                    _ => bench.stage.tenant(proxy, number),
                };
                let doors: Vec<_> = (0..tenants::CLIENTS).map(door).collect();
                Rc::new(RefCell::new(bench.runtime.block_on(driver::log_in(&doors))?))
            }
        };
        let length = Duration::from_secs(if warm_up { 5 } else { 10 });
        let run = driver::run_some(&clients, tenants::CLIENTS, work, 0.0, length);
        let outcome = bench.runtime.block_on(run)?;
        if warm_up {
            logged_in.replace(Some(clients));
        }
        Ok(outcome.transactions)
    };
    collected(bench, name, "tenants", &run)
}

/// Counted from a second run's login to the end, after a first run that opened the servers.
fn collected(
    bench: &Bench,
    name: &str,
    mode: &str,
    run: &dyn Fn(&Proxy, u64) -> Result<f64>,
) -> Result<f64> {
    let keeper = Keeper::new("count", &[])?;
    if let Some(user) = User::to_drop_to()? {
        user.own(keeper.folder())?;
    }
    let out = keeper.folder().join("callgrind.out");
    let out_flag = format!("--callgrind-out-file={}", out.display());
    let wrap = ["valgrind", "--tool=callgrind", &out_flag].map(str::to_owned);
    let servers = if mode == "tenants" { tenants::SERVERS } else { SERVERS };
    let proxy = start(&bench.stage, name, servers, &wrap)?;
    run(&proxy, WARM_UP)?;
    callgrind(&proxy, "--zero")?;
    let transactions = run(&proxy, INSTRUCTIONS_QUERIES)?;
    // How much a proxy clears up when it ends is not what a transaction costs.
    callgrind(&proxy, "--instr=off")?;
    proxy.end()?;
    if let Some(folder) = &bench.arguments.keep {
        let kept = folder.join(format!("callgrind.{name}.{mode}"));
        fs::copy(&out, &kept).with_context(|| kept.display().to_string())?;
    }
    let text = fs::read_to_string(out).context("callgrind wrote nothing")?;
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let total = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(total.context("callgrind wrote no totals")? / transactions.max(1.0))
}

/// Has callgrind forget what it has counted, or count no more. Its control program waits for ever
/// if it is not the user whose process it talks to.
fn callgrind(proxy: &Proxy, order: &str) -> Result<()> {
    let mut control = command(Path::new("callgrind_control"), proxy.user)
        .args([order, &proxy.pid().to_string()])
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run callgrind_control")?;
    let deadline = Instant::now() + TOOL_TIMEOUT;
    loop {
        match control.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("callgrind_control: {status}"),
            None if Instant::now() < deadline => thread::sleep(POLL),
            None => break,
        }
    }
    control.kill()?;
    control.wait()?;
    bail!("callgrind_control did not end")
}

fn system_calls(bench: &Bench, name: &str, mode: &'static str) -> Result<f64> {
    let proxy = start(&bench.stage, name, SERVERS, &[])?;
    // Opens the server and logs in once, so that only a login is left beside the queries.
    query(bench, name, &proxy, mode, WARM_UP)?;
    let keeper = Keeper::new("count", &[])?;
    let out = keeper.folder().join("strace.out");
    let mut tracer = Command::new("strace")
        .args(["-f", "-c", "-p", &proxy.pid().to_string(), "-o"])
        .arg(&out)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + TOOL_TIMEOUT;
    while !is_traced(proxy.pid()) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let queried = query(bench, name, &proxy, mode, CALLS_QUERIES);
    signal(tracer.id(), "INT")?;
    let status = tracer.wait()?;
    queried?;
    let text = fs::read_to_string(out).with_context(|| format!("strace: {status}"))?;
    // `100.00    0.123456           1     60012           total`
    let total = text.lines().find(|line| line.trim_end().ends_with("total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
    Ok(calls.context("strace printed no total")? / CALLS_QUERIES as f64)
}

fn is_traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

fn start(stage: &Stage, name: &str, servers: usize, wrap: &[String]) -> Result<Proxy> {
    match name {
        BASELINE => stage.pgbouncer(PgBouncerPlan { servers, wrap, ..Default::default() }),
        _ => stage.gate(GatePlan { servers, wrap, ..GatePlan::default() }),
    }
}

fn query(bench: &Bench, name: &str, proxy: &Proxy, mode: &'static str, queries: u64) -> Result<()> {
    let keeps = bench.stage.pgbouncer.as_ref().is_some_and(|found| found.keeps_statements);
    let door = match name {
        "tenantgate" => bench.stage.tenant(proxy, 0),
        _ if keeps => bench.stage.bounced(proxy, "app"),
        _ => bench.stage.bounced(proxy, "session"),
    };
    let manner = Manner { mode, clients: 1, script: Script::Select };
    let outcome = bench.pgbench.run(&door, manner, Length::Transactions(queries))?;
    match outcome.transactions as u64 == queries {
        true => Ok(()),
        false => bail!("{} of {queries} transactions", outcome.transactions),
    }
}
