//! [`Line`]: who waits for a server connection of a cluster, by ticket. Whose turn it is the
//! arbiter says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::budget::{Account, Reservation, ServerSlot};
use crate::catalog::TenantId;
use crate::isolation::Context;
use crate::pool::acquire::{AcquireError, Granted};
use crate::pool::arbiter::{LaneId, Ticket, tenant_key};
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

/// Those who wait on one worker.
#[derive(Debug, Default)]
pub struct Line(BTreeMap<Ticket, Rc<Waiter>>);

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

    /// Where it stands in the arbiter's book.
    pub fn lane(&self) -> LaneId {
        LaneId { pool: self.pool.id, tenant: tenant_key(&self.account) }
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
        self.reservation.borrow_mut().take()?.redeem(self.pool.cluster.arbiter.number)
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

    /// Puts one in.
    pub fn join(&mut self, waiter: Rc<Waiter>) {
        self.0.insert(waiter.ticket, waiter);
    }

    /// Everybody, by time of arrival.
    pub fn all(&self) -> impl Iterator<Item = &Rc<Waiter>> {
        self.0.values()
    }

    /// The one with this ticket.
    pub fn get(&self, ticket: Ticket) -> Option<Rc<Waiter>> {
        self.0.get(&ticket).cloned()
    }

    /// Takes one out. False if it was not in.
    pub fn remove(&mut self, waiter: &Waiter) -> bool {
        self.0.remove(&waiter.ticket).is_some()
    }

    /// The first who waits for one pool.
    pub fn first_for(&self, pool: &Pool) -> Option<Rc<Waiter>> {
        self.0.values().find(|it| std::ptr::eq(&*it.pool, pool)).cloned()
    }

    /// Whether anybody waits for one pool.
    pub fn waits_for(&self, pool: &Pool) -> bool {
        self.first_for(pool).is_some()
    }

    /// Tickets of those who wait for one pool.
    pub fn waiting_for(&self, pool: &Pool) -> Vec<Ticket> {
        let of_pool = self.0.values().filter(|it| std::ptr::eq(&*it.pool, pool));
        of_pool.map(|waiter| waiter.ticket).collect()
    }

    /// Sessions of those who wait, by time of arrival.
    #[cfg(test)]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.0.values().map(|waiter| waiter.session).collect()
    }
}
