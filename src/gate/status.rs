//! Answers who looks at the page: what the workers say at the moment, beside samples of the last
//! minutes that are taken whether anybody looks or not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::budget::Reader;
use crate::console::Snapshot;
use crate::gate::table::Table;
use crate::gate::worker::{Part, Worker};
use crate::gate::{Common, snapshot};
use crate::pool::Standing;
use crate::telemetry::status::{ClusterStatus, Look, Moment, Status, TenantStatus, WaitingClient};

/// Between two points of the plots; as often as the page comes anew.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Points kept: five minutes.
const SAMPLES_MAX: usize = 60;

/// Rates of tenants are taken over one to two of these.
const TENANTS_EVERY: Duration = Duration::from_secs(15);

/// Rows of the page's tables.
const ROWS_MAX: usize = 20;

/// Answers looks and takes samples until `stop`.
pub async fn keep(
    (common, workers): (Arc<Common>, Arc<Vec<Worker>>),
    table: Option<Table>,
    mut looks: mpsc::Receiver<Look>,
    stop: CancellationToken,
) {
    common.accounts.keep_for(Reader::Page);
    let mut history = History::new(common.epoch);
    let mut tick = tokio::time::interval(SAMPLE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => history.sample(&common),
            Some(Look(reply)) = looks.recv() => {
                // The one who looked may have gone.
                let _ = reply.send(status(&common, &workers, &table, &history).await);
            }
        }
    }
}

/// Requests and refusals.
type Asked = (u64, u64);

/// The last minutes.
struct History {
    moments: VecDeque<Moment>,
    /// When the last sample was taken.
    last: Instant,
    /// What tenants asked lately: from a while ago on, and from after half of that while.
    older: (Instant, HashMap<Arc<str>, Asked>),
    newer: (Instant, HashMap<Arc<str>, Asked>),
}

impl History {
    fn new(start: Instant) -> Self {
        let (older, newer) = ((start, HashMap::new()), (start, HashMap::new()));
        Self { moments: VecDeque::new(), last: start, older, newer }
    }

    /// Costs as much as there are accounts.
    fn sample(&mut self, common: &Common) {
        let clients = common.clients.load(Ordering::Relaxed);
        let steps = common.accounts.read(Reader::Page);
        let steps = steps.into_iter().map(|(tenant, it)| (tenant, (it.requests, it.refusals)));
        self.book(clients, Instant::now(), steps);
    }

    fn book(
        &mut self,
        clients: usize,
        now: Instant,
        steps: impl Iterator<Item = (Arc<str>, Asked)>,
    ) {
        let mut sum = (0, 0);
        for (tenant, more) in steps {
            add(&mut sum, more);
            add(self.newer.1.entry(tenant).or_default(), more);
        }
        let seconds = (now - std::mem::replace(&mut self.last, now)).as_secs_f64();
        self.moments.push_back(Moment {
            clients,
            requests_per_second: rate(sum.0, seconds),
            refusals_per_second: rate(sum.1, seconds),
        });
        if self.moments.len() > SAMPLES_MAX {
            self.moments.pop_front();
        }
        if now - self.newer.0 >= TENANTS_EVERY {
            self.older = std::mem::replace(&mut self.newer, (now, HashMap::new()));
        }
    }

    /// What a tenant asked and was refused per second, lately. `unread` is not in a sample yet.
    fn rates(&self, tenant: &str, unread: Asked, now: Instant) -> (f64, f64) {
        let seconds = (now - self.older.0).as_secs_f64();
        let mut sum = unread;
        for (_, asked) in [&self.older, &self.newer] {
            add(&mut sum, asked.get(tenant).copied().unwrap_or_default());
        }
        (rate(sum.0, seconds), rate(sum.1, seconds))
    }
}

fn add(sum: &mut Asked, more: Asked) {
    *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
}

fn rate(count: u64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => count as f64 / seconds,
        false => 0.0,
    }
}

async fn status(
    common: &Common,
    workers: &[Worker],
    table: &Option<Table>,
    history: &History,
) -> Status {
    let parts = &[Part::Pools, Part::Waiting, Part::Hosts];
    let snapshot = snapshot::take(common, workers, parts).await;
    let clusters = clusters(common, &snapshot);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: common.epoch.elapsed().as_secs(),
        draining: common.stopping.load(Ordering::Relaxed),
        workers: workers.len(),
        tenants: snapshot.tenants_known,
        clients: common.clients.load(Ordering::Relaxed),
        clients_max: common.clients_max.load(Ordering::Relaxed),
        waiting: clusters.iter().map(|cluster| cluster.waiting).sum(),
        catalog_connected: table.as_ref().map(|table| table.state.figures().connected),
        catalog_faults: common.catalog.load().faulty(),
        clusters,
        busiest: busiest(common, history),
        patient: patient(&snapshot),
        history: history.moments.iter().copied().collect(),
    }
}

fn clusters(common: &Common, snapshot: &Snapshot) -> Vec<ClusterStatus> {
    let mut clusters: BTreeMap<String, ClusterStatus> = BTreeMap::new();
    for cluster in common.catalog.load().clusters() {
        let status = ClusterStatus {
            cluster: cluster.name.clone(),
            level: cluster.level.name(),
            capacity: cluster.capacity,
            ..ClusterStatus::default()
        };
        clusters.insert(cluster.name.clone(), status);
    }
    for host in snapshot.hosts.iter().filter(|host| host.state == Standing::Down.name()) {
        if let Some(status) = clusters.get_mut(&host.cluster) {
            status.hosts_down += 1;
        }
    }
    for pool in &snapshot.pools {
        let Some(status) = clusters.get_mut(&pool.cluster) else { continue };
        status.active += pool.sv_active;
        status.idle += pool.sv_idle + pool.sv_used;
        status.connecting += pool.sv_login;
        status.waiting += pool.cl_waiting;
        status.longest_wait_us = status.longest_wait_us.max(pool.maxwait_us);
    }
    clusters.into_values().collect()
}

/// Of those who are here, or were lately.
fn busiest(common: &Common, history: &History) -> Vec<TenantStatus> {
    let now = Instant::now();
    let mut busy = Vec::new();
    common.accounts.each(|tenant, account| {
        let (sums, unread) = (account.sums(), account.unread(Reader::Page));
        let (asked, refused) = history.rates(tenant, (unread.requests, unread.refusals), now);
        busy.push((asked + refused, sums.requests, tenant.clone(), (asked, refused)));
    });
    let order =
        |a: &(f64, u64, _, _), b: &(f64, u64, _, _)| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1));
    // Services have accounts as well, and stand in no row.
    let (catalog, holds) = (common.catalog.load(), common.holds.load());
    busy.retain(|it: &(_, _, Arc<str>, _)| catalog.known(&it.2).is_some());
    if busy.len() > ROWS_MAX {
        busy.select_nth_unstable_by(ROWS_MAX, order);
        busy.truncate(ROWS_MAX);
    }
    busy.sort_by(order);
    let claims = HashMap::new();
    let row = |(_, _, id, rates): (f64, u64, Arc<str>, (f64, f64))| {
        let account = common.accounts.known(&id)?;
        let row = snapshot::tenant_row(catalog.known(&id)?, &account, &holds, &claims);
        let sums = account.sums();
        Some(TenantStatus {
            tenant: row.tenant,
            cluster: row.cluster,
            tier: row.tier,
            state: row.state,
            clients: row.clients,
            servers: row.servers,
            requests_per_second: rates.0,
            refusals_per_second: rates.1,
            requests: sums.requests,
            refusals: sums.refusals,
        })
    };
    busy.into_iter().filter_map(row).collect()
}

fn patient(snapshot: &Snapshot) -> Vec<WaitingClient> {
    let waiting = snapshot.clients.iter().filter(|client| client.socket.state == "waiting");
    let mut waiting: Vec<WaitingClient> = waiting
        .map(|client| WaitingClient {
            tenant: client.socket.tenant.clone(),
            user: client.socket.user.clone(),
            application_name: client.socket.application_name.clone(),
            waited_us: client.socket.wait_us,
        })
        .collect();
    waiting.sort_by_key(|client| std::cmp::Reverse(client.waited_us));
    waiting.truncate(ROWS_MAX);
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_tenants_are_taken_since_a_while_ago() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(start);
        let asks = |requests| [("acme".into(), (requests, 2))].into_iter();
        assert_eq!(history.rates("acme", (50, 0), at(10)).0, 5.0);
        assert_eq!(history.rates("acme", (50, 0), start).0, 0.0);
        history.book(1, at(5), asks(10));
        assert_eq!(history.moments[0].requests_per_second, 2.0);
        assert_eq!(history.rates("acme", (0, 8), at(10)), (1.0, 1.0));
        history.book(1, at(15), asks(20));
        history.book(1, at(20), asks(10));
        assert_eq!(history.rates("acme", (0, 0), at(20)), (2.0, 0.3));
        history.book(1, at(30), asks(0));
        // What was asked in the first while is out of it.
        assert_eq!(history.rates("acme", (0, 0), at(35)).0, 0.5);
        history.book(1, at(45), asks(0));
        history.book(1, at(60), std::iter::empty());
        assert_eq!(history.rates("globex", (0, 0), at(61)), (0.0, 0.0));
        assert!(history.newer.1.is_empty(), "nobody is remembered for longer");
    }
}
