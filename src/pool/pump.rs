//! Who waits and what there is for them: [`ClusterPools::pump`] brings the two together, first come
//! first served.

use std::rc::Rc;

use crate::budget::{Limits, ServerSlot};
use crate::pool::acquire::{AcquireError, Grant};
use crate::pool::arbiter::{HEAD_START, Place, Take};
use crate::pool::lease::close_soon;
use crate::pool::line::Waiter;
use crate::pool::{ClusterPools, Idle, Pool, count};
use crate::server::{Bound, Clean};

/// What was done for one who found nothing.
#[derive(Debug)]
pub(super) enum Procured {
    /// Something is on its way.
    Underway,
    /// It is not in line any more.
    Gone,
    /// There is no way yet.
    Nothing,
}

impl ClusterPools {
    /// Puts one in line if its tenant may have one more server and nobody of the tenant waits for
    /// that; else behind those.
    pub(super) fn join(self: &Rc<Self>, waiter: &Rc<Waiter>, limits: &Limits) {
        let behind = self.capped.holds(&waiter.tenant);
        let reservation = if behind { None } else { waiter.account.reserve(limits) };
        match reservation {
            Some(reservation) => {
                waiter.reserve(reservation);
                self.enter(waiter);
            }
            None => self.cap(waiter, limits),
        }
    }

    /// Puts one in line who has a slot.
    pub(super) fn enter(&self, waiter: &Rc<Waiter>) {
        self.line.borrow_mut().join(waiter.clone());
        self.arbiter.join(waiter.pool.id, &waiter.pool.plan, waiter.ticket);
    }

    /// Takes one out, wherever it waits; its slot is another's if it is dropped.
    pub(super) fn forget(&self, waiter: &Waiter) -> Option<ServerSlot> {
        if self.line.borrow_mut().remove(waiter) {
            self.arbiter.leave(waiter.pool.id, waiter.ticket);
        } else if !self.leave_aside(waiter) {
            self.capped.remove(waiter);
        }
        waiter.take_slot()
    }

    /// Looks who waits and what there is for them. Ends at the first for whom there is nothing when
    /// nothing is left, however many stand behind.
    pub fn pump(self: &Rc<Self>) {
        let mut at = 0;
        loop {
            let Some(waiter) = self.line.borrow().get(at) else { break };
            self.give(Some(waiter.ticket));
            if let Some(grant) = self.find_for(&waiter) {
                // Who stands in line has a slot, so it is never the server that goes back for want
                // of one.
                let Some(slot) = self.forget(&waiter) else {
                    waiter.pool.take_back(grant);
                    continue;
                };
                // Who gave up in this moment leaves the server to the next in line.
                if let Err(Some(back)) = waiter.answer(Ok((grant, slot))) {
                    waiter.pool.take_back(back.0);
                }
            } else {
                match self.procure(&waiter) {
                    Procured::Underway => at += 1,
                    Procured::Gone => {}
                    Procured::Nothing => break,
                }
            }
        }
        self.give(None);
    }

    /// As [`Self::pump`], once whoever runs now is done: it may hold a borrow of what pump reads.
    pub(super) fn pump_soon(&self) {
        if !self.line.borrow().is_empty() || self.asked.get() {
            self.arbiter.tell(self.worker);
        }
    }

    fn find_for(&self, waiter: &Waiter) -> Option<Grant> {
        let pool = &waiter.pool;
        if let Some(parked) = pool.take_parked(|parked| parked.fits(waiter)) {
            return Some(Grant::Parked(parked));
        }
        if let Some(clean) = pool.pop_clean() {
            return Some(Grant::Clean(clean));
        }
        // One that lingers for a session is taken from it only if no other may be opened, or if
        // the session has been quiet for longer than it is given.
        let oldest = pool.longest_parked()?;
        if oldest.elapsed() < self.settings.borrow().linger && self.arbiter.has_room() {
            return None;
        }
        let taken = pool.take_parked(|parked| parked.idle.since == oldest)?;
        count(&self.counts.by_rebind);
        Some(Grant::Parked(taken))
    }

    /// Sees to it that something is on its way to one who found nothing: a new connection, or the
    /// place of an idle server of another pool. Unless its hosts are down.
    fn procure(self: &Rc<Self>, waiter: &Rc<Waiter>) -> Procured {
        let pool = &waiter.pool;
        if !self.may_connect(waiter) {
            return Procured::Gone;
        }
        match self.arbiter.take(pool.id, waiter.ticket) {
            Take::Covered => Procured::Underway,
            Take::Place(place) => match self.admit(waiter) {
                Some(trial) => {
                    pool.start_connecting(place, trial);
                    Procured::Underway
                }
                // The place is the next one's.
                None => Procured::Gone,
            },
            Take::Later => {
                self.look_again();
                Procured::Nothing
            }
            Take::Full { alone } => {
                if self.arbiter.ask_elder(self.worker, self.longest_idle()) {
                    // It may be in use again by now: then one of our own goes, in a moment.
                    self.look_again();
                    return Procured::Nothing;
                }
                if let Some((server, mut place)) = self.pop_idle() {
                    place.carry(self.arbiter.pledge(pool.id));
                    close_soon(server, place, false, self.counts.clone());
                    return Procured::Underway;
                }
                match alone {
                    true => self.arbiter.ask(self.worker),
                    false => self.ask_soon(),
                }
                Procured::Nothing
            }
        }
    }

    /// Asks the other workers, unless one of our own servers comes free in the meantime.
    fn ask_soon(self: &Rc<Self>) {
        if self.asking.replace(true) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            this.clock.sleep(HEAD_START).await;
            this.asking.set(false);
            this.arbiter.ask(this.worker);
        });
    }

    /// Looks again when a server that lingers may be taken: who came first on another worker may
    /// have had the last place meanwhile, and nobody tells this one.
    fn look_again(self: &Rc<Self>) {
        if self.looking.replace(true) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let linger = this.settings.borrow().linger;
            this.clock.sleep(linger.max(HEAD_START)).await;
            this.looking.set(false);
            this.pump();
        });
    }

    /// Tells the first who waits for this pool that it cannot be served.
    pub(super) fn fail_one(self: &Rc<Self>, pool: &Pool, error: AcquireError) {
        let first = self.line.borrow().first_for(pool);
        let aside = self.aside.borrow();
        let of_pool = aside.iter().filter(|it| std::ptr::eq(&*it.pool, pool));
        let first = first.into_iter().chain(of_pool.cloned()).min_by_key(|it| it.ticket);
        drop(aside);
        if let Some(waiter) = first {
            drop(self.forget(&waiter));
            // Who gave up in this moment need not know.
            let _ = waiter.answer(Err(error));
        }
    }

    pub(super) fn close_clean(&self, idle: Idle<Clean>) {
        close_soon(idle.server.into_server(), idle.place, false, self.counts.clone());
    }

    pub(super) fn close_bound(&self, bound: Bound, place: Place) {
        close_soon(bound.into_server(), place, false, self.counts.clone());
    }
}

impl Pool {
    /// Puts back what was granted to one who was gone.
    pub(super) fn take_back(self: &Rc<Self>, grant: Grant) {
        match grant {
            Grant::Clean(idle) => self.shelve_clean(idle),
            Grant::Parked(parked) => self.shelve_parked(parked),
        }
    }
}
