//! [`Session`]: the life of a client that is logged in. [`Life`] is its story; the life of one
//! request is [`Session::serve`].

mod admit;
pub(super) mod front;
mod greeting;
mod life;
pub(super) mod pin;
pub(super) mod sender;
pub(super) mod settle;
pub(super) mod timer;
mod wanted;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::budget::{ClientSlot, Permit};
use crate::catalog::{Pooling, Tenant};
use crate::client::act::Acting;
use crate::client::carry::carried::is_owned;
use crate::client::carry::{Noted, idle, without};
use crate::client::login::{Arrival, Papers};
use crate::client::prepared::Prepared;
use crate::client::registry::Entry;
use crate::client::relay::{Exchange, Relay};
pub use crate::client::session::admit::Patience;
use crate::client::session::front::Request;
pub use crate::client::session::life::{Life, Workplaces};
use crate::client::session::settle::Unsettled;
use crate::client::session::timer::Timer;
use crate::client::session::wanted::{refused, want};
use crate::client::talk::{Phase, Shared, Talk};
use crate::client::{Env, refuse};
use crate::error::{Ending, Error, Severity, Side};
use crate::net::{Connection, Peer};
use crate::pool::{Lease, Pool};
use crate::wire::backend;

/// How long a session that ends may take to tell its client why.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long one that broke off its client's message goes on to read it: a socket that is closed
/// with bytes unread takes the error on its way to the client with it.
const LINGER: Duration = Duration::from_secs(1);

/// A logged-in client.
#[derive(Debug)]
pub struct Session {
    pub(super) client: Connection,
    pub(super) talk: Talk,
    pub(super) timer: Timer,
    /// A batch was refused while there was no server: what follows is skipped up to its Sync.
    pub(super) skipping: bool,
    /// How much of a frame nobody wants is still to come.
    pub(super) dropping: usize,
    /// The client has half a message and cannot be told anything any more.
    mid_frame: bool,
    pub(super) pool: Rc<Pool>,
    /// The server the session keeps while it is idle: see `pin.rs`.
    pub(super) pinned: Option<Box<Lease>>,
    pub(super) entry: Entry,
    papers: Rc<Papers>,
    slot: ClientSlot,
    /// Since when the client, between two requests, has neither said nor taken anything.
    stalled_since: Option<Instant>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    ClientGone,
    Told(Error),
    ServerEnded,
}

impl Session {
    /// Takes over a client that a door let in. `file` gives back what others may have already.
    ///
    /// # Errors
    ///
    /// Its socket cannot be registered with this thread's runtime.
    pub fn new(
        arrival: Arrival,
        peer: Peer,
        env: &Rc<Env>,
        file: impl FnOnce(Papers) -> Rc<Papers>,
    ) -> std::io::Result<Box<Self>> {
        let Arrival { mut stream, identity, account, slot, wishes, entry } = arrival;
        stream.attach()?;
        let papers = file(Papers::new(identity, wishes));
        let tenant = papers.identity.tenant.clone();
        let talk = Talk {
            id: entry.session,
            act: Acting::of(&papers, &account, peer),
            prepared: Prepared::new(env.no_name.clone(), account.clone()),
            account,
            start: Rc::default(),
            now: Rc::default(),
            idle: None,
            in_doubt: false,
            touched: Noted::default(),
            told: false,
            audience: 0,
            pin: None,
            locked: false,
            greeting: Rc::default(),
            reported: Vec::new(),
            meter: None,
            bytes_charged: None,
            probes: Cell::new(false),
            patience: Patience::default(),
            shared: Rc::new(Shared::default()),
            env: env.clone(),
            tenant: tenant.clone(),
        };
        // Boxed, because a future would hold it twice: as its argument and as its state.
        Ok(Box::new(Self {
            client: Connection::new(stream, env.buffers.clone()),
            talk,
            timer: Timer::default(),
            skipping: false,
            dropping: 0,
            mid_frame: false,
            pool: env.pools.of(&tenant),
            pinned: None,
            entry,
            papers,
            slot,
            stalled_since: None,
        }))
    }

    /// What others on the worker may reach of this session.
    pub fn shared(&self) -> Rc<Shared> {
        self.talk.shared.clone()
    }

    /// What it showed and asked for at its login.
    pub fn papers(&self) -> Rc<Papers> {
        self.papers.clone()
    }

    /// From the welcome to the end.
    pub fn run(self: Box<Self>) -> Life {
        Life::begin(self)
    }

    /// From then on its credential opens nothing any more.
    pub(super) fn expires_at(&self) -> Option<SystemTime> {
        self.papers.identity.expires_at
    }

    /// The life of a request, or of all requests up to the end of their transaction.
    async fn serve(&mut self, request: &mut Request) -> Result<(), End> {
        if self.expires_at().is_some_and(|end| end <= SystemTime::now()) {
            return Err(End::Told(Error::Ended(Ending::CredentialExpired)));
        }
        // A cancel is for the request that it finds waiting, never for a later one.
        self.talk.shared.cancel_wanted.set(false);
        self.talk.shared.phase.set(Phase::Waiting);
        if !self.talk.patience.charged {
            self.talk.probes.set(false);
        }
        self.talk.meter_bytes(self.client.transmitted);
        let (permit, lease) = match self.admit_and_acquire(request).await {
            Ok(Some(admitted)) => admitted,
            // It is read and judged anew, for the tenant as it is now.
            Ok(None) => {
                self.talk.shared.phase.set(Phase::Idle);
                return Ok(());
            }
            Err(Ok(end)) => return Err(end),
            Err(Err(error)) => {
                self.talk.shared.phase.set(Phase::Idle);
                if error.is_about_a_setting() {
                    // What it carries is no good any more (a configuration it names was dropped):
                    // it must not go on with less than it believes to have.
                    tracing::warn!(tenant = %self.talk.tenant.id, "{}", error.message());
                    return Err(End::Told(Error::StateLost));
                }
                return self.refuse_front(error);
            }
        };
        let mut lease = lease;
        if self.still_acts().is_err() {
            return self.choose_again(lease);
        }
        if self.talk.act.is_some()
            && let Err(error) = Box::pin(self.begin_block(&mut lease)).await
        {
            match error.facts().severity {
                // Nothing was begun, unless it was to be cancelled.
                Severity::Error if !matches!(error, Error::Cancelled) => lease.park(true),
                // Dropped, it is closed.
                _ => drop(lease),
            }
            drop(permit);
            self.talk.shared.phase.set(Phase::Idle);
            return self.refuse_front(error);
        }
        self.talk.patience = Patience::default();
        let mut relay = self.talk.env.relays.take(request.reading.take());
        if self.talk.act.as_ref().is_some_and(|act| act.has_begun()) {
            (relay.status, relay.begun) = (b'T', true);
        }
        let unsettled = match self.exchange(lease, relay).await {
            Ok(unsettled) => unsettled,
            Err(end) => return Err(end),
        };
        let settled = match unsettled {
            None => Ok(()),
            Some(unsettled) => Box::pin(self.settle(unsettled)).await.map_err(End::Told),
        };
        drop(permit);
        self.talk.shared.phase.set(Phase::Idle);
        settled
    }

    /// Nearly always there is nothing to wait for; where there is, the wait is boxed, so that an
    /// idle session is small. Nothing comes back if the tenant changed meanwhile.
    async fn admit_and_acquire(
        &mut self,
        request: &Request,
    ) -> Result<Option<(Option<Permit>, Box<Lease>)>, Result<End, Error>> {
        if self.talk.shared.paused.get() {
            // Before it takes anything from the budget that others could use.
            Box::pin(self.resumed()).await?;
            if self.talk.shared.look_again.get() {
                return Ok(None);
            }
        }
        let permit = match self.admit_now(request) {
            Some(permit) => permit,
            None => Box::pin(self.admit(request)).await?,
        };
        if self.pinned.is_some() {
            // It may have been held back while it waited for its budget.
            while self.talk.shared.paused.get() {
                Box::pin(self.resumed()).await?;
            }
            if self.talk.shared.look_again.get() {
                return Ok(None);
            }
        }
        if let Some(lease) = self.pinned.take() {
            let kept = Box::pin(self.go_on(lease)).await;
            return kept.map(|lease| lease.map(|lease| (permit, lease))).map_err(Err);
        }
        let bound = match self.talk.shared.is_held() {
            true => None,
            false => self.pool.acquire_bound(want(&self.talk)),
        };
        let lease = match bound {
            Some(lease) => Some(lease),
            None => Box::pin(self.acquire()).await?,
        };
        Ok(lease.map(|lease| (permit, lease)))
    }

    /// The tenant's budget, if it lets the request through at once.
    fn admit_now(&mut self, request: &Request) -> Option<Option<Permit>> {
        let talk = &mut self.talk;
        let permit = match request.ends_transaction {
            true => None,
            false => Some(talk.account.admit(&talk.tenant.limits).ok()?),
        };
        if !request.free && !talk.patience.charged {
            talk.charge().ok()?;
            talk.patience.charged = true;
        }
        Some(permit)
    }

    /// The tenant's budget: at once, after a wait, or not.
    async fn admit(&mut self, request: &Request) -> Result<Option<Permit>, Result<End, Error>> {
        if !request.free && !self.talk.patience.charged {
            let (talk, client) = (&self.talk, &mut self.client);
            attended(talk, client, pin!(admit::charge(talk))).await?;
            self.talk.patience.charged = true;
        }
        let (talk, client) = (&self.talk, &mut self.client);
        match request.ends_transaction {
            true => Ok(None),
            false => attended(talk, client, pin!(admit::admit(talk))).await.map(Some),
        }
    }

    /// A server bound to the tenant. Who is paused on the way leaves the line and begins again; who
    /// has another tenant by then gets nothing: it must not go where that one was.
    /// What is polled is pinned here and lent: a future that is handed over is held twice.
    async fn acquire(&mut self) -> Result<Option<Box<Lease>>, Result<End, Error>> {
        self.talk.patience.since.get_or_insert_with(Instant::now);
        self.client.compact();
        loop {
            self.resumed().await?;
            if self.talk.shared.look_again.get() {
                return Ok(None);
            }
            let (talk, pool, client) = (&self.talk, &self.pool, &mut self.client);
            let work =
                async { pool.acquire(want(talk)).await.map_err(|error| refused(error, talk)) };
            let mut work = pin!(work);
            let mut work = pin!(or_paused(talk, work.as_mut()));
            let acquired = attended(talk, client, work.as_mut()).await;
            self.talk.shared.binding.set(false);
            let Some(lease) = acquired? else { continue };
            if self.talk.shared.cancel_wanted.take() {
                // It came while the server was being bound: nothing was sent, so the gate answers.
                lease.park(true);
                return Err(Err(Error::Cancelled));
            }
            match self.talk.shared.is_held() {
                true => lease.close(),
                false => return Ok(Some(lease)),
            }
        }
    }

    /// Waits while the console holds the tenant's requests back, for as long as one may wait for a
    /// server in all.
    async fn resumed(&mut self) -> Result<(), Result<End, Error>> {
        if !self.talk.shared.paused.get() {
            return Ok(());
        }
        let began = Instant::now();
        let since = *self.talk.patience.since.get_or_insert(began);
        let limit = self.pool.cluster().query_wait.saturating_sub(since.elapsed());
        let (talk, client) = (&self.talk, &mut self.client);
        let shared = &talk.shared;
        let resumed = poll_fn(|_| match shared.paused.get() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        });
        let in_time = async {
            let waited = talk.env.clock.timeout(limit, resumed).await;
            talk.account.waited(began.elapsed());
            waited.map_err(|_| Error::Paused { waited: since.elapsed() })
        };
        attended(talk, client, pin!(in_time)).await
    }

    /// Relays until the transaction is over, then gives the server back, unless it must be asked
    /// something first. What is held while it waits is small: every idle session has the room.
    async fn exchange(
        &mut self,
        mut lease: Box<Lease>,
        relay: Box<Relay>,
    ) -> Result<Option<Box<Unsettled>>, End> {
        let shared = &self.talk.shared;
        shared.phase.set(Phase::Active);
        shared.request_since.set(lease.since());
        let facts = lease.bound().map(|bound| bound.facts().clone());
        if let Some(facts) = &facts {
            facts.session.set(self.entry.pid);
        }
        *shared.server.borrow_mut() = facts;
        let (client, talk, timer) = (&mut self.client, &mut self.talk, &mut self.timer);
        let mut exchange = Exchange { client, lease: &mut lease, talk, relay, timer };
        let ended = exchange.run().await;
        self.mid_frame = !exchange.hand_over();
        let Exchange { relay, .. } = exchange;
        self.end_exchange(lease, relay, ended)
    }

    /// Takes the catalog's news of the tenant over, between two transactions.
    pub(super) fn adopt_news(&mut self) {
        if self.talk.shared.look_again.replace(false) {
            self.follow_choice();
        }
        let Some(tenant) = self.talk.shared.news.take() else { return };
        if self.talk.act.as_mut().is_some_and(|act| act.take_news(&tenant)) {
            return;
        }
        self.leave_behind(&tenant);
        self.pool = self.talk.env.pools.of(&tenant);
        let owned = |name: &str| name != idle::OWN && is_owned(name, &tenant);
        self.talk.start = without(&self.talk.start, owned);
        self.talk.now = without(&self.talk.now, owned);
        self.talk.tenant = tenant;
        self.talk.audience += 1;
    }

    /// Ends the session if the server it keeps holds what is not in its tenant's new schema.
    /// Another pool is noticed by whoever looks for a request.
    pub(in crate::client) fn leave_behind(&self, next: &Tenant) {
        let (now, next) = (&self.talk.tenant.context, &next.context);
        let elsewhere = now.value("search_path") != next.value("search_path");
        if elsewhere && self.pinned.is_some() {
            self.talk.shared.end(Error::Ended(Ending::TenantEnded), false);
        }
    }

    /// Start-up settings are tried on a server before the client is told that it is in; what the
    /// server reports is remembered for the next client with the same wishes.
    async fn welcome(&mut self) -> Result<(), Error> {
        let papers = self.papers.clone();
        let mut start = papers.settings.clone();
        let application_name = papers.settings.get("application_name");
        let mut key = (*start).clone();
        key.remove("application_name");
        // A session that has its server for life asks that one.
        let whole = self.talk.tenant.pooling == Pooling::Session;
        let greeting = match self.pool.greeting(&key).filter(|_| !whole) {
            Some(greeting) => greeting,
            None => {
                self.talk.now = start.clone();
                let mut lease = self.first_lease().await?;
                if whole {
                    self.renew(&mut lease).await?;
                }
                let bound = lease.bound().ok_or(Error::ServerLost)?;
                let greeting = greeting::of_server(bound);
                if whole {
                    self.keep_for_life(lease);
                    Rc::new(greeting)
                } else {
                    lease.park(true);
                    self.pool.remember(key, greeting)
                }
            }
        };
        if application_name == Some("") {
            Rc::make_mut(&mut start).remove("application_name");
        }
        let (tenant, moved) = (&self.talk.tenant, self.talk.audience > 0);
        let owned = |name: &str| moved && name != idle::OWN && is_owned(name, tenant);
        self.talk.start = without(&start, owned);
        self.talk.now = self.talk.start.clone();
        self.talk.idle = idle::limit(&self.talk.now);
        let greeting = self.talk.greeting_with_context(greeting);
        self.talk.greeting = greeting.clone();
        let out = &mut self.client.output;
        backend::put_authentication_ok(out);
        for (name, value) in greeting.iter() {
            let value = match name.as_str() {
                "session_authorization" => &papers.user,
                "application_name" => application_name.unwrap_or(value),
                "role" => continue,
                "search_path" if self.talk.tenant.context.owns(name) => continue,
                _ => value,
            };
            backend::put_parameter_status(out, name, value);
        }
        backend::put_backend_key(out, self.entry.pid, &self.entry.secret());
        backend::put_ready(out, b'I');
        Ok(())
    }

    async fn first_lease(&mut self) -> Result<Box<Lease>, Error> {
        loop {
            match self.acquire().await {
                Ok(Some(lease)) => {
                    self.talk.patience = Patience::default();
                    return Ok(lease);
                }
                Ok(None) => self.adopt_news(),
                Err(Ok(_)) => return Err(Error::ShuttingDown),
                Err(Err(error)) => return Err(error),
            }
        }
    }

    /// Tells the client why, as far as it listens, and leaves.
    async fn close(mut self: Box<Self>, end: End) -> End {
        if let Some(lease) = self.pinned.take() {
            // Locks and the like end with their session, not some time later.
            lease.close();
        }
        if let End::Told(error) = &end {
            if !self.mid_frame {
                refuse::put(&mut self.client.output, error, Severity::Fatal);
            }
            self.talk.count_refusal(error);
        }
        let lingers = matches!(&end, End::Told(error) if error.facts().side == Side::Client);
        let clock = self.talk.env.clock.clone();
        let goodbye = async {
            let _ = self.client.send().await;
            let _ = self.client.shutdown().await;
            if lingers {
                let _ = clock.timeout(LINGER, self.client.drain()).await;
            }
        };
        let _ = clock.timeout(GOODBYE, goodbye).await;
        self.talk.shared.bytes.set((self.client.received, self.client.transmitted));
        self.talk.count_bytes();
        drop(self.slot);
        end
    }
}

/// Waits for something while the client may cancel or hang up and the session may have to end:
/// nothing of the request has run yet. Not while a server is being bound, unless it must end now:
/// that is short, and a server left in the middle of it would have to be closed.
async fn attended<T>(
    talk: &Talk,
    client: &mut Connection,
    mut work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Result<End, Error>> {
    let shared = &talk.shared;
    let waiting = poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(Err));
        }
        shared.wake_with(cx);
        if let Some(error) = shared.must_end() {
            return Poll::Ready(Err(Ok(End::Told(error))));
        }
        if shared.binding.get() {
            return Poll::Pending;
        }
        // What the client has been answered before does not wait for a server.
        if !client.is_sent()
            && let Poll::Ready(Err(_)) = client.poll_send(cx)
        {
            return Poll::Ready(Err(Ok(End::ClientGone)));
        }
        if shared.cancel_wanted.take() {
            return Poll::Ready(Err(Err(Error::Cancelled)));
        }
        if let Some(error) = shared.ending.borrow().as_deref().cloned() {
            return Poll::Ready(Err(Ok(End::Told(error))));
        }
        loop {
            let full = client.input.len() >= AHEAD_BYTES_MAX;
            if full && client.poll_ended(cx).is_pending() {
                break;
            }
            // The rest decides whether it said goodbye.
            if full && client.input.len() > FAREWELL_BYTES_MAX {
                return Poll::Ready(Err(Ok(End::ClientGone)));
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if client.ends_in_goodbye() => break,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Ok(End::ClientGone))),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    });
    let done = waiting.await;
    client.unwatch();
    done
}

/// While a session waits for a server, this much of what its client sends ahead is read, to notice
/// when it hangs up.
pub(super) const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Of a client that has hung up, this much is read to see whether it said goodbye: more than
/// sockets hold.
pub(super) const FAREWELL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What comes of `work`, or nothing if the tenant is paused or changes first. Not while a server is
/// being bound.
async fn or_paused<T>(
    talk: &Talk,
    mut work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<Option<T>, Error> {
    let either = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.map(Some)),
        Poll::Pending if talk.shared.is_held() && !talk.shared.binding.get() => {
            Poll::Ready(Ok(None))
        }
        Poll::Pending => Poll::Pending,
    });
    either.await
}
