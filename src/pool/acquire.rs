//! Acquire: from "this session needs a server" to a lease on one that is bound to its tenant, in
//! named steps; the cheapest that is safe comes first.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::budget::{Account, ServerSlot};
use crate::catalog::Tenant;
use crate::pool::arbiter::Place;
use crate::pool::health::{Outage, Why};
use crate::pool::lease::{self, Lease};
use crate::pool::line::Waiter;
use crate::pool::trial::Trial;
use crate::pool::{Idle, Parked, Pool, SessionId, count};
use crate::server::{BindError, Blame, Bound, Clean, ConnectError, Failed, Settings};
use crate::wire::backend::ReadError;

/// Who needs a server, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Want<'want> {
    pub tenant: &'want Arc<Tenant>,
    pub account: &'want Arc<Account>,
    pub session: SessionId,
    pub settings: &'want Rc<Settings>,
    /// Since when it waits, if that is not only now.
    pub since: Option<Instant>,
    /// True while a server is being bound: whoever waits must not give up then.
    pub binding: &'want Cell<bool>,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum AcquireError {
    /// Nothing became free in time.
    Timeout(Duration),
    /// The same, and what the tenant waited for was a server of its own to be given back: it has
    /// all that it may have.
    Capped(Duration),
    /// No connection can be had now, and none will be before the next try.
    Outage(Outage),
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

/// A server, and that its tenant may have it.
pub type Granted = (Grant, ServerSlot);

/// How often a connection that turns out dead before a client byte went out is replaced.
const ATTEMPTS: usize = 3;

/// How often a worker tells the log that a cluster's level is not in force.
const SHORTFALL_TOLD_EVERY: Duration = Duration::from_secs(60);

impl Pool {
    /// A lease on a server bound to the tenant. Waits in line for at most the cluster's
    /// `query_wait`, what it has waited before included. Dropping the future leaves the line.
    pub async fn acquire(self: &Rc<Self>, want: Want<'_>) -> Result<Box<Lease>, AcquireError> {
        let mut started = None;
        let mut refused = None;
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
                Ok(mut lease) => {
                    lease.asked = started.unwrap_or(lease.asked);
                    return Ok(lease);
                }
                Err(BindError::Io(error)) => {
                    tracing::debug!(%error, "a server connection was dead, taking another");
                }
                // A server on which temporary tables were used takes no other value; a fresh one
                // does.
                Err(BindError::Setting(error)) if error.message.contains("temp_buffers") => {
                    refused = Some(AcquireError::Bind(error));
                }
                Err(error) => return Err(self.bind_failed(error, want)),
            }
        }
        Err(refused.unwrap_or(AcquireError::Lost))
    }

    /// Steps 1 and 2, which wait for nothing: the server that is still with this session, or one
    /// that is still with its context.
    pub fn acquire_bound(self: &Rc<Self>, want: Want<'_>) -> Option<Box<Lease>> {
        // Others of the tenant came first: what it may have is theirs. Or it is to be held against
        // what others may have.
        if self.cluster.capped.holds(&want.tenant.id) || self.cluster.holds_back.get() {
            return None;
        }
        let slot = want.account.lease(&want.tenant.limits, self.cluster.arbiter.number)?;
        let counts = &self.cluster.counts;
        let (parked, counter) = match self.take_parked(|parked| parked.is_of_session(want)) {
            Some(parked) => (parked, &counts.by_session),
            None if self.is_wanted() && !self.is_kept_for(want) => return None,
            None => (self.take_parked(|parked| parked.is_of_context(want))?, &counts.by_context),
        };
        count(counter);
        let Idle { mut server, place, .. } = parked.idle;
        if !Rc::ptr_eq(&server.settings, want.settings) {
            // Equal, and the very same from here on: they are compared often.
            server.settings = want.settings.clone();
        }
        Some(Lease::new(self, server, place, slot, want).with_trace(!parked.harmless))
    }

    /// Whether what is parked for a tenant is there for it although somebody waits: on another
    /// worker, who left it to those that have nothing, as this tenant has but for the slot it has
    /// just taken. That is what the arbiter would say, without its lock.
    #[inline]
    fn is_kept_for(&self, want: Want<'_>) -> bool {
        self.cluster.line.borrow().is_empty()
            && want.account.in_cluster(self.cluster.arbiter.number).0 <= 1
    }

    /// Step 3: a clean one, unless others are in line for it.
    fn take_clean(&self, want: Want<'_>) -> Option<Granted> {
        if self.is_wanted() || self.cluster.capped.holds(&want.tenant.id) {
            return None;
        }
        let slot = want.account.lease(&want.tenant.limits, self.cluster.arbiter.number)?;
        let clean = self.pop_clean()?;
        count(&self.cluster.counts.by_clean);
        Some((Grant::Clean(clean), slot))
    }

    /// Steps 4 to 6: connect, make room, wait.
    async fn wait(
        self: &Rc<Self>,
        want: Want<'_>,
        started: Instant,
    ) -> Result<Granted, AcquireError> {
        if let Some(outage) = self.outage() {
            return Err(AcquireError::Outage(outage));
        }
        let (waiter, answer) = Waiter::new(self, &want);
        let mut waiting = Waiting { waiter, answer };
        self.cluster.join(&waiting.waiter, &want.tenant.limits);
        self.cluster.pump();
        let limit = self.cluster.settings.borrow().query_wait;
        let since = want.since.unwrap_or(started);
        let rest = limit.saturating_sub(since.elapsed());
        let answered = self.cluster.clock.timeout(rest, &mut waiting.answer).await;
        let counts = &self.cluster.counts;
        counts.waited(started.elapsed());
        want.account.waited(started.elapsed());
        match answered {
            Ok(Ok(grant)) => {
                match grant {
                    Ok((Grant::Clean(Idle { fresh: true, .. }), _)) => count(&counts.by_connect),
                    _ => count(&counts.by_wait),
                }
                grant
            }
            Ok(Err(_)) | Err(_) if self.cluster.capped.has(&waiting.waiter) => {
                Err(AcquireError::Capped(since.elapsed()))
            }
            Ok(Err(_)) | Err(_) => Err(AcquireError::Timeout(since.elapsed())),
        }
    }

    /// Binds what was granted, unless it is bound to just this.
    async fn take_into_use(
        self: &Rc<Self>,
        granted: Granted,
        want: Want<'_>,
    ) -> Result<Box<Lease>, BindError> {
        let (grant, slot) = granted;
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
                        if matches!(error, BindError::Setting(_)) {
                            return Err(error);
                        }
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
        Ok(Lease::new(self, bound, place, slot, want).with_trace(!harmless))
    }

    /// Closes a server in an unknown state; its place is free when it is gone.
    pub(super) fn close_failed(&self, failed: Box<Failed>, place: Place) -> BindError {
        let Failed { error, server } = *failed;
        if matches!(error, BindError::Io(_)) {
            let facts = &server.facts;
            self.cluster.arbiter.health.doubt(&facts.conninfo, facts.host);
        }
        lease::close_soon(server, place, true, self.cluster.counts.clone());
        error
    }

    fn bind_failed(&self, error: BindError, want: Want<'_>) -> AcquireError {
        let (tenant, cluster) = (&want.tenant.id, &want.tenant.route.cluster.name);
        match error {
            // The client's own value; the rest is not for its eyes.
            BindError::Setting(error) => AcquireError::Bind(error),
            error => {
                tracing::error!(%tenant, cluster, %error, "could not bind a server to its tenant");
                AcquireError::Unverified
            }
        }
    }

    /// No tenant has its route any more: servers in use close when they are given back.
    pub fn retire(&self) {
        self.abandon();
        self.cluster.pump();
    }

    /// Closes the servers nobody uses.
    pub fn close_idle(&self) {
        self.take_all_clean().into_iter().for_each(|idle| self.cluster.close_clean(idle));
        let parked = self.take_all_parked().into_iter();
        parked.for_each(|it| self.cluster.close_bound(*it.idle.server, it.idle.place));
    }

    /// Puts a clean server where the next one who needs it finds it.
    pub(super) fn offer(self: &Rc<Self>, idle: Idle<Clean>) {
        let cluster = &self.cluster;
        // Who waited for a route that a reload took away is served once more; then it is closed.
        let late = self.obsolete.get() && idle.fresh && cluster.line.borrow().waits_for(self);
        let outdated = self.is_outdated(idle.server.facts()) && !late;
        if outdated || cluster.closing.get() || cluster.is_exceeded() {
            self.sheds(idle.server.facts());
            cluster.close_clean(idle);
        } else {
            self.shelve_clean(idle);
        }
        cluster.pump();
    }

    /// Once a minute: a pool may open many connections to one database.
    fn tell_of_shortfall(&self, shortfall: &str) {
        count(&self.cluster.counts.level_shortfalls);
        let told = self.cluster.shortfall_told.get();
        if told.is_some_and(|told| told.elapsed() < SHORTFALL_TOLD_EVERY) {
            return;
        }
        self.cluster.shortfall_told.set(Some(Instant::now()));
        let (dbname, login) = (&self.plan.conninfo.dbname, &self.plan.conninfo.user);
        tracing::warn!(dbname, login, %shortfall, "enforce_level is off, tenants are served");
    }

    /// Connects for whoever waits. The task outlives the waiter: a handshake that was paid for is
    /// not thrown away because one client hung up.
    pub(super) fn start_connecting(self: &Rc<Self>, mut place: Place, mut trial: Trial) {
        self.connecting.set(self.connecting.get() + 1);
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let connected = pool.connect(&mut trial).await;
            let (why, news) = trial.end(connected.as_ref().map(drop));
            pool.connecting.set(pool.connecting.get() - 1);
            match connected {
                Ok(server) => {
                    count(&pool.cluster.counts.connects);
                    if let Some(shortfall) = &server.facts().shortfall {
                        pool.tell_of_shortfall(shortfall);
                    }
                    // Held until the server has been offered: see `Pledge`.
                    let _pledge = place.take_pledge();
                    pool.note(server.facts());
                    pool.offer(Idle { server, place, since: Instant::now(), fresh: true });
                }
                Err(ConnectError::Busy) => {
                    drop(place);
                    pool.cluster.pump();
                }
                Err(error) => {
                    count(&pool.cluster.counts.connect_failures);
                    pool.tell_of_failure(&error, news);
                    let next = pool.outage().map_or_else(Instant::now, |outage| outage.next);
                    let outage = Outage { why: why.unwrap_or(Why::Down), next };
                    pool.cluster.fail_one(&pool, AcquireError::Outage(outage));
                }
            }
        });
    }

    /// Once per change: of hosts that are down their record tells.
    fn tell_of_failure(&self, error: &ConnectError, news: bool) {
        let cluster = self.cluster.settings.borrow().name.clone();
        let login = &self.plan.conninfo.user;
        match news && error.blame() != Blame::Host {
            true => tracing::error!(cluster, login, %error, "could not connect to a cluster"),
            false => tracing::debug!(cluster, login, %error, "could not connect to a cluster"),
        }
    }
}

/// One who waits, from its own side. Dropping it leaves the line, and what was granted in the same
/// moment goes back.
struct Waiting {
    waiter: Rc<Waiter>,
    answer: oneshot::Receiver<Result<Granted, AcquireError>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let pool = &self.waiter.pool;
        pool.cluster.forget(&self.waiter);
        if let Ok(Ok((grant, slot))) = self.answer.try_recv() {
            drop(slot);
            pool.take_back(grant);
            pool.cluster.pump_soon();
        }
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

    pub(super) fn fits(&self, waiter: &Waiter) -> bool {
        let bound = &self.idle.server;
        let same = Arc::ptr_eq(bound.context(), &waiter.context)
            && bound.settings.as_ref() == waiter.settings.as_ref();
        same && (self.harmless || self.session == waiter.session)
    }
}
