//! A worker: one thread with its own runtime, on which sessions, their servers and those who wait
//! live without locks. It is sent orders; nothing else reaches it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::auth::Identity;
use crate::catalog::{Catalog, Tenant, TenantState};
use crate::client::{self, Arrival, End, Env, Session, Shared};
use crate::error::Error;
use crate::gate::Common;
use crate::gate::door::Slot;
use crate::gate::snapshot::{self, WorkerRows};
use crate::net::Buffers;
use crate::pool::{Pools, SessionId};

/// How often idle servers are looked after. Linger times are a few of these at most.
const TIDY_EVERY: Duration = Duration::from_millis(100);

/// Every how many rounds the counters go to the metrics: once a second.
const ROUNDS_PER_REPORT: u32 = 10;

/// A client on its way from the door.
pub struct Newcomer {
    pub arrival: Arrival,
    pub peer: SocketAddr,
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
    /// End every session: at its next transaction boundary, or now. Answered when all are gone.
    End {
        now: bool,
        done: oneshot::Sender<()>,
    },
    Snapshot(oneshot::Sender<WorkerRows>),
}

/// The handle others have on a worker.
pub struct Worker(mpsc::UnboundedSender<Order>);

impl Worker {
    /// Starts a worker's thread.
    pub fn start(index: usize, common: &Arc<Common>) -> io::Result<Self> {
        let (sender, orders) = mpsc::unbounded_channel();
        let common = common.clone();
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(Default::default()) {
                Ok(runtime) => runtime.block_on(Floor::new(common).work(orders)),
                Err(error) => tracing::error!(%error, "a worker could not start"),
            }
        })?;
        Ok(Self(sender))
    }

    /// Sends an order. A worker that is gone has no sessions, so nothing is lost.
    pub fn order(&self, order: Order) {
        let _ = self.0.send(order);
    }
}

/// What lives on a worker.
pub struct Floor {
    pub common: Arc<Common>,
    pub env: Rc<Env>,
    pub guests: Rc<RefCell<HashMap<SessionId, Guest>>>,
    report: RefCell<snapshot::Report>,
    /// Who wants to know when the last session is gone.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    ending: Cell<bool>,
}

/// A session, as its worker sees it from outside.
pub struct Guest {
    pub shared: Rc<Shared>,
    pub tenant: RefCell<Arc<Tenant>>,
    pub user: String,
    pub database: String,
    pub identity: Identity,
    pub peer: SocketAddr,
    pub local: Option<SocketAddr>,
    pub secure: bool,
    pub since: std::time::SystemTime,
}

impl Floor {
    fn new(common: Arc<Common>) -> Rc<Self> {
        let buffers = Buffers::default();
        let env = Env {
            pools: Pools::new(buffers.clone()),
            buffers,
            settings: common.client.clone(),
            epoch: common.epoch,
            counts: Rc::new(client::Counts::default()),
        };
        Rc::new(Self {
            common,
            env: Rc::new(env),
            guests: Rc::default(),
            report: RefCell::default(),
            waiting: RefCell::default(),
            ending: Cell::new(false),
        })
    }

    async fn work(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = 0_u32;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                _ = tidy.tick() => {
                    self.env.pools.tidy();
                    round = round.wrapping_add(1);
                    if round.is_multiple_of(ROUNDS_PER_REPORT) {
                        self.report.borrow_mut().send(&self);
                    }
                }
            }
        }
    }

    async fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Adopt(newcomer) => {
                let id = newcomer.arrival.entry.session;
                self.adopt(*newcomer);
                // The catalog may have changed since the door looked the tenant up.
                self.refresh(id, &self.common.catalog.load()).await;
            }
            Order::Cancel { session, done } => {
                if let Some(guest) = self.guests.borrow().get(&session) {
                    guest.shared.cancel(done);
                }
            }
            Order::Reload => self.reload().await,
            Order::Snapshot(reply) => {
                // The one who asked may be gone.
                let _ = reply.send(snapshot::rows(self));
            }
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
            user: arrival.wishes.user.clone(),
            database: arrival.wishes.database.clone(),
            identity: arrival.identity.clone(),
            peer,
            local,
            secure: arrival.stream.is_secure(),
            since: std::time::SystemTime::now(),
        };
        let id = arrival.entry.session;
        let session = match Session::new(arrival, &self.env) {
            Ok(session) => Box::new(session),
            Err(error) => {
                tracing::warn!(session = id, %error, "a client was lost on its way to its worker");
                return;
            }
        };
        let guest = Guest { shared: session.shared(), ..guest };
        if self.ending.get() {
            guest.shared.end(Error::ShuttingDown, false);
        }
        self.guests.borrow_mut().insert(id, guest);
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

    /// Looks every tenant that is here up again, and whether its token still counts. Costs as much
    /// as there are sessions, on a reload.
    async fn reload(&self) {
        let catalog = self.common.catalog.load();
        let here: Vec<SessionId> = self.guests.borrow().keys().copied().collect();
        for id in here {
            self.refresh(id, &catalog).await;
        }
        self.env.pools.reload(catalog.tenants());
    }

    /// Looks the tenant of one session up again.
    async fn refresh(&self, id: SessionId, catalog: &Catalog) {
        let tenant = self.guests.borrow().get(&id).map(|it| it.tenant.borrow().clone());
        let Some(tenant) = tenant else { return };
        let found = catalog.find(tenant.id.as_str()).await;
        let found = found.filter(|found| found.state == TenantState::Active);
        let guests = self.guests.borrow();
        let Some(guest) = guests.get(&id) else { return };
        let found = found.filter(|_| guest.identity.stands(catalog));
        match found {
            Some(found) if found.version == tenant.version => {}
            Some(found) => {
                *guest.tenant.borrow_mut() = found.clone();
                *guest.shared.news.borrow_mut() = Some(found);
                guest.shared.wake();
            }
            None => guest.shared.end(Error::TenantEnded, false),
        }
    }

    fn tell_if_empty(&self) {
        if !self.guests.borrow().is_empty() {
            return;
        }
        for done in self.waiting.borrow_mut().drain(..) {
            self.env.pools.close_idle();
            // The one who asked may have stopped waiting.
            let _ = done.send(());
        }
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
        self.floor.guests.borrow_mut().remove(&self.id);
        self.floor.tell_if_empty();
    }
}
