//! A worker: one thread with its own runtime, on which sessions, their servers and those who wait
//! live without locks. It is sent orders by the gate and post by other workers' pools; nothing else
//! reaches it. What panics on it ends alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::auth::Identity;
use crate::budget::Account;
use crate::catalog::{Catalog, Moved, Pin, Tenant, TenantId, TenantState};
use crate::client::{self, Arrival, End, Env, Phase, Session, Shared};
use crate::error::{Ending, Error};
use crate::gate::Common;
use crate::gate::door::Slot;
use crate::gate::errand::{self, Errand};
use crate::gate::snapshot::{self, Parts, WorkerRows};
use crate::net::{Buffers, Peer};
use crate::pool::{Arbiters, Mail, Pools, SessionId};
use crate::telemetry::{Event, What};

/// How often idle servers are looked after. Linger times are a few of these at most.
const TIDY_EVERY: Duration = Duration::from_millis(100);

/// Every how many rounds the counters go to the metrics: once a second.
const ROUNDS_PER_REPORT: u32 = 10;

/// A client on its way from the door.
pub struct Newcomer {
    pub arrival: Arrival,
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    pub slot: Slot,
}

/// What a worker can be told.
pub enum Order {
    Adopt(Box<Newcomer>),
    /// Answered, by dropping the sender, when the cancel has arrived or there is nothing to cancel.
    Cancel {
        session: SessionId,
        done: oneshot::Sender<()>,
    },
    /// The catalog was replaced.
    Reload,
    /// The catalog was replaced by one in which these tenants are others.
    Changed(Arc<[Moved]>),
    /// A credential that counted may count no more.
    Recheck,
    /// Something the console wants.
    Errand(Errand),
    /// End every session: at its next transaction boundary, or now. Answered when all are gone.
    End {
        now: bool,
        done: oneshot::Sender<()>,
    },
    Snapshot(Parts, oneshot::Sender<WorkerRows>),
    /// Answered at once, by a worker that is alive.
    Ping(oneshot::Sender<()>),
}

/// The handle others have on a worker.
pub struct Worker(mpsc::UnboundedSender<Order>);

impl Worker {
    /// Starts a worker's thread; returns when it is ready to work.
    pub fn start(
        index: usize,
        common: &Arc<Common>,
        arbiters: &Arc<Arbiters>,
        mail: Mail,
    ) -> io::Result<Self> {
        let (sender, orders) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let (common, arbiters) = (common.clone(), arbiters.clone());
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _lost = Lost { index, arbiters: arbiters.clone() };
            let builder = &mut Builder::new_current_thread();
            let runtime = match builder.enable_io().build_local(Default::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let clock = common.clock.clone();
            let pools = |buffers: &Buffers| Pools::new(buffers.clone(), clock, index, arbiters);
            runtime.block_on(Floor::new(common, pools).work(orders, mail));
        })?;
        let ended = || io::Error::other("the thread ended at once");
        started.blocking_recv().unwrap_or_else(|_| Err(ended())).map(|()| Self(sender))
    }

    /// A handle whose orders nobody obeys unless the test does.
    #[cfg(test)]
    pub fn unattended() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self(sender), orders)
    }

    /// Sends an order. A worker that is gone has no sessions, so nothing is lost.
    pub fn order(&self, order: Order) {
        let _ = self.0.send(order);
    }

    /// Sends a client. It comes back if the worker is gone.
    pub fn adopt(&self, newcomer: Box<Newcomer>) -> Result<(), Box<Newcomer>> {
        match self.0.send(Order::Adopt(newcomer)) {
            Err(mpsc::error::SendError(Order::Adopt(newcomer))) => Err(newcomer),
            _ => Ok(()),
        }
    }
}

/// The end of a worker's thread. In good order it ends with the process; if it panicked outside of
/// everything it runs, its servers are gone and others may have their places.
struct Lost {
    index: usize,
    arbiters: Arc<Arbiters>,
}

impl Drop for Lost {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                worker = self.index,
                "a worker was lost with its sessions; its tenants are refused until a restart"
            );
            self.arbiters.lose(self.index);
        }
    }
}

/// Does something that must not take the worker with it if it panics.
fn contained(what: &str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("{what} ended in a panic, the worker goes on");
    }
}

/// What lives on a worker.
pub struct Floor {
    pub common: Arc<Common>,
    pub env: Rc<Env>,
    /// Boxed: a table has room for up to twice what is in it.
    pub guests: RefCell<HashMap<SessionId, Box<Guest>>>,
    report: RefCell<snapshot::Report>,
    /// Who wants to know when the last session is gone.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    pub ending: Cell<bool>,
    pub pending: errand::Pending,
    /// Sessions whose credentials end, the next one first.
    expiries: RefCell<BTreeSet<(SystemTime, SessionId)>>,
    /// Until when sessions whose credentials have ended may finish a transaction.
    graces: RefCell<BTreeSet<(Instant, SessionId)>>,
    homes: RefCell<Homes>,
}

/// A session, as its worker sees it from outside.
pub struct Guest {
    pub shared: Rc<Shared>,
    pub tenant: RefCell<Arc<Tenant>>,
    /// Keeps the tenant known that was the file's when it logged in.
    pin: RefCell<Option<Pin>>,
    pub user: String,
    pub database: String,
    pub identity: Identity,
    pub account: Arc<Account>,
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    pub secure: bool,
    pub since: SystemTime,
}

impl Guest {
    /// Keeps its tenant known, if it is one of the tables by now that was the file's. Says whether
    /// that is new: the catalog must be looked at again. None: the tenant may have left.
    fn keep(&self, tenant: &Tenant, catalog: &Catalog) -> Option<bool> {
        if tenant.service.is_some() || self.identity.is_kept() || self.pin.borrow().is_some() {
            return Some(false);
        }
        let pin = catalog.keep(tenant.id.as_str())?;
        let is_new = pin.is_some();
        *self.pin.borrow_mut() = pin;
        Some(is_new)
    }

    /// Whose requests it sends at the moment.
    pub fn serves(&self) -> Arc<Tenant> {
        let acts_for = self.shared.acts_for.borrow().clone();
        acts_for.unwrap_or_else(|| self.tenant.borrow().clone())
    }
}

impl Floor {
    fn new(common: Arc<Common>, pools: impl FnOnce(&Buffers) -> Pools) -> Rc<Self> {
        let buffers = Buffers::default();
        let env = Env {
            pools: pools(&buffers),
            buffers,
            settings: RefCell::new(common.client.load()),
            epoch: common.epoch,
            counts: Rc::new(client::Counts::default()),
            readings: RefCell::default(),
            relays: client::Relays::default(),
            clock: common.clock.clone(),
            audit: common.audit.clone(),
            reception: client::Reception {
                catalog: common.catalog.clone(),
                authenticator: common.authenticator.clone(),
                accounts: common.accounts.clone(),
                holds: common.holds.clone(),
                throttle: common.throttle.clone(),
            },
        };
        Rc::new(Self {
            common,
            env: Rc::new(env),
            guests: RefCell::default(),
            report: RefCell::default(),
            waiting: RefCell::default(),
            ending: Cell::new(false),
            pending: errand::Pending::default(),
            expiries: RefCell::default(),
            graces: RefCell::default(),
            homes: RefCell::default(),
        })
    }

    async fn work(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>, mail: Mail) {
        tokio::task::spawn_local(self.clone().hear(mail));
        let mut tidy = self.env.clock.every(TIDY_EVERY);
        let mut round = 0_u32;
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    // Here and not in a task: a request that came after an order finds it obeyed.
                    contained("an order", || self.obey(order));
                }
                _ = tidy.tick() => {
                    contained("housekeeping", || self.env.pools.tidy());
                    contained("the look at what is paused", || self.settle());
                    contained("the end of credentials", || self.expire());
                    round = round.wrapping_add(1);
                    if round.is_multiple_of(ROUNDS_PER_REPORT) {
                        contained("a report", || self.report.borrow_mut().send(&self));
                    }
                }
            }
        }
    }

    /// Hears the other workers, while orders are obeyed.
    async fn hear(self: Rc<Self>, mut mail: Mail) {
        while let Some(post) = mail.recv().await {
            contained("another worker's post", || self.env.pools.receive(post));
        }
    }

    fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Adopt(newcomer) => {
                let id = newcomer.arrival.entry.session;
                self.adopt(*newcomer);
                // The catalog may have changed since the door looked the tenant up.
                self.refresh(id, &self.common.catalog.load());
                if let Some(guest) = self.guests.borrow().get(&id) {
                    self.hold(guest);
                }
            }
            Order::Cancel { session, done } => {
                if let Some(guest) = self.guests.borrow().get(&session) {
                    guest.shared.cancel(done);
                }
            }
            Order::Reload => self.reload(),
            Order::Changed(moved) => self.change(&moved),
            Order::Recheck => self.refresh_all(&self.common.catalog.load()),
            Order::Errand(errand) => self.run(errand),
            Order::Snapshot(parts, reply) => {
                // The one who asked may be gone.
                let _ = reply.send(snapshot::rows(self, parts));
            }
            // The one who asked may have stopped waiting.
            Order::Ping(reply) => drop(reply.send(())),
            Order::End { now, done } => {
                self.ending.set(true);
                for guest in self.guests.borrow().values() {
                    guest.shared.end(Error::ShuttingDown, now);
                }
                self.waiting.borrow_mut().push(done);
                self.tell_if_empty();
            }
        }
    }

    fn adopt(self: &Rc<Self>, newcomer: Newcomer) {
        let Newcomer { arrival, peer, local, slot } = newcomer;
        let guest = Guest {
            shared: Rc::new(Shared::default()),
            tenant: RefCell::new(arrival.identity.tenant.clone()),
            pin: RefCell::default(),
            user: arrival.wishes.user.clone(),
            database: arrival.wishes.database.clone(),
            identity: arrival.identity.clone(),
            account: arrival.account.clone(),
            peer,
            local,
            secure: arrival.stream.is_secure(),
            since: SystemTime::now(),
        };
        let id = arrival.entry.session;
        let session = match Session::new(arrival, peer, &self.env) {
            Ok(session) => session,
            Err(error) => {
                tracing::warn!(session = id, %error, "a client was lost on its way to its worker");
                return;
            }
        };
        let guest = Guest { shared: session.shared(), ..guest };
        self.hold(&guest);
        if self.ending.get() {
            guest.shared.end(Error::ShuttingDown, false);
        }
        if let Some(at) = guest.identity.expires_at {
            self.expiries.borrow_mut().insert((at, id));
        }
        let tenant = guest.tenant.borrow().clone();
        self.homes.borrow_mut().enter(id, &tenant.id, tenant.service.is_some());
        self.guests.borrow_mut().insert(id, Box::new(guest));
        let leaving = Leaving { floor: self.clone(), id, _slot: slot };
        tokio::task::spawn_local(async move {
            // Dropped last, also when the session panics.
            let _leaving = leaving;
            match session.run().await {
                End::ClientGone => tracing::debug!(session = id, "client closed the connection"),
                End::ServerEnded => tracing::info!(session = id, "server ended the session"),
                End::Told(error) => {
                    let (reason, message) = (error.facts().name, error.message());
                    tracing::info!(session = id, reason, %message, "session ended by the gate");
                }
            }
        });
    }

    /// Looks every tenant that is here up again, and whether its credential still counts. Costs as
    /// much as there are sessions, on a reload.
    fn reload(&self) {
        *self.env.settings.borrow_mut() = self.common.client.load();
        let catalog = self.common.catalog.load();
        self.refresh_all(&catalog);
        self.env.pools.reload(catalog.tenants().flat_map(Tenant::faces).chain(catalog.services()));
        self.hold_all();
        self.close_servers_of(catalog.tenants().filter(|it| it.state == TenantState::Paused));
    }

    /// Looks those up again who are of one of these tenants.
    fn change(&self, moved: &[Moved]) {
        let catalog = self.common.catalog.load();
        let changed: HashSet<&str> = moved.iter().filter_map(Moved::id).collect();
        for id in self.guests_of(&changed) {
            self.refresh(id, &catalog);
            if let Some(guest) = self.guests.borrow().get(&id) {
                self.hold(guest);
            }
        }
        self.env.pools.change(moved, &catalog);
        let after = moved.iter().filter_map(|moved| moved.after.as_ref());
        self.close_servers_of(after.filter(|it| it.state == TenantState::Paused));
    }

    /// The sessions of these tenants, and those of services that act for one of them.
    fn guests_of(&self, tenants: &HashSet<&str>) -> Vec<SessionId> {
        let guests = self.guests.borrow();
        let acts = |id: &SessionId| {
            let guest = guests.get(id);
            guest.is_some_and(|guest| tenants.contains(guest.serves().id.as_str()))
        };
        self.homes.borrow().of(tenants, acts)
    }

    fn refresh_all(&self, catalog: &Catalog) {
        let here: Vec<SessionId> = self.guests.borrow().keys().copied().collect();
        for id in here {
            self.refresh(id, catalog);
        }
    }

    /// Looks the tenant of one session up again, and whether its credential still counts.
    fn refresh(&self, id: SessionId, catalog: &Catalog) {
        let guests = self.guests.borrow();
        let Some(guest) = guests.get(&id) else { return };
        let tenant = guest.tenant.borrow().clone();
        // Whoever has a session is known.
        let kept = guest.keep(&tenant, catalog);
        let fresh = (kept == Some(true)).then(|| self.common.catalog.load());
        let catalog = fresh.as_deref().unwrap_or(catalog);
        let found = kept.and_then(|_| catalog.known_of_token(tenant.id.as_str()).cloned());
        self.look_after_acting(id, guest, catalog);
        match self.still(guest, found, catalog) {
            Ok(found) if found.version == tenant.version && found.binds_as(&tenant) => {}
            Ok(found) => {
                *guest.tenant.borrow_mut() = found.clone();
                guest.shared.tell_news(Some(found));
            }
            Err(why) => self.revoke(id, guest, why),
        }
    }

    /// A session that acts for a tenant looks for itself whether it still may, before it begins
    /// anything. The transaction it is in has as long as that of any other client.
    fn look_after_acting(&self, id: SessionId, guest: &Guest, catalog: &Catalog) {
        let Some(tenant) = guest.shared.acts_for.borrow().clone() else { return };
        let known = catalog.known(tenant.id.as_str());
        let stands = known.is_some_and(|it| it.state != TenantState::Disabled)
            && !self.common.holds.load().disabled.covers(&tenant);
        let authenticator = self.common.authenticator.load();
        let shown = guest.shared.shows.borrow().clone();
        let counts = shown.as_ref().is_none_or(|shown| shown.stands(catalog, &authenticator))
            && known.is_some_and(|known| self.may_act(guest, known, shown.as_deref(), catalog));
        if guest.shared.phase.get() == Phase::Active {
            match (stands, counts) {
                (false, _) => self.revoke(id, guest, Error::Ended(Ending::TenantDisabled)),
                (_, false) => self.revoke(id, guest, Error::Ended(Ending::CredentialRevoked)),
                _ => {}
            }
        }
        guest.shared.tell_news(None);
    }

    /// Whether a service's session could choose today whom it acts for, by what it showed for the
    /// tenant or else by its name.
    fn may_act(
        &self,
        guest: &Guest,
        tenant: &Tenant,
        shown: Option<&Identity>,
        catalog: &Catalog,
    ) -> bool {
        let own = catalog.service(guest.tenant.borrow().id.as_str());
        let may = own.is_some_and(|own| guest.identity.may_act_for(own, tenant, shown));
        may && catalog.credentials().may_come(&tenant.id, &guest.peer)
    }

    /// The tenant as the session sees it today, or why it must end.
    fn still(
        &self,
        guest: &Guest,
        found: Option<Arc<Tenant>>,
        catalog: &Catalog,
    ) -> Result<Arc<Tenant>, Error> {
        let found = found.ok_or(Error::Ended(Ending::TenantEnded))?;
        let holds = self.common.holds.load();
        if found.state == TenantState::Disabled || holds.disabled.covers(&found) {
            return Err(Error::Ended(Ending::TenantDisabled));
        }
        let identity = &guest.identity;
        let counts = identity.stands(catalog, &self.common.authenticator.load())
            && identity.is_of_the_tenants_issuer(&found);
        // Where its clients may come from is asked as at the login.
        let counts = counts && catalog.credentials().may_come(&found.id, &guest.peer);
        let seen = found.seen_under(&identity.face, &holds).filter(|_| counts);
        seen.ok_or(Error::Ended(Ending::CredentialRevoked))
    }

    /// Ends the sessions whose credentials are past their time, and the transactions of those
    /// that have been for a while.
    fn expire(&self) {
        // No clock is read where there is nothing to end.
        if !self.expiries.borrow().is_empty() {
            let now = SystemTime::now();
            while let Some(id) = pop_due(&self.expiries, now) {
                if let Some(guest) = self.guests.borrow().get(&id) {
                    self.revoke(id, guest, Error::Ended(Ending::CredentialExpired));
                }
            }
        }
        if !self.graces.borrow().is_empty() {
            let now = Instant::now();
            while let Some(id) = pop_due(&self.graces, now) {
                if let Some(guest) = self.guests.borrow().get(&id) {
                    guest.shared.end_now();
                }
            }
        }
    }

    /// Ends a session whose credential or tenant is no more.
    fn revoke(&self, id: SessionId, guest: &Guest, why: Error) {
        if guest.shared.ending.borrow().is_some() {
            return;
        }
        let event = Event::new(What::Revocation).session(id).peer(&guest.peer);
        let event = event.tenant(guest.tenant.borrow().id.as_str()).reason(why.facts().name);
        self.common.audit.record(&event.credential(&guest.identity.credential));
        let grace = self.env.settings.borrow().credential_grace;
        guest.shared.end(why, grace.is_zero());
        // A time past all reckoning is no end.
        if let Some(until) = Instant::now().checked_add(grace).filter(|_| !grace.is_zero()) {
            self.graces.borrow_mut().insert((until, id));
        }
    }

    fn tell_if_empty(&self) {
        if !self.guests.borrow().is_empty() {
            return;
        }
        for done in self.waiting.borrow_mut().drain(..) {
            self.env.pools.close();
            // The one who asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

/// The next session whose time has come.
fn pop_due<T: Copy + Ord>(due: &RefCell<BTreeSet<(T, SessionId)>>, now: T) -> Option<SessionId> {
    let mut due = due.borrow_mut();
    let (_, id) = due.first().copied().filter(|(at, _)| *at <= now)?;
    due.pop_first();
    Some(id)
}

/// Sessions by the tenant they logged in as: who is of a tenant is found without a look at others.
#[derive(Default)]
struct Homes {
    tenants: HashMap<TenantId, HashSet<SessionId>>,
    /// Those of services, which act for tenants of their choice.
    services: HashSet<SessionId>,
}

impl Homes {
    fn enter(&mut self, id: SessionId, tenant: &TenantId, is_service: bool) {
        match is_service {
            true => self.services.insert(id),
            false => self.tenants.entry(tenant.clone()).or_default().insert(id),
        };
    }

    fn leave(&mut self, id: SessionId, tenant: &TenantId) {
        self.services.remove(&id);
        if let Some(sessions) = self.tenants.get_mut(tenant) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// The sessions of these tenants, and of services those that `acts` says act for one.
    fn of(&self, tenants: &HashSet<&str>, acts: impl Fn(&SessionId) -> bool) -> Vec<SessionId> {
        let own = tenants.iter().filter_map(|id| self.tenants.get(*id)).flatten();
        own.chain(self.services.iter().filter(|id| acts(id))).copied().collect()
    }
}

/// Takes a session off its worker's list when it is over, however it ended.
struct Leaving {
    floor: Rc<Floor>,
    id: SessionId,
    _slot: Slot,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let gone = self.floor.guests.borrow_mut().remove(&self.id);
        if let Some(guest) = gone {
            self.floor.homes.borrow_mut().leave(self.id, &guest.tenant.borrow().id);
            if let Some(at) = guest.identity.expires_at {
                self.floor.expiries.borrow_mut().remove(&(at, self.id));
            }
        }
        self.floor.tell_if_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a lease: closing what it holds takes a task.
    struct ClosesInATask;

    impl Drop for ClosesInATask {
        fn drop(&mut self) {
            tokio::task::spawn_local(async {});
        }
    }

    #[test]
    fn a_thread_that_panics_unwinds_with_all_its_tasks() {
        let ended = thread::spawn(|| {
            let (arbiters, _) = Arbiters::new(1);
            let _lost = Lost { index: 0, arbiters };
            let builder = &mut Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(Default::default()).unwrap();
            runtime.block_on(async {
                let leased = ClosesInATask;
                tokio::task::spawn_local(async move {
                    let _leased = leased;
                    std::future::pending::<()>().await;
                });
                tokio::task::yield_now().await;
                panic!("as if the worker were broken");
            });
        });
        assert!(ended.join().is_err());
    }

    #[test]
    fn a_change_looks_at_the_sessions_of_its_tenants_and_at_those_of_services() {
        let mut homes = Homes::default();
        let tenants: Vec<TenantId> =
            (0..100).map(|id| TenantId::new(&format!("t{id}")).unwrap()).collect();
        for session in 0..1_000 {
            homes.enter(session, &tenants[session as usize % 100], session >= 995);
        }
        let looked = Cell::new(0);
        let of = |homes: &Homes, ids: &[&str]| {
            let acts = |id: &SessionId| {
                looked.set(looked.get() + 1);
                *id == 999
            };
            let mut found = homes.of(&ids.iter().copied().collect(), acts);
            found.sort_unstable();
            found
        };
        assert_eq!(of(&homes, &["t7", "gone"]).len(), 11);
        assert_eq!(looked.get(), 5);
        for session in (7..1_000).step_by(100).chain(996..1_000) {
            homes.leave(session, &tenants[session as usize % 100]);
        }
        assert!(of(&homes, &["t7"]).is_empty());
        assert_eq!(looked.get(), 6);
        assert!(homes.tenants.len() == 99 && homes.services.len() == 1);
    }

    #[test]
    fn what_panics_on_a_worker_ends_alone() {
        contained("a test", || panic!("as if an order were broken"));
    }
}
