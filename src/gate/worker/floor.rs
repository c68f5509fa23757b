//! What lives on a worker, and how it obeys. What panics here ends alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::client::{self, End, Env, Life, Session};
use crate::error::Error;
use crate::gate::Common;
use crate::gate::worker::errand::Pending;
use crate::gate::worker::guest::Guest;
use crate::gate::worker::index::Index;
use crate::gate::worker::report::Report;
use crate::gate::worker::{Newcomer, Order, rows};
use crate::net::Buffers;
use crate::pool::{Mail, Pools, SessionId};

/// How often idle servers are looked after. Linger times are a few of these at most.
const TIDY_EVERY: Duration = Duration::from_millis(100);

/// Every how many rounds the counters go to the metrics: once a second.
const ROUNDS_PER_REPORT: u32 = 10;

/// What lives on a worker.
pub struct Floor {
    pub common: Arc<Common>,
    pub env: Rc<Env>,
    pub guests: RefCell<HashMap<SessionId, Rc<Guest>>>,
    report: RefCell<Report>,
    /// Who wants to know when the last session is gone.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    pub ending: Cell<bool>,
    pub pending: Pending,
    pub index: Index,
}

impl Floor {
    pub fn new(common: Arc<Common>, pools: impl FnOnce(&Buffers) -> Pools) -> Rc<Self> {
        let buffers = Buffers::default();
        let env = Env {
            pools: pools(&buffers),
            buffers,
            settings: RefCell::new(common.client.load()),
            epoch: common.epoch,
            counts: Rc::new(client::Counts::default()),
            readings: RefCell::default(),
            relays: client::Relays::default(),
            workplaces: client::Workplaces::default(),
            no_name: Rc::from([]),
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
            pending: Pending::default(),
            index: Index::default(),
        })
    }

    pub async fn work(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>, mail: Mail) {
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
                let _ = reply.send(rows::rows(self, parts));
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
        let id = arrival.entry.session;
        let (account, secure) = (arrival.account.clone(), arrival.stream.is_secure());
        let file = |papers| self.index.file(papers);
        let session = match Session::new(arrival, peer, &self.env, file) {
            Ok(session) => session,
            Err(error) => {
                tracing::warn!(session = id, %error, "a client was lost on its way to its worker");
                return;
            }
        };
        let papers = session.papers();
        let guest = Rc::new(Guest {
            floor: self.clone(),
            id,
            shared: session.shared(),
            tenant: RefCell::new(papers.identity.tenant.clone()),
            pin: RefCell::default(),
            account,
            peer,
            local,
            secure,
            since: SystemTime::now(),
            papers,
            _slot: slot,
        });
        self.hold(&guest);
        if self.ending.get() {
            guest.shared.end(Error::ShuttingDown, false);
        }
        self.index.enter(id, &guest);
        self.guests.borrow_mut().insert(id, guest.clone());
        tokio::task::spawn_local(Stay { life: session.run(), leaving: Leaving(guest) });
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

/// The task of a session. Every idle client has one, so it is kept small: see
/// `docs/decisions/idle.md`.
struct Stay {
    life: Life,
    /// Dropped last, also when the session panics.
    leaving: Leaving,
}

impl Future for Stay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let end = ready!(Pin::new(&mut self.life).poll(cx));
        let session = self.leaving.0.id;
        let tenant = self.leaving.0.tenant.borrow().id.clone();
        match end {
            End::ClientGone => tracing::debug!(session, "client closed the connection"),
            End::ServerEnded => {
                tracing::info!(session, %tenant, "server ended the session");
            }
            End::Told(error) => {
                let (reason, message) = (error.facts().name, error.message());
                tracing::info!(session, %tenant, reason, %message, "session ended by the gate");
            }
        }
        Poll::Ready(())
    }
}

/// Takes a session off its worker's list when it is over, however it ended.
struct Leaving(Rc<Guest>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let Guest { floor, id, .. } = &*self.0;
        if floor.guests.borrow_mut().remove(id).is_some() {
            floor.index.leave(*id, &self.0);
        }
        floor.tell_if_empty();
    }
}

/// Does something that must not take the worker with it if it panics.
fn contained(what: &str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("{what} ended in a panic, the worker goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Shared;

    /// Every idle client costs these, rounded up by the allocator, besides what the runtime keeps
    /// of its task (104 bytes, in steps of 128) and its socket (256): `docs/decisions/idle.md`.
    /// Boxes for what is rare keep them small.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_an_idle_session_keeps_is_small() {
        assert_eq!(size_of::<Stay>(), 24, "one byte more, and each task takes 128 more");
        assert!(size_of::<Session>() <= 520, "{}", size_of::<Session>());
        assert!(size_of::<Guest>() <= 176, "{}", size_of::<Guest>());
        assert!(size_of::<Shared>() <= 200, "{}", size_of::<Shared>());
    }

    #[test]
    fn what_panics_on_a_worker_ends_alone() {
        contained("a test", || panic!("as if an order were broken"));
    }
}
