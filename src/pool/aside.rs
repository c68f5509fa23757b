//! Who waits for a host rather than for a place: as long as a route cannot be connected, those who
//! want it stand beside the line and out of the arbiter's book, so that nobody else waits for them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::pool::acquire::AcquireError;
use crate::pool::arbiter::{PoolId, Ticket};
use crate::pool::health::{Outage, Outlook};
use crate::pool::line::Waiter;
use crate::pool::probe::Probe;
use crate::pool::trial::Trial;
use crate::pool::{ClusterPools, Pool};
use crate::server::{Blame, Clean, ConnectError, connect_host};

/// Those who wait beside the line, by pool and arrival.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<PoolId, BTreeMap<Ticket, Rc<Waiter>>>);

impl Aside {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Those who wait for one pool.
    pub fn of(&self, pool: &Pool) -> impl Iterator<Item = &Rc<Waiter>> {
        self.0.get(&pool.id).into_iter().flat_map(BTreeMap::values)
    }

    /// The first who waits for one pool.
    pub fn first_of(&self, pool: &Pool) -> Option<Rc<Waiter>> {
        self.of(pool).next().cloned()
    }

    /// Every pool that somebody waits for.
    fn pools(&self) -> Vec<Rc<Pool>> {
        let first = |all: &BTreeMap<Ticket, Rc<Waiter>>| all.values().next().cloned();
        self.0.values().filter_map(first).map(|waiter| waiter.pool.clone()).collect()
    }

    fn insert(&mut self, waiter: Rc<Waiter>) {
        self.0.entry(waiter.pool.id).or_default().insert(waiter.ticket, waiter);
    }

    /// False if it was not in.
    fn remove(&mut self, waiter: &Waiter) -> bool {
        let Some(of_pool) = self.0.get_mut(&waiter.pool.id) else { return false };
        let was_in = of_pool.remove(&waiter.ticket).is_some();
        if of_pool.is_empty() {
            self.0.remove(&waiter.pool.id);
        }
        was_in
    }
}

impl ClusterPools {
    /// Whether a connection could be tried for one in line. One who cannot have it now leaves the
    /// line: for the time being, or with a refusal.
    pub(super) fn may_connect(self: &Rc<Self>, waiter: &Rc<Waiter>) -> bool {
        let (health, places) = (&self.arbiter.health, self.settings.borrow().capacity);
        let (outlook, probes) = health.consult(&waiter.pool.plan, self.worker, places);
        self.send_out(probes);
        match outlook {
            Outlook::Room(_) => return true,
            Outlook::Wait { wake } => {
                self.put_aside(waiter);
                self.wake_at(wake);
            }
            // What the pool has left goes on serving.
            Outlook::Refused(_) if waiter.pool.has_servers() => self.put_aside(waiter),
            Outlook::Refused(outage) => self.refuse(waiter, outage),
        }
        false
    }

    /// The right to try, for one who got a place. Another thread may have been quicker.
    pub(super) fn admit(self: &Rc<Self>, waiter: &Rc<Waiter>) -> Option<Trial> {
        let (health, places) = (&self.arbiter.health, self.settings.borrow().capacity);
        loop {
            if let Some(trial) = health.admit(&waiter.pool.plan, places) {
                return Some(trial);
            }
            if !self.may_connect(waiter) {
                return None;
            }
        }
    }

    /// Whether a connection for a pool could be tried now, as far as its hosts are concerned.
    pub(super) fn has_hosts(&self, pool: &Pool) -> bool {
        let places = self.settings.borrow().capacity;
        matches!(self.arbiter.health.outlook(&pool.plan, places), Outlook::Room(_))
    }

    /// Puts one who stands in line beside it.
    fn put_aside(&self, waiter: &Rc<Waiter>) {
        if self.line.borrow_mut().remove(waiter) {
            self.arbiter.set_aside(waiter.lane(), waiter.ticket);
            self.aside.borrow_mut().insert(waiter.clone());
        }
    }

    /// Takes one out from beside the line. False if it was not there.
    pub(super) fn leave_aside(&self, waiter: &Waiter) -> bool {
        let was_in = self.aside.borrow_mut().remove(waiter);
        if was_in {
            self.arbiter.end_aside(waiter.lane());
        }
        was_in
    }

    fn call_back(&self, waiter: &Rc<Waiter>) {
        if self.aside.borrow_mut().remove(waiter) {
            self.line.borrow_mut().join(waiter.clone());
            self.arbiter.come_back(waiter.lane(), waiter.ticket);
        }
    }

    fn refuse(&self, waiter: &Waiter, outage: Outage) {
        self.forget(waiter);
        // Who gave up in this moment need not know.
        let _ = waiter.answer(Err(AcquireError::Outage(outage)));
    }

    /// Something has happened to a host or a login: those who can be served come back into the
    /// line, those for whom there is nothing are told.
    pub(super) fn look_at_hosts(self: &Rc<Self>) {
        let pools = self.aside.borrow().pools();
        if !pools.is_empty() {
            // Before the look: what happens after it is told again.
            self.arbiter.health.watch(self.worker);
        }
        pools.iter().for_each(|pool| self.look_at_hosts_of(pool));
        self.clear_line();
        self.pump();
    }

    fn look_at_hosts_of(self: &Rc<Self>, pool: &Rc<Pool>) {
        let (health, places) = (&self.arbiter.health, self.settings.borrow().capacity);
        // Who waits is one who asks: the probes go on, or begin anew.
        let (outlook, probes) = health.consult(&pool.plan, self.worker, places);
        self.send_out(probes);
        let first = |many| self.aside.borrow().of(pool).take(many).cloned().collect::<Vec<_>>();
        match outlook {
            Outlook::Room(room) => first(room).iter().for_each(|waiter| self.call_back(waiter)),
            Outlook::Wait { wake } => self.wake_at(wake),
            Outlook::Refused(_) if pool.has_servers() => {}
            Outlook::Refused(outage) => {
                first(usize::MAX).iter().for_each(|waiter| self.refuse(waiter, outage));
            }
        }
    }

    /// Tells those in line whose hosts are all down.
    fn clear_line(&self) {
        let places = self.settings.borrow().capacity;
        let mut known = BTreeMap::new();
        let mut hopeless = Vec::new();
        for waiter in self.line.borrow().all() {
            let pool = &waiter.pool;
            let look = || match self.arbiter.health.outlook(&pool.plan, places) {
                Outlook::Refused(outage) if !pool.has_servers() => Some(outage),
                Outlook::Refused(_) | Outlook::Room(_) | Outlook::Wait { .. } => None,
            };
            let outage = *known.entry(pool.id).or_insert_with(look);
            hopeless.extend(outage.map(|outage| (waiter.clone(), outage)));
        }
        hopeless.iter().for_each(|(waiter, outage)| self.refuse(waiter, *outage));
    }

    /// Looks again at this moment, for those who wait for a login's next try.
    fn wake_at(self: &Rc<Self>, wake: Option<Instant>) {
        let Some(wake) = wake.filter(|_| !self.waking.replace(true)) else { return };
        let this = self.clone();
        tokio::task::spawn_local(async move {
            this.clock.sleep_until(wake).await;
            this.waking.set(false);
            this.look_at_hosts();
        });
    }

    pub(super) fn send_out(&self, probes: Vec<Probe>) {
        for probe in probes {
            let (buffers, clock) = (self.buffers.clone(), self.clock.clone());
            tokio::task::spawn_local(probe.run(buffers, clock, self.counts.clone()));
        }
    }
}

impl Pool {
    /// Whether there is any server that may come free.
    fn has_servers(&self) -> bool {
        self.servers.borrow().iter().any(|facts| facts.strong_count() > 0)
    }

    /// What there is to tell one who has not begun to wait. Asked for like this, a host goes on
    /// being knocked at.
    pub(super) fn outage(&self) -> Option<Outage> {
        if self.has_servers() {
            return None;
        }
        let cluster = &self.cluster;
        let (health, places) = (&cluster.arbiter.health, cluster.settings.borrow().capacity);
        let (outlook, probes) = health.consult(&self.plan, cluster.worker, places);
        cluster.send_out(probes);
        match outlook {
            Outlook::Refused(outage) => Some(outage),
            Outlook::Room(_) | Outlook::Wait { .. } => None,
        }
    }

    /// A server has come free: it is for the first of those who wait for this pool aside.
    #[cold]
    pub(super) fn call_first(&self) {
        let first = self.cluster.aside.borrow().first_of(self);
        if let Some(first) = first {
            self.cluster.call_back(&first);
            // Whoever brought it may not look who is in line.
            self.cluster.pump_soon();
        }
    }

    /// Tries the hosts as libpq does, without those that are known to be down. Where one could not
    /// be tried because others are trying it, and none else will do, nothing is said against any.
    pub(super) async fn connect(&self, trial: &mut Trial) -> Result<Clean, ConnectError> {
        let (buffers, clock) = (&self.cluster.buffers, &self.cluster.clock);
        let conninfo = &self.plan.conninfo;
        let mut last = None;
        for target in conninfo.target.rounds() {
            for host in conninfo.order() {
                if !trial.begin(host) {
                    continue;
                }
                let hears = |sign| trial.hears(sign);
                let to = (host, *target);
                let connected = connect_host(&self.plan, to, &hears, buffers, clock).await;
                self.cluster.send_out(trial.heard(connected.as_ref().map(drop)));
                match connected {
                    Ok(server) => return Ok(server),
                    Err(error) if error.blame() == Blame::Login => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
            if trial.is_busy() {
                return Err(ConnectError::Busy);
            }
        }
        Err(last.unwrap_or(ConnectError::AllDown))
    }
}
