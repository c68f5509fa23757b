//! What the console and the metrics are told: rows gathered from the workers, counters handed on.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::catalog::Tenant;
use crate::client::Phase;
use crate::config::Setting;
use crate::console::{BudgetRow, ClientRow, ConfigRow, PoolRow, ServerRow, Snapshot, TenantRow};
use crate::gate::Common;
use crate::gate::worker::{Floor, Guest, Order, Worker};
use crate::isolation::Isolation;
use crate::pool::{Pool, SessionId};
use crate::server::{Host, ServerFacts};
use crate::telemetry;

/// What one worker knows.
#[derive(Debug, Default)]
pub struct WorkerRows {
    pub pools: Vec<PoolRow>,
    pub clients: Vec<ClientRow>,
    pub servers: Vec<ServerRow>,
}

/// Everything, from all workers.
pub async fn take(common: &Common, workers: &[Worker]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for worker in workers {
        let (reply, rows) = oneshot::channel();
        worker.order(Order::Snapshot(reply));
        if let Ok(mut rows) = rows.await {
            snapshot.pools.append(&mut rows.pools);
            snapshot.clients.append(&mut rows.clients);
            snapshot.servers.append(&mut rows.servers);
        }
    }
    let catalog = common.catalog.load();
    for tenant in catalog.tenants() {
        let account = common.accounts.of(tenant.id.as_str());
        let (clients, at_once, servers) = account.in_use();
        snapshot.tenants.push(tenant_row(tenant, clients, servers));
        let limits = &tenant.limits;
        let totals = &account.totals;
        snapshot.budgets.push(BudgetRow {
            tenant: tenant.id.to_string(),
            tier: tenant.tier.clone(),
            clients: clients.into(),
            clients_max: limits.clients.map(u64::from),
            queries_per_second: limits.queries_per_second.map(u64::from),
            burst: limits.queries_burst.or(limits.queries_per_second).map(u64::from),
            available: account.available(limits, common.epoch.elapsed()).map(u64::from),
            at_once: at_once.into(),
            at_once_max: limits.queries_at_once.map(u64::from),
            query_time_max: limits.query_time,
            refused_rate: totals.refused_rate.load(Ordering::Relaxed),
            refused_at_once: totals.refused_at_once.load(Ordering::Relaxed),
            cancelled: totals.cancelled.load(Ordering::Relaxed),
        });
    }
    snapshot
}

/// The settings in force.
pub fn config(settings: &[Setting]) -> Vec<ConfigRow> {
    let row = |setting: &Setting| ConfigRow {
        key: setting.key.clone(),
        value: setting.value.clone(),
        default: setting.default.clone().unwrap_or_default(),
        changeable: setting.live,
    };
    settings.iter().map(row).collect()
}

fn tenant_row(tenant: &Tenant, clients: u32, servers: u32) -> TenantRow {
    let conninfo = &tenant.route.conninfo;
    TenantRow {
        tenant: tenant.id.to_string(),
        isolation: tenant.isolation.name().to_owned(),
        level: "plain".to_owned(),
        cluster: tenant.route.cluster.name.clone(),
        database: conninfo.dbname.clone(),
        login: conninfo.user.clone(),
        role: tenant.context.value("role").map(str::to_owned),
        tier: tenant.tier.clone(),
        state: tenant.state.name().to_owned(),
        clients: clients.into(),
        servers: servers.into(),
        version: tenant.version,
    }
}

/// Every tenant's totals, for the metrics.
pub fn totals(common: &Common) -> Vec<telemetry::TenantRow> {
    let row = |(tenant, account): (String, std::sync::Arc<crate::budget::Account>)| {
        let totals = &account.totals;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        telemetry::TenantRow {
            tenant,
            requests: read(&totals.requests),
            transactions: read(&totals.transactions),
            bytes_in: read(&totals.bytes_received),
            bytes_out: read(&totals.bytes_sent),
            refusals: read(&totals.refusals),
            server_time_us: read(&totals.server_time_us),
        }
    };
    common.accounts.all().into_iter().map(row).collect()
}

/// A worker's rows of this moment.
pub fn rows(floor: &Floor) -> WorkerRows {
    let mut rows = WorkerRows::default();
    for (id, guest) in floor.guests.borrow().iter() {
        rows.clients.push(client_row(*id, guest));
    }
    rows.clients.sort_by_key(|row| row.id);
    for pool in floor.env.pools.all() {
        rows.pools.push(pool_row(&pool, floor));
        rows.servers.append(&mut server_rows(&pool));
    }
    rows
}

fn client_row(id: SessionId, guest: &Guest) -> ClientRow {
    let shared = &guest.shared;
    let (state, waited) = match shared.phase.get() {
        Phase::Idle => ("idle", Duration::ZERO),
        Phase::Active => ("active", Duration::ZERO),
        Phase::Waiting => ("waiting", shared.request_since.get().elapsed()),
    };
    let address = |address: Option<SocketAddr>| match address {
        Some(address) => (address.ip().to_string(), address.port()),
        None => (String::new(), 0),
    };
    let ((addr, port), (local_addr, local_port)) =
        (address(Some(guest.peer)), address(guest.local));
    let server = shared.server.borrow();
    ClientRow {
        id,
        tenant: guest.tenant.borrow().id.to_string(),
        user: guest.user.clone(),
        database: guest.database.clone(),
        state: state.to_owned(),
        addr,
        port,
        local_addr,
        local_port,
        connect_time: utc(guest.since),
        request_time: utc(at(shared.request_since.get())),
        wait_us: micros(waited),
        link: server.as_ref().map(|facts| facts.pid.to_string()).unwrap_or_default(),
        application_name: shared.application_name.borrow().clone(),
        tls: if guest.secure { "TLS".to_owned() } else { String::new() },
        credential: guest.identity.credential.clone(),
    }
}

fn pool_row(pool: &Rc<Pool>, floor: &Floor) -> PoolRow {
    let (clean, parked, connecting, waiting) = pool.counts();
    let leases = pool.leases();
    let plan = pool.plan();
    let catalog = floor.common.catalog.load();
    let mut tenants = catalog.tenants().filter(|it| it.route.conninfo == plan.conninfo);
    let tenant = match (tenants.next(), tenants.next()) {
        (Some(only), None) if plan.isolation != Isolation::Row => only.id.to_string(),
        _ => "*".to_owned(),
    };
    PoolRow {
        cluster: pool.cluster().name.clone(),
        database: plan.conninfo.dbname.clone(),
        user: plan.conninfo.user.clone(),
        tenant,
        cl_active: leases.len() as u64,
        cl_waiting: waiting as u64,
        sv_active: leases.len() as u64,
        sv_idle: clean as u64,
        sv_used: parked as u64,
        sv_login: connecting as u64,
        maxwait_us: micros(pool.longest_wait()),
        pool_mode: "transaction".to_owned(),
    }
}

fn server_rows(pool: &Rc<Pool>) -> Vec<ServerRow> {
    let leased = pool.leases().into_iter();
    let leased =
        leased.map(|it| (it.facts, "active", it.tenant.to_string(), it.session.to_string()));
    let idle = pool.idle().into_iter().map(|(facts, tenant)| {
        let state = if tenant.is_empty() { "idle" } else { "used" };
        (facts, state, tenant, String::new())
    });
    let cluster = pool.cluster().name.clone();
    let row = |(facts, state, tenant, link): (Rc<ServerFacts>, &str, String, String)| {
        let (addr, port) = place(&facts);
        ServerRow {
            id: u64::try_from(facts.pid).unwrap_or(0),
            cluster: cluster.clone(),
            database: facts.conninfo.dbname.clone(),
            user: facts.conninfo.user.clone(),
            state: state.to_owned(),
            tenant,
            addr,
            port,
            connect_time: utc(at(facts.since)),
            remote_pid: u64::try_from(facts.pid).unwrap_or(0),
            link,
            kind: facts.rights.name().to_owned(),
            tls: if facts.secure { "TLS".to_owned() } else { String::new() },
        }
    };
    leased.chain(idle).map(row).collect()
}

fn place(facts: &ServerFacts) -> (String, u16) {
    match facts.conninfo.hosts.get(facts.host) {
        Some(Host::Tcp { name, port, .. }) => (name.clone(), *port),
        Some(Host::Unix { folder, port }) => (folder.display().to_string(), *port),
        None => (String::new(), 0),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn at(moment: Instant) -> SystemTime {
    SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(UNIX_EPOCH)
}

/// `2026-11-21 08:30:00 UTC`, as PgBouncer writes it. The calendar is the proleptic Gregorian one,
/// counted in eras of 400 years from 1 March of year 0.
fn utc(time: SystemTime) -> String {
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

/// What was handed to the metrics so far: they take differences.
#[derive(Debug, Default)]
pub struct Report {
    sent: Vec<u64>,
    refusals: Vec<(&'static str, u64)>,
}

impl Report {
    /// Hands the counters of a worker on.
    pub fn send(&mut self, floor: &Floor) {
        let metrics = &floor.common.metrics;
        let (counts, pools) = (&floor.env.counts, &floor.env.pools.counts);
        let pairs = [
            (counts.requests.get(), &metrics.requests),
            (counts.transactions.get(), &metrics.transactions),
            (counts.bytes_received.get(), &metrics.client_received_bytes),
            (counts.bytes_sent.get(), &metrics.client_sent_bytes),
            (counts.time_exceeded.get(), &metrics.query_time_exceeded),
            (pools.connects.get(), &metrics.server_connects),
            (pools.connect_failures.get(), &metrics.server_connect_failures),
            (pools.binds.get(), &metrics.binds),
            (pools.bind_failures.get(), &metrics.bind_failures),
            (pools.scrubs.get(), &metrics.scrubs),
            (pools.scrub_failures.get(), &metrics.scrub_failures),
            (pools.by_session.get(), &metrics.acquires.session),
            (pools.by_context.get(), &metrics.acquires.context),
            (pools.by_clean.get(), &metrics.acquires.clean),
            (pools.by_connect.get(), &metrics.acquires.connect),
            (pools.by_wait.get(), &metrics.acquires.wait),
        ];
        self.sent.resize(pairs.len(), 0);
        for ((now, metric), sent) in pairs.into_iter().zip(&mut self.sent) {
            metric.increment(now - *sent);
            *sent = now;
        }
        for (name, side, now) in counts.refusals.borrow().iter() {
            let known = self.refusals.iter_mut().find(|(known, _)| known == name);
            let sent = match known {
                Some((_, sent)) => std::mem::replace(sent, *now),
                None => {
                    self.refusals.push((name, *now));
                    0
                }
            };
            metrics.refusals(name, side).increment(now - sent);
        }
        for waited in pools.waits.take() {
            metrics.wait.record(waited.as_secs_f64());
        }
        let waiting: usize = floor.env.pools.all().iter().map(|pool| pool.counts().3).sum();
        metrics.clients_waiting.set(waiting as f64);
        metrics.clients.set(floor.common.clients.load(Ordering::Relaxed) as f64);
        for (cluster, servers) in floor.env.pools.servers() {
            metrics.servers(&cluster).set(servers as f64);
        }
    }
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
