//! Every metric on one page: name, kind, unit, labels, help. Workers hold the handles and add to
//! them about once a second; `docs/metrics.md` carries the same table and a test compares the two.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use crate::telemetry::latency::{self, Tiers};

/// One row of the table in `docs/metrics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `tenantgate_<noun>_<unit|total>`.
    pub name: &'static str,
    pub kind: Kind,
    /// `seconds`, `bytes`, or empty for things that are counted.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// What a scrape may do with the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// The state of the moment.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The series of the whole process.
const METRICS: [Metric; 40] = [
    gauge("tenantgate_build_info", "", &["version"], "Always 1; the label carries the version."),
    gauge(
        "tenantgate_start_time_seconds",
        "seconds",
        &[],
        "When the gate started, in seconds since 1970-01-01 UTC.",
    ),
    gauge("tenantgate_catalog_tenants", "", &[], "Tenants in the catalog."),
    gauge("tenantgate_catalog_faults", "", &[], "Tenants of the tables with a row at fault."),
    gauge("tenantgate_catalog_known", "", &[], "Tenants that are kept in memory."),
    counter("tenantgate_catalog_questions_total", "", &[], "Questions to the tables by look-ups."),
    counter("tenantgate_catalog_lookups_total", "", &[], "Tenants and credentials looked up."),
    counter("tenantgate_catalog_lookups_failed_total", "", &[], "Those without an answer."),
    gauge("tenantgate_catalog_connected", "", &[], "1 while the catalog's tables are followed."),
    gauge("tenantgate_catalog_version", "", &[], "Number of the last change read from the tables."),
    gauge(
        "tenantgate_catalog_synced_time_seconds",
        "seconds",
        &[],
        "When nothing newer stood in the tables, in seconds since 1970-01-01 UTC.",
    ),
    gauge("tenantgate_clients", "", &[], "Client connections that are logged in."),
    gauge("tenantgate_clients_waiting", "", &[], "Clients that wait for a server connection."),
    gauge(
        "tenantgate_clients_pinned",
        "",
        &[],
        "Clients that keep their server connection between transactions.",
    ),
    gauge(
        "tenantgate_servers",
        "",
        &["cluster"],
        "Server connections that are open or being opened.",
    ),
    gauge("tenantgate_hosts_down", "", &["cluster"], "Hosts that are down and were asked for."),
    counter("tenantgate_logins_total", "", &[], "Clients that logged in."),
    counter(
        "tenantgate_login_failures_total",
        "",
        &["reason"],
        "Clients that were turned away before they were logged in.",
    ),
    counter(
        "tenantgate_refusals_total",
        "",
        &["name", "side"],
        "Answers the gate gave instead of a server, as listed in docs/errors.md.",
    ),
    counter(
        "tenantgate_guard_would_refuse_total",
        "",
        &["rule"],
        "Statements that a rule of level guard would have refused, were it not only reported.",
    ),
    counter("tenantgate_requests_total", "", &[], "Requests answered by a server."),
    counter(
        "tenantgate_transactions_total",
        "",
        &[],
        "Transactions that ended, explicit ones and requests outside of one.",
    ),
    counter("tenantgate_client_received_bytes_total", "bytes", &[], "Bytes read from clients."),
    counter("tenantgate_client_sent_bytes_total", "bytes", &[], "Bytes written to clients."),
    counter("tenantgate_server_connects_total", "", &[], "Server connections that were opened."),
    counter(
        "tenantgate_server_connect_failures_total",
        "",
        &[],
        "Server connections that could not be opened.",
    ),
    counter("tenantgate_host_probes_total", "", &[], "Tries at hosts of clusters that were down."),
    counter(
        "tenantgate_level_shortfalls_total",
        "",
        &[],
        "Server connections opened although the level of protection is not in force.",
    ),
    counter(
        "tenantgate_server_moves_total",
        "",
        &[],
        "Clean server connections that went from one worker to another.",
    ),
    counter("tenantgate_binds_total", "", &[], "Times a server connection was made a tenant's."),
    counter(
        "tenantgate_bind_failures_total",
        "",
        &[],
        "Binds that failed or did not read back; the server was closed.",
    ),
    counter(
        "tenantgate_scrubs_total",
        "",
        &[],
        "Times a server connection was cleaned and confirmed so.",
    ),
    counter(
        "tenantgate_scrub_failures_total",
        "",
        &[],
        "Scrubs that failed or ran out of time; the server was closed.",
    ),
    counter("tenantgate_acquires_total", "", &["how"], "Leases by how the server was found."),
    histogram(
        "tenantgate_wait_seconds",
        "seconds",
        &[],
        "How long clients waited for a server connection, those that did not wait left out.",
    ),
    histogram(
        latency::NAME,
        "seconds",
        &["tier"],
        "From when a transaction needed a server connection to when it gave it back.",
    ),
    counter("tenantgate_cancels_total", "", &[], "Cancel requests that matched a session."),
    counter(
        "tenantgate_query_time_exceeded_total",
        "",
        &[],
        "Requests cancelled because they ran longer than their tenant may.",
    ),
    counter("tenantgate_reloads_total", "", &["result"], "Reloads of the settings or the catalog."),
    counter("tenantgate_audit_lost_total", "", &[], "Audit events that could not be written."),
];

/// The series that are read from the system at each scrape.
pub const PROCESS_METRICS: [Metric; 5] = [
    counter(
        "tenantgate_process_cpu_seconds_total",
        "seconds",
        &[],
        "Processor time of the process, user and system.",
    ),
    gauge(
        "tenantgate_process_resident_memory_bytes",
        "bytes",
        &[],
        "Memory of the process that is not swapped out.",
    ),
    gauge("tenantgate_process_open_fds", "", &[], "File descriptors that are open."),
    gauge("tenantgate_process_max_fds", "", &[], "File descriptors that may be open."),
    gauge("tenantgate_process_threads", "", &[], "Threads of the process."),
];

/// The series of single tenants, in the order of the fields of `TenantRow`.
pub const TENANT_METRICS: [Metric; 9] = [
    counter(
        "tenantgate_tenant_requests_total",
        "",
        &["tenant"],
        "Requests of the tenant answered by a server.",
    ),
    counter(
        "tenantgate_tenant_transactions_total",
        "",
        &["tenant"],
        "Transactions of the tenant that ended.",
    ),
    counter(
        "tenantgate_tenant_received_bytes_total",
        "bytes",
        &["tenant"],
        "Bytes read from the tenant's clients.",
    ),
    counter(
        "tenantgate_tenant_sent_bytes_total",
        "bytes",
        &["tenant"],
        "Bytes written to the tenant's clients.",
    ),
    counter(
        "tenantgate_tenant_refusals_total",
        "",
        &["tenant"],
        "Answers the gate gave the tenant's clients instead of a server.",
    ),
    counter(
        "tenantgate_tenant_server_seconds_total",
        "seconds",
        &["tenant"],
        "Time in which a server connection was leased to the tenant.",
    ),
    counter(
        "tenantgate_tenant_wait_seconds_total",
        "seconds",
        &["tenant"],
        "Time in which the tenant's clients waited for a server connection.",
    ),
    counter(
        "tenantgate_tenant_database_seconds_total",
        "seconds",
        &["tenant"],
        "The part of the leased time in which the server did not wait for its client.",
    ),
    counter(
        "tenantgate_tenant_would_refuse_total",
        "",
        &["tenant"],
        "Refusals there would have been, were the tenant's budgets enforced.",
    ),
];

/// Bounds of the wait histogram, in seconds: from the linger time to the longest default wait.
const WAIT_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// How often samples of histograms are folded into their buckets. Between two of these they are
/// kept one by one.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The handles of every process-wide series. Cheap to clone; adding to a handle is one atomic
/// operation, so hot loops count in plain integers and hand over sums.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub catalog_tenants: Gauge,
    pub catalog_faults: Gauge,
    pub catalog_known: Gauge,
    pub catalog_questions: Counter,
    pub catalog_lookups: Counter,
    pub catalog_lookups_failed: Counter,
    pub catalog_connected: Gauge,
    pub catalog_version: Gauge,
    pub catalog_synced: Gauge,
    pub clients: Gauge,
    pub clients_waiting: Gauge,
    pub clients_pinned: Gauge,
    pub logins: Counter,
    pub requests: Counter,
    pub transactions: Counter,
    pub client_received_bytes: Counter,
    pub client_sent_bytes: Counter,
    pub server_connects: Counter,
    pub server_connect_failures: Counter,
    pub host_probes: Counter,
    pub level_shortfalls: Counter,
    pub server_moves: Counter,
    pub binds: Counter,
    pub bind_failures: Counter,
    pub scrubs: Counter,
    pub scrub_failures: Counter,
    pub acquires: Acquires,
    /// Seconds.
    pub wait: Histogram,
    /// Transactions.
    pub tiers: Tiers,
    pub cancels: Counter,
    pub query_time_exceeded: Counter,
    pub reloads: Reloads,
    pub audit_lost: Counter,
    recorder: Arc<PrometheusRecorder>,
}

/// Leases by how the server was found.
#[derive(Clone, Debug)]
pub struct Acquires {
    /// Still with the session.
    pub session: Counter,
    /// Still with the same context.
    pub context: Counter,
    /// A clean one.
    pub clean: Counter,
    /// A new one.
    pub connect: Counter,
    /// Handed over after a wait.
    pub wait: Counter,
}

/// Reloads by their result.
#[derive(Clone, Debug)]
pub struct Reloads {
    pub applied: Counter,
    /// The new settings or catalog were wrong; the last good ones stay.
    pub rejected: Counter,
}

impl Metrics {
    /// A recorder of our own (nothing global, so tests may make many) with every series at zero.
    pub fn new() -> (Self, Renderer) {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&WAIT_BUCKETS)
            // Only an empty list is refused.
            .unwrap_or_default()
            .build_recorder();
        let handle = recorder.handle();
        let recorder = Arc::new(recorder);
        let metrics = metrics::with_local_recorder(&*recorder, || {
            describe();
            state_process();
            Self::register(Arc::clone(&recorder))
        });
        let renderer = Renderer { handle, tiers: metrics.tiers.clone() };
        (metrics, renderer)
    }

    fn register(recorder: Arc<PrometheusRecorder>) -> Self {
        use metrics::{counter, gauge, histogram};
        let acquires = |how: &'static str| counter!("tenantgate_acquires_total", "how" => how);
        let reloads =
            |result: &'static str| counter!("tenantgate_reloads_total", "result" => result);
        Self {
            catalog_tenants: gauge!("tenantgate_catalog_tenants"),
            catalog_faults: gauge!("tenantgate_catalog_faults"),
            catalog_known: gauge!("tenantgate_catalog_known"),
            catalog_questions: counter!("tenantgate_catalog_questions_total"),
            catalog_lookups: counter!("tenantgate_catalog_lookups_total"),
            catalog_lookups_failed: counter!("tenantgate_catalog_lookups_failed_total"),
            catalog_connected: gauge!("tenantgate_catalog_connected"),
            catalog_version: gauge!("tenantgate_catalog_version"),
            catalog_synced: gauge!("tenantgate_catalog_synced_time_seconds"),
            clients: gauge!("tenantgate_clients"),
            clients_waiting: gauge!("tenantgate_clients_waiting"),
            clients_pinned: gauge!("tenantgate_clients_pinned"),
            logins: counter!("tenantgate_logins_total"),
            requests: counter!("tenantgate_requests_total"),
            transactions: counter!("tenantgate_transactions_total"),
            client_received_bytes: counter!("tenantgate_client_received_bytes_total"),
            client_sent_bytes: counter!("tenantgate_client_sent_bytes_total"),
            server_connects: counter!("tenantgate_server_connects_total"),
            server_connect_failures: counter!("tenantgate_server_connect_failures_total"),
            host_probes: counter!("tenantgate_host_probes_total"),
            level_shortfalls: counter!("tenantgate_level_shortfalls_total"),
            server_moves: counter!("tenantgate_server_moves_total"),
            binds: counter!("tenantgate_binds_total"),
            bind_failures: counter!("tenantgate_bind_failures_total"),
            scrubs: counter!("tenantgate_scrubs_total"),
            scrub_failures: counter!("tenantgate_scrub_failures_total"),
            acquires: Acquires {
                session: acquires("session"),
                context: acquires("context"),
                clean: acquires("clean"),
                connect: acquires("connect"),
                wait: acquires("wait"),
            },
            wait: histogram!("tenantgate_wait_seconds"),
            tiers: Tiers::default(),
            cancels: counter!("tenantgate_cancels_total"),
            query_time_exceeded: counter!("tenantgate_query_time_exceeded_total"),
            reloads: Reloads { applied: reloads("applied"), rejected: reloads("rejected") },
            audit_lost: counter!("tenantgate_audit_lost_total"),
            recorder,
        }
    }

    /// The gauge of a cluster's server connections; keep it, do not ask for it per change.
    pub fn servers(&self, cluster: &str) -> Gauge {
        let cluster = cluster.to_owned();
        self.record(|| metrics::gauge!("tenantgate_servers", "cluster" => cluster))
    }

    /// The gauge of a cluster's hosts that are down.
    pub fn hosts_down(&self, cluster: &str) -> Gauge {
        let cluster = cluster.to_owned();
        self.record(|| metrics::gauge!("tenantgate_hosts_down", "cluster" => cluster))
    }

    /// Counts a refusal under its name and side, both from the table of errors.
    pub fn refusal(&self, name: &'static str, side: &'static str) {
        self.refusals(name, side).increment(1);
    }

    /// The counter behind [`Metrics::refusal`], for callers that keep it.
    pub fn refusals(&self, name: &'static str, side: &'static str) -> Counter {
        self.record(
            || metrics::counter!("tenantgate_refusals_total", "name" => name, "side" => side),
        )
    }

    /// The counter of what a rule of level guard would have refused.
    pub fn would_refuse(&self, rule: &'static str) -> Counter {
        self.record(|| metrics::counter!("tenantgate_guard_would_refuse_total", "rule" => rule))
    }

    /// Counts a client that was turned away at login; `reason` is a refusal's name.
    pub fn login_failure(&self, reason: &'static str) {
        let failures = || metrics::counter!("tenantgate_login_failures_total", "reason" => reason);
        self.record(failures).increment(1);
    }

    fn record<T>(&self, make: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, make)
    }
}

/// Turns the series into text. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Renderer {
    handle: PrometheusHandle,
    tiers: Tiers,
}

impl Renderer {
    /// The text exposition of all process-wide series. Takes milliseconds: not for a thread that
    /// serves clients.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        let help = METRICS.iter().find(|metric| metric.name == latency::NAME);
        self.tiers.render(&mut text, help.map_or("", |metric| metric.help));
        text
    }

    /// Folds the samples of histograms into their buckets, again and again until `stop`. Without
    /// it memory grows with every sample until somebody scrapes, so it runs even if nobody may.
    pub async fn keep_up(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn histogram(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, labels, help }
}

fn describe() {
    for metric in &METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// The two series that are known at the start and never change.
fn state_process() {
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("tenantgate_build_info", "version" => version).set(1.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("tenantgate_start_time_seconds").set(now.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::Times;

    /// Every metric of a text exposition, as `name kind`.
    fn families(text: &str) -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.to_ascii_lowercase())
            .collect()
    }

    #[test]
    fn the_registered_series_are_those_of_the_table() {
        let (metrics, renderer) = Metrics::new();
        metrics.servers("main").set(3.0);
        metrics.hosts_down("main").set(0.0);
        metrics.refusal("over_rate", "tenant");
        metrics.login_failure("authentication_failed");
        metrics.would_refuse("lock-table").increment(1);
        metrics.wait.record(0.002);
        let times = Times::default();
        times.note("free", Duration::from_millis(3));
        metrics.tiers.add(&times);
        let text = renderer.render();
        let wanted: BTreeSet<String> = METRICS
            .iter()
            .map(|m| format!("{} {:?}", m.name, m.kind).to_ascii_lowercase())
            .collect();
        assert_eq!(families(&text), wanted);
        for line in [
            "tenantgate_servers{cluster=\"main\"} 3",
            "tenantgate_refusals_total{name=\"over_rate\",side=\"tenant\"} 1",
            "tenantgate_login_failures_total{reason=\"authentication_failed\"} 1",
            "tenantgate_acquires_total{how=\"session\"} 0",
            "tenantgate_wait_seconds_bucket{le=\"0.0025\"} 1",
            "tenantgate_transaction_seconds_bucket{tier=\"free\",le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        for metric in &METRICS {
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
        }
    }

    #[test]
    fn names_follow_one_rule() {
        let mut names = BTreeSet::new();
        for metric in METRICS.iter().chain(&PROCESS_METRICS).chain(&TENANT_METRICS) {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("tenantgate_"), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let unit = ["seconds", "bytes"].into_iter().find(|unit| stem.ends_with(unit));
            assert_eq!(unit.unwrap_or_default(), metric.unit, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']), "{name}");
        }
    }

    #[test]
    fn the_manual_has_the_same_table() {
        let manual = include_str!("../../docs/metrics.md");
        let found: Vec<&str> =
            manual.lines().filter(|line| line.starts_with("| `tenantgate_")).collect();
        let wanted: Vec<String> = METRICS
            .iter()
            .chain(&PROCESS_METRICS)
            .chain(&TENANT_METRICS)
            .map(|metric| {
                let kind = format!("{:?}", metric.kind).to_ascii_lowercase();
                let labels = metric.labels.join(", ");
                format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn handles_can_be_shared_by_threads() {
        fn shared<T: Clone + Send + Sync>() {}
        shared::<Metrics>();
        shared::<Renderer>();
    }
}
