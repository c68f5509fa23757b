//! [`Line`]: who waits for a server connection of a cluster, in order of arrival.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::budget::{Account, Reservation, ServerSlot};
use crate::catalog::TenantId;
use crate::isolation::Context;
use crate::pool::acquire::{AcquireError, Granted};
use crate::pool::arbiter::Ticket;
use crate::pool::{Pool, SessionId};
use crate::server::Settings;

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiter {
    pub pool: Rc<Pool>,
    pub ticket: Ticket,
    pub tenant: TenantId,
    /// The slot of its tenant's, while it stands in line.
    reservation: RefCell<Option<Reservation>>,
    pub session: SessionId,
    pub context: Arc<Context>,
    pub settings: Rc<Settings>,
    pub account: Arc<Account>,
    reply: RefCell<Option<oneshot::Sender<Result<Granted, AcquireError>>>>,
}

/// What a waiter is made of, apart from where its answer goes.
#[derive(Debug, Default)]
pub struct Line(VecDeque<Rc<Waiter>>);

impl Waiter {
    /// A waiter and where its answer will come.
    pub fn new(
        pool: &Rc<Pool>,
        want: &crate::pool::Want<'_>,
    ) -> (Rc<Self>, oneshot::Receiver<Result<Granted, AcquireError>>) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Self {
            pool: pool.clone(),
            ticket: pool.cluster.ticket(),
            tenant: want.tenant.id.clone(),
            reservation: RefCell::default(),
            session: want.session,
            context: want.tenant.context.clone(),
            settings: want.settings.clone(),
            account: want.account.clone(),
            reply: RefCell::new(Some(sender)),
        };
        (Rc::new(waiter), receiver)
    }

    /// Answers; what could not be delivered comes back.
    pub fn answer(&self, grant: Result<Granted, AcquireError>) -> Result<(), Option<Box<Granted>>> {
        match self.reply.borrow_mut().take() {
            Some(reply) => reply.send(grant).map_err(|back| back.ok().map(Box::new)),
            None => Err(grant.ok().map(Box::new)),
        }
    }

    /// Keeps its tenant's slot for it.
    pub fn reserve(&self, reservation: Reservation) {
        *self.reservation.borrow_mut() = Some(reservation);
    }

    /// Takes the slot; what is dropped is its tenant's again.
    pub fn take_slot(&self) -> Option<ServerSlot> {
        self.reservation.borrow_mut().take()?.redeem()
    }
}

impl Line {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts one behind those who came earlier: at the end, unless it had to wait for a slot first.
    pub fn join(&mut self, waiter: Rc<Waiter>) {
        let at = self.0.partition_point(|known| known.ticket < waiter.ticket);
        self.0.insert(at, waiter);
    }

    /// The one at this place, from the front.
    pub fn get(&self, at: usize) -> Option<Rc<Waiter>> {
        self.0.get(at).cloned()
    }

    /// Takes one out. False if it was not in.
    pub fn remove(&mut self, waiter: &Waiter) -> bool {
        // Tickets rise from front to back.
        let found = self.0.binary_search_by(|known| known.ticket.cmp(&waiter.ticket));
        found.is_ok_and(|at| self.0.remove(at).is_some())
    }

    /// The first who waits for one pool.
    pub fn first_for(&self, pool: &Pool) -> Option<Rc<Waiter>> {
        self.0.iter().find(|it| std::ptr::eq(&*it.pool, pool)).cloned()
    }

    /// Whether anybody waits for one pool.
    pub fn waits_for(&self, pool: &Pool) -> bool {
        self.first_for(pool).is_some()
    }

    /// Tickets of those who wait for one pool.
    pub fn waiting_for(&self, pool: &Pool) -> Vec<Ticket> {
        let of_pool = self.0.iter().filter(|it| std::ptr::eq(&*it.pool, pool));
        of_pool.map(|waiter| waiter.ticket).collect()
    }
}
