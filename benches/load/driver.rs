//! A client of our own, for what pgbench cannot do: many clients that are each another tenant, and
//! clients that log in and then do nothing. One thread, all clients on it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::pgbench::Outcome;
use crate::stage::{Door, ROWS, TENANTS};

/// How long a client waits for any answer before the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every client of a run does in each of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One statement, one round trip: the proxy knows the tenant.
    Select,
    /// Begin, select, commit: three round trips; the proxy knows the tenant.
    Transaction,
    /// Begin, set_config, select, commit: four round trips, because nobody else sets the tenant.
    SetTenant,
}

/// A logged-in client.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// Connects and logs in with a clear-text password.
    pub async fn login(door: &Door) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", door.port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, input: Vec::with_capacity(1024) };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for (key, value) in [("user", door.user.as_str()), ("database", door.dbname)] {
            startup.extend_from_slice(key.as_bytes());
            startup.push(0);
            startup.extend_from_slice(value.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let mut out = (u32::try_from(startup.len())? + 4).to_be_bytes().to_vec();
        out.extend_from_slice(&startup);
        let mut password = door.password.clone().into_bytes();
        password.push(0);
        client.ask(&out, b'R').await?;
        out.clear();
        put(&mut out, b'p', &password)?;
        client.ask(&out, b'Z').await?;
        client.input.shrink_to_fit();
        Ok(client)
    }

    /// Sends bytes and reads up to a message of this kind.
    async fn ask(&mut self, bytes: &[u8], until: u8) -> Result<()> {
        self.stream.write_all(bytes).await?;
        let mut answered = false;
        while !answered {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the connection was closed");
            }
            let mut used = 0;
            while let Some([tag, a, b, c, d]) = self.input.get(used..).and_then(<[u8]>::first_chunk)
            {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
                let Some(frame) = self.input.get(used..used + length) else { break };
                if *tag == b'E' {
                    bail!("error: {}", String::from_utf8_lossy(frame).replace('\0', " "));
                }
                answered |= *tag == until;
                used += length;
            }
            self.input.drain(..used);
        }
        Ok(())
    }
}

/// Runs one client per door for so long, all on this thread.
pub async fn run(doors: Vec<Door>, work: Work, length: Duration) -> Result<Outcome> {
    let mut clients = Vec::new();
    for door in &doors {
        clients.push(tokio::time::timeout(PATIENCE, Client::login(door)).await??);
    }
    let (count, started) = (clients.len(), Instant::now());
    let end = started + length;
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(tokio::time::timeout(length + PATIENCE, repeat(client, work, end)));
    }
    let mut transactions = 0;
    while let Some(done) = tasks.join_next().await {
        transactions += done???;
    }
    let elapsed = started.elapsed();
    let latency = elapsed.mul_f64(count as f64 / (transactions.max(1) as f64));
    Ok(Outcome { transactions, per_second: transactions as f64 / elapsed.as_secs_f64(), latency })
}

async fn repeat(mut client: Client, work: Work, end: Instant) -> Result<u64> {
    let mut transactions = 0;
    let mut statement = Vec::new();
    while Instant::now() < end {
        let aid = fastrand::usize(1..=ROWS);
        let select = format!("SELECT abalance FROM accounts WHERE aid = {aid}");
        let tenant = fastrand::usize(0..TENANTS);
        let set = format!("SELECT set_config('app.tenant_id', 't{tenant:03}', true)");
        let steps: &[&str] = match work {
            Work::Select => &[&select],
            Work::Transaction => &["BEGIN", &select, "COMMIT"],
            Work::SetTenant => &["BEGIN", &set, &select, "COMMIT"],
        };
        for sql in steps {
            statement.clear();
            let mut body = sql.as_bytes().to_vec();
            body.push(0);
            put(&mut statement, b'Q', &body)?;
            client.ask(&statement, b'Z').await?;
        }
        transactions += 1;
    }
    Ok(transactions)
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) -> Result<()> {
    out.push(tag);
    out.extend_from_slice(&(u32::try_from(body.len())? + 4).to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}
