//! A worker's rows for the console: its clients, its servers, its pools.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::catalog::{Database, Pooling, database_of};
use crate::client::Phase;
use crate::console::{ClientRow, HostRow, PoolRow, ServerRow, SocketRow};
use crate::gate::worker::floor::Floor;
use crate::gate::worker::guest::Guest;
use crate::gate::written::{host, utc};
use crate::guard;
use crate::isolation::Isolation;
use crate::net::Peer;
use crate::pool::{Claims, Pool, SessionId};
use crate::server::ServerFacts;

/// A part of the state of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Pools,
    /// Whose they are, and by which names people know them.
    PoolNames,
    Clients,
    /// Of the clients those that wait.
    Waiting,
    Servers,
    Hosts,
    WouldRefuse,
    /// What runs now.
    Working,
    Tenants,
    Budgets,
    Databases,
    Logins,
}

/// What somebody wants: nothing else is gathered.
pub type Parts = &'static [Part];

/// What one worker knows.
#[derive(Debug, Default)]
pub struct WorkerRows {
    pub pools: Vec<PoolRow>,
    pub clients: Vec<ClientRow>,
    pub servers: Vec<ServerRow>,
    pub hosts: Vec<HostRow>,
    /// Who claims how much of which cluster, in the whole process.
    pub claims: HashMap<String, Claims>,
    pub would_refuse: Vec<guard::Entry>,
    /// For how long a server has worked on what runs now, by tenant; in microseconds.
    pub working: Vec<(String, u64)>,
}

/// What is wanted of a worker, at this moment.
pub fn rows(floor: &Floor, parts: Parts) -> WorkerRows {
    let mut rows = WorkerRows::default();
    floor.book_bytes();
    let wants = |part| parts.contains(&part);
    if wants(Part::Hosts) {
        rows.hosts = host_rows(floor);
    }
    if wants(Part::Tenants) {
        rows.claims = floor.env.pools.claims();
    }
    if wants(Part::WouldRefuse) {
        rows.would_refuse = floor.env.counts.would_refuse.borrow().entries();
    }
    for (id, guest) in floor.guests.borrow().iter() {
        let waits = || guest.shared.phase.get() == Phase::Waiting;
        if wants(Part::Clients) || wants(Part::Waiting) && waits() {
            rows.clients.push(client_row(*id, guest));
        }
        if let Some(micros) = working(guest).filter(|_| wants(Part::Working)) {
            rows.working.push((guest.serves().id.to_string(), micros));
        }
    }
    if !wants(Part::Pools) && !wants(Part::Servers) {
        return rows;
    }
    let mut doing = if wants(Part::Pools) { doing(floor) } else { HashMap::new() };
    for pool in floor.env.pools.all() {
        if wants(Part::Pools) {
            let conninfo = &pool.plan().conninfo;
            let database = (pool.cluster().name.clone(), conninfo.dbname.clone());
            // Taken by the first of several pools with this key, so that nobody is counted twice.
            let doing = doing.remove(&(database, conninfo.user.clone())).unwrap_or_default();
            rows.pools.push(pool_row(&pool, &doing));
        }
        if wants(Part::Servers) {
            rows.servers.append(&mut server_rows(&pool, floor));
        }
    }
    rows
}

/// What the sessions of a pool are doing, by database and login.
fn doing(floor: &Floor) -> HashMap<(Database, String), Doing> {
    let mut doing: HashMap<_, Doing> = HashMap::new();
    for guest in floor.guests.borrow().values() {
        let tenant = guest.serves();
        let user = tenant.route.conninfo.user.clone();
        doing.entry((database_of(&tenant), user)).or_default().count(guest);
    }
    doing
}

/// How many sessions do what.
#[derive(Default)]
struct Doing {
    waiting: u64,
    others: u64,
    /// With a cancel on its way, and of these with nothing at work any more.
    cancels: u64,
    held: u64,
    longest_wait: Duration,
}

impl Doing {
    fn count(&mut self, guest: &Guest) {
        let shared = &guest.shared;
        match shared.phase.get() {
            Phase::Waiting => self.waiting += 1,
            Phase::Idle | Phase::Active => self.others += 1,
        }
        self.longest_wait = self.longest_wait.max(waited(guest));
        let cancels = shared.cancels.get() > 0;
        self.cancels += u64::from(cancels);
        self.held += u64::from(cancels && !shared.busy.get());
    }
}

/// For how long a server has worked for the session's transaction, which is booked at its end.
fn working(guest: &Guest) -> Option<u64> {
    let shared = &guest.shared;
    let active = shared.phase.get() == Phase::Active;
    let worked = || shared.request_since.get().elapsed().saturating_sub(shared.quiet());
    active.then(|| u64::try_from(worked().as_micros()).unwrap_or(u64::MAX))
}

fn waited(guest: &Guest) -> Duration {
    match guest.shared.phase.get() {
        Phase::Waiting => guest.shared.request_since.get().elapsed(),
        Phase::Idle | Phase::Active => Duration::ZERO,
    }
}

fn client_row(id: SessionId, guest: &Guest) -> ClientRow {
    let shared = &guest.shared;
    let state = match shared.phase.get() {
        Phase::Idle => "idle",
        Phase::Active => "active",
        Phase::Waiting => "waiting",
    };
    let (addr, port) = guest.peer.address();
    // A Unix socket has one address for both sides.
    let (local_addr, local_port) = match guest.local {
        Some(local) => (local.ip().to_string(), local.port()),
        None => (addr.clone(), port),
    };
    let tenant = guest.serves();
    let cluster = &tenant.route.cluster.name;
    let server = shared.server.borrow();
    let remote_pid = match guest.peer {
        Peer::Unix(peer) => peer.pid.and_then(|pid| u64::try_from(pid).ok()).unwrap_or(0),
        Peer::Tcp(_) | Peer::Proxied(_) => 0,
    };
    let socket = SocketRow {
        kind: "C",
        user: guest.papers.user.to_string(),
        database: guest.papers.database.to_string(),
        state: state.to_owned(),
        addr,
        port,
        local_addr,
        local_port,
        connect_time: utc(guest.since),
        request_time: utc(at(shared.request_since.get())),
        wait_us: micros(waited(guest)),
        close_needed: shared.ending.borrow().is_some(),
        ptr: id.to_string(),
        link: server.as_ref().map(|facts| server_ptr(cluster, facts)).unwrap_or_default(),
        remote_pid,
        tls: if guest.secure { "TLS".to_owned() } else { String::new() },
        application_name: guest.application_name(),
        tenant: tenant.id.to_string(),
    };
    let pin = shared.pins.get().to_string();
    ClientRow { socket, id, credential: guest.papers.identity.credential.clone(), pin }
}

fn server_ptr(cluster: &str, facts: &ServerFacts) -> String {
    format!("{cluster}/{}", facts.pid)
}

/// Whose it is, where it is not shared by row tenants, is for others to say: a worker does not go
/// through the catalog.
fn pool_row(pool: &Rc<Pool>, doing: &Doing) -> PoolRow {
    let (clean, parked, connecting, _) = pool.counts();
    let plan = pool.plan();
    let tenant = match plan.isolation {
        Isolation::Row => "*".to_owned(),
        Isolation::Schema | Isolation::Silo => String::new(),
    };
    PoolRow {
        cluster: pool.cluster().name.clone(),
        database: plan.conninfo.dbname.clone(),
        user: plan.conninfo.user.clone(),
        tenant,
        cl_active: doing.others,
        cl_waiting: doing.waiting,
        cl_cancel: doing.cancels,
        sv_active: pool.leases().len() as u64,
        sv_held: doing.held,
        sv_idle: clean as u64,
        sv_used: parked as u64,
        sv_scrub: pool.in_motion().1 as u64,
        sv_login: connecting as u64,
        maxwait_us: micros(doing.longest_wait),
        pool_mode: Pooling::Transaction.name().to_owned(),
    }
}

fn server_rows(pool: &Rc<Pool>, floor: &Floor) -> Vec<ServerRow> {
    let guests = floor.guests.borrow();
    let asked =
        |session: &SessionId| guests.get(session).map(|guest| guest.shared.request_since.get());
    let leased = pool.leases().into_iter().map(|it| {
        let since = asked(&it.session).unwrap_or(it.facts.since);
        (it.facts, "active", it.tenant.to_string(), it.session.to_string(), since)
    });
    let idle = pool.idle().into_iter().map(|(facts, tenant, since)| {
        let state = if tenant.is_empty() { "idle" } else { "used" };
        (facts, state, tenant, String::new(), since)
    });
    let cluster = pool.cluster().name.clone();
    let row = |(facts, state, tenant, link, since): (Rc<ServerFacts>, &str, String, String, _)| {
        let (addr, port) = place(&facts);
        let socket = SocketRow {
            kind: "S",
            user: facts.conninfo.user.clone(),
            database: facts.conninfo.dbname.clone(),
            state: state.to_owned(),
            addr,
            port,
            connect_time: utc(at(facts.since)),
            request_time: utc(at(since)),
            close_needed: pool.is_outdated(&facts),
            ptr: server_ptr(&cluster, &facts),
            link,
            remote_pid: u64::try_from(facts.pid).unwrap_or(0),
            tls: if facts.secure { "TLS".to_owned() } else { String::new() },
            tenant,
            ..SocketRow::default()
        };
        ServerRow { socket, cluster: cluster.clone(), kind: facts.rights.name().to_owned() }
    };
    leased.chain(idle).map(row).collect()
}

fn host_rows(floor: &Floor) -> Vec<HostRow> {
    let mut rows = Vec::new();
    for (cluster, health) in floor.env.pools.health() {
        rows.extend(health.hosts().into_iter().map(|facts| {
            let (host, port) = host(Some(&facts.host));
            let next = facts.next.map(|next| next.saturating_duration_since(Instant::now()));
            HostRow {
                cluster: cluster.clone(),
                host,
                port,
                state: facts.standing.name(),
                since: utc(at(facts.since)),
                failures: facts.failures.into(),
                last_error: facts.last_error,
                next_try_ms: next.map(|next| micros(next) / 1000),
                attempts: facts.attempts.into(),
            }
        }));
    }
    rows.sort_by(|a, b| (&a.cluster, &a.host, a.port).cmp(&(&b.cluster, &b.host, b.port)));
    rows
}

fn place(facts: &ServerFacts) -> (String, u16) {
    host(facts.conninfo.hosts.get(facts.host))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn at(moment: Instant) -> SystemTime {
    SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(UNIX_EPOCH)
}
