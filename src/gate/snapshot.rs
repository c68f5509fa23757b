//! What the console and the metrics are told: rows gathered from the workers and the catalog.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::budget::{Account, Reader};
use crate::catalog::{Catalog, Holds, RowFault, Tenant, TenantState, database_of};
use crate::config::Setting;
use crate::console::{
    CatalogRow, CatalogRows, ConfigRow, ConsoleSettings, DatabaseRow, FaultRow, MemoryRow, PoolRow,
    Rights, Snapshot, Subject, TenantRow, UserRow, WouldRefuseRow,
};
use crate::gate::holds::{Names, databases};
use crate::gate::table::{TableFigures, shown};
use crate::gate::worker::{Order, Part, Parts, Worker};
use crate::gate::written::{host, utc};
use crate::gate::{Common, budgets};
use crate::guard;
use crate::pool::Claims;
use crate::telemetry;

/// Most faults that the console shows at once.
const FAULTS_MAX: usize = 1000;

/// The setting that PgBouncer has under the same name.
const STATS_PERIOD: &str = "console.stats_period";

/// What a SHOW needs.
pub fn parts(subject: Subject) -> Parts {
    match subject {
        Subject::Budgets => &[Part::Budgets],
        Subject::Clients => &[Part::Clients],
        Subject::Databases => &[Part::Databases, Part::Servers],
        Subject::Hosts => &[Part::Hosts],
        Subject::Lists => {
            &[Part::Databases, Part::Logins, Part::Pools, Part::Clients, Part::Servers]
        }
        Subject::Mem | Subject::Sockets => &[Part::Clients, Part::Servers],
        Subject::Pools => &[Part::Pools, Part::PoolNames],
        Subject::Servers => &[Part::Servers],
        Subject::Tenants => &[Part::Tenants],
        Subject::Top => &[Part::Working],
        Subject::Users => &[Part::Logins],
        Subject::WouldRefuse => &[Part::WouldRefuse],
        // These have nothing of the workers but what they book when they are asked.
        Subject::Stats
        | Subject::StatsAverages
        | Subject::StatsTenants
        | Subject::StatsTotals
        | Subject::Catalog
        | Subject::CatalogFaults
        | Subject::Config
        | Subject::Help
        | Subject::Version => &[],
    }
}

/// What is wanted, from all workers.
pub async fn take(common: &Common, workers: &[Worker], parts: Parts) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut would_refuse = Vec::new();
    let mut claims = HashMap::new();
    for worker in workers {
        let (reply, rows) = oneshot::channel();
        worker.order(Order::Snapshot(parts, reply));
        if let Ok(mut rows) = rows.await {
            snapshot.pools.append(&mut rows.pools);
            snapshot.clients.append(&mut rows.clients);
            snapshot.servers.append(&mut rows.servers);
            // They are the process's: every worker says the same.
            snapshot.hosts = rows.hosts;
            claims = rows.claims;
            would_refuse.append(&mut rows.would_refuse);
            snapshot.working.append(&mut rows.working);
        }
    }
    snapshot.would_refuse = would_refuse_rows(would_refuse);
    snapshot.pools = merged(snapshot.pools);
    snapshot.clients.sort_by_key(|row| row.id);
    let (clients, servers) = (snapshot.clients.len(), snapshot.servers.len());
    snapshot.memory = memory(clients, servers, common.accounts.count());
    snapshot.connections = common.clients.load(Ordering::Relaxed);
    let (catalog, holds) = (common.catalog.load(), common.holds.load());
    snapshot.tenants_known = catalog.tenants().len();
    let wants = |part| parts.contains(&part);
    if wants(Part::Databases) {
        snapshot.databases = database_rows(&catalog, &holds, &snapshot);
    }
    if wants(Part::Logins) {
        snapshot.users = logins(&catalog);
    }
    if wants(Part::PoolNames) {
        name_pools(&catalog, &mut snapshot.pools);
    }
    let blank = Account::default();
    let known = |tenant: &Tenant| common.accounts.known(tenant.id.as_str());
    if wants(Part::Tenants) {
        let row = |tenant: &Arc<Tenant>| {
            let account = known(tenant);
            tenant_row(tenant, account.as_deref().unwrap_or(&blank), &holds, &claims)
        };
        snapshot.tenants = catalog.tenants().map(row).collect();
    }
    if wants(Part::Budgets) {
        let now = common.epoch.elapsed();
        for tenant in catalog.tenants() {
            let account = known(tenant);
            let account = account.as_deref().unwrap_or(&blank);
            snapshot.budgets.extend(budgets::rows(tenant, account, now));
        }
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
    let mut rows: Vec<ConfigRow> = settings.iter().map(row).collect();
    // What tools for PgBouncer look for, under the names they know.
    for (key, ours) in [("max_client_conn", "gate.clients"), ("stats_period", STATS_PERIOD)] {
        let same = rows.iter().find(|row| row.key == ours).cloned();
        rows.extend(same.map(|row| ConfigRow { key: key.to_owned(), ..row }));
    }
    rows
}

/// The console's users, for SHOW USERS.
pub fn console_users(settings: &ConsoleSettings) -> Vec<UserRow> {
    let kind = |rights| match rights {
        Rights::Admin => "admin",
        Rights::Stats => "stats",
    };
    let users = settings.users.iter();
    users
        .map(|user| UserRow {
            name: user.name.clone(),
            kind: kind(user.rights),
            ..UserRow::default()
        })
        .collect()
}

/// The catalog as a whole, and what is wrong in it.
pub fn catalog(common: &Common, table: Option<TableFigures>) -> CatalogRows {
    let catalog = &common.catalog.load();
    let tenants = common.composer.lock().tenants();
    let has_table = table.is_some();
    let figures = table.unwrap_or_default();
    let whole = CatalogRow {
        source: if has_table { "table" } else { "file" },
        version: catalog.version(),
        tenants: tenants as u64,
        faults: catalog.faulty() as u64,
        connected: figures.connected,
        table_version: u64::try_from(figures.version).ok().filter(|_| has_table),
        synced: figures.synced_at.map(utc),
        from_copy: figures.from_file,
        error: figures.error,
    };
    let each = catalog.faults().flat_map(|(id, faults)| faults.iter().map(move |it| (id, it)));
    let fault = |(id, fault): (&str, &RowFault)| FaultRow {
        tenant: shown(id),
        row: fault.row.clone(),
        column: fault.column.to_owned(),
        message: fault.message.clone(),
        hint: fault.hint.clone(),
    };
    CatalogRows { whole: vec![whole], faults: each.take(FAULTS_MAX).map(fault).collect() }
}

/// The roles the gate logs in with.
fn logins(catalog: &Catalog) -> Vec<UserRow> {
    let login = |tenant: &Arc<Tenant>| {
        (tenant.route.conninfo.user.clone(), tenant.route.cluster.name.clone())
    };
    let logins: BTreeSet<(String, String)> =
        catalog.tenants().flat_map(Tenant::faces).map(login).collect();
    let row = |(name, cluster)| UserRow {
        name,
        pool_mode: Some("transaction"),
        kind: "login",
        cluster: Some(cluster),
    };
    logins.into_iter().map(row).collect()
}

fn database_rows(catalog: &Catalog, holds: &Holds, snapshot: &Snapshot) -> Vec<DatabaseRow> {
    let all = databases(catalog);
    let names = Names::of(&all);
    let mut rows = BTreeMap::new();
    for tenant in catalog.tenants() {
        let database = database_of(tenant);
        let route = &tenant.route;
        let row: &mut DatabaseRow = rows.entry(database.clone()).or_insert_with(|| {
            let (host, port) = host(route.conninfo.hosts.first());
            DatabaseRow {
                name: names.of_database(&database),
                cluster: database.0.clone(),
                database: database.1.clone(),
                host,
                port,
                user: Some(route.conninfo.user.clone()),
                capacity: route.cluster.capacity as u64,
                servers: 0,
                tenants: 0,
                paused: holds.paused.covers_database(&database),
                disabled: holds.disabled.covers_database(&database),
            }
        });
        row.tenants += 1;
        if row.user.as_ref() != Some(&route.conninfo.user) {
            row.user = None;
        }
    }
    for server in &snapshot.servers {
        let database = (server.cluster.clone(), server.socket.database.clone());
        if let Some(row) = rows.get_mut(&database) {
            row.servers += 1;
        }
    }
    rows.into_values().collect()
}

/// Cluster, database and login.
type Login<'names> = (&'names str, &'names str, &'names str);

/// Pools have the names of SHOW DATABASES: tools tell rows apart by them. A login of a single
/// tenant has its name as well.
fn name_pools(catalog: &Catalog, pools: &mut [PoolRow]) {
    let all = databases(catalog);
    let names = Names::of(&all);
    let mut owners: HashMap<Login<'_>, Option<&Arc<Tenant>>> = HashMap::new();
    for tenant in catalog.tenants() {
        for face in tenant.faces() {
            let (cluster, to) = (&face.route.cluster.name, &face.route.conninfo);
            let owner = owners.entry((cluster, &to.dbname, &to.user)).or_insert(Some(tenant));
            if owner.is_some_and(|owner| owner.id != tenant.id) {
                // Of several tenants.
                *owner = None;
            }
        }
    }
    for pool in pools {
        let owner = owners.get(&(&*pool.cluster, &*pool.database, &*pool.user));
        // Row tenants share theirs, even if it is one only.
        if let Some(owner) = owner.copied().flatten().filter(|_| pool.tenant.is_empty()) {
            pool.tenant = owner.id.to_string();
            pool.pool_mode = owner.pooling.name().to_owned();
        } else {
            pool.tenant = "*".to_owned();
        }
        pool.database = names.of_database(&(pool.cluster.clone(), pool.database.clone()));
    }
}

/// What SHOW TENANTS has of a tenant.
pub fn tenant_row(
    tenant: &Tenant,
    account: &Account,
    holds: &Holds,
    claims: &HashMap<String, Claims>,
) -> TenantRow {
    let (clients, _, servers) = account.in_use();
    let share = account.share(&tenant.limits);
    let cluster = &tenant.route.cluster;
    // Where nobody has asked for a server yet.
    let alone = Claims { places: cluster.capacity, ..Claims::default() };
    let claims = claims.get(&cluster.name).unwrap_or(&alone);
    let disabled = holds.disabled.covers(tenant) || tenant.state == TenantState::Disabled;
    let paused = holds.wait(tenant) || tenant.state == TenantState::Paused;
    let state = match () {
        () if disabled => TenantState::Disabled,
        () if paused => TenantState::Paused,
        () if holds.read_only.covers(tenant) => TenantState::ReadOnly,
        () => tenant.state,
    };
    let state = state.name();
    let conninfo = &tenant.route.conninfo;
    TenantRow {
        tenant: tenant.id.to_string(),
        isolation: tenant.isolation.name().to_owned(),
        level: tenant.level_in_words(),
        leaves_open: tenant.leaves_open().to_owned(),
        cluster: tenant.route.cluster.name.clone(),
        database: conninfo.dbname.clone(),
        login: conninfo.user.clone(),
        role: tenant.context.value("role").map(str::to_owned),
        tier: tenant.tier.clone(),
        state: state.to_owned(),
        clients: clients.into(),
        servers: servers.into(),
        version: tenant.version,
        share: claims.due(account, share.weight),
        weight: share.weight,
        servers_min: share.minimum.into(),
    }
}

/// What tenants did since the last call, for the metrics.
pub fn steps(common: &Common) -> Vec<telemetry::TenantRow> {
    let rows = common.accounts.read(Reader::Metrics).into_iter();
    rows.map(|(tenant, sums)| telemetry::TenantRow {
        tenant,
        requests: sums.requests,
        transactions: sums.transactions,
        bytes_in: sums.bytes_received,
        bytes_out: sums.bytes_sent,
        refusals: sums.refusals,
        server_time_us: sums.server_us,
        database_time_us: sums.database_us,
        would_refuse: sums.would_refuse,
        wait_time_us: sums.wait_us,
    })
    .collect()
}

/// The entries of all workers, those of one statement together, the most frequent first.
fn would_refuse_rows(mut entries: Vec<guard::Entry>) -> Vec<WouldRefuseRow> {
    entries.sort_by(|a, b| {
        let key = |it: &guard::Entry| (it.fingerprint.hash, it.rule.name());
        key(a).cmp(&key(b)).then_with(|| a.tenant.cmp(&b.tenant))
    });
    entries.dedup_by(|later, kept| {
        let same = later.same_kind(kept);
        if same {
            kept.count += later.count;
            kept.first = kept.first.min(later.first);
            kept.last = kept.last.max(later.last);
        }
        same
    });
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    let row = |entry: guard::Entry| WouldRefuseRow {
        tenant: entry.tenant,
        rule: entry.rule.name().to_owned(),
        statement: entry.fingerprint.words,
        fingerprint: format!("{:016x}", entry.fingerprint.hash),
        count: entry.count,
        first_time: utc(entry.first),
        last_time: utc(entry.last),
    };
    entries.into_iter().map(row).collect()
}

/// One row of each pool, whatever workers and generations of it there are.
fn merged(rows: Vec<PoolRow>) -> Vec<PoolRow> {
    let mut merged: HashMap<(String, String, String), PoolRow> = HashMap::new();
    for row in rows {
        let key = (row.cluster.clone(), row.database.clone(), row.user.clone());
        let pool = match merged.entry(key) {
            Entry::Vacant(place) => {
                place.insert(row);
                continue;
            }
            Entry::Occupied(known) => known.into_mut(),
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
    let mut merged: Vec<PoolRow> = merged.into_values().collect();
    let key = |it: &PoolRow| (it.database.clone(), it.user.clone(), it.cluster.clone());
    merged.sort_by_cached_key(key);
    merged
}

/// What so many clients, servers and accounts of tenants take up, without buffers.
fn memory(clients: usize, servers: usize, accounts: usize) -> Vec<MemoryRow> {
    let row = |name, size: usize, used: usize| {
        let (size, used) = (size as u64, used as u64);
        MemoryRow { name, size, used: Some(used), free: Some(0), total: size * used }
    };
    let client = size_of::<crate::client::Session>() + size_of::<crate::client::Shared>();
    vec![
        row("client_cache", client, clients),
        row("server_cache", size_of::<crate::server::Bound>(), servers),
        row("account_cache", size_of::<crate::budget::Account>(), accounts),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_several_workers_is_one_row() {
        let row = |cluster: &str, user: &str, maxwait_us| PoolRow {
            cluster: cluster.to_owned(),
            database: "app".to_owned(),
            user: user.to_owned(),
            sv_idle: 2,
            maxwait_us,
            ..PoolRow::default()
        };
        let rows = vec![row("b", "y", 1), row("b", "x", 7), row("a", "x", 2), row("b", "x", 5)];
        let merged: Vec<_> = merged(rows)
            .into_iter()
            .map(|it| (it.user, it.cluster, it.sv_idle, it.maxwait_us))
            .collect();
        let wanted = [("x", "a", 2, 2), ("x", "b", 4, 7), ("y", "b", 2, 1)]
            .map(|it| (it.0.to_owned(), it.1.to_owned(), it.2, it.3));
        assert_eq!(merged, wanted);
    }
}
