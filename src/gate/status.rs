//! Answers who looks at the page: what the workers say at the moment, beside samples of the last
//! minutes that are taken whether anybody looks or not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::console::Snapshot;
use crate::gate::worker::Worker;
use crate::gate::{Common, snapshot};
use crate::telemetry::TenantRow;
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
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    mut looks: mpsc::Receiver<Look>,
    stop: CancellationToken,
) {
    let mut history = History::new(common.epoch);
    let mut tick = tokio::time::interval(SAMPLE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => history.sample(&common),
            Some(Look(reply)) = looks.recv() => {
                // The one who looked may have gone.
                let _ = reply.send(status(&common, &workers, &history).await);
            }
        }
    }
}

/// Requests and refusals so far.
type Totals = (u64, u64);

/// The last minutes.
struct History {
    moments: VecDeque<Moment>,
    last: (Instant, Totals),
    /// Each tenant's totals a while ago, and after half of that while.
    older: (Instant, HashMap<String, Totals>),
    newer: (Instant, HashMap<String, Totals>),
}

impl History {
    fn new(start: Instant) -> Self {
        let (older, newer) = ((start, HashMap::new()), (start, HashMap::new()));
        Self { moments: VecDeque::new(), last: (start, (0, 0)), older, newer }
    }

    fn sample(&mut self, common: &Common) {
        let now = Instant::now();
        let rows = snapshot::totals(common);
        let totals = rows
            .iter()
            .fold((0, 0), |sum: Totals, row| (sum.0 + row.requests, sum.1 + row.refusals));
        let (before, earlier) = self.last;
        let seconds = (now - before).as_secs_f64();
        self.moments.push_back(Moment {
            clients: common.clients.load(Ordering::Relaxed),
            requests_per_second: rate(earlier.0, totals.0, seconds),
            refusals_per_second: rate(earlier.1, totals.1, seconds),
        });
        if self.moments.len() > SAMPLES_MAX {
            self.moments.pop_front();
        }
        self.last = (now, totals);
        if now - self.newer.0 >= TENANTS_EVERY {
            let tenants = rows.into_iter().map(|row| (row.tenant, (row.requests, row.refusals)));
            let newer = std::mem::replace(&mut self.newer, (now, tenants.collect()));
            self.older = newer;
        }
    }

    /// What a tenant asked and was refused per second, lately.
    fn rates(&self, row: &TenantRow, now: Instant) -> (f64, f64) {
        let (since, totals) = &self.older;
        let (requests, refusals) = totals.get(&row.tenant).copied().unwrap_or_default();
        let seconds = (now - *since).as_secs_f64();
        (rate(requests, row.requests, seconds), rate(refusals, row.refusals, seconds))
    }
}

fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => now.saturating_sub(before) as f64 / seconds,
        false => 0.0,
    }
}

async fn status(common: &Common, workers: &[Worker], history: &History) -> Status {
    let snapshot = snapshot::take(common, workers).await;
    let clusters = clusters(common, &snapshot);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: common.epoch.elapsed().as_secs(),
        draining: common.stopping.load(Ordering::Relaxed),
        workers: workers.len(),
        tenants: snapshot.tenants.len(),
        clients: common.clients.load(Ordering::Relaxed),
        clients_max: common.clients_max.load(Ordering::Relaxed),
        waiting: clusters.iter().map(|cluster| cluster.waiting).sum(),
        clusters,
        busiest: busiest(common, &snapshot, history),
        patient: patient(&snapshot),
        history: history.moments.iter().copied().collect(),
    }
}

fn clusters(common: &Common, snapshot: &Snapshot) -> Vec<ClusterStatus> {
    let catalog = common.catalog.load();
    let status = |cluster: &Arc<crate::catalog::Cluster>| {
        let mut status = ClusterStatus {
            cluster: cluster.name.clone(),
            level: cluster.level.name(),
            capacity: cluster.capacity,
            ..ClusterStatus::default()
        };
        for pool in snapshot.pools.iter().filter(|pool| pool.cluster == cluster.name) {
            status.active += pool.sv_active;
            status.idle += pool.sv_idle + pool.sv_used;
            status.connecting += pool.sv_login;
            status.waiting += pool.cl_waiting;
            status.longest_wait_us = status.longest_wait_us.max(pool.maxwait_us);
        }
        status
    };
    catalog.clusters().map(status).collect()
}

fn busiest(common: &Common, snapshot: &Snapshot, history: &History) -> Vec<TenantStatus> {
    let now = Instant::now();
    let totals = snapshot::totals(common).into_iter();
    let totals: HashMap<String, TenantRow> = totals.map(|row| (row.tenant.clone(), row)).collect();
    let status = |tenant: &crate::console::TenantRow| {
        let row = totals.get(&tenant.tenant);
        let (asked, refused) = row.map_or((0.0, 0.0), |row| history.rates(row, now));
        TenantStatus {
            tenant: tenant.tenant.clone(),
            cluster: tenant.cluster.clone(),
            tier: tenant.tier.clone(),
            state: tenant.state.clone(),
            clients: tenant.clients,
            servers: tenant.servers,
            requests_per_second: asked,
            refusals_per_second: refused,
            requests: row.map_or(0, |row| row.requests),
            refusals: row.map_or(0, |row| row.refusals),
        }
    };
    let mut tenants: Vec<TenantStatus> = snapshot.tenants.iter().map(status).collect();
    tenants.sort_by(|one, other| {
        let busy = |it: &TenantStatus| it.requests_per_second + it.refusals_per_second;
        busy(other).total_cmp(&busy(one)).then(other.requests.cmp(&one.requests))
    });
    tenants.truncate(ROWS_MAX);
    tenants
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
    fn a_rate_is_per_second_and_never_negative() {
        assert_eq!((rate(10, 30, 5.0), rate(30, 10, 5.0), rate(0, 5, 0.0)), (4.0, 0.0, 0.0));
    }

    #[test]
    fn rates_of_tenants_are_taken_since_a_while_ago() {
        let start = Instant::now();
        let mut history = History::new(start);
        let row = TenantRow { tenant: "acme".to_owned(), requests: 50, ..TenantRow::default() };
        assert_eq!(history.rates(&row, start + Duration::from_secs(10)).0, 5.0);
        history.older.1.insert("acme".to_owned(), (40, 0));
        assert_eq!(history.rates(&row, start + Duration::from_secs(10)).0, 1.0);
    }
}
