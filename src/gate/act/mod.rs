//! The console's orders, carried out at the desk. What takes as long as transactions do is waited
//! for in a task of its own: the desk goes on answering.

mod changes;
mod moves;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

pub use crate::gate::act::changes::note_changes;
pub use crate::gate::act::moves::Moves;

use crate::catalog::{Holds, Scope, Tenant, TenantState};
use crate::console::{Act, Done, Fault, Target, Wait};
use crate::gate::desk::{Desk, Stop};
use crate::gate::holds::{look_up, resolve};
use crate::gate::worker::{self, Errand, KILL_WAIT, Order, Worker};

impl Desk {
    /// Carries an order out and answers. `Some` if the process is to end now.
    pub async fn act(&self, act: Act, reply: oneshot::Sender<Done>) -> Option<Stop> {
        look_up(&act, &self.common).await;
        let done = match act {
            Act::Reload => self.reload().await.map(|fixed| self.notices(&fixed)),
            Act::Pause(target) => return self.pause(&target, reply),
            Act::Kill(target) => return self.kill(&target, reply),
            Act::KillClient(id) => return self.kill_client(id, reply),
            Act::Resume(target) => self.resume(&target),
            Act::Reconnect(target) => self.reconnect(&target).await,
            Act::Disable(target) => self.scope(&target).map(|scope| {
                self.replace_holds(|holds| holds.disabled.add(&scope));
                self.workers.iter().for_each(|worker| worker.order(Order::Reload));
                Vec::new()
            }),
            Act::Enable(target) => self.enable(&target),
            Act::ReadOnly(target) => self.read_only(&target, true),
            Act::ReadWrite(target) => self.read_only(&target, false),
            Act::Move(order) => return self.move_tenant(*order, reply),
            Act::Budget(order) => self.budget(*order),
            Act::Drain => return self.drain(reply),
            Act::Shutdown(wait) => return self.shutdown(wait, reply),
        };
        // The one who asked may have hung up, here and below.
        let _ = reply.send(done);
        None
    }

    /// What a reload could not do.
    fn notices(&self, fixed: &[String]) -> Vec<String> {
        let mut notices = Vec::new();
        if !fixed.is_empty() {
            notices.push(format!("only a restart applies: {}", fixed.join(", ")));
        }
        if self.table.as_ref().is_some_and(|table| !table.state.figures().connected) {
            let notice = "the catalog's tables are away: they are read when they are back";
            notices.push(notice.to_owned());
        }
        notices
    }

    fn scope(&self, target: &Target) -> Result<Scope, Fault> {
        resolve(target, &self.common.composer.lock())
    }

    fn replace_holds(&self, change: impl FnOnce(&mut Holds)) {
        let mut holds = Holds::clone(&self.common.holds.load());
        change(&mut holds);
        self.common.holds.replace(holds);
    }

    fn errands(&self, errand: impl Fn() -> Errand) {
        send(&self.workers, errand);
    }

    /// Tells the workers that the holds changed; their answers come when nothing held runs.
    fn hold(&self) -> Vec<oneshot::Receiver<()>> {
        ask(&self.workers, Errand::Hold)
    }

    fn pause(&self, target: &Target, reply: oneshot::Sender<Done>) -> Option<Stop> {
        match self.scope(target) {
            Ok(scope) => {
                self.replace_holds(|holds| holds.paused.add(&scope));
                let held = self.hold();
                tokio::spawn(async move {
                    worker::all(held).await;
                    let _ = reply.send(Ok(Vec::new()));
                });
            }
            Err(fault) => drop(reply.send(Err(fault))),
        }
        None
    }

    fn kill(&self, target: &Target, reply: oneshot::Sender<Done>) -> Option<Stop> {
        match self.scope(target) {
            Ok(scope) => {
                // Paused first, so that nobody starts anew.
                self.replace_holds(|holds| holds.paused.add(&scope));
                let killed = ask(&self.workers, |done| Errand::Kill(scope.clone(), done));
                let held = self.hold();
                tokio::spawn(async move {
                    let all = async { tokio::join!(worker::all(killed), worker::all(held)) };
                    let gone = tokio::time::timeout(KILL_WAIT, all).await;
                    let mut notices = vec!["requests wait until RESUME".to_owned()];
                    if gone.is_err() {
                        notices.push("some connections are still being closed".to_owned());
                    }
                    let _ = reply.send(Ok(notices));
                });
            }
            Err(fault) => drop(reply.send(Err(fault))),
        }
        None
    }

    async fn reconnect(&self, target: &Target) -> Done {
        let scope = self.scope(target)?;
        worker::all(ask(&self.workers, |done| Errand::Reconnect(scope.clone(), done))).await;
        Ok(Vec::new())
    }

    fn kill_client(&self, id: u64, reply: oneshot::Sender<Done>) -> Option<Stop> {
        let answers = ask(&self.workers, |done| Errand::KillClient(id, done));
        tokio::spawn(async move {
            let mut done = Err(Fault::UnknownClient { id });
            for answer in answers {
                match tokio::time::timeout(KILL_WAIT, answer).await {
                    Ok(Ok(())) => done = Ok(Vec::new()),
                    Err(_) => done = Ok(vec!["the connection is still being closed".to_owned()]),
                    // It is not at this worker.
                    Ok(Err(_)) => {}
                }
            }
            let _ = reply.send(done);
        });
        None
    }

    fn resume(&self, target: &Target) -> Done {
        let scope = self.scope(target)?;
        let mut resumed = false;
        self.replace_holds(|holds| resumed = holds.paused.remove(&scope));
        if let Scope::Tenant(id) = &scope
            && !resumed
        {
            // Nothing else holds it back than a move, or one that was left in doubt.
            resumed = self.moves.call_off(id);
            if !resumed {
                self.replace_holds(|holds| resumed = holds.moving.remove(&scope));
            }
        }
        if scope == Scope::All && self.draining.replace(false) {
            resumed = true;
            self.common.stopping.store(false, Ordering::Relaxed);
            self.ready.store(true, Ordering::Relaxed);
            self.errands(|| Errand::Reopen);
        }
        drop(self.hold());
        match resumed {
            true => Ok(Vec::new()),
            false => {
                let what = match subject(target, &scope) {
                    Some(subject) => format!("{subject} is not paused"),
                    None => "nothing is paused".to_owned(),
                };
                Err(Fault::OutOfPlace { what })
            }
        }
    }

    fn enable(&self, target: &Target) -> Done {
        let scope = self.scope(target)?;
        let mut enabled = false;
        self.replace_holds(|holds| enabled = holds.disabled.remove(&scope));
        let catalog = self.common.catalog.load();
        let by_settings =
            catalog.tenants().any(|it| scope.covers(it) && it.state == TenantState::Disabled);
        match (enabled, by_settings) {
            (true, false) => Ok(Vec::new()),
            (true, true) => Ok(vec!["the settings still disable it".to_owned()]),
            (false, true) => {
                let what = "the settings disable it: change them and RELOAD".to_owned();
                Err(Fault::OutOfPlace { what })
            }
            (false, false) => {
                let subject = subject(target, &scope).unwrap_or_default();
                Err(Fault::OutOfPlace { what: format!("{subject} is not disabled") })
            }
        }
    }

    /// What begins from here on does not write, or may again.
    fn read_only(&self, target: &Target, on: bool) -> Done {
        let scope = self.scope(target)?;
        let mut undone = true;
        self.replace_holds(|holds| match on {
            true => holds.read_only.add(&scope),
            false => undone = holds.read_only.remove(&scope),
        });
        self.workers.iter().for_each(|worker| worker.order(Order::Recheck));
        let catalog = self.common.catalog.load();
        let settings = |it: &&Arc<Tenant>| scope.covers(it) && it.state == TenantState::ReadOnly;
        match (on, undone, catalog.tenants().any(|it| settings(&it))) {
            (true, ..) | (false, true, false) => Ok(Vec::new()),
            (false, true, true) => Ok(vec!["the settings still have it read-only".to_owned()]),
            (false, false, _) => {
                let subject = subject(target, &scope).unwrap_or_default();
                let what = format!("READ_ONLY was not said of {subject}");
                Err(Fault::OutOfPlace { what })
            }
        }
    }

    fn drain(&self, reply: oneshot::Sender<Done>) -> Option<Stop> {
        self.draining.set(true);
        self.common.stopping.store(true, Ordering::Relaxed);
        self.ready.store(false, Ordering::Relaxed);
        let empty = ask(&self.workers, Errand::Drain);
        tokio::spawn(async move {
            worker::all(empty).await;
            let _ = reply.send(Ok(Vec::new()));
        });
        None
    }

    fn shutdown(&self, wait: Wait, reply: oneshot::Sender<Done>) -> Option<Stop> {
        let _ = reply.send(Ok(Vec::new()));
        match wait {
            Wait::Nothing => Some(Stop { limit: Duration::ZERO }),
            Wait::Servers => Some(Stop { limit: self.drain_timeout.get() }),
            Wait::Clients => {
                // There is no way back: the process ends when the last client has left.
                self.draining.set(false);
                self.common.stopping.store(true, Ordering::Relaxed);
                self.ready.store(false, Ordering::Relaxed);
                let empty = ask(&self.workers, Errand::Empty);
                let stops = self.stops.clone();
                tokio::spawn(async move {
                    worker::all(empty).await;
                    // A desk that is gone has stopped already.
                    let _ = stops.send(Stop { limit: Duration::ZERO }).await;
                });
                None
            }
        }
    }
}

/// The target in words; `None` if it is everything.
fn subject(target: &Target, scope: &Scope) -> Option<String> {
    let (Target::Named(name) | Target::Tenant(name) | Target::Database(name)) = target else {
        return None;
    };
    let kind = if matches!(scope, Scope::Tenant(_)) { "tenant" } else { "database" };
    Some(format!("{kind} \"{}\"", name.escape_debug()))
}

fn send(workers: &Arc<Vec<Worker>>, errand: impl Fn() -> Errand) {
    workers.iter().for_each(|worker| worker.order(Order::Errand(errand())));
}

fn ask(
    workers: &Arc<Vec<Worker>>,
    errand: impl Fn(oneshot::Sender<()>) -> Errand,
) -> Vec<oneshot::Receiver<()>> {
    let one = |worker: &Worker| {
        let (done, answer) = oneshot::channel();
        worker.order(Order::Errand(errand(done)));
        answer
    };
    workers.iter().map(one).collect()
}
