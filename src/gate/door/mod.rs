//! The door: accept, shake hands, authenticate, and send each client to the worker of its tenant.
//! [`serve`] is the life of a connection up to there.

mod prove;
mod proxied;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{self, Arrival, Ended, Hello, Proven, Turned, Wishes, put_refusal};
use crate::console;
use crate::error::{Error, Severity};
use crate::gate::budgets;
use crate::gate::listen::{Listener, Terms};
use crate::gate::worker::{Newcomer, Order, Worker};
use crate::gate::{Common, ConsoleArrival};
use crate::net::{LoginRule, Peer, Socket, Stream};
use crate::telemetry::{Event, What};
use crate::wire::startup::Startup;
use prove::Proving;

/// How long to rest after an accept that failed for want of something (descriptors, memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Most connections beyond the limit of clients; a further one is closed without a word.
const STRANGERS_MAX: usize = 256;

/// How long a refused client may take to read why.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long those who are half in may take when the door closes, and then to hear that it does.
const CLOSING: Duration = Duration::from_secs(2);

/// How long what a refused client still sends is read and thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection at the door needs.
struct Door {
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    consoles: mpsc::Sender<ConsoleArrival>,
    /// Connections beyond the limit of clients, at all doors: they may cancel, or be told why not.
    strangers: Arc<AtomicUsize>,
    /// Connections on their way in.
    inside: TaskTracker,
    /// They have had their time: the process ends.
    late: CancellationToken,
    /// How many sessions of services were let in: they go to the workers in turn.
    turn: Cell<usize>,
}

/// What every door needs. All accept from the same listeners.
#[derive(Clone)]
pub struct Doors {
    pub listeners: Vec<Arc<Listener>>,
    pub common: Arc<Common>,
    pub workers: Arc<Vec<Worker>>,
    pub consoles: mpsc::Sender<ConsoleArrival>,
    pub closing: Closing,
    pub strangers: Arc<AtomicUsize>,
}

/// Closes all doors.
#[derive(Clone, Default)]
pub struct Closing {
    wanted: CancellationToken,
    accepting: TaskTracker,
}

impl Closing {
    /// Returns when no door accepts any more: who is told to go then, and comes again at once, is
    /// not let in only to hear it once more.
    pub async fn close(&self) {
        self.wanted.cancel();
        self.accepting.close();
        if tokio::time::timeout(CLOSING, self.accepting.wait()).await.is_err() {
            tracing::warn!("a door did not close in time");
        }
    }
}

impl Doors {
    /// Starts a door's thread; returns when it is ready to work.
    pub fn start(&self, index: usize) -> io::Result<JoinHandle<()>> {
        let Self { listeners, common, workers, consoles, closing, strangers } = self.clone();
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("door-{index}")).spawn(move || {
            let builder = &mut Builder::new_current_thread();
            let runtime = match builder.enable_all().build_local(Default::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let (inside, late) = (TaskTracker::new(), CancellationToken::new());
            let turn = Cell::new(index);
            let door = Rc::new(Door { common, workers, consoles, strangers, inside, late, turn });
            runtime.block_on(open(listeners, door, closing));
        })?;
        let ended = || io::Error::other("the thread ended at once");
        started.blocking_recv().unwrap_or_else(|_| Err(ended())).map(|()| thread)
    }
}

async fn open(listeners: Vec<Arc<Listener>>, door: Rc<Door>, closing: Closing) {
    for listener in listeners {
        let door = door.clone();
        let wanted = closing.wanted.clone();
        tokio::task::spawn_local(closing.accepting.track_future(async move {
            if let Err(error) = wanted.run_until_cancelled(accept(listener, door)).await.transpose()
            {
                tracing::error!(%error, "a listener ended");
            }
        }));
    }
    closing.wanted.cancelled().await;
    // Those who are in are let through or told why not; a silent end would look like a crash.
    door.inside.close();
    if tokio::time::timeout(CLOSING, door.inside.wait()).await.is_err() {
        let connections = door.inside.len();
        tracing::info!(connections, "the door closes on those who are still on their way in");
        door.late.cancel();
        let _ = tokio::time::timeout(CLOSING, door.inside.wait()).await;
    }
}

/// Lets in one connection after the other. Ends only with an error of the listener itself.
async fn accept(listener: Arc<Listener>, door: Rc<Door>) -> io::Result<()> {
    let incoming = listener.incoming()?;
    loop {
        match incoming.accept().await {
            Ok((socket, peer)) => {
                let (door, listener) = (door.clone(), listener.clone());
                let inside = door.inside.clone();
                let entering = async move { enter(socket, peer, &listener, &door).await };
                tokio::task::spawn_local(inside.track_future(entering));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// A place among the process's client connections; dropping it gives it back.
pub struct Slot(Arc<Common>);

impl Slot {
    fn take(common: &Arc<Common>) -> Option<Self> {
        let most = common.clients_max.load(Ordering::Relaxed);
        let below = |now: usize| (now < most).then_some(now + 1);
        let taken = common.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below);
        taken.ok().map(|_| Self(common.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn enter(socket: Socket, peer: Peer, listener: &Listener, door: &Door) {
    let slot = Slot::take(&door.common);
    if let Err(error) = prepare(&socket) {
        tracing::debug!(%peer, %error, "a connection was gone before it was served");
        return;
    }
    let strange = usize::from(slot.is_none());
    if strange > 0 && door.strangers.load(Ordering::Relaxed) >= STRANGERS_MAX {
        return;
    }
    door.strangers.fetch_add(strange, Ordering::Relaxed);
    receive(socket, peer, listener, door, slot).await;
    door.strangers.fetch_sub(strange, Ordering::Relaxed);
}

async fn receive(socket: Socket, peer: Peer, listener: &Listener, door: &Door, slot: Option<Slot>) {
    let limit = door.common.client.load().login_timeout;
    match tokio::time::timeout(limit, serve(socket, peer, listener, door, slot)).await {
        Ok(Ok(())) => {}
        Ok(Err(Ended::Gone(error))) => tracing::debug!(%peer, %error, "a client left at the door"),
        Ok(Err(Ended::Refused(stream, error))) => turn_away(*stream, &error, door).await,
        Err(_) => {
            door.common.metrics.login_failure("timeout");
            tracing::info!(%peer, "a client did not log in in time");
        }
    }
}

fn prepare(socket: &Socket) -> io::Result<()> {
    let Socket::Tcp(stream) = socket else { return Ok(()) };
    stream.set_nodelay(true)?;
    // A client whose machine is gone gives its place back after about ten minutes.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(300))
        .with_interval(Duration::from_secs(60))
        .with_retries(5);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The life of a connection up to its session: what it is, who it is, where it goes.
async fn serve(
    mut socket: Socket,
    mut peer: Peer,
    listener: &Listener,
    door: &Door,
    slot: Option<Slot>,
) -> Result<(), Ended> {
    let common = &door.common;
    let (terms, settings) = (listener.terms.load(), common.client.load());
    if terms.proxies.include(&peer) {
        peer = proxied::peer(&mut socket, peer).await?;
    }
    let hello = client::negotiate(socket, &terms.tls, &settings);
    let Some(hello) = door.late.run_until_cancelled(hello).await.transpose()? else {
        // It has not asked for anything yet.
        return Ok(());
    };
    let (stream, startup) = match hello {
        Hello::Cancel { mut stream, pid, secret } => {
            cancel(door, pid, &secret).await;
            // Inside TLS an end without a goodbye looks cut off, and drivers report it.
            let _ = tokio::time::timeout(GOODBYE, stream.shutdown()).await;
            return Ok(());
        }
        Hello::Start { stream, startup } => (stream, startup),
    };
    if startup.parameter("database") == Some(console::DATABASE) {
        return to_console(stream, startup, peer, door).await;
    }
    let refuse = |stream, error| Err(Ended::Refused(Box::new(stream), error));
    let Some(slot) = slot else { return refuse(stream, Error::TooManyClients) };
    if common.stopping.load(Ordering::Relaxed) {
        return refuse(stream, Error::ShuttingDown);
    }
    let user = startup.parameter("user").unwrap_or_default();
    let read = Wishes::read(&startup).and_then(|mut wishes| {
        wishes.tenants.extend(terms.tenant_of(&stream));
        Ok((terms.rule(&wishes, &stream, peer)?, wishes))
    });
    let (rule, wishes) = match read {
        Ok(read) => read,
        Err(error) => {
            if matches!(error, Error::LoginRejected | Error::CertificateRequired) {
                let database = startup.parameter("database").unwrap_or_default();
                let event = Event::new(What::Refusal).login(user, database).peer(&peer);
                common.audit.record(&event.reason(&error.message()));
            }
            return refuse(stream, error);
        }
    };
    let knock = Knock { wishes, long_key: startup.takes_long_keys(), peer, terms, rule };
    login(stream, knock, door, slot).await
}

/// Who knocks, and how.
struct Knock {
    wishes: Wishes,
    /// It takes a cancel key of protocol 3.2.
    long_key: bool,
    peer: Peer,
    terms: Arc<Terms>,
    rule: LoginRule,
}

/// From wishes to a session on its worker.
async fn login(mut stream: Stream, knock: Knock, door: &Door, slot: Slot) -> Result<(), Ended> {
    let Knock { wishes, long_key, peer, terms, rule } = knock;
    let common = &door.common;
    let refuse = |stream, error| Err(Ended::Refused(Box::new(stream), error));
    if !common.audit.lets_in() {
        return refuse(stream, denied(door, &wishes, peer, Error::AuditUnavailable.into()));
    }
    let (authenticator, catalog) = (common.authenticator.load(), common.catalog.load());
    let settings = common.client.load();
    let (authenticator, catalog) = (&authenticator, &catalog);
    let (throttle, settings) = (&common.throttle, &settings);
    let (terms, rule, tried) = (&*terms, &rule, Cell::new(Instant::now()));
    let proving = Proving { terms, rule, authenticator, catalog, settings, throttle, peer, tried };
    let proof = door.late.run_until_cancelled(proving.prove(&mut stream, &wishes)).await;
    let Some(proof) = proof.transpose()? else { return refuse(stream, Error::ShuttingDown) };
    let Proven { identity, farewell } = match proof.and_then(|proven| held(common, proven)) {
        Ok(proven) => proven,
        Err(turned) => {
            let error = denied(door, &wishes, peer, turned);
            if !matches!(error, Error::AuthenticationFailed | Error::CatalogUnavailable) {
                return refuse(stream, error);
            }
            proving.pause().await;
            // All who are refused hear the same, whether they are known or not.
            return refuse(stream, common.unless_away(error));
        }
    };
    if !farewell.is_empty() {
        stream.write_all(&farewell).await?;
        stream.flush().await?;
    }
    let tenant = &identity.tenant;
    if let Err(error) = wishes.check(tenant) {
        return refuse(stream, error);
    }
    let account = common.accounts.of(tenant.id.as_str());
    let client_slot = match budgets::let_in(&account, tenant, common.epoch.elapsed()) {
        Ok(slot) => slot,
        Err(error) => return refuse(stream, error),
    };
    let index = match &tenant.service {
        // It acts for tenants of any worker, with that worker's own servers.
        Some(_) => door.turn.replace(door.turn.get() + 1) % door.workers.len().max(1),
        None => worker_of(tenant.id.as_str(), door.workers.len()),
    };
    let entered = common.registry.enter(index, long_key);
    let (Some(worker), Some(entry)) = (door.workers.get(index), entered) else {
        return refuse(stream, Error::Internal);
    };
    common.metrics.logins.increment(1);
    let session = entry.session;
    tracing::info!(session, tenant = %tenant.id, credential = identity.credential, %peer, "login");
    let event = Event::new(What::Login).tenant(tenant.id.as_str()).session(session).peer(&peer);
    let event = event.credential(&identity.credential).login(&wishes.user, &wishes.database);
    common.audit.record(&event);
    let local = stream.local_addr();
    stream.detach()?;
    let arrival = Arrival { stream, identity, account, slot: client_slot, wishes, entry };
    let newcomer = Box::new(Newcomer { arrival, peer, local, slot });
    let Err(back) = worker.adopt(newcomer) else { return Ok(()) };
    let mut stream = back.arrival.stream;
    stream.attach()?;
    refuse(stream, Error::WorkerLost)
}

/// Who has proved to be somebody, as the console has that tenant at the moment.
fn held(common: &Common, mut proven: Proven) -> Result<Proven, Turned> {
    let holds = common.holds.load();
    if holds.disabled.covers(&proven.identity.tenant) {
        let reason = "disabled in the console".to_owned();
        return Err(Turned { error: Error::AuthenticationFailed, reason });
    }
    proven.identity.tenant = proven.identity.seen_under(&common.catalog.load(), &holds);
    Ok(proven)
}

/// Notes a login that was denied, with its true reason; gives back what the client is told.
fn denied(door: &Door, wishes: &Wishes, peer: Peer, turned: Turned) -> Error {
    let Turned { error, mut reason } = turned;
    let user = wishes.user.as_str();
    door.common.metrics.login_failure("denied");
    if matches!(error, Error::TooManyFailures { .. }) {
        match door.common.throttle.turned_away(Instant::now()) {
            Some(1) => {}
            Some(count) => reason = format!("{reason}, {count} logins since this was last said"),
            None => return error,
        }
    }
    tracing::warn!(user, reason, "login denied");
    let event = Event::new(What::Refusal).login(user, &wishes.database);
    door.common.audit.record(&event.peer(&peer).reason(&reason));
    error
}

/// The worker a tenant lives on: always the same one, so that its clients share servers.
fn worker_of(tenant: &str, workers: usize) -> usize {
    // FNV-1a: the same in every process and every release, unlike the standard hasher.
    let hash = tenant.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % workers.max(1) as u64).unwrap_or(0)
}

async fn cancel(door: &Door, pid: i32, secret: &[u8]) {
    // Nothing is answered, whether the key is right or not (PostgreSQL manual, 55.2.8). But the
    // connection is not closed before the delivery: drivers wait for that, so that the cancel
    // cannot hit their next query.
    if let Some(place) = door.common.registry.find(pid, secret)
        && let Some(worker) = door.workers.get(place.worker)
    {
        door.common.metrics.cancels.increment(1);
        let (done, delivered) = oneshot::channel();
        worker.order(Order::Cancel { session: place.session, done });
        // Dropped, not sent: either way it is over.
        let _ = delivered.await;
    }
}

async fn to_console(
    mut stream: Stream,
    startup: Startup,
    peer: Peer,
    door: &Door,
) -> Result<(), Ended> {
    if !peer.is_local() {
        let database = console::DATABASE.to_owned();
        return Err(Ended::Refused(Box::new(stream), Error::UnknownDatabase { database }));
    }
    stream.detach()?;
    let arrival = ConsoleArrival { stream, startup, peer };
    // A full desk refuses by closing: the console must not hold the door up.
    let _ = door.consoles.try_send(arrival);
    Ok(())
}

async fn turn_away(mut stream: Stream, error: &Error, door: &Door) {
    let facts = error.facts();
    door.common.metrics.refusal(facts.name, facts.side.name());
    let mut out = Vec::new();
    put_refusal(&mut out, error, Severity::Fatal);
    let goodbye = async {
        stream.write_all(&out).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        // A socket that is closed with bytes unread takes the refusal with it.
        let mut sink = [0; 1024];
        let unread = async { while let Ok(1..) = stream.read(&mut sink).await {} };
        let _ = tokio::time::timeout(LINGER, unread).await;
        io::Result::Ok(())
    };
    // A client that does not listen is not told.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_always_lives_on_the_same_worker() {
        assert_eq!(worker_of("acme", 4), worker_of("acme", 4));
        let spread = (0..1000).filter(|id| worker_of(&format!("t{id}"), 2) == 0).count();
        assert!((400..600).contains(&spread), "{spread}");
    }
}
