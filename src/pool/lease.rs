//! [`Lease`]: the right to one bound server connection. Parking it gives it back; dropping it in
//! any other way closes it, because then nobody can say in which state it is.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::budget::ServerSlot;
use crate::catalog::TenantId;
use crate::net::Connection;
use crate::pool::arbiter::{Place, tenant_key};
use crate::pool::{Counts, Idle, LeaseFacts, Parked, Pool, SessionId, Want, count};
use crate::server::{Bound, Server, retire, watch};
use crate::wire::frame::{self, Header};

/// A leased server connection.
#[derive(Debug)]
pub struct Lease {
    pub(super) held: Option<Held>,
    pub(super) pool: Rc<Pool>,
    pub(super) slot: ServerSlot,
    session: SessionId,
    tenant: TenantId,
    pub(super) since: Instant,
    /// When the wait for it began; the same if there was none.
    pub(super) asked: Instant,
    /// Something ran on it that may have left a trace in the server's session.
    pub(super) trace: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) bound: Box<Bound>,
    pub(super) place: Place,
}

impl Lease {
    /// Boxed, so that whoever holds it across an await is small.
    pub(super) fn new(
        pool: &Rc<Pool>,
        bound: Box<Bound>,
        place: Place,
        slot: ServerSlot,
        want: Want<'_>,
    ) -> Box<Self> {
        let tenant = want.tenant.id.clone();
        let facts = bound.facts().clone();
        let shown = LeaseFacts { facts, session: want.session, tenant: tenant.clone() };
        pool.leased.borrow_mut().push(shown);
        let since = Instant::now();
        Box::new(Self {
            held: Some(Held { bound, place }),
            pool: pool.clone(),
            slot,
            session: want.session,
            tenant,
            since,
            asked: since,
            trace: false,
        })
    }

    pub(super) fn with_trace(mut self: Box<Self>, trace: bool) -> Box<Self> {
        self.trace = trace;
        self
    }

    /// The server connection. `None` never happens before the lease ends; callers close on it.
    #[inline]
    pub fn bound(&mut self) -> Option<&mut Bound> {
        self.held.as_mut().map(|held| &mut *held.bound)
    }

    /// When it began.
    #[inline]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether somebody waits for a server of this cluster, or for what the tenant may have of it.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.pool.is_wanted() || self.pool.cluster.capped.holds(&self.tenant)
    }

    /// Notes that something may have left a trace, so that only this session may go on without a
    /// scrub.
    #[inline]
    pub fn leaves_trace(&mut self) {
        self.trace = true;
    }

    /// The session that used a server process of the same pool last: see [`Pool::user_of`].
    pub fn user_of(&self, pid: i32) -> Option<i32> {
        self.pool.user_of(pid)
    }

    /// Whether something ran since its last scrub that may have left a trace.
    pub fn has_trace(&self) -> bool {
        self.trace
    }

    /// Gives the server back, bound as it is. The caller has seen that it is ready, outside a
    /// transaction, and that nothing is in flight. With `stays` the session may have it again as it
    /// is; without, whoever is next gets it scrubbed.
    pub fn park(self: Box<Self>, stays: bool) {
        self.park_timed(stays);
    }

    /// The same. How long it was since the server was asked for.
    pub fn park_timed(mut self: Box<Self>, stays: bool) -> Duration {
        let Some(Held { bound, mut place }) = self.held.take() else { return Duration::ZERO };
        let pool = self.pool.clone();
        let cluster = pool.cluster.clone();
        let now = Instant::now();
        let spent = now.duration_since(self.since).as_micros() as u64;
        let took = now.duration_since(self.asked);
        self.slot.book(spent);
        let lifetime = cluster.settings.borrow().server_lifetime;
        let old = now.duration_since(bound.facts().since) >= lifetime;
        if old || pool.is_outdated(bound.facts()) || cluster.is_exceeded() {
            place.was_of(self.slot.account());
            pool.sheds(bound.facts());
            cluster.close_bound(*bound, place);
            return took;
        }
        let session = if stays { self.session } else { SessionId::MAX };
        let harmless = !self.trace && stays;
        let tenant = self.tenant.clone();
        let idle = Idle { server: bound, place, since: now, fresh: false };
        pool.shelve_parked(Parked { idle, session, tenant, harmless });
        let account = tenant_key(self.slot.account());
        drop(self);
        if pool.is_wanted() {
            cluster.pump_after(Some(account));
        }
        took
    }
}

impl Lease {
    fn book_time(&self) {
        let spent = self.since.elapsed().as_micros() as u64;
        self.slot.book(spent);
    }

    /// Gives the server back and has it closed. The same must hold as for [`Self::park`].
    pub fn close(mut self) {
        let Some(Held { bound, mut place }) = self.held.take() else { return };
        self.book_time();
        place.was_of(self.slot.account());
        self.pool.cluster.close_bound(*bound, place);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let session = self.session;
        let mut leased = self.pool.leased.borrow_mut();
        if let Some(at) = leased.iter().position(|lease| lease.session == session) {
            leased.swap_remove(at);
        }
        drop(leased);
        if let Some(Held { bound, mut place }) = self.held.take() {
            self.book_time();
            place.was_of(self.slot.account());
            // The pool lives until it is gone: see `Pool::at_work_for`.
            let (pool, server) = (self.pool.clone(), bound.into_server());
            tokio::task::spawn_local(async move {
                close(server, place, true, &pool.cluster.counts).await;
            });
        }
    }
}

/// Closes a server in a task of its own; its place is free when it is gone.
pub fn close_soon(server: Server, place: Place, busy: bool, counts: Rc<Counts>) {
    tokio::task::spawn_local(async move { close(server, place, busy, &counts).await });
}

/// Closes a server and gives its place back.
pub async fn close(mut server: Server, place: Place, busy: bool, counts: &Counts) {
    let gone = retire(&mut server, busy).await;
    drop(place);
    if !gone {
        count(&counts.abandoned);
        tracing::warn!("a server connection did not end in time, its place is given back");
        // It may still write: until it is gone nobody who used it is at rest.
        watch(&mut server).await;
    }
}

/// Whether an idle server is still there and has said nothing but what it may say at any time. Not
/// a question to the server: one look at what its socket holds.
pub fn is_quiet(connection: &mut Connection) -> bool {
    if connection.is_silent() {
        return true;
    }
    loop {
        match connection.poll_fill(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending if connection.input.is_empty() => return true,
            Poll::Pending | Poll::Ready(Ok(0) | Err(_)) => return false,
            Poll::Ready(Ok(_)) => {}
        }
        loop {
            match frame::header(connection.input.data()) {
                // A parameter that a reload of the server changed, a notice, a notification.
                Ok(Some(Header { tag: b'S' | b'N' | b'A', length }))
                    if length <= connection.input.len() =>
                {
                    connection.input.consume(length);
                }
                Ok(None) if connection.input.is_empty() => break,
                _ => return false,
            }
        }
    }
}
