//! What the console has workers do: pause, reconnect, kill, drain. A worker answers an errand when
//! it is done, which may take as long as transactions take.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::catalog::{Scope, Tenant, TenantState};
use crate::client::Phase;
use crate::error::Error;
use crate::gate::worker::{Floor, Guest};
use crate::isolation::Isolation;
use crate::pool::{Pool, SessionId, verify};
use crate::server::{Conninfo, ServerFacts};

/// Something for a worker to do.
pub enum Errand {
    /// The holds were replaced. Answered when nothing runs any more that they hold back, and the
    /// servers it ran on are closed.
    Hold(oneshot::Sender<()>),
    /// Answered when nothing runs for the tenant any more. Its requests must be held back.
    Rest(Arc<Tenant>, oneshot::Sender<()>),
    /// Answered when it is known whether servers can be had, and bound, on the tenant's route.
    /// The permit is for the connection that is tried.
    Verify(Arc<Tenant>, OwnedSemaphorePermit, oneshot::Sender<Result<(), String>>),
    /// Close servers as they come free. Answered when no new request gets one of them.
    Reconnect(Scope, oneshot::Sender<()>),
    /// End sessions now. Answered when they are gone.
    Kill(Scope, oneshot::Sender<()>),
    /// End one session now. Answered when it is gone, and only if it was here.
    KillClient(SessionId, oneshot::Sender<()>),
    /// End sessions at their boundaries, now and from now on. Answered when the last is gone.
    Drain(oneshot::Sender<()>),
    /// Let sessions in again.
    Reopen,
    /// Answered when the last session is gone by itself.
    Empty(oneshot::Sender<()>),
}

/// Sessions that are being ended, and who waits for it.
type Killed = (Vec<SessionId>, oneshot::Sender<()>);

/// Errands that are not done yet.
#[derive(Default)]
pub struct Pending {
    held: RefCell<Vec<oneshot::Sender<()>>>,
    empty: RefCell<Vec<oneshot::Sender<()>>>,
    /// Sessions that were killed and may still be saying so to their clients.
    killed: RefCell<Vec<Killed>>,
    /// Servers that were closed for a hold and may still be there.
    leaving: RefCell<Vec<Weak<ServerFacts>>>,
    /// Who waits for a tenant to be at rest.
    resting: RefCell<Vec<Resting>>,
}

/// A tenant that has to come to rest.
struct Resting {
    tenant: Arc<Tenant>,
    /// Servers that may be at work for it.
    servers: Vec<Weak<ServerFacts>>,
    done: oneshot::Sender<()>,
}

impl Floor {
    /// Begins an errand; most are done when this returns.
    pub fn run(&self, errand: Errand) {
        match errand {
            Errand::Hold(done) => {
                self.pending.held.borrow_mut().push(done);
                self.hold_all();
            }
            Errand::Rest(tenant, done) => {
                self.hold_all();
                let servers = self.at_work_for(&tenant);
                self.pending.resting.borrow_mut().push(Resting { tenant, servers, done });
            }
            Errand::Verify(tenant, permit, done) => {
                let env = self.env.clone();
                tokio::task::spawn_local(async move {
                    let tried = verify(&tenant, &env.buffers, &env.clock).await;
                    drop(permit);
                    // Who asked may have stopped waiting.
                    let _ = done.send(tried);
                });
            }
            Errand::Reconnect(scope, done) => {
                self.reconnect(&scope);
                // Who asked may have gone, here and below.
                let _ = done.send(());
            }
            Errand::Kill(scope, done) => {
                self.kill(done, |_, guest| scope.covers(&guest.serves()));
            }
            Errand::KillClient(id, done) => {
                if self.guests.borrow().contains_key(&id) {
                    self.kill(done, |it, _| it == id);
                }
            }
            Errand::Drain(done) => {
                self.ending.set(true);
                for guest in self.guests.borrow().values() {
                    guest.shared.end(Error::ShuttingDown, false);
                }
                self.pending.empty.borrow_mut().push(done);
            }
            Errand::Reopen => self.ending.set(false),
            Errand::Empty(done) => self.pending.empty.borrow_mut().push(done),
        }
        self.settle();
    }

    /// Ends sessions; `done` is told when the last of them is gone.
    fn kill(&self, done: oneshot::Sender<()>, meant: impl Fn(SessionId, &Guest) -> bool) {
        let guests = self.guests.borrow();
        let meant = guests.iter().filter(|(id, guest)| meant(**id, guest));
        let ended = meant.map(|(id, guest)| {
            guest.shared.end(Error::ShuttingDown, true);
            *id
        });
        let ended = ended.collect();
        self.pending.killed.borrow_mut().push((ended, done));
    }

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

    /// Closes servers of what is paused, and answers errands that are done. Called ten times a
    /// second; does nothing where nothing is paused or asked for.
    pub fn settle(&self) {
        if self.guests.borrow().is_empty() {
            answer(&self.pending.empty);
        }
        self.tell_killers();
        self.tell_movers();
        let holds = self.common.holds.load();
        if !holds.paused.is_empty() && !self.is_still() {
            return;
        }
        self.pending.leaving.borrow_mut().clear();
        answer(&self.pending.held);
    }

    fn tell_movers(&self) {
        let mut resting = self.pending.resting.take();
        resting.retain(|it| !it.done.is_closed());
        for mut resting in resting {
            match self.rests(&mut resting) {
                true => drop(resting.done.send(())),
                false => self.pending.resting.borrow_mut().push(resting),
            }
        }
    }

    /// Whether nothing is at work for a tenant, here. Its idle servers are closed; those that idle
    /// sessions keep stay with them.
    fn rests(&self, resting: &mut Resting) -> bool {
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
    fn at_work_for(&self, tenant: &Arc<Tenant>) -> Vec<Weak<ServerFacts>> {
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

    fn tell_killers(&self) {
        let guests = self.guests.borrow();
        for (mut ended, done) in self.pending.killed.take() {
            ended.retain(|id| guests.contains_key(id));
            match ended.is_empty() {
                // The one who asked may be gone.
                true => drop(done.send(())),
                false => self.pending.killed.borrow_mut().push((ended, done)),
            }
        }
    }

    /// Closes the idle servers of what is paused. True if nothing of it is at work any more and
    /// all that was closed is gone.
    fn is_still(&self) -> bool {
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

    fn reconnect(&self, scope: &Scope) {
        let catalog = self.common.catalog.load();
        for pool in self.env.pools.all() {
            let plan = pool.plan();
            let database = (pool.cluster().name.clone(), plan.conninfo.dbname.clone());
            let meant = match scope {
                Scope::All => true,
                Scope::Databases(databases) => databases.contains(&database),
                Scope::Tenant(id) => {
                    catalog.known(id).is_some_and(|it| it.route.conninfo == plan.conninfo)
                }
            };
            if meant {
                pool.reconnect();
            }
        }
    }
}

/// Whether something of it may run on a server, or is about to.
fn is_at_work(guest: &Guest) -> bool {
    guest.shared.phase.get() == Phase::Active || guest.shared.binding.get()
}

fn answer(waiting: &RefCell<Vec<oneshot::Sender<()>>>) {
    for done in waiting.borrow_mut().drain(..) {
        // The one who asked may be gone.
        let _ = done.send(());
    }
}

/// Waits until all of these were answered, or dropped.
pub async fn all(answers: Vec<oneshot::Receiver<()>>) {
    for answer in answers {
        // A worker that is gone has nothing left to do.
        let _ = answer.await;
    }
}

/// The same, where nobody may go on because of a worker that never said so. False if one did not.
pub async fn each(answers: Vec<oneshot::Receiver<()>>) -> bool {
    for answer in answers {
        if answer.await.is_err() {
            return false;
        }
    }
    true
}

/// Longest that a kill waits for what it ended to be gone.
pub const KILL_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_never_said_so_is_not_at_rest() {
        let ((said, first), (lost, second)) = (oneshot::channel(), oneshot::channel());
        said.send(()).unwrap();
        drop(lost);
        assert!(!each(vec![first, second]).await);
    }
}
