//! Runs pgbench and reads what it prints.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenantgate::demo::{Keeper, command};

use crate::stage::{Door, ROWS};

/// One row by its key, as in pgbench's own select-only script, from a table with row security.
const SELECT: &str = "SELECT abalance FROM accounts WHERE aid = :aid;\n";

/// How much longer than asked for a run may take, to connect and to end.
const GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// The program with its script.
pub struct PgBench {
    program: PathBuf,
    script: PathBuf,
    _keeper: Keeper,
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    Seconds(u64),
    /// By each client.
    Transactions(u64),
}

/// How a run sends its statements: `simple`, `extended` or `prepared`, and by how many clients.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub mode: &'static str,
    pub clients: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub transactions: u64,
    pub per_second: f64,
    pub latency: Duration,
}

impl PgBench {
    pub fn new(program: PathBuf) -> Result<Self> {
        let keeper = Keeper::new("bench", &[])?;
        let script = keeper.folder().join("select.sql");
        fs::write(&script, format!("\\set aid random(1, {ROWS})\n{SELECT}"))?;
        Ok(Self { program, script, _keeper: keeper })
    }

    /// One run. An error of any client is an error here.
    pub fn run(&self, door: &Door, manner: Manner, length: Length) -> Result<Outcome> {
        let (flag, number, seconds) = match length {
            Length::Seconds(seconds) => ("-T", seconds, seconds),
            Length::Transactions(number) => ("-t", number, 60),
        };
        let Manner { mode, clients } = manner;
        let mut child = command(&self.program, None)
            .args(["-n", "-M", mode, "-h", "127.0.0.1", "-p", &door.port.to_string()])
            .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args([flag, &number.to_string(), "-U", &door.user, "-f"])
            .args([self.script.as_os_str(), door.dbname.as_ref()])
            .env("PGPASSWORD", &door.password)
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run pgbench")?;
        let deadline = Instant::now() + Duration::from_secs(seconds) + GRACE;
        while child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        // One that has ended already is not hit by this.
        let _ = child.kill();
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            let last = errors.lines().find(|line| line.contains("rror")).unwrap_or(&errors);
            bail!("pgbench: {}", last.trim());
        }
        read(&String::from_utf8_lossy(&output.stdout)).context("pgbench printed something else")
    }
}

fn read(text: &str) -> Option<Outcome> {
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
        line.split([' ', '/', '=']).find(|word| !word.is_empty())
    };
    let latency = after("latency average =")?.parse::<f64>().ok()?;
    Some(Outcome {
        transactions: after("number of transactions actually processed:")?.parse().ok()?,
        per_second: after("tps =")?.parse().ok()?,
        latency: Duration::from_secs_f64(latency / 1000.0),
    })
}
