//! Who waits for a host rather than for a place: as long as a route cannot be connected, those who
//! want it stand beside the line and out of the arbiter's book, so that nobody else waits for them.

use std::rc::Rc;
use std::time::Instant;

use crate::pool::acquire::AcquireError;
use crate::pool::health::{Outage, Outlook};
use crate::pool::line::Waiter;
use crate::pool::probe::Probe;
use crate::pool::trial::Trial;
use crate::pool::{ClusterPools, Pool};
use crate::server::{Blame, Clean, ConnectError, connect_host};

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

    /// Puts one who stands in line beside it.
    fn put_aside(&self, waiter: &Rc<Waiter>) {
        if self.line.borrow_mut().remove(waiter) {
            self.arbiter.leave(waiter.pool.id, waiter.ticket);
            waiter.pool.aside.set(waiter.pool.aside.get() + 1);
            self.aside.borrow_mut().push(waiter.clone());
        }
    }

    /// Takes one out from beside the line. False if it was not there.
    pub(super) fn leave_aside(&self, waiter: &Waiter) -> bool {
        let mut aside = self.aside.borrow_mut();
        let Some(at) = aside.iter().position(|it| std::ptr::eq(&**it, waiter)) else {
            return false;
        };
        aside.remove(at);
        waiter.pool.aside.set(waiter.pool.aside.get().saturating_sub(1));
        true
    }

    fn call_back(&self, waiter: &Rc<Waiter>) {
        if self.leave_aside(waiter) {
            self.enter(waiter);
        }
    }

    fn refuse(&self, waiter: &Waiter, outage: Outage) {
        drop(self.forget(waiter));
        // Who gave up in this moment need not know.
        let _ = waiter.answer(Err(AcquireError::Outage(outage)));
    }

    /// Something has happened to a host or a login: those who can be served come back into the
    /// line, those for whom there is nothing are told.
    pub(super) fn look_at_hosts(self: &Rc<Self>) {
        let health = &self.arbiter.health;
        let places = self.settings.borrow().capacity;
        let mut aside = self.aside.borrow().clone();
        if !aside.is_empty() {
            // Before the look: what happens after it is told again.
            health.watch(self.worker);
        }
        // From who came first to who came last, and one look for those of a pool.
        aside.sort_by_key(|waiter| waiter.ticket);
        let mut known: Option<(Rc<Pool>, Outlook)> = None;
        for waiter in aside {
            let outlook = match &known {
                Some((pool, outlook)) if Rc::ptr_eq(pool, &waiter.pool) => *outlook,
                _ => {
                    // Who waits is one who asks: the probes go on, or begin anew.
                    let asked = health.consult(&waiter.pool.plan, self.worker, places);
                    self.send_out(asked.1);
                    asked.0
                }
            };
            let left = match outlook {
                Outlook::Room(0) => outlook,
                Outlook::Room(room) => {
                    self.call_back(&waiter);
                    Outlook::Room(room - 1)
                }
                Outlook::Wait { wake } => {
                    self.wake_at(wake);
                    outlook
                }
                Outlook::Refused(outage) => {
                    if !waiter.pool.has_servers() {
                        self.refuse(&waiter, outage);
                    }
                    outlook
                }
            };
            known = Some((waiter.pool.clone(), left));
        }
        self.clear_line(places);
        self.pump();
    }

    /// Tells those in line whose hosts are all down.
    fn clear_line(&self, places: usize) {
        let mut known: Option<(Rc<Pool>, Outlook)> = None;
        let mut hopeless = Vec::new();
        let mut at = 0;
        while let Some(waiter) = self.line.borrow().get(at) {
            at += 1;
            let outlook = match &known {
                Some((pool, outlook)) if Rc::ptr_eq(pool, &waiter.pool) => *outlook,
                _ => self.arbiter.health.outlook(&waiter.pool.plan, places),
            };
            known = Some((waiter.pool.clone(), outlook));
            if let Outlook::Refused(outage) = outlook
                && !waiter.pool.has_servers()
            {
                hopeless.push((waiter, outage));
            }
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
    pub(super) fn call_first(&self) {
        let aside = self.cluster.aside.borrow();
        let of_pool = aside.iter().filter(|it| std::ptr::eq(&*it.pool, self));
        let first = of_pool.min_by_key(|it| it.ticket).cloned();
        drop(aside);
        if let Some(first) = first {
            self.cluster.call_back(&first);
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
