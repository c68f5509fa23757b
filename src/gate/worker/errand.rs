//! What the console has workers do: pause, reconnect, kill, drain. A worker answers an errand when
//! it is done, which may take as long as transactions take.

use std::cell::RefCell;
use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::catalog::{Scope, Tenant};
use crate::error::Error;
use crate::gate::worker::floor::Floor;
use crate::gate::worker::guest::Guest;
use crate::gate::worker::still::Resting;
use crate::pool::{SessionId, verify};
use crate::server::ServerFacts;

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
    pub(super) leaving: RefCell<Vec<Weak<ServerFacts>>>,
    /// Who waits for a tenant to be at rest.
    resting: RefCell<Vec<Resting>>,
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
