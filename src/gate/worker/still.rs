//! Who is held back, and when nothing of it is at work any more: servers are closed as they come
//! free, and those that idle sessions keep stay with them.

use std::collections::HashSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::catalog::{Tenant, TenantState};
use crate::client::Phase;
use crate::gate::worker::floor::Floor;
use crate::gate::worker::guest::Guest;
use crate::isolation::Isolation;
use crate::pool::Pool;
use crate::server::{Conninfo, ServerFacts};

/// A tenant that has to come to rest.
pub(super) struct Resting {
    pub tenant: Arc<Tenant>,
    /// Servers that may be at work for it.
    pub servers: Vec<Weak<ServerFacts>>,
    pub done: oneshot::Sender<()>,
}

impl Floor {
    /// Looks at everybody's hold again, after the holds or the catalog changed.
    pub fn hold_all(&self) {
        for guest in self.guests.borrow().values() {
            self.hold(guest);
        }
    }

    /// Holds a session's requests back, or lets them go on.
    pub fn hold(&self, guest: &Guest) {
        let (tenant, catalog) = (guest.serves(), self.common.catalog.load());
        // The one that a service acts for may have changed since.
        let known = catalog.known(tenant.id.as_str());
        let state = known.map_or(tenant.state, |known| known.state);
        let waits = self.common.holds.load().wait(&tenant) || state == TenantState::Paused;
        // Who has not heard yet of what changed would go where the tenant was.
        let deaf = !guest.shared.look_again.get()
            && known.is_some_and(|known| known.version != tenant.version);
        let waited = guest.shared.paused.get() || tenant.state == TenantState::Paused;
        guest.shared.pause(waits || deaf && waited);
    }

    /// Closes the idle servers of tenants that are paused, or are about to move.
    pub fn close_servers_of<'tenants>(&self, tenants: impl Iterator<Item = &'tenants Arc<Tenant>>) {
        let tenants: Vec<&Arc<Tenant>> = tenants.collect();
        if tenants.is_empty() {
            return;
        }
        let key =
            |cluster: &str, it: &Conninfo| (cluster.to_owned(), it.dbname.clone(), it.user.clone());
        let faces = tenants.iter().flat_map(|tenant| tenant.faces());
        let own = faces.filter(|face| face.isolation != Isolation::Row);
        let own = own.map(|face| key(&face.route.cluster.name, &face.route.conninfo));
        let own: HashSet<_> = own.collect();
        let ids: HashSet<&str> = tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        for pool in self.env.pools.all() {
            let plan = pool.plan();
            // Schema and silo tenants have a login of their own.
            let is_own = plan.isolation != Isolation::Row
                && own.contains(&key(&pool.cluster().name, &plan.conninfo));
            match is_own {
                true => pool.close_idle(),
                false => pool.close_parked_of(|tenant| ids.contains(tenant.as_str())),
            }
        }
    }

    /// Whether nothing is at work for a tenant, here. Its idle servers are closed; those that idle
    /// sessions keep stay with them.
    pub(super) fn rests(&self, resting: &mut Resting) -> bool {
        let id = &resting.tenant.id;
        let works = |guest: &Guest| is_at_work(guest) && guest.serves().id == *id;
        let still = !self.guests.borrow().values().any(|guest| works(guest));
        self.close_servers_of(std::iter::once(&resting.tenant));
        let (kept, at_work) = (self.kept(), self.at_work_for(&resting.tenant));
        let is_in = |list: &[Weak<ServerFacts>], one: &Weak<ServerFacts>| {
            list.iter().any(|it| it.ptr_eq(one))
        };
        resting.servers.retain(|one| is_in(&at_work, one) && !is_in(&kept, one));
        still && resting.servers.is_empty()
    }

    /// Servers of the tenant's logins that may be at work for it.
    pub(super) fn at_work_for(&self, tenant: &Arc<Tenant>) -> Vec<Weak<ServerFacts>> {
        let leads_there = |pool: &Rc<Pool>| {
            let (cluster, theirs) = (pool.cluster(), &pool.plan().conninfo);
            tenant.faces().any(|face| {
                let own = &face.route.conninfo;
                let same = (&own.dbname, &own.user) == (&theirs.dbname, &theirs.user);
                same && face.route.cluster.name == cluster.name
            })
        };
        let pools = self.env.pools.all().into_iter().filter(leads_there);
        let at_work = pools.flat_map(|pool| pool.at_work_for(&tenant.id));
        at_work.map(|facts| Rc::downgrade(&facts)).collect()
    }

    /// Closes the idle servers of what is paused. True if nothing of it is at work any more and
    /// all that was closed is gone.
    pub(super) fn is_still(&self) -> bool {
        let holds = self.common.holds.load();
        // Not those who are held back for something else.
        let works = |guest: &Guest| is_at_work(guest) && holds.paused.covers(&guest.serves());
        let mut still = !self.guests.borrow().values().any(|guest| works(guest));
        let mut leaving = self.pending.leaving.borrow_mut();
        let kept = self.kept();
        let is_kept = |facts: &Weak<ServerFacts>| kept.iter().any(|it| it.ptr_eq(facts));
        leaving.retain(|facts| facts.strong_count() > 0 && !is_kept(facts));
        for pool in self.env.pools.all() {
            if self.is_held(&pool) {
                let leases = pool.leases().into_iter().map(|lease| lease.facts);
                let servers = pool.idle().into_iter().map(|(facts, ..)| facts).chain(leases);
                for facts in servers {
                    let facts = Rc::downgrade(&facts);
                    if !leaving.iter().chain(&kept).any(|it| it.ptr_eq(&facts)) {
                        leaving.push(facts);
                    }
                }
                pool.close_idle();
                still &= pool.in_motion() == (0, 0);
            } else {
                pool.close_parked_of(|tenant| {
                    holds.paused.tenants().any(|it| it == tenant.as_str())
                });
            }
        }
        still && leaving.is_empty()
    }

    /// Servers that idle sessions keep: a pause leaves them alone.
    fn kept(&self) -> Vec<Weak<ServerFacts>> {
        let guests = self.guests.borrow();
        let idle = guests
            .values()
            .filter(|guest| !guest.shared.pins.get().is_empty() && !is_at_work(guest));
        let servers = idle.filter_map(|guest| guest.shared.server.borrow().clone());
        servers.map(|facts| Rc::downgrade(&facts)).collect()
    }

    /// Whether all who could use the pool are paused.
    fn is_held(&self, pool: &Pool) -> bool {
        let plan = pool.plan();
        let holds = self.common.holds.load();
        let database = (pool.cluster().name.clone(), plan.conninfo.dbname.clone());
        if holds.paused.covers_database(&database) {
            return true;
        }
        // Schema and silo tenants have a login of their own.
        let catalog = self.common.catalog.load();
        let mut named = holds.paused.tenants().filter_map(|id| catalog.known(id));
        plan.isolation != Isolation::Row && named.any(|it| it.route.conninfo == plan.conninfo)
    }
}

/// Whether something of it may run on a server, or is about to.
fn is_at_work(guest: &Guest) -> bool {
    guest.shared.phase.get() == Phase::Active || guest.shared.binding.get()
}
