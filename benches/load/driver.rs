//! A client of our own, for what pgbench cannot do: many tenants, clients that do nothing, large
//! results, COPY. One thread, all clients on it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tenantgate::net::Stream;
use tenantgate::server::{Conninfo, Way, dial, spots};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, LocalSet};

use crate::lines::Outcome;
use crate::stage::{Door, ROWS, TENANTS};

/// How long a client waits for any answer before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client reads at once.
const READ_BYTES: usize = 64 * 1024;

/// Data of one COPY FROM: so many messages of so many lines.
const COPY_MESSAGES: usize = 64;
const COPY_LINES: usize = 640;

/// What every client of a run does in each of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One statement, one round trip: the proxy knows the tenant.
    Select,
    /// The same on a table without row security.
    SelectOpen,
    /// Begin, select, commit: three round trips; the proxy knows the tenant.
    Transaction,
    /// Begin, set_config, select, commit: four round trips, because nobody else sets the tenant.
    SetTenant,
    /// The same words to a gate, which answers two of them itself.
    ActForTenant,
    /// One large result, counted in megabytes.
    Read(&'static str),
    /// COPY FROM STDIN of lines that the server reads and drops, counted in megabytes.
    CopyIn,
}

/// A logged-in client.
pub struct Client {
    stream: Stream,
    input: Vec<u8>,
    /// Bytes of whole messages so far.
    received: u64,
}

impl Client {
    /// Connects and logs in, with a clear-text password or SCRAM, as it is asked to.
    pub async fn login(door: &Door) -> Result<Self> {
        let stream = door.dial().await?;
        let mut client = Self { stream, input: Vec::with_capacity(1024), received: 0 };
        let mut out = BytesMut::new();
        let parameters = [("user", door.user.as_str()), ("database", door.dbname)];
        frontend::startup_message(parameters, &mut out)?;
        let unsupported = ChannelBinding::unsupported();
        let mut scram = ScramSha256::new(door.password.as_bytes(), unsupported);
        loop {
            client.stream.write_all(&out).await?;
            client.stream.flush().await?;
            out.clear();
            let (tag, body) = client.frame().await?;
            let asked = body.split_first_chunk::<4>();
            match (tag, asked.map(|(kind, rest)| (u32::from_be_bytes(*kind), rest))) {
                (b'E', _) => bail!("error: {}", readable(&body)),
                (b'R', Some((3, _))) => {
                    frontend::password_message(door.password.as_bytes(), &mut out)?
                }
                (b'R', Some((10, _))) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
                }
                (b'R', Some((11, rest))) => {
                    scram.update(rest)?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                (b'Z', _) => break,
                _ => {}
            }
        }
        client.input = Vec::new();
        Ok(client)
    }

    /// One whole message, tag and body.
    async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some([tag, a, b, c, d]) = self.input.first_chunk() {
                let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1);
                if let Some(body) = self.input.get(5..length) {
                    let body = body.to_vec();
                    self.input.drain(..length);
                    return Ok((tag, body));
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the connection was closed");
            }
        }
    }

    /// Sends bytes and reads up to a message of this kind.
    async fn ask(&mut self, bytes: &[u8], until: u8) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        let mut answered = false;
        while !answered {
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the connection was closed");
            }
            let mut used = 0;
            while let Some([tag, a, b, c, d]) = self.input.get(used..).and_then(<[u8]>::first_chunk)
            {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
                let Some(frame) = self.input.get(used..used + length) else { break };
                if *tag == b'E' {
                    bail!("error: {}", readable(frame));
                }
                answered |= *tag == until;
                used += length;
            }
            self.received += used as u64;
            self.input.drain(..used);
        }
        Ok(())
    }

    async fn query(&mut self, sql: &str, until: u8) -> Result<()> {
        let (mut out, mut body) = (Vec::new(), sql.as_bytes().to_vec());
        body.push(0);
        put(&mut out, b'Q', &body)?;
        self.ask(&out, until).await
    }

    /// One transaction. What it counts for.
    pub async fn transact(&mut self, work: Work) -> Result<f64> {
        let aid = fastrand::usize(1..=ROWS);
        let select = format!("SELECT abalance FROM accounts WHERE aid = {aid}");
        let open =
            format!("SELECT abalance FROM open_accounts WHERE aid = {aid} AND tenant_id = 't000'");
        let tenant = fastrand::usize(0..TENANTS);
        let set = format!("SELECT set_config('app.tenant_id', 't{tenant:03}', true)");
        let act = format!("SELECT set_config('tenantgate.tenant', 't{tenant:03}', true)");
        let before = self.received;
        let steps: &[&str] = match work {
            Work::Select => &[&select],
            Work::SelectOpen => &[&open],
            Work::Transaction => &["BEGIN", &select, "COMMIT"],
            Work::SetTenant => &["BEGIN", &set, &select, "COMMIT"],
            Work::ActForTenant => &["BEGIN", &act, &select, "COMMIT"],
            Work::Read(sql) => &[sql],
            Work::CopyIn => return self.copy_in().await,
        };
        for sql in steps {
            self.query(sql, b'Z').await?;
        }
        match work {
            Work::Read(_) => Ok((self.received - before) as f64 / 1e6),
            _ => Ok(1.0),
        }
    }

    async fn copy_in(&mut self) -> Result<f64> {
        self.query("COPY sink FROM STDIN WHERE false", b'G').await?;
        let (mut message, lines) = (Vec::new(), format!("{}\n", "x".repeat(99)));
        put(&mut message, b'd', lines.repeat(COPY_LINES).as_bytes())?;
        for _ in 0..COPY_MESSAGES {
            self.stream.write_all(&message).await?;
        }
        let mut end = Vec::new();
        put(&mut end, b'c', &[])?;
        self.ask(&end, b'Z').await?;
        Ok((message.len() * COPY_MESSAGES) as f64 / 1e6)
    }

    /// Says goodbye and waits until the other side has hung up.
    pub async fn leave(mut self) -> Result<()> {
        self.stream.write_all(b"X\0\0\0\x04").await?;
        self.stream.flush().await?;
        while self.stream.read_buf(&mut self.input).await.is_ok_and(|count| count > 0) {}
        Ok(())
    }
}

impl Door {
    /// A connected stream, with TLS where the door has it; the certificate is not looked at.
    pub async fn dial(&self) -> Result<Stream> {
        let Self { port, user, tls, .. } = self;
        let mode = if *tls { "require" } else { "disable" };
        let conninfo =
            Conninfo::parse(&format!("host=127.0.0.1 port={port} user={user} sslmode={mode}"))?;
        let spots = spots(&conninfo, 0).await?;
        let spot = spots.first().context("no address")?;
        Ok(dial(&conninfo, 0, spot, Way::only(&conninfo, 0)).await?.0)
    }
}

/// Logs one client in for each door.
pub async fn log_in(doors: &[Door]) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for door in doors {
        let login = tokio::time::timeout(PATIENCE, Client::login(door)).await;
        clients.push(login.context("no login in time")??);
    }
    Ok(clients)
}

/// Runs one client per door for so long.
pub async fn run(doors: Vec<Door>, work: Work, length: Duration) -> Result<Outcome> {
    let clients = Rc::new(RefCell::new(log_in(&doors).await?));
    let outcome = run_some(&clients, doors.len(), work, 0.0, length).await?;
    let clients = std::mem::take(&mut *clients.borrow_mut());
    for client in clients {
        client.leave().await?;
    }
    Ok(outcome)
}

/// Keeps `active` of the clients at work. Each transaction is by another client at random; with
/// probability `again` by the one that did the last.
pub async fn run_some(
    free: &Rc<RefCell<Vec<Client>>>,
    active: usize,
    work: Work,
    again: f64,
    length: Duration,
) -> Result<Outcome> {
    let started = Instant::now();
    let end = started + length;
    let mut tasks = JoinSet::new();
    let local = LocalSet::new();
    for _ in 0..active {
        let one = repeat(free.clone(), work, again, end);
        tasks.spawn_local_on(tokio::time::timeout(length + PATIENCE, one), &local);
    }
    let all = async {
        let (mut transactions, mut count) = (0, 0.0);
        while let Some(done) = tasks.join_next().await {
            let (its_transactions, its_count) = done?.context("no answer in time")??;
            transactions += its_transactions;
            count += its_count;
        }
        anyhow::Ok((transactions, count))
    };
    let (transactions, count) = local.run_until(all).await?;
    let elapsed = started.elapsed();
    let latency = elapsed.mul_f64(active as f64 / f64::max(transactions as f64, 1.0));
    Ok(Outcome { transactions: count, per_second: count / elapsed.as_secs_f64(), latency })
}

async fn repeat(
    free: Rc<RefCell<Vec<Client>>>,
    work: Work,
    again: f64,
    end: Instant,
) -> Result<(u64, f64)> {
    let (mut transactions, mut count) = (0, 0.0);
    let mut last: Option<Client> = None;
    while transactions == 0 || Instant::now() < end {
        let mut client = match last.take() {
            Some(same) if fastrand::f64() < again => same,
            other => {
                let mut free = free.borrow_mut();
                free.extend(other);
                let at = fastrand::usize(..free.len().max(1));
                if at >= free.len() {
                    bail!("fewer clients than are to be at work");
                }
                free.swap_remove(at)
            }
        };
        count += client.transact(work).await?;
        transactions += 1;
        // One that may be taken again stays; the others are anybody's.
        match again > 0.0 {
            true => last = Some(client),
            false => free.borrow_mut().push(client),
        }
    }
    free.borrow_mut().extend(last);
    Ok((transactions, count))
}

/// The fields of an error, for a person.
fn readable(frame: &[u8]) -> String {
    String::from_utf8_lossy(frame).replace('\0', " ")
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) -> Result<()> {
    out.push(tag);
    out.extend_from_slice(&(u32::try_from(body.len())? + 4).to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}
