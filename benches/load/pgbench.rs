//! Runs pgbench and reads what it prints.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenantgate::demo::{Keeper, command};

use crate::lines::Outcome;
use crate::stage::{Door, ROWS};

/// One row by its key, as in pgbench's own select-only script, from a table with row security.
const SELECT: &str = "SELECT abalance FROM accounts WHERE aid = :aid;\n";

/// The same, with the parameter's type in the text.
const TYPED: &str = "SELECT abalance FROM accounts WHERE aid = :aid::int4;\n";

/// As in pgbench's own script, with the sizes of the bench's tables.
const TPC_B: &str = "\
\\set aid random(1, 20000)
\\set bid random(1, 10)
\\set tid random(1, 100)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
    VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
";

/// How much longer than asked for a run may take, to connect and to end.
const GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// The program with its script.
pub struct PgBench {
    program: PathBuf,
    keeper: Keeper,
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    For(Duration),
    /// By each client.
    Transactions(u64),
}

/// How a run sends its statements: `simple`, `extended` or `prepared`, by how many clients, and
/// which.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub mode: &'static str,
    pub clients: usize,
    pub script: Script,
}

/// What a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// One row by its key.
    Select,
    /// The same, its parameter with a type.
    Typed,
    /// pgbench's own default: three updates, a select and an insert in one transaction.
    TpcB,
}

impl PgBench {
    pub fn new(program: PathBuf) -> Result<Self> {
        let keeper = Keeper::new("bench", &[])?;
        for (script, text) in [(Script::Select, SELECT), (Script::Typed, TYPED)] {
            let text = format!("\\set aid random(1, {ROWS})\n{text}");
            fs::write(keeper.folder().join(script.file()), text)?;
        }
        fs::write(keeper.folder().join(Script::TpcB.file()), TPC_B)?;
        Ok(Self { program, keeper })
    }

    /// One run. An error of any client is an error here.
    pub fn run(&self, door: &Door, manner: Manner, length: Length) -> Result<Outcome> {
        let (flag, number, seconds) = match length {
            // pgbench takes whole seconds; a shorter run has some transactions instead.
            Length::For(length) if length < Duration::from_secs(1) => ("-t", 10, 60),
            Length::For(length) => ("-T", length.as_secs(), length.as_secs()),
            Length::Transactions(number) => ("-t", number, 60),
        };
        let Manner { mode, clients, script } = manner;
        let mut child = command(&self.program, None)
            .args(["-n", "-M", mode, "-h", "127.0.0.1", "-p", &door.port.to_string()])
            .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args([flag, &number.to_string(), "-U", &door.user, "-f"])
            .arg(self.keeper.folder().join(script.file()))
            .arg(door.dbname)
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

impl Script {
    fn file(self) -> &'static str {
        match self {
            Self::Select => "select.sql",
            Self::Typed => "typed.sql",
            Self::TpcB => "tpc-b.sql",
        }
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
