//! Acquire: from "this session needs a server" to a lease on one that is bound to its tenant, in
//! named steps; the cheapest that is safe comes first.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Account;
use crate::catalog::Tenant;
use crate::pool::capacity::Place;
use crate::pool::lease::{self, Lease};
use crate::pool::line::Waiter;
use crate::pool::{ClusterPools, Idle, Parked, Pool, SessionId, count};
use crate::server::{BindError, Bound, Clean, Failed, Settings, connect};
use crate::wire::backend::ReadError;

/// Who needs a server, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Want<'want> {
    pub tenant: &'want Arc<Tenant>,
    pub account: &'want Arc<Account>,
    pub session: SessionId,
    pub settings: &'want Rc<Settings>,
    /// True while a server is being bound: whoever waits must not give up then.
    pub binding: &'want Cell<bool>,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum AcquireError {
    /// Nothing became free in time.
    Timeout(Duration),
    Unreachable,
    /// The cluster answered and refused, or its login is not fit; the log has the reason.
    Refused,
    /// The server did not accept what it was bound with.
    Bind(ReadError),
    /// The context could not be confirmed.
    Unverified,
    /// Connections died under the bind, twice in a row.
    Lost,
}

/// What a waiter gets: a server nobody else has.
#[derive(Debug)]
pub enum Grant {
    Clean(Idle<Clean>),
    Parked(Parked),
}

/// How often a connection that turns out dead before a client byte went out is replaced.
const ATTEMPTS: usize = 3;

impl Pool {
    /// A lease on a server bound to the tenant. Waits in line for at most the cluster's
    /// `query_wait`. Dropping the future leaves the line.
    pub async fn acquire(self: &Rc<Self>, want: Want<'_>) -> Result<Lease, AcquireError> {
        let mut started = None;
        for _ in 0..ATTEMPTS {
            if let Some(lease) = self.acquire_bound(want) {
                return Ok(lease);
            }
            let grant = match self.take_clean(want) {
                Some(grant) => grant,
                None => {
                    let started = *started.get_or_insert_with(Instant::now);
                    Box::pin(self.wait(want, started)).await?
                }
            };
            want.binding.set(true);
            let bound = self.take_into_use(grant, want).await;
            want.binding.set(false);
            match bound {
                Ok(lease) => return Ok(lease),
                Err(BindError::Io(error)) => {
                    tracing::debug!(%error, "a server connection was dead, taking another");
                }
                Err(error) => return Err(self.bind_failed(error, want)),
            }
        }
        Err(AcquireError::Lost)
    }

    /// Steps 1 and 2, which wait for nothing: the server that is still with this session, or one
    /// that is still with its context.
    pub fn acquire_bound(self: &Rc<Self>, want: Want<'_>) -> Option<Lease> {
        if !want.account.may_lease(&want.tenant.limits) {
            return None;
        }
        let counts = &self.cluster.counts;
        let (parked, counter) = match self.take_parked(|parked| parked.is_of_session(want)) {
            Some(parked) => (parked, &counts.by_session),
            None if self.is_wanted() => return None,
            None => (self.take_parked(|parked| parked.is_of_context(want))?, &counts.by_context),
        };
        count(counter);
        let Idle { server, place, .. } = parked.idle;
        Some(Lease::new(self, server, place, want).with_trace(!parked.harmless))
    }

    /// Step 3: a clean one, unless others are in line for it.
    fn take_clean(&self, want: Want<'_>) -> Option<Grant> {
        if self.is_wanted() || !want.account.may_lease(&want.tenant.limits) {
            return None;
        }
        let counts = &self.cluster.counts;
        let clean = take_alive(&mut self.clean.borrow_mut(), |idle| idle.server.connection())?;
        count(&counts.by_clean);
        Some(Grant::Clean(clean))
    }

    fn take_parked(&self, fits: impl Fn(&Parked) -> bool) -> Option<Parked> {
        let mut parked = self.parked.borrow_mut();
        let at = parked.iter().position(fits)?;
        let mut taken = parked.swap_remove(at);
        lease::is_quiet(taken.idle.server.connection()).then_some(taken)
    }

    /// Steps 4 to 6: connect, make room, wait.
    async fn wait(
        self: &Rc<Self>,
        want: Want<'_>,
        started: Instant,
    ) -> Result<Grant, AcquireError> {
        let (waiter, answer) = Waiter::new(self, &want);
        self.cluster.line.borrow_mut().join(waiter);
        self.cluster.pump();
        let limit = self.cluster.settings.borrow().query_wait;
        let rest = limit.saturating_sub(started.elapsed());
        let answered = tokio::time::timeout(rest, answer).await;
        let counts = &self.cluster.counts;
        counts.waited(started.elapsed());
        match answered {
            Ok(Ok(grant)) => {
                match grant {
                    Ok(Grant::Clean(Idle { fresh: true, .. })) => count(&counts.by_connect),
                    _ => count(&counts.by_wait),
                }
                grant
            }
            Ok(Err(_)) | Err(_) => {
                self.cluster.line.borrow_mut().sweep();
                Err(AcquireError::Timeout(started.elapsed()))
            }
        }
    }

    /// Binds what was granted, unless it is bound to just this.
    async fn take_into_use(
        self: &Rc<Self>,
        grant: Grant,
        want: Want<'_>,
    ) -> Result<Lease, BindError> {
        let counts = &self.cluster.counts;
        let limit = self.cluster.settings.borrow().scrub_timeout;
        let (context, settings) = (&want.tenant.context, want.settings);
        let (bound, place, harmless) = match grant {
            Grant::Parked(parked) if parked.is_of_session(want) || parked.is_of_context(want) => {
                (parked.idle.server, parked.idle.place, parked.harmless)
            }
            Grant::Parked(parked) => {
                let Idle { server, place, .. } = parked.idle;
                count(&counts.scrubs);
                count(&counts.binds);
                match server.rebind(context, settings, limit).await {
                    Ok(bound) => (bound, place, true),
                    Err(failed) => {
                        // Whose fault it is cannot be told: another server will tell.
                        count(&counts.scrub_failures);
                        let error = self.close_failed(failed, place);
                        tracing::warn!(%error, "could not scrub a server and bind it anew");
                        return Err(BindError::Io(io::Error::other(error)));
                    }
                }
            }
            Grant::Clean(idle) => {
                count(&counts.binds);
                match idle.server.bind(context, settings, limit).await {
                    Ok(bound) => (bound, idle.place, true),
                    Err(failed) => {
                        count(&counts.bind_failures);
                        return Err(self.close_failed(failed, idle.place));
                    }
                }
            }
        };
        Ok(Lease::new(self, bound, place, want).with_trace(!harmless))
    }

    /// Closes a server in an unknown state; its place is free when it is gone.
    pub(super) fn close_failed(&self, failed: Box<Failed>, place: Place) -> BindError {
        let Failed { error, server } = *failed;
        lease::close_soon(server, place, true, self.cluster.counts.clone());
        error
    }

    fn bind_failed(&self, error: BindError, want: Want<'_>) -> AcquireError {
        let (tenant, cluster) = (&want.tenant.id, &want.tenant.route.cluster.name);
        match error {
            // The client's own value, named in the error; the rest is not for its eyes.
            BindError::Refused(error) if names_a_setting(&error.message, want.settings) => {
                AcquireError::Bind(error)
            }
            error => {
                tracing::error!(%tenant, cluster, %error, "could not bind a server to its tenant");
                AcquireError::Unverified
            }
        }
    }

    /// Closes the servers nobody uses.
    pub fn close_idle(&self) {
        let clean = std::mem::take(&mut *self.clean.borrow_mut());
        clean.into_iter().for_each(|idle| self.cluster.close_clean(idle));
        let parked = std::mem::take(&mut *self.parked.borrow_mut());
        parked.into_iter().for_each(|it| self.cluster.close_bound(it.idle.server, it.idle.place));
    }

    /// Puts a clean server where the next one who needs it finds it.
    pub(super) fn offer(self: &Rc<Self>, idle: Idle<Clean>) {
        if self.obsolete.get() || self.cluster.capacity.is_exceeded() {
            self.cluster.close_clean(idle);
        } else {
            self.clean.borrow_mut().push(idle);
        }
        self.cluster.pump();
    }

    /// Connects for whoever waits. The task outlives the waiter: a handshake that was paid for is
    /// not thrown away because one client hung up.
    fn start_connecting(self: &Rc<Self>, place: Place) {
        self.connecting.set(self.connecting.get() + 1);
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let connected = connect(&pool.plan, &pool.cluster.buffers).await;
            pool.connecting.set(pool.connecting.get() - 1);
            let cluster = pool.cluster.settings.borrow().name.clone();
            match connected {
                Ok(server) => {
                    count(&pool.cluster.counts.connects);
                    pool.offer(Idle { server, place, since: Instant::now(), fresh: true });
                }
                Err(error) => {
                    count(&pool.cluster.counts.connect_failures);
                    let login = &pool.plan.conninfo.user;
                    tracing::error!(cluster, login, %error, "could not connect to a cluster");
                    let refused = match error.is_refusal() {
                        true => AcquireError::Refused,
                        false => AcquireError::Unreachable,
                    };
                    pool.cluster.fail_one(&pool, refused);
                }
            }
        });
    }
}

impl Parked {
    fn is_of_session(&self, want: Want<'_>) -> bool {
        self.session == want.session && self.is_bound_as(want)
    }

    fn is_of_context(&self, want: Want<'_>) -> bool {
        self.harmless && self.is_bound_as(want) && self.tenant == want.tenant.id
    }

    fn is_bound_as(&self, want: Want<'_>) -> bool {
        let bound: &Bound = &self.idle.server;
        let context = Arc::ptr_eq(bound.context(), &want.tenant.context);
        let settings = Rc::ptr_eq(&bound.settings, want.settings)
            || bound.settings.as_ref() == want.settings.as_ref();
        context && settings
    }

    fn fits(&self, waiter: &Waiter) -> bool {
        let bound = &self.idle.server;
        let same = Arc::ptr_eq(bound.context(), &waiter.context)
            && bound.settings.as_ref() == waiter.settings.as_ref();
        same && (self.harmless || self.session == waiter.session)
    }
}

impl ClusterPools {
    /// Looks who waits and what there is for them, first come first served.
    pub fn pump(self: &Rc<Self>) {
        self.line.borrow_mut().sweep();
        if self.line.borrow().is_empty() {
            return;
        }
        let waiters = self.line.borrow().waiters();
        let mut on_their_way = self.capacity.closing().get();
        // Waiters of each pool that found nothing: as many connections are to be on their way.
        let mut unserved: Vec<(Rc<Pool>, usize)> = Vec::new();
        let mut looked = false;
        for waiter in waiters {
            if !waiter.account.may_lease(&waiter.limits) {
                continue;
            }
            match self.find_for(&waiter) {
                Some(grant) => {
                    // Who gave up in this moment leaves the server to the next in line.
                    if let Err(Some(grant)) = waiter.answer(Ok(grant)) {
                        self.take_back(&waiter.pool, *grant);
                    }
                }
                None => {
                    let waiting = one_more(&mut unserved, &waiter.pool);
                    if waiting <= waiter.pool.connecting.get() || self.connect_for(&waiter) {
                        continue;
                    }
                    match on_their_way {
                        // Now, not at the end: who came later must not take what this one needs.
                        0 => self.make_room(),
                        _ => on_their_way -= 1,
                    }
                    // Then there is nothing for those further back either, however many they are.
                    if !std::mem::replace(&mut looked, true) && self.is_used_up() {
                        break;
                    }
                }
            }
        }
        self.line.borrow_mut().sweep();
    }

    /// As [`Self::pump`], once whoever runs now is done.
    pub fn pump_soon(self: &Rc<Self>) {
        if self.line.borrow().is_empty() {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move { this.pump() });
    }

    /// Whether no server is idle and none may be opened.
    fn is_used_up(&self) -> bool {
        let idle =
            |pool: &Rc<Pool>| !pool.clean.borrow().is_empty() || !pool.parked.borrow().is_empty();
        !self.capacity.has_room() && !self.pools.borrow().values().flatten().any(idle)
    }

    fn find_for(&self, waiter: &Waiter) -> Option<Grant> {
        let pool = &waiter.pool;
        if let Some(parked) = pool.take_parked(|parked| parked.fits(waiter)) {
            return Some(Grant::Parked(parked));
        }
        let clean = take_alive(&mut pool.clean.borrow_mut(), |idle| idle.server.connection());
        if let Some(clean) = clean {
            return Some(Grant::Clean(clean));
        }
        // One that lingers for a session is taken from it only if no other may be opened, or if
        // the session has been quiet for longer than it is given.
        let linger = self.settings.borrow().linger;
        let full = !self.capacity.has_room();
        let rests = |parked: &Parked| full || parked.idle.since.elapsed() >= linger;
        let oldest = pool.parked.borrow().iter().map(|it| it.idle.since).min()?;
        let taken = pool.take_parked(|it| it.idle.since == oldest && rests(it))?;
        count(&self.counts.by_rebind);
        Some(Grant::Parked(taken))
    }

    fn connect_for(&self, waiter: &Waiter) -> bool {
        let Some(place) = self.capacity.take() else { return false };
        waiter.pool.start_connecting(place);
        true
    }

    /// Closes an idle server of another pool, if there is one.
    fn make_room(self: &Rc<Self>) {
        let idle = self.all().iter().find_map(|pool| pool.take_longest_idle());
        let Some((server, place)) = idle else { return };
        let closing = self.capacity.closing();
        closing.set(closing.get() + 1);
        let this = self.clone();
        tokio::task::spawn_local(async move {
            lease::close(server, place, false, &this.counts).await;
            let closing = this.capacity.closing();
            closing.set(closing.get() - 1);
            this.pump();
        });
    }

    /// Tells the first who waits for this pool that it cannot be served.
    fn fail_one(self: &Rc<Self>, pool: &Rc<Pool>, error: AcquireError) {
        let waiters = self.line.borrow().waiters();
        let first = waiters.iter().find(|it| Rc::ptr_eq(&it.pool, pool) && !it.is_over());
        if let Some(waiter) = first {
            let _ = waiter.answer(Err(error));
        }
        self.pump();
    }

    fn take_back(self: &Rc<Self>, pool: &Rc<Pool>, grant: Grant) {
        match grant {
            Grant::Clean(idle) => pool.clean.borrow_mut().push(idle),
            Grant::Parked(parked) => pool.parked.borrow_mut().push(parked),
        }
    }

    pub(super) fn close_clean(self: &Rc<Self>, idle: Idle<Clean>) {
        lease::close_soon(idle.server.into_server(), idle.place, false, self.counts.clone());
    }

    pub(super) fn close_bound(self: &Rc<Self>, bound: Bound, place: Place) {
        lease::close_soon(bound.into_server(), place, false, self.counts.clone());
    }
}

/// Counts one more for a pool, and says how many there are now.
fn one_more(counts: &mut Vec<(Rc<Pool>, usize)>, pool: &Rc<Pool>) -> usize {
    match counts.iter_mut().find(|(known, _)| Rc::ptr_eq(known, pool)) {
        Some((_, count)) => {
            *count += 1;
            *count
        }
        None => {
            counts.push((pool.clone(), 1));
            1
        }
    }
}

fn names_a_setting(message: &str, settings: &Settings) -> bool {
    let message = message.to_ascii_lowercase();
    settings.iter().any(|(name, _)| message.contains(name))
}

/// Pops idle servers until one is alive.
fn take_alive<T>(
    idle: &mut Vec<Idle<T>>,
    connection: impl Fn(&mut Idle<T>) -> &mut crate::net::Connection,
) -> Option<Idle<T>> {
    while let Some(mut last) = idle.pop() {
        if lease::is_quiet(connection(&mut last)) {
            return Some(last);
        }
    }
    None
}
