//! [`Talk`]: what a session knows and keeps from one server to the next. [`Shared`]: the little of
//! it that others on the worker (cancel, drain, console) reach.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::auth::Identity;
use crate::budget::Account;
use crate::catalog::Tenant;
use crate::client::Env;
use crate::client::act::Acting;
use crate::client::carry::carried::is_utf8;
use crate::client::carry::{ENCODING, Noted, STRINGS};
use crate::client::meter::Meter;
use crate::client::prepared::{Known, Prepared};
use crate::client::session::Patience;
use crate::error::Error;
use crate::guard::{self, Denials, ReadOptions, Reading};
use crate::pool::{Greeting, Pin, SessionId};
use crate::server::{Pins, ServerFacts, Settings, UNSURE, cancel};
use crate::wire::backend;

/// Most parameters a server tells of; PostgreSQL 18 has sixteen, extensions may add some.
const REPORTED_MAX: usize = 100;

/// A session's own state, apart from its sockets.
#[derive(Debug)]
pub struct Talk {
    pub id: SessionId,
    /// Of a service's session only: whom it acts for.
    pub act: Option<Box<Acting>>,
    pub tenant: Arc<Tenant>,
    pub account: Arc<Account>,
    /// Values of the start-up packet: what RESET returns to.
    pub start: Rc<Settings>,
    /// Values in force.
    pub now: Rc<Settings>,
    /// The session's own `idle_session_timeout`, as these say.
    pub idle: Option<Duration>,
    /// The session was reset and the server was not: until it is given back, nobody can say how it
    /// reads a text.
    pub in_doubt: bool,
    /// Settings that statements since the last read-back may have changed.
    pub touched: Noted,
    /// The server told of a parameter since then.
    pub told: bool,
    pub prepared: Prepared,
    /// Counts whom the session had for a tenant: what was judged for one is judged again for
    /// another.
    pub audience: u64,
    /// Leave to keep the server, while the session does or may have to.
    pub pin: Option<Box<Pin>>,
    /// It may have advisory locks, as far as statements say.
    pub locked: bool,
    /// ParameterStatus as told at the welcome, and as told since.
    pub greeting: Rc<Greeting>,
    pub reported: Vec<(String, String)>,
    /// While a server works for a tenant whose database time is limited.
    pub meter: Option<Meter>,
    /// How much of what its client was sent is charged, if that is limited.
    pub bytes_charged: Option<u64>,
    /// What is in flight is a breaker's probe.
    pub probes: Cell<bool>,
    pub patience: Patience,
    pub shared: Rc<Shared>,
    /// What the worker hands all its sessions.
    pub env: Rc<Env>,
}

/// What a session is doing, for cancel and console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// In line for a server, or a server is being bound.
    Waiting,
    Active,
}

/// The part of a session that others on its worker reach.
pub struct Shared {
    pub phase: Cell<Phase>,
    /// The server leased, if any.
    pub server: RefCell<Option<Rc<ServerFacts>>>,
    /// Something is in flight on it.
    pub busy: Cell<bool>,
    /// Cancel requests on their way to the server; it is not parked before they have arrived.
    pub cancels: Cell<u32>,
    /// A cancel came while there was no server to send it to.
    pub cancel_wanted: Cell<bool>,
    /// A cancel may be on its way to the server that nobody saw arrive: it must not be parked.
    pub cancel_astray: Cell<bool>,
    /// The session ends at its next transaction boundary, with this.
    pub ending: RefCell<Option<Box<Error>>>,
    /// The session ends now.
    pub ending_now: Cell<bool>,
    /// Why the session keeps its server.
    pub pins: Cell<Pins>,
    /// The catalog has news of the tenant.
    pub news: Cell<Option<Arc<Tenant>>>,
    rare: RefCell<Option<Box<Rare>>>,
    /// Something of the tenant changed: a request that waits for a server is looked at again.
    pub look_again: Cell<bool>,
    /// The tenant's requests are held back.
    pub paused: Cell<bool>,
    /// A server is being bound for it: not to be interrupted.
    pub binding: Cell<bool>,
    /// Since when the leased server waits for the client, within a transaction.
    quiet_since: Cell<Option<Instant>>,
    quiet: Cell<Duration>,
    /// Bytes from and to the client, up to its last transaction.
    pub bytes: Cell<(u64, u64)>,
    /// How much of that is in the totals.
    booked: Cell<(u64, u64)>,
    /// What its servers told last; `None`: as it asked for at its login.
    pub application_name: RefCell<Option<Box<str>>>,
    pub request_since: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

/// What few sessions ever have: the others are spared its room.
#[derive(Debug, Default)]
struct Rare {
    /// Who waits for cancels to arrive at the server.
    cancellers: Vec<oneshot::Sender<()>>,
    /// The tenant a service's session acts for.
    acts_for: Option<Arc<Tenant>>,
    /// What it showed for that, if it had to.
    shows: Option<Rc<Identity>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Shared")
    }
}

impl Default for Shared {
    /// A session that has just arrived.
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Idle),
            server: RefCell::default(),
            busy: Cell::new(false),
            cancels: Cell::new(0),
            cancel_wanted: Cell::new(false),
            cancel_astray: Cell::new(false),
            ending: RefCell::default(),
            ending_now: Cell::new(false),
            pins: Cell::new(Pins::NONE),
            news: Cell::default(),
            rare: RefCell::default(),
            look_again: Cell::new(false),
            paused: Cell::new(false),
            binding: Cell::new(false),
            quiet_since: Cell::new(None),
            quiet: Cell::new(Duration::ZERO),
            bytes: Cell::new((0, 0)),
            booked: Cell::new((0, 0)),
            application_name: RefCell::default(),
            request_since: Cell::new(Instant::now()),
            waker: RefCell::default(),
        }
    }
}

impl Shared {
    /// Remembers whom to wake.
    #[inline]
    pub fn wake_with(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the session's task.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether no server may be leased as things stand: requests wait, or their tenant is another.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.paused.get() || self.look_again.get()
    }

    /// The tenant has news, which the session takes over before it sends anything more.
    pub fn tell_news(&self, news: Option<Arc<Tenant>>) {
        if news.is_some() {
            self.news.set(news);
        }
        self.look_again.set(true);
        self.wake();
    }

    /// The tenant a service's session acts for.
    pub fn acts_for(&self) -> Option<Arc<Tenant>> {
        self.rare.borrow().as_ref()?.acts_for.clone()
    }

    /// What it showed for that, if it had to.
    pub fn shows(&self) -> Option<Rc<Identity>> {
        self.rare.borrow().as_ref()?.shows.clone()
    }

    /// A service's session acts for a tenant, from now on.
    pub fn act_for(&self, tenant: Arc<Tenant>, shows: Option<Rc<Identity>>) {
        let mut rare = self.rare.borrow_mut();
        let rare = rare.get_or_insert_default();
        (rare.acts_for, rare.shows) = (Some(tenant), shows);
    }

    /// It goes on for the same tenant, as that is now.
    pub fn go_on_for(&self, tenant: Arc<Tenant>) {
        self.rare.borrow_mut().get_or_insert_default().acts_for = Some(tenant);
    }

    /// It acts for nobody any more.
    pub fn act_for_nobody(&self) {
        if let Some(rare) = self.rare.borrow_mut().as_mut() {
            (rare.acts_for, rare.shows) = (None, None);
        }
    }

    /// Holds requests back from the next transaction on, or lets them go on.
    pub fn pause(&self, paused: bool) {
        if self.paused.replace(paused) != paused {
            self.wake();
        }
    }

    /// Something is in flight on the server.
    #[inline]
    pub fn begin_work(&self) {
        self.busy.set(true);
        if let Some(since) = self.quiet_since.take() {
            self.quiet.set(self.quiet.get() + since.elapsed());
        }
    }

    /// Nothing is in flight any more; `within` a transaction the server waits for the client.
    #[inline]
    pub fn end_work(&self, within: bool) {
        self.busy.set(false);
        if within {
            self.quiet_since.set(Some(Instant::now()));
        }
    }

    /// Since when the server waits for its client within a transaction, if it does.
    pub fn quiet_since(&self) -> Option<Instant> {
        self.quiet_since.get()
    }

    /// How long the server of this transaction has waited for its client so far.
    pub fn quiet(&self) -> Duration {
        let waits = self.quiet_since.get().map(|since| since.elapsed());
        self.quiet.get() + waits.unwrap_or_default()
    }

    /// How long the server waited for its client since the last call.
    fn take_quiet(&self) -> Duration {
        let waited = self.quiet_since.take().map(|since| since.elapsed()).unwrap_or_default();
        self.quiet.take() + waited
    }

    /// Bytes from and to the client since the last call.
    pub fn unbooked(&self) -> (u64, u64) {
        let (received, sent) = self.bytes.get();
        let (booked_received, booked_sent) = self.booked.replace((received, sent));
        (received - booked_received, sent - booked_sent)
    }

    /// Asks the session to end at its next transaction boundary, or now.
    pub fn end(&self, error: Error, now: bool) {
        self.ending.borrow_mut().get_or_insert_with(|| Box::new(error));
        self.ending_now.set(self.ending_now.get() || now);
        self.wake();
    }

    /// Ends a session that was to end with its transaction: it had time enough.
    pub fn end_now(&self) {
        self.ending_now.set(true);
        self.wake();
    }

    /// Why the session must end without waiting for the transaction, if it must.
    #[inline]
    pub fn must_end(&self) -> Option<Error> {
        if !self.ending_now.get() {
            return None;
        }
        self.ending.borrow().as_deref().cloned()
    }

    /// A CancelRequest with this session's key came in. `done` is dropped when it has reached the
    /// server, or when there is nothing to cancel: until then its sender's connection stays open,
    /// because that is how libpq knows that a later query cannot be hit.
    pub fn cancel(self: &Rc<Self>, done: oneshot::Sender<()>) {
        match self.phase.get() {
            Phase::Idle => {}
            Phase::Waiting => {
                self.cancel_wanted.set(true);
                self.wake();
            }
            Phase::Active => {
                self.cancel_running();
                if self.cancels.get() > 0 {
                    self.rare.borrow_mut().get_or_insert_default().cancellers.push(done);
                }
            }
        }
    }

    /// Sends a cancel to the server if something runs there. Several at once are one.
    pub fn cancel_running(self: &Rc<Self>) {
        let Some(facts) = self.server.borrow().clone() else { return };
        if !self.busy.get() || self.cancels.get() > 0 {
            return;
        }
        self.cancels.set(1);
        let shared = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = cancel(&facts.cancel_target()).await {
                tracing::warn!(%error, "could not deliver a cancel request to a server");
                shared.cancel_astray.set(true);
            }
            shared.cancels.set(0);
            if let Some(rare) = shared.rare.borrow_mut().as_mut() {
                rare.cancellers.clear();
            }
            shared.wake();
        });
    }
}

impl Talk {
    /// How the server's scanner reads this session's texts; `None` while that is not known: what
    /// was set is known when the transaction is over.
    pub fn read_options(&self) -> Option<ReadOptions> {
        let touched = self.touched.contains(STRINGS);
        let value = self.now.get(STRINGS);
        let standard_conforming_strings = value.is_none_or(|it| it == "on");
        let watch = self.tenant.watch();
        let in_doubt = touched || self.in_doubt;
        (!in_doubt).then_some(ReadOptions { standard_conforming_strings, watch })
    }

    /// The settings a server's scanner reads a text under, as far as they matter to it: without a
    /// backslash it means the same under either value of standard_conforming_strings, and all
    /// encodings agree on ASCII.
    pub fn reads_under(&self, text: &[u8]) -> Box<str> {
        let (escapes, encoded) = (text.contains(&b'\\'), !text.is_ascii());
        if !escapes && !encoded {
            return Box::default();
        }
        let strings = match self.read_options() {
            _ if !escapes => String::new(),
            None => UNSURE.into(),
            Some(options) if options.standard_conforming_strings => String::new(),
            Some(_) => "escapes ".into(),
        };
        let encoding = if encoded { self.encoding() } else { "" };
        (strings + encoding).into()
    }

    /// The encoding of the session's texts; empty for UTF-8, which servers start with.
    fn encoding(&self) -> &str {
        if self.touched.contains(ENCODING) || self.in_doubt {
            return UNSURE;
        }
        let set = self.now.get(ENCODING);
        set.filter(|encoding| !is_utf8(encoding)).unwrap_or_default()
    }

    /// Whether the session's texts are in UTF-8, for certain.
    pub fn is_in_utf8(&self) -> bool {
        self.encoding().is_empty()
    }

    /// Whether a server reads a statement today as it was read when it was judged.
    pub fn reads_as_before(&self, known: &Known) -> bool {
        let before = &known.statement.read_under;
        !before.contains(UNSURE) && self.reads_under(&known.statement.text) == *before
    }

    /// Reads a text as the server's scanner will, once this session is on it.
    pub fn read(&self, text: &[u8]) -> Reading {
        if let Some(options) = self.read_options() {
            return self.env.readings.borrow_mut().read(text, options);
        }
        let watch = self.tenant.watch();
        let as_if = |standard_conforming_strings| {
            guard::read(text, ReadOptions { standard_conforming_strings, watch })
        };
        let reading = as_if(true);
        if as_if(false) != reading {
            let what = "a text that depends on standard_conforming_strings, just set,".into();
            let hint = "Send it when the transaction that set it is over.";
            return Reading::Refused { what, hint };
        }
        reading
    }

    /// Notes what the client was told of a parameter. False if there are more of them than a
    /// server has.
    pub fn note_reported(&mut self, name: &str, value: &str) -> bool {
        self.told = true;
        if name == ENCODING {
            self.prepared.forget_last();
        }
        match self.reported.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value.to_owned(),
            None => self.reported.push((name.to_owned(), value.to_owned())),
        }
        self.reported.len() <= REPORTED_MAX
    }

    /// Writes ParameterStatus for everything that went back to its start-up value.
    pub fn put_parameters_of_start(&mut self, out: &mut Vec<u8>) {
        let mut reported = std::mem::take(&mut self.reported);
        // In the order in which servers go through their settings.
        reported.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        for (name, value) in reported {
            let told = self.greeting.iter().find(|(known, _)| *known == name);
            let start = self.start.get(&name).filter(|_| name == "application_name");
            let start = start.or(told.map(|(_, value)| value.as_str()));
            if let Some(start) = start.filter(|start| *start != value) {
                backend::put_parameter_status(out, &name, start);
            }
        }
    }

    /// Books the end of a transaction, or of a request outside of one.
    pub fn count_transaction(&self) {
        self.account.totals.transactions.fetch_add(1, Ordering::Relaxed);
        add(&self.env.counts.transactions, 1);
    }

    /// Books a refusal of any kind.
    pub fn count_refusal(&self, error: &Error) {
        self.account.totals.refusals.fetch_add(1, Ordering::Relaxed);
        self.count_by_kind(error);
        let facts = error.facts();
        let mut refusals = self.env.counts.refusals.borrow_mut();
        match refusals.iter_mut().find(|(name, _, _)| *name == facts.name) {
            Some(entry) => entry.2 += 1,
            None => refusals.push((facts.name, facts.side.name(), 1)),
        }
    }

    /// Books a text that only reported rules of level guard let pass.
    pub fn count_would_refuse(&self, text: &[u8], rules: Denials) {
        if !rules.is_empty() {
            self.env.counts.would_refuse.borrow_mut().enter(self.tenant.id.as_str(), text, rules);
        }
    }

    /// Books the end of a lease: how long the server waited for the client meanwhile.
    pub fn count_quiet(&self) {
        let quiet = self.shared.take_quiet();
        if !quiet.is_zero() {
            let micros = quiet.as_micros() as u64;
            self.account.totals.idle_time_us.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Books what a session received from its client and sent to it, as far as nobody has yet.
    pub fn count_bytes(&self) {
        let (received, sent) = self.shared.unbooked();
        self.account.totals.bytes_received.fetch_add(received, Ordering::Relaxed);
        self.account.totals.bytes_sent.fetch_add(sent, Ordering::Relaxed);
        add(&self.env.counts.bytes_received, received);
        add(&self.env.counts.bytes_sent, sent);
    }
}

pub(super) fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}
