//! A worker's rows for the console: its clients, its servers, its pools.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::catalog::{Database, Pooling, Tenant};
use crate::client::Phase;
use crate::console::{ClientRow, HostRow, MemoryRow, PoolRow, ServerRow, SocketRow};
use crate::gate::worker::{Floor, Guest};
use crate::guard;
use crate::isolation::Isolation;
use crate::net::Peer;
use crate::pool::{Claims, Pool, SessionId};
use crate::server::{Host, ServerFacts};

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

/// A worker's rows of this moment.
pub fn rows(floor: &Floor) -> WorkerRows {
    let mut rows = WorkerRows::default();
    floor.book_bytes();
    rows.hosts = host_rows(floor);
    rows.claims = floor.env.pools.claims();
    rows.would_refuse = floor.env.counts.would_refuse.borrow().entries();
    // By database and login: what the sessions of a pool are doing.
    let mut doing: HashMap<(Database, String), Doing> = HashMap::new();
    for (id, guest) in floor.guests.borrow().iter() {
        let tenant = guest.serves();
        let conninfo = &tenant.route.conninfo;
        let database = (tenant.route.cluster.name.clone(), conninfo.dbname.clone());
        doing.entry((database, conninfo.user.clone())).or_default().count(guest);
        rows.clients.push(client_row(*id, guest));
        rows.working.extend(working(guest).map(|micros| (tenant.id.to_string(), micros)));
    }
    for pool in floor.env.pools.all() {
        let conninfo = &pool.plan().conninfo;
        let database = (pool.cluster().name.clone(), conninfo.dbname.clone());
        // Taken by the first of several pools with this key, so that nobody is counted twice.
        let doing = doing.remove(&(database, conninfo.user.clone())).unwrap_or_default();
        rows.pools.push(pool_row(&pool, floor, &doing));
        rows.servers.append(&mut server_rows(&pool, floor));
    }
    rows
}

/// One row of each pool, whatever workers and generations of it there are.
pub fn merged(rows: Vec<PoolRow>) -> Vec<PoolRow> {
    let mut merged: Vec<PoolRow> = Vec::new();
    for row in rows {
        let same = |it: &&mut PoolRow| {
            it.cluster == row.cluster && it.database == row.database && it.user == row.user
        };
        let Some(pool) = merged.iter_mut().find(same) else {
            merged.push(row);
            continue;
        };
        for (sum, more) in [
            (&mut pool.cl_active, row.cl_active),
            (&mut pool.cl_waiting, row.cl_waiting),
            (&mut pool.cl_cancel, row.cl_cancel),
            (&mut pool.sv_active, row.sv_active),
            (&mut pool.sv_held, row.sv_held),
            (&mut pool.sv_idle, row.sv_idle),
            (&mut pool.sv_used, row.sv_used),
            (&mut pool.sv_scrub, row.sv_scrub),
            (&mut pool.sv_login, row.sv_login),
        ] {
            *sum += more;
        }
        pool.maxwait_us = pool.maxwait_us.max(row.maxwait_us);
    }
    merged.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
    merged
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
        user: guest.user.clone(),
        database: guest.database.clone(),
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
        application_name: shared.application_name.borrow().clone(),
        tenant: tenant.id.to_string(),
    };
    let pin = shared.pins.get().to_string();
    ClientRow { socket, id, credential: guest.identity.credential.clone(), pin }
}

fn server_ptr(cluster: &str, facts: &ServerFacts) -> String {
    format!("{cluster}/{}", facts.pid)
}

fn pool_row(pool: &Rc<Pool>, floor: &Floor, doing: &Doing) -> PoolRow {
    let (clean, parked, connecting, _) = pool.counts();
    let plan = pool.plan();
    let catalog = floor.common.catalog.load();
    let here = |it: &&Arc<Tenant>| it.faces().any(|it| it.route.conninfo == plan.conninfo);
    let mut tenants = catalog.tenants().filter(here);
    let (tenant, pooling) = match (tenants.next(), tenants.next()) {
        (Some(only), None) if plan.isolation != Isolation::Row => {
            (only.id.to_string(), only.pooling)
        }
        _ => ("*".to_owned(), Pooling::Transaction),
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
        pool_mode: pooling.name().to_owned(),
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

/// A host as the console shows it.
pub fn host(host: Option<&Host>) -> (String, u16) {
    match host {
        Some(Host::Tcp { name, port, .. }) => (name.clone(), *port),
        Some(Host::Unix { folder, port }) => (folder.display().to_string(), *port),
        None => (String::new(), 0),
    }
}

/// What so many clients and servers take up without their buffers, and those buffers that are
/// spare.
pub fn memory(clients: usize, servers: usize) -> Vec<MemoryRow> {
    let row = |name, size: usize, used: usize| {
        let (size, used) = (size as u64, used as u64);
        MemoryRow { name, size, used: Some(used), free: Some(0), total: size * used }
    };
    let client = size_of::<crate::client::Session>() + size_of::<crate::client::Shared>();
    vec![
        row("client_cache", client, clients),
        row("server_cache", size_of::<crate::server::Bound>(), servers),
    ]
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn at(moment: Instant) -> SystemTime {
    SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(UNIX_EPOCH)
}

/// `2026-11-21 08:30:00 UTC`, as PgBouncer writes it. The calendar is the proleptic Gregorian one,
/// counted in eras of 400 years from 1 March of year 0.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, clock) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        let time = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(time(1_795_248_445), "2026-11-21 08:07:25 UTC");
    }
}
