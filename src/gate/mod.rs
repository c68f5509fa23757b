//! The process: opens the doors, starts the workers, answers the console, reloads and drains.
//!
//! Threads: one door (accept, TLS, login), the workers (sessions and servers; a tenant lives on one
//! of them), and this one (signals, console, metrics). They meet in [`Common`] and in the orders a
//! worker is sent.

mod door;
mod reload;
mod snapshot;
mod stop;
mod worker;

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::budget::Accounts;
use crate::catalog::Catalog;
use crate::client::{ClientSettings, DoorTls, Registry};
use crate::config::{Config, Setting};
use crate::console::{self, ConsoleEnv, ConsoleLogin, ConsoleSettings, Control};
use crate::live::Live;
use crate::net::{ListenSettings, Stream, TlsPolicy, tls};
use crate::telemetry::http::{self, HttpEnv, Scrape};
use crate::telemetry::{HttpSettings, Metrics, Renderer, logging};
use crate::wire::startup::Startup;
use worker::Worker;

/// Most console sessions at the same time.
const CONSOLES_MAX: usize = 32;

/// Most connections that a listener keeps ready before they are accepted.
const BACKLOG: i32 = 1024;

/// What every thread of the gate shares. Immutable, or counted in atomics.
pub struct Common {
    pub catalog: Live<Catalog>,
    pub authenticator: Live<Authenticator>,
    pub registry: Arc<Registry>,
    pub accounts: Accounts,
    pub client: Arc<ClientSettings>,
    pub metrics: Metrics,
    pub epoch: Instant,
    /// Client connections of the process, and the most there may be.
    pub clients: AtomicUsize,
    pub clients_max: usize,
    /// No new session may start.
    pub stopping: AtomicBool,
}

/// A console client on its way from the door.
pub struct ConsoleArrival {
    pub stream: Stream,
    pub startup: Startup,
    pub peer: std::net::SocketAddr,
}

/// Runs the gate until it is told to stop. An error is for the person who starts it.
pub fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    logging::init(&config.log)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before anybody can connect and take the gate for started.
    let signals = runtime.block_on(async { stop::Signals::new() })?;
    let http = config.http.as_ref().map(open_http).transpose()?;
    let listeners = open(&config.listen)?;
    let started = config.clone();
    let (metrics, renderer) = Metrics::new();
    let common = Arc::new(Common {
        authenticator: Live::new(Authenticator::new(&config.issuers)?),
        catalog: Live::new(config.catalog),
        registry: Arc::default(),
        accounts: Accounts::default(),
        client: Arc::new(config.client),
        metrics,
        epoch: Instant::now(),
        clients: AtomicUsize::new(0),
        clients_max: config.gate.clients,
        stopping: AtomicBool::new(false),
    });
    let workers: std::io::Result<Vec<Worker>> =
        (0..config.gate.workers).map(|index| Worker::start(index, &common)).collect();
    let workers = Arc::new(workers.context("could not start a worker thread")?);
    let (consoles, arrivals) = mpsc::channel(CONSOLES_MAX);
    let doors = CancellationToken::new();
    let door = door::start(listeners, &common, &workers, consoles, doors.clone())?;
    let console = Arc::new(config.console);
    let settings = RefCell::new(started.table());
    let desk = Desk { common, workers, path, renderer, console, started, settings };
    runtime.block_on(desk.work(signals, http, arrivals, doors))?;
    // The door has nothing left to do; a panic in it was logged where it happened.
    let _ = door.join();
    tracing::info!("stopped");
    Ok(())
}

/// A listener of the gate and how it speaks TLS.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: DoorTls,
    pub plaintext_password: bool,
}

fn open(settings: &[ListenSettings]) -> anyhow::Result<Vec<Listener>> {
    settings.iter().map(listener).collect()
}

fn open_http(settings: &HttpSettings) -> anyhow::Result<TcpListener> {
    let address = settings.address;
    let socket =
        http::listen(settings).with_context(|| format!("could not listen on {address}"))?;
    tracing::info!(%address, "serving metrics");
    Ok(socket)
}

fn listener(settings: &ListenSettings) -> anyhow::Result<Listener> {
    let address = settings.address;
    let acceptor = match (&settings.identity, settings.tls) {
        (_, TlsPolicy::Disable) | (None, _) => None,
        (Some((certificate, key)), _) => Some(tls::acceptor(certificate, key)?),
    };
    let opened = (|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        std::io::Result::Ok(socket)
    })();
    let socket = opened.with_context(|| format!("could not listen on {address}"))?;
    let tls = DoorTls { policy: settings.tls, acceptor };
    tracing::info!(%address, tls = ?settings.tls, "listening");
    Ok(Listener { socket: socket.into(), tls, plaintext_password: settings.plaintext_password })
}

/// The thread that operators talk to.
struct Desk {
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    path: PathBuf,
    renderer: Renderer,
    console: Arc<ConsoleSettings>,
    /// What the process was started with; what only a restart changes stays so.
    started: Config,
    /// Every setting in force.
    settings: RefCell<Vec<Setting>>,
}

impl Desk {
    /// From the first signal to the last session. Probes and metrics are served to the end: while
    /// it drains, the gate is alive and not ready.
    async fn work(
        &self,
        signals: stop::Signals,
        http: Option<TcpListener>,
        arrivals: mpsc::Receiver<ConsoleArrival>,
        doors: CancellationToken,
    ) -> anyhow::Result<()> {
        let ending = CancellationToken::new();
        let ready = Arc::new(AtomicBool::new(true));
        let (scrape, scrapes) = mpsc::channel(1);
        tokio::spawn(self.renderer.clone().keep_up(ending.clone()));
        if let Some(socket) = http {
            let env = HttpEnv { renderer: self.renderer.clone(), ready: ready.clone(), scrape };
            tokio::spawn(http::serve(socket, env, ending.clone()));
        }
        self.announce();
        self.serve(signals, arrivals, scrapes).await;
        ready.store(false, Ordering::Relaxed);
        doors.cancel();
        stop::drain(&self.common, &self.workers, self.started.gate.drain_timeout).await;
        ending.cancel();
        Ok(())
    }

    /// Answers signals, console and scrapes until it is time to stop.
    async fn serve(
        &self,
        mut signals: stop::Signals,
        mut arrivals: mpsc::Receiver<ConsoleArrival>,
        mut scrapes: mpsc::Receiver<Scrape>,
    ) {
        let (control, mut controls) = mpsc::channel::<Control>(CONSOLES_MAX);
        let consoles = Arc::new(AtomicUsize::new(0));
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    stop::Signal::Reload => self.reload().await,
                    stop::Signal::Stop => return,
                },
                Some(arrival) = arrivals.recv() => self.open_console(arrival, &control, &consoles),
                Some(Control::Snapshot(reply)) = controls.recv() => {
                    // The one who asked may have hung up meanwhile.
                    let mut snapshot = snapshot::take(&self.common, &self.workers).await;
                    snapshot.config = snapshot::config(&self.settings.borrow());
                    let _ = reply.send(snapshot);
                }
                Some(Scrape(reply)) = scrapes.recv() => {
                    let _ = reply.send(snapshot::totals(&self.common));
                }
            }
        }
    }

    async fn reload(&self) {
        let reloaded = reload::reload(&self.common, &self.workers, &self.path, &self.started).await;
        if let Some(settings) = reloaded {
            *self.settings.borrow_mut() = settings;
        }
    }

    fn announce(&self) {
        let catalog = self.common.catalog.load();
        let tenants = catalog.tenants().len();
        self.common.metrics.catalog_tenants.set(tenants as f64);
        tracing::info!(
            tenants,
            workers = self.workers.len(),
            level = "plain",
            "ready; level plain protects against mistakes and residue, not against SQL that sets \
             the tenant's setting on purpose"
        );
    }

    fn open_console(
        &self,
        arrival: ConsoleArrival,
        control: &mpsc::Sender<Control>,
        consoles: &Arc<AtomicUsize>,
    ) {
        let ConsoleArrival { mut stream, startup, peer } = arrival;
        if stream.attach().is_err() || consoles.load(Ordering::Relaxed) >= CONSOLES_MAX {
            return;
        }
        consoles.fetch_add(1, Ordering::Relaxed);
        let user = startup.parameter("user").unwrap_or_default().to_owned();
        let secure = stream.is_secure();
        let login = ConsoleLogin { user, peer, secure, parameters: startup.parameters };
        let env = ConsoleEnv { settings: self.console.clone(), control: control.clone() };
        let consoles = consoles.clone();
        tokio::spawn(async move {
            console::run(stream, login, env).await;
            consoles.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
