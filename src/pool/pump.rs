//! Who waits and what there is for them: [`ClusterPools::pump`] brings the two together, in the
//! order that the arbiter says.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::budget::{Limits, ServerSlot, Share};
use crate::pool::acquire::{AcquireError, Grant};
use crate::pool::arbiter::{HEAD_START, Place, Rank, Take, TenantKey, Ticket};
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

/// Those for whom something is on its way, since somebody was served.
#[derive(Debug, Default)]
pub(super) struct Underway {
    /// The rank of the last of them, as it was.
    pub last: Option<Rank>,
    seen: BTreeSet<Ticket>,
}

impl Underway {
    /// Notes one. False if it was there already.
    pub fn is_new(&mut self, rank: Rank) -> bool {
        self.last = Some(rank);
        self.seen.insert(rank.ticket)
    }
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
                self.enter(waiter, waiter.account.share(limits));
            }
            None => self.cap(waiter, limits),
        }
    }

    /// Puts one in line who has a slot.
    pub(super) fn enter(&self, waiter: &Rc<Waiter>, share: Share) {
        self.line.borrow_mut().join(waiter.clone());
        let tenant = (&waiter.account, share);
        self.arbiter.join(waiter.lane(), &waiter.pool.plan, waiter.ticket, tenant);
    }

    /// Takes one out, wherever it waits; its slot is another's if it is dropped.
    pub(super) fn forget(&self, waiter: &Waiter) {
        drop(waiter.take_slot());
        if self.line.borrow_mut().remove(waiter) {
            if self.line.borrow().is_empty() {
                // Nobody is left who would only borrow.
                self.holds_back.set(false);
            }
            self.arbiter.leave(waiter.lane(), waiter.ticket, false);
        } else if !self.leave_aside(waiter) {
            self.capped.remove(waiter);
        }
    }

    /// Takes one out of the line who is served. Who stands there has a slot.
    fn serve(&self, waiter: &Waiter) -> Option<ServerSlot> {
        let slot = waiter.take_slot();
        self.line.borrow_mut().remove(waiter);
        self.arbiter.leave(waiter.lane(), waiter.ticket, slot.is_some());
        slot
    }

    /// Looks who waits and what there is for them. Ends at the first for whom there is nothing when
    /// nothing is left, however many stand behind.
    pub fn pump(self: &Rc<Self>) {
        self.pump_after(None);
    }

    /// The same, after a tenant has given a server back.
    pub(super) fn pump_after(self: &Rc<Self>, mut gave_back: Option<TenantKey>) {
        let mut underway = Underway::default();
        self.holds_back.set(false);
        while !self.line.borrow().is_empty() {
            let idle = self.idle.get() > 0;
            let after = underway.last;
            let (turn, holds_back) = self.arbiter.turn(self.worker, after, idle, gave_back.take());
            self.holds_back.set(holds_back);
            let Some(rank) = turn else { break };
            let Some(waiter) = self.line.borrow().get(rank.ticket) else {
                self.arbiter.end_turn(self.worker);
                break;
            };
            self.give(Some(rank));
            if let Some(grant) = self.find_for(&waiter) {
                let Some(slot) = self.serve(&waiter) else {
                    waiter.pool.take_back(grant);
                    continue;
                };
                // Who gave up in this moment leaves the server to the next in line.
                if let Err(Some(back)) = waiter.answer(Ok((grant, slot))) {
                    waiter.pool.take_back(back.0);
                }
                underway = Underway::default();
            } else {
                match self.procure(&waiter) {
                    Procured::Underway if underway.is_new(rank) => {}
                    // Others have moved its rank meanwhile: it would be its turn for ever.
                    Procured::Underway => break,
                    Procured::Gone => {}
                    Procured::Nothing => break,
                }
            }
        }
        if let Some(tenant) = gave_back {
            self.arbiter.gave_back(tenant);
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
        let lingers = oldest.elapsed() < self.settings.borrow().linger;
        if lingers && self.arbiter.has_room() && self.has_hosts(pool) {
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
        match self.arbiter.take(waiter.lane(), waiter.ticket) {
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
            Take::Full { at_once } => {
                if self.arbiter.ask_elder(self.worker, self.longest_idle()) {
                    // It may be in use again by now: then one of our own goes, in a moment.
                    self.look_again();
                    return Procured::Nothing;
                }
                if let Some((server, mut place)) = self.pop_idle() {
                    place.carry(self.arbiter.pledge(waiter.lane()));
                    close_soon(server, place, false, self.counts.clone());
                    return Procured::Underway;
                }
                match at_once {
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
        let aside = self.aside.borrow().first_of(pool);
        if let Some(waiter) = first.into_iter().chain(aside).min_by_key(|it| it.ticket) {
            self.forget(&waiter);
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
