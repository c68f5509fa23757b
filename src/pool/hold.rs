//! What the console asks of a pool: close what idles, replace what comes back, and say what is
//! still on its way.

use std::rc::{Rc, Weak};
use std::time::Instant;

use crate::catalog::TenantId;
use crate::pool::{Parked, Pool};
use crate::server::ServerFacts;

impl Pool {
    /// No tenant has its route any more: idle servers close now, the others as they come back.
    pub(super) fn abandon(&self) {
        self.obsolete.set(true);
        self.cluster.arbiter.health.forget(&self.plan);
        self.close_idle();
    }

    /// Closes the servers that idle now, and the others as they come back.
    pub fn reconnect(&self) {
        self.stale.set(Some(Instant::now()));
        self.close_idle();
    }

    /// Whether a server of this pool must not be used again.
    pub fn is_outdated(&self, facts: &ServerFacts) -> bool {
        let other = facts.has_changed_role();
        other || self.obsolete.get() || self.stale.get().is_some_and(|moment| facts.since < moment)
    }

    /// Closes the idle servers that are bound to one of these tenants.
    pub fn close_parked_of(self: &Rc<Self>, of: impl Fn(&TenantId) -> bool) {
        let parked = self.take_all_parked();
        let (gone, kept): (Vec<Parked>, Vec<Parked>) =
            parked.into_iter().partition(|parked| of(&parked.tenant));
        kept.into_iter().for_each(|parked| self.shelve_parked(parked));
        for parked in gone {
            self.cluster.close_bound(*parked.idle.server, parked.idle.place);
        }
    }

    /// Servers that may be at work for a tenant: those that nobody has and that do not idle, which
    /// are on their way out or being scrubbed, and those that are leased for it.
    pub fn at_work_for(&self, tenant: &TenantId) -> Vec<Rc<ServerFacts>> {
        let (idle, leased) = (self.idle(), self.leased.borrow());
        let is_idle = |facts: &Rc<ServerFacts>| idle.iter().any(|(it, ..)| Rc::ptr_eq(it, facts));
        let is_anothers = |facts: &Rc<ServerFacts>| {
            leased.iter().any(|lease| Rc::ptr_eq(&lease.facts, facts) && lease.tenant != *tenant)
        };
        let servers = self.servers.borrow();
        let alive = servers.iter().filter_map(Weak::upgrade);
        alive.filter(|facts| !is_idle(facts) && !is_anothers(facts)).collect()
    }

    /// Servers being connected, and being scrubbed: nobody has them, and they are not idle.
    pub fn in_motion(&self) -> (usize, usize) {
        (self.connecting.get(), self.scrubbing.get())
    }
}
