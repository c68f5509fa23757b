//! Many clients over few server connections. It belongs to one worker thread and needs no locks;
//! the [`arbiter`] says what one cluster may have in the process and whose turn it is. Between
//! transactions a server is *clean*, or *parked*: still bound, for the session that used it or, if
//! nothing it ran could leave a trace, for any with the same context and settings. Whoever else
//! wants a parked one gets it scrubbed.

mod acquire;
mod arbiter;
mod aside;
mod capped;
mod gift;
mod greetings;
mod health;
mod hold;
mod janitor;
mod lease;
mod line;
mod logins;
mod pin;
mod probe;
mod pump;
mod shelf;
#[cfg(test)]
mod tests;
mod trial;
mod verify;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use acquire::{AcquireError, Want};
pub use arbiter::{Arbiters, Claims, Mail, Post};
pub use greetings::Greeting;
pub use health::{Health, HostFacts, Outage, Standing, Why};
pub use lease::Lease;
pub use pin::{NoPin, Pin};
pub use verify::verify;

use crate::catalog::{Catalog, Cluster, Moved, Tenant, TenantId};
use crate::isolation::Isolation;
use crate::net::{Buffers, Clock};
use crate::pool::arbiter::{Arbiter, Place, PoolId, Ticket};
use crate::pool::aside::Aside;
use crate::pool::capped::Capped;
use crate::pool::greetings::{Greetings, Orphans};
use crate::pool::line::Line;
use crate::server::{Bound, Clean, ConnectPlan, ServerFacts};

/// Which session; unique in the process.
pub type SessionId = u64;

/// A worker's server connections.
#[derive(Debug)]
pub struct Pools {
    clusters: RefCell<HashMap<String, Rc<ClusterPools>>>,
    buffers: Buffers,
    clock: Clock,
    pub counts: Rc<Counts>,
    worker: usize,
    arbiters: Arc<Arbiters>,
    /// Pools made so far: the next one's number.
    made: Cell<u64>,
    /// The process ends: nothing that comes back is kept.
    closing: Rc<Cell<bool>>,
}

/// Counters of one worker since it started; the gate turns them into metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub by_session: Cell<u64>,
    pub by_context: Cell<u64>,
    pub by_clean: Cell<u64>,
    pub by_rebind: Cell<u64>,
    /// Leases on a connection made for the one who waited, and on one handed over after a wait.
    pub by_connect: Cell<u64>,
    pub by_wait: Cell<u64>,
    /// How long the latest of them waited; whoever reports takes them out.
    pub waits: RefCell<Vec<Duration>>,
    pub connects: Cell<u64>,
    pub connect_failures: Cell<u64>,
    /// How often a host that was down was knocked at.
    pub probes: Cell<u64>,
    /// Servers opened in a database that lacks something of its level, which is not enforced.
    pub level_shortfalls: Cell<u64>,
    pub binds: Cell<u64>,
    pub bind_failures: Cell<u64>,
    pub scrubs: Cell<u64>,
    pub scrub_failures: Cell<u64>,
    /// Clean servers given to other workers.
    pub moves: Cell<u64>,
    /// Servers whose place was given back although they did not end in time.
    pub abandoned: Cell<u64>,
}

/// Most waits kept between two reports; what is beyond is not in the histogram.
const WAITS_MAX: usize = 10_000;

impl Counts {
    /// Books the end of a wait.
    fn waited(&self, waited: Duration) {
        let mut waits = self.waits.borrow_mut();
        if waits.len() < WAITS_MAX {
            waits.push(waited);
        }
    }
}

/// Adds one to a counter.
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// One cluster, as far as it is this worker's: pools and everybody who waits for one.
#[derive(Debug)]
pub struct ClusterPools {
    settings: RefCell<Arc<Cluster>>,
    worker: usize,
    arbiter: Arc<Arbiter>,
    arbiters: Arc<Arbiters>,
    /// Somebody on another worker may need what comes free here.
    asked: Cell<bool>,
    /// The arbiter will be told in a moment that somebody here waits.
    asking: Cell<bool>,
    /// The line will be looked at again in a moment.
    looking: Cell<bool>,
    /// Those beside the line will be looked at when a login may be tried again.
    waking: Cell<bool>,
    /// Those who wait here would only borrow what is kept for others: whoever comes gets what is
    /// idle by its turn.
    holds_back: Cell<bool>,
    /// The capacity may be less than what is taken.
    shrunk: Cell<bool>,
    closing: Rc<Cell<bool>>,
    /// When the log was last told that the level is not in force.
    shortfall_told: Cell<Option<Instant>>,
    /// Idle servers in all pools.
    idle: Cell<usize>,
    /// Tickets given so far.
    tickets: Cell<u64>,
    /// By database and login. A pool lives as long as somebody holds it: sessions, leases, those
    /// who wait, and [`Self::listed`].
    pools: RefCell<HashMap<String, Vec<Weak<Pool>>>>,
    /// Pools that may have something idle.
    listed: RefCell<Vec<Rc<Pool>>>,
    orphans: RefCell<Orphans>,
    /// Who could be served.
    line: RefCell<Line>,
    /// Who waits for others of its own tenant.
    capped: Capped,
    /// Who could be served and waits for a host that cannot be connected now.
    aside: RefCell<Aside>,
    buffers: Buffers,
    clock: Clock,
    counts: Rc<Counts>,
}

/// The server connections of one login to one database.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    plan: Arc<ConnectPlan>,
    cluster: Rc<ClusterPools>,
    clean: RefCell<Vec<Idle<Clean>>>,
    parked: RefCell<Vec<Parked>>,
    leased: RefCell<Vec<LeaseFacts>>,
    /// Every server there is, in whatever place.
    servers: RefCell<Vec<Weak<ServerFacts>>>,
    connecting: Cell<usize>,
    /// It is in its cluster's list of pools with something idle.
    listed: Cell<bool>,
    /// No tenant of the catalog has this route any more.
    obsolete: Cell<bool>,
    /// Servers from before this moment are closed as they come back.
    stale: Cell<Option<Instant>>,
    /// Servers being scrubbed.
    scrubbing: Cell<usize>,
    greetings: RefCell<Greetings>,
}

/// A server connection nobody uses.
#[derive(Debug)]
pub struct Idle<T> {
    server: T,
    place: Place,
    since: Instant,
    /// Connected just now, and never used.
    fresh: bool,
}

/// A bound server connection between two transactions.
#[derive(Debug)]
pub struct Parked {
    idle: Idle<Box<Bound>>,
    session: SessionId,
    tenant: TenantId,
    /// Nothing it ran since its scrub can have left a trace: see `guard`.
    harmless: bool,
}

/// A leased server connection, as the console shows it.
#[derive(Clone, Debug)]
pub struct LeaseFacts {
    pub facts: Rc<ServerFacts>,
    pub session: SessionId,
    pub tenant: TenantId,
}

impl Pools {
    /// An empty set of pools for this worker.
    pub fn new(buffers: Buffers, clock: Clock, worker: usize, arbiters: Arc<Arbiters>) -> Self {
        Self {
            clusters: RefCell::default(),
            buffers,
            clock,
            counts: Rc::default(),
            worker,
            arbiters,
            made: Cell::new(0),
            closing: Rc::default(),
        }
    }

    /// Hears what other workers have to say.
    pub fn receive(&self, post: Post) {
        match post {
            Post::Look(cluster) => {
                let cluster = self.clusters.borrow().get(&*cluster).cloned();
                if let Some(cluster) = cluster {
                    cluster.asked.set(true);
                    cluster.pump();
                }
            }
            Post::Hosts(cluster) => {
                let cluster = self.clusters.borrow().get(&*cluster).cloned();
                if let Some(cluster) = cluster {
                    cluster.look_at_hosts();
                }
            }
            Post::Gift(gift) => self.accept(*gift),
        }
    }

    /// Every cluster's hosts, in the whole process.
    pub fn health(&self) -> Vec<(String, Arc<Health>)> {
        self.arbiters.health()
    }

    /// Of every cluster, who claims how much of its capacity, in the whole process.
    pub fn claims(&self) -> HashMap<String, Claims> {
        self.arbiters.claims()
    }

    /// The pool of a tenant's route; made when first asked for.
    pub fn of(&self, tenant: &Tenant) -> Rc<Pool> {
        let cluster = self.cluster(&tenant.route.cluster);
        let plan = plan(tenant);
        if let Some(pool) = cluster.find(&plan, false) {
            return pool;
        }
        let key = key(&plan);
        let greetings = cluster.orphans.borrow_mut().adopt(&plan);
        self.made.set(self.made.get() + 1);
        let pool = Rc::new(Pool {
            id: PoolId { worker: self.worker, number: self.made.get() },
            plan: Arc::new(plan),
            cluster: cluster.clone(),
            clean: RefCell::default(),
            parked: RefCell::default(),
            leased: RefCell::default(),
            servers: RefCell::default(),
            connecting: Cell::new(0),
            listed: Cell::new(false),
            obsolete: Cell::new(false),
            stale: Cell::new(None),
            scrubbing: Cell::new(0),
            greetings: RefCell::new(greetings),
        });
        let mut pools = cluster.pools.borrow_mut();
        pools.entry(key).or_default().push(Rc::downgrade(&pool));
        pool
    }

    /// Clients who wait for a server.
    pub fn waiting(&self) -> usize {
        let clusters = self.clusters.borrow();
        let waiting = |it: &Rc<ClusterPools>| {
            it.line.borrow().len() + it.aside.borrow().len() + it.capped.len()
        };
        clusters.values().map(waiting).sum()
    }

    /// Every pool of this worker, for the console.
    pub fn all(&self) -> Vec<Rc<Pool>> {
        let clusters = self.clusters.borrow();
        clusters.values().flat_map(|cluster| cluster.all()).collect()
    }

    /// Takes a new catalog's clusters over and marks the pools whose route no tenant has any more:
    /// their idle servers close now, the others at release.
    pub fn reload<'tenants>(&self, tenants: impl Iterator<Item = &'tenants Arc<Tenant>>) {
        let mut wanted: HashMap<String, Vec<ConnectPlan>> = HashMap::new();
        for tenant in tenants {
            let route = &tenant.route;
            if let Some(cluster) = self.clusters.borrow().get(&route.cluster.name) {
                let known = cluster.settings.replace(route.cluster.clone());
                if !Arc::ptr_eq(&known, &route.cluster) {
                    cluster.arbiter.health.set_rest_max(route.cluster.server_login_retry);
                    cluster.resize(route.cluster.capacity);
                }
                cluster.recap(tenant);
                let plan = plan(tenant);
                let same_key = wanted.entry(key(&plan)).or_default();
                if !same_key.contains(&plan) {
                    same_key.push(plan);
                }
            }
        }
        for pool in self.all() {
            let same_key = wanted.get(&key(&pool.plan));
            if !same_key.is_some_and(|plans| plans.contains(&*pool.plan)) {
                pool.abandon();
            }
            pool.cluster.pump();
        }
    }

    /// The same for a few tenants that changed: a route that none of them has any more is looked
    /// for among the others only where it may be shared.
    pub fn change(&self, moved: &[Moved], catalog: &Catalog) {
        let mut doubtful: Vec<(ConnectPlan, Rc<Pool>)> = Vec::new();
        for Moved { before, after } in moved {
            let clusters = self.clusters.borrow();
            for face in after.iter().flat_map(Tenant::faces) {
                if let Some(cluster) = clusters.get(&face.route.cluster.name) {
                    cluster.recap(face);
                }
            }
            for face in before.iter().flat_map(Tenant::faces) {
                let former = plan(face);
                let has = |tenant: &Arc<Tenant>| tenant.faces().any(|face| plan(face) == former);
                let cluster = clusters.get(&face.route.cluster.name);
                let pool = cluster.and_then(|cluster| cluster.find(&former, false));
                let Some(pool) = pool.filter(|_| !after.iter().any(has)) else { continue };
                let is_its_own = face.isolation != Isolation::Row && !face.may_share_login();
                match is_its_own {
                    true => pool.retire(),
                    false => doubtful.push((former, pool)),
                }
            }
        }
        if doubtful.is_empty() {
            return;
        }
        // All others are looked at once, however many there are to look for.
        for face in catalog.tenants().flat_map(Tenant::faces) {
            let conninfo = &face.route.conninfo;
            doubtful.retain(|(former, _)| former.conninfo != *conninfo || *former != plan(face));
            if doubtful.is_empty() {
                return;
            }
        }
        doubtful.iter().for_each(|(_, pool)| pool.retire());
    }

    fn cluster(&self, settings: &Arc<Cluster>) -> Rc<ClusterPools> {
        let mut clusters = self.clusters.borrow_mut();
        let made = clusters.entry(settings.name.clone()).or_insert_with(|| {
            let arbiter = self.arbiters.of(settings);
            arbiter.health.set_rest_max(settings.server_login_retry);
            Rc::new(ClusterPools {
                settings: RefCell::new(settings.clone()),
                worker: self.worker,
                arbiter,
                arbiters: self.arbiters.clone(),
                asked: Cell::new(false),
                asking: Cell::new(false),
                looking: Cell::new(false),
                waking: Cell::new(false),
                holds_back: Cell::new(false),
                shrunk: Cell::new(true),
                closing: self.closing.clone(),
                shortfall_told: Cell::new(None),
                idle: Cell::new(0),
                tickets: Cell::new(0),
                pools: RefCell::default(),
                listed: RefCell::default(),
                orphans: RefCell::default(),
                capped: Capped::default(),
                aside: RefCell::default(),
                line: RefCell::default(),
                buffers: self.buffers.clone(),
                clock: self.clock.clone(),
                counts: self.counts.clone(),
            })
        });
        made.clone()
    }
}

/// Where the pools of a route are found: database and login.
fn key(plan: &ConnectPlan) -> String {
    format!("{}\0{}", plan.conninfo.dbname, plan.conninfo.user)
}

impl ClusterPools {
    /// Every pool of the cluster.
    pub fn all(&self) -> Vec<Rc<Pool>> {
        self.pools.borrow().values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// The pool of a plan, if there is one; with `old` also one whose servers are to be closed.
    fn find(&self, plan: &ConnectPlan, old: bool) -> Option<Rc<Pool>> {
        let pools = self.pools.borrow();
        let fits = |pool: &Rc<Pool>| *pool.plan == *plan && (old || !pool.obsolete.get());
        pools.get(&key(plan))?.iter().filter_map(Weak::upgrade).rfind(fits)
    }

    fn ticket(&self) -> Ticket {
        self.tickets.set(self.tickets.get() + 1);
        Ticket { since: Instant::now(), number: self.tickets.get(), worker: self.worker }
    }

    /// What is idle and too much is closed at once, here as on every other worker; what is in use
    /// when it is given back.
    fn resize(&self, places: usize) {
        self.arbiter.resize(places);
        self.shrunk.set(true);
        for _ in 0..self.arbiter.excess() {
            let Some((server, place)) = self.pop_idle() else { return };
            lease::close_soon(server, place, false, self.counts.clone());
        }
    }

    /// Whether the process has more servers than it may have, after a resize. Asks the arbiter only
    /// when that can be.
    fn is_exceeded(&self) -> bool {
        if self.shrunk.get() {
            self.shrunk.set(self.arbiter.excess() > 0);
        }
        self.shrunk.get()
    }
}

/// How servers for a tenant's route are connected.
pub fn plan(tenant: &Tenant) -> ConnectPlan {
    let cluster = &tenant.route.cluster;
    ConnectPlan {
        conninfo: tenant.route.conninfo.clone(),
        isolation: tenant.isolation,
        tenant_setting: cluster.tenant_setting.clone(),
        allow_superuser: tenant.route.allow_superuser,
        bystander: tenant.service.is_some(),
        level: cluster.level,
        enforce_level: cluster.enforce_level,
        reach: tenant.route.reach.clone(),
        seal_keys: cluster.seal_keys.clone().filter(|_| tenant.isolation == Isolation::Row),
    }
}

impl Pool {
    /// Notes a server that has come to this pool.
    fn note(&self, facts: &Rc<ServerFacts>) {
        self.greetings.borrow_mut().compare(|name| facts.parameter(name));
        let mut servers = self.servers.borrow_mut();
        servers.retain(|known| known.strong_count() > 0);
        servers.push(Rc::downgrade(facts));
    }

    /// The session that used a server process last, by the number in its cancel key.
    pub fn user_of(&self, pid: i32) -> Option<i32> {
        let servers = self.servers.borrow();
        let facts = servers.iter().filter_map(Weak::upgrade).find(|facts| facts.pid == pid)?;
        let session = facts.session.get();
        (session != 0).then_some(session)
    }

    /// How servers of this pool are connected.
    pub fn plan(&self) -> &ConnectPlan {
        &self.plan
    }

    /// The cluster's settings of this moment.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.cluster.settings.borrow().clone()
    }

    /// Whether anybody who could have it waits for a server of this cluster, here or on another
    /// worker.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.cluster.asked.get() || !self.cluster.line.borrow().is_empty()
    }

    /// Clean, parked and connecting servers, and clients who wait.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let waiting = self.waiting().len();
        let (clean, parked) = (self.clean.borrow().len(), self.parked.borrow().len());
        (clean, parked, self.connecting.get(), waiting)
    }

    fn waiting(&self) -> Vec<Ticket> {
        let mut tickets = self.cluster.line.borrow().waiting_for(self);
        tickets.extend(self.cluster.capped.waiting_for(self));
        let aside = self.cluster.aside.borrow();
        tickets.extend(aside.of(self).map(|waiter| waiter.ticket));
        tickets
    }

    /// Leased servers, for the console.
    pub fn leases(&self) -> Vec<LeaseFacts> {
        self.leased.borrow().clone()
    }

    /// Idle servers with the tenant they are bound to (empty: clean) and since when they idle, for
    /// the console.
    pub fn idle(&self) -> Vec<(Rc<ServerFacts>, String, Instant)> {
        let clean = self.clean.borrow();
        let clean = clean.iter().map(|it| (it.server.facts().clone(), String::new(), it.since));
        let parked = self.parked.borrow();
        let parked = parked
            .iter()
            .map(|it| (it.idle.server.facts().clone(), it.tenant.to_string(), it.idle.since));
        clean.chain(parked).collect()
    }
}

/// Nobody holds it any more: its name is forgotten too.
impl Drop for Pool {
    fn drop(&mut self) {
        let key = key(&self.plan);
        let greetings = self.greetings.take();
        if !self.obsolete.get() {
            self.cluster.leave_behind(self.plan.clone(), greetings);
        }
        // Whoever looks through the names at this moment holds a pool, and so not the last of it.
        if let Ok(mut pools) = self.cluster.pools.try_borrow_mut()
            && let Some(same_key) = pools.get_mut(&key)
        {
            same_key.retain(|pool| pool.strong_count() > 0);
            if same_key.is_empty() {
                pools.remove(&key);
            }
        }
    }
}
