//! [`Line`]: who waits for a server connection of a cluster, in order of arrival.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::budget::{Account, Limits};
use crate::isolation::Context;
use crate::pool::acquire::{AcquireError, Grant};
use crate::pool::{Pool, SessionId};
use crate::server::Settings;

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiter {
    pub pool: Rc<Pool>,
    pub session: SessionId,
    pub context: Arc<Context>,
    pub settings: Rc<Settings>,
    pub account: Arc<Account>,
    pub limits: Limits,
    pub since: Instant,
    reply: RefCell<Option<oneshot::Sender<Result<Grant, AcquireError>>>>,
}

/// What a waiter is made of, apart from where its answer goes.
#[derive(Debug, Default)]
pub struct Line(VecDeque<Rc<Waiter>>);

impl Waiter {
    /// A waiter and where its answer will come.
    pub fn new(
        pool: &Rc<Pool>,
        want: &crate::pool::Want<'_>,
    ) -> (Rc<Self>, oneshot::Receiver<Result<Grant, AcquireError>>) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Self {
            pool: pool.clone(),
            session: want.session,
            context: want.tenant.context.clone(),
            settings: want.settings.clone(),
            account: want.account.clone(),
            limits: want.tenant.limits.clone(),
            since: Instant::now(),
            reply: RefCell::new(Some(sender)),
        };
        (Rc::new(waiter), receiver)
    }

    /// Answers; what could not be delivered comes back.
    pub fn answer(&self, grant: Result<Grant, AcquireError>) -> Result<(), Option<Box<Grant>>> {
        match self.reply.borrow_mut().take() {
            Some(reply) => reply.send(grant).map_err(|back| back.ok().map(Box::new)),
            None => Err(grant.ok().map(Box::new)),
        }
    }

    /// Whether the one who waited is gone or was answered.
    pub fn is_over(&self) -> bool {
        self.reply.borrow().as_ref().is_none_or(oneshot::Sender::is_closed)
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

    /// Takes out those who gave up or were answered.
    pub fn sweep(&mut self) {
        self.0.retain(|waiter| !waiter.is_over());
    }

    /// Everybody who waits, first come first.
    pub fn waiters(&self) -> Vec<Rc<Waiter>> {
        self.0.iter().cloned().collect()
    }

    /// How many wait for one pool.
    pub fn waiting_for(&self, pool: &Pool) -> usize {
        self.0.iter().filter(|it| !it.is_over() && std::ptr::eq(&*it.pool, pool)).count()
    }

    /// The longest wait for one pool.
    pub fn longest_wait(&self, pool: &Pool) -> Duration {
        let mut of_pool = self.0.iter().filter(|it| std::ptr::eq(&*it.pool, pool));
        of_pool.next().map(|it| it.since.elapsed()).unwrap_or_default()
    }
}
