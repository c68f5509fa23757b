//! [`Line`]: who waits for a server connection of a cluster, in order of arrival.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::budget::{Account, Limits, ServerSlot};
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
    /// Whether the arbiter knows of it: not while its tenant has all servers it may have.
    listed: Cell<bool>,
    pub session: SessionId,
    pub context: Arc<Context>,
    pub settings: Rc<Settings>,
    pub account: Arc<Account>,
    pub limits: Limits,
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
            listed: Cell::new(false),
            session: want.session,
            context: want.tenant.context.clone(),
            settings: want.settings.clone(),
            account: want.account.clone(),
            limits: want.tenant.limits.clone(),
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

    /// Whether its tenant may have one more server.
    pub fn may_lease(&self) -> bool {
        self.account.may_lease(&self.limits)
    }

    /// Takes one for its tenant.
    pub fn lease(&self) -> Option<ServerSlot> {
        self.account.lease(&self.limits)
    }

    /// Tells the arbiter whether it waits.
    pub fn list(&self, waits: bool) {
        if self.listed.replace(waits) == waits {
            return;
        }
        let arbiter = &self.pool.cluster.arbiter;
        match waits {
            true => arbiter.join(self.pool.id, &self.pool.plan, self.ticket),
            false => arbiter.leave(self.pool.id, self.ticket),
        }
    }
}

impl Line {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts one at the end.
    pub fn join(&mut self, waiter: Rc<Waiter>) {
        self.0.push_back(waiter);
    }

    /// The one at this place, from the front.
    pub fn get(&self, at: usize) -> Option<Rc<Waiter>> {
        self.0.get(at).cloned()
    }

    /// Takes one out, if it is still in.
    pub fn remove(&mut self, waiter: &Waiter) {
        // Tickets rise from front to back.
        if let Ok(at) = self.0.binary_search_by(|known| known.ticket.cmp(&waiter.ticket)) {
            self.0.remove(at);
        }
    }

    /// The first who waits for one pool.
    pub fn first_for(&self, pool: &Pool) -> Option<Rc<Waiter>> {
        self.0.iter().find(|it| std::ptr::eq(&*it.pool, pool)).cloned()
    }

    /// Whether anybody waits for one pool.
    pub fn waits_for(&self, pool: &Pool) -> bool {
        self.first_for(pool).is_some()
    }

    /// How many wait for one pool.
    pub fn waiting_for(&self, pool: &Pool) -> usize {
        self.0.iter().filter(|it| std::ptr::eq(&*it.pool, pool)).count()
    }

    /// The longest wait for one pool.
    pub fn longest_wait(&self, pool: &Pool) -> Duration {
        self.first_for(pool).map(|it| it.ticket.since.elapsed()).unwrap_or_default()
    }
}
