//! The door: accept, shake hands, authenticate, and send each client to the worker of its tenant.
//! [`serve`] is the life of a connection up to there.

mod lobby;
mod prove;
mod proxied;
mod refused;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::mpsc::error::TrySendError;
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
use lobby::Guest;
pub use lobby::Lobby;
use prove::Proving;

/// How much nicer doors are than workers (nice(2)): a third of their share of a CPU.
const LESS_URGENT: i32 = 5;

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
    lobby: Lobby,
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
    pub lobby: Lobby,
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
        let Self { listeners, common, workers, consoles, closing, lobby } = self.clone();
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("door-{index}")).spawn(move || {
            // Where CPUs are scarce, who is in goes before who knocks: a crowd that logs in and out
            // must not be what everybody's queries wait for. Of this thread only, on Linux.
            if let Err(error) = rustix::process::nice(LESS_URGENT) {
                tracing::debug!(%error, "doors are as urgent as workers");
            }
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
            let door = Rc::new(Door { common, workers, consoles, lobby, inside, late, turn });
            runtime.block_on(open(listeners, door, closing));
        })?;
        let ended = || io::Error::other("the thread ended at once");
        started.blocking_recv().unwrap_or_else(|_| Err(ended())).map(|()| thread)
    }
}

async fn open(listeners: Vec<Arc<Listener>>, door: Rc<Door>, closing: Closing) {
    let Closing { wanted, accepting } = closing;
    // Counted before anything is awaited: whoever closes the doors waits for all of them.
    let accepts: Vec<_> = listeners
        .into_iter()
        .map(|listener| accepting.track_future(accept(listener, door.clone(), wanted.clone())))
        .collect();
    outlast(accepts, &door.inside, &door.late, CLOSING).await;
}

/// Until those who accept have ended, and then those whom they let in, however late. Nobody may be
/// counted as gone before nobody can come any more: one who comes in the same moment would be cut
/// off with the runtime. Those who are in are let through or told why not.
async fn outlast<A>(accepts: Vec<A>, inside: &TaskTracker, late: &CancellationToken, time: Duration)
where
    A: Future<Output = ()> + 'static,
{
    let accepting: Vec<_> = accepts.into_iter().map(tokio::task::spawn_local).collect();
    for accept in accepting {
        // A panic in it was logged where it happened.
        let _ = accept.await;
    }
    inside.close();
    if tokio::time::timeout(time, inside.wait()).await.is_err() {
        let connections = inside.len();
        tracing::info!(connections, "the door closes on those who are still on their way in");
        late.cancel();
        let _ = tokio::time::timeout(time, inside.wait()).await;
    }
}

/// Lets in one connection after the other, until the door is to close.
async fn accept(listener: Arc<Listener>, door: Rc<Door>, wanted: CancellationToken) {
    let let_in = |socket, peer| {
        // Not with the listener itself, which closes when nobody accepts any more.
        let (door, terms) = (door.clone(), listener.terms.load());
        let inside = door.inside.clone();
        let entering = async move { enter(socket, peer, terms, &door).await };
        tokio::task::spawn_local(inside.track_future(entering));
    };
    if let Err(error) = listener.accept(&wanted, let_in).await {
        tracing::error!(%error, "a listener ended");
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

async fn enter(socket: Socket, peer: Peer, terms: Arc<Terms>, door: &Door) {
    if let Err(error) = prepare(&socket) {
        tracing::debug!(%peer, %error, "a connection was gone before it was served");
        return;
    }
    let mut guest = door.lobby.enter(&peer);
    let out = guest.out();
    let received = out.run_until_cancelled(receive(socket, peer, terms, door, &mut guest));
    if received.await.is_none() {
        door.common.metrics.login_failure("crowded");
        tracing::debug!(%peer, "a client at the door had to go for others");
    }
}

async fn receive(socket: Socket, peer: Peer, terms: Arc<Terms>, door: &Door, guest: &mut Guest) {
    let limit = door.common.client.load().login_timeout;
    match tokio::time::timeout(limit, serve(socket, peer, terms, door, guest)).await {
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
    terms: Arc<Terms>,
    door: &Door,
    guest: &mut Guest,
) -> Result<(), Ended> {
    let common = &door.common;
    let settings = common.client.load();
    let hello = async {
        if terms.proxies.include(&peer) {
            peer = proxied::peer(&mut socket, peer).await?;
            guest.is_from(&peer);
        }
        client::negotiate(socket, &terms.tls, &settings).await
    };
    let hello = door.late.run_until_cancelled(hello).await.transpose();
    let hello = hello.inspect_err(|ended| match ended {
        Ended::Refused(_, error) => refused::unheard(common, None, peer, error),
        Ended::Gone(_) => {}
    });
    let Some(hello) = hello? else {
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
    let refuse = |stream, error| {
        refused::unheard(common, Some(&startup), peer, &error);
        Err(Ended::Refused(Box::new(stream), error))
    };
    if common.stopping.load(Ordering::Relaxed) {
        return refuse(stream, Error::ShuttingDown);
    }
    let read = Wishes::read(&startup).and_then(|mut wishes| {
        wishes.tenants.extend(terms.tenant_of(&stream));
        Ok((terms.rule(&wishes, &stream, peer)?, wishes))
    });
    let (rule, wishes) = match read {
        Ok(read) => read,
        Err(error) => return refuse(stream, error),
    };
    let knock = Knock { wishes, long_key: startup.takes_long_keys(), peer, terms, rule };
    login(stream, knock, door).await
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
async fn login(mut stream: Stream, knock: Knock, door: &Door) -> Result<(), Ended> {
    let Knock { wishes, long_key, peer, terms, rule } = knock;
    let common = &door.common;
    let refuse = |stream, error| Err(Ended::Refused(Box::new(stream), error));
    if !common.audit.lets_in() {
        let error = Error::AuditUnavailable.into();
        return refuse(stream, refused::denied(common, &wishes, peer, error));
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
            let error = refused::denied(common, &wishes, peer, turned);
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
    let account = common.accounts.of(tenant.id.as_str());
    let let_in = || {
        let slot = Slot::take(common).ok_or(Error::TooManyClients)?;
        Ok((slot, budgets::let_in(&account, tenant, common.epoch.elapsed())?))
    };
    let (slot, client_slot) = match wishes.check(tenant).and_then(|()| let_in()) {
        Ok(slots) => slots,
        Err(error) => {
            refused::proved(common, &wishes, peer, &identity, &error);
            return refuse(stream, error);
        }
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
        let credential = Some(proven.identity.credential);
        return Err(Turned { error: Error::AuthenticationFailed, reason, credential });
    }
    proven.identity.tenant = proven.identity.seen_under(&common.catalog.load(), &holds);
    Ok(proven)
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
    // The console must not hold the door up.
    let (back, error) = match door.consoles.try_send(arrival) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Full(back)) => (back, Error::TooManyClients),
        Err(TrySendError::Closed(back)) => (back, Error::ShuttingDown),
    };
    stream = back.stream;
    stream.attach()?;
    Err(Ended::Refused(Box::new(stream), error))
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
    fn a_door_outlasts_whoever_comes_while_the_last_one_goes() {
        let builder = &mut Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(Default::default()).unwrap();
        let served = Rc::new(Cell::new(false));
        runtime.block_on(async {
            let (inside, wanted) = (TaskTracker::new(), CancellationToken::new());
            let leaves = wanted.clone();
            tokio::task::spawn_local(
                inside.track_future(async move { leaves.cancelled_owned().await }),
            );
            // Both have heard that the door closes, and somebody was accepted before that.
            let (tracker, told, mark) = (inside.clone(), wanted.clone(), served.clone());
            let accept = async move {
                told.cancelled().await;
                tokio::task::yield_now().await;
                tokio::task::spawn_local(tracker.track_future(async move {
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    mark.set(true);
                }));
            };
            let closes = wanted.clone();
            tokio::task::spawn_local(async move { closes.cancel() });
            outlast(vec![accept], &inside, &CancellationToken::new(), CLOSING).await;
        });
        assert!(served.get());
    }

    #[test]
    fn a_tenant_always_lives_on_the_same_worker() {
        assert_eq!(worker_of("acme", 4), worker_of("acme", 4));
        let spread = (0..1000).filter(|id| worker_of(&format!("t{id}"), 2) == 0).count();
        assert!((400..600).contains(&spread), "{spread}");
    }
}
