//! The process: opens the doors, starts the workers, answers the console, reloads and drains.
//!
//! Threads: doors (accept, TLS, login), workers (sessions and servers; a tenant lives on one of
//! them), and this one (signals, console, metrics). They meet in [`Common`] and in the orders a
//! worker is sent; workers also in the arbiters of server connections.

mod act;
mod budgets;
mod desk;
mod door;
mod holds;
mod inherited;
mod ledger;
mod listen;
mod reload;
mod service;
mod snapshot;
mod status;
mod stop;
mod table;
mod usage;
mod worker;
mod written;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::auth::{Authenticator, Throttle};
use crate::budget::Accounts;
use crate::catalog::{Catalog, Composer, Holds, Live, Lookups};
use crate::client::{ClientSettings, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::net::{Clock, Peer, Stream};
use crate::pool::Arbiters;
use crate::telemetry::{Audit, Metrics, logging};
use crate::wire::startup::Startup;
use desk::{Desk, Parts};
use door::{Closing, Doors, Lobby};
use inherited::Inherited;
use service::ServiceManager;
use table::Table;
pub use table::{Alone, CredentialColumns, Sample, TenantColumns, look, sample};
use usage::Usage;
use worker::Worker;

/// Most console sessions at the same time.
const CONSOLES_MAX: usize = 32;

/// How long the start waits for keys that have to be fetched. Without them the gate serves those
/// who need none.
const FIRST_KEYS: Duration = Duration::from_secs(5);

/// What every thread of the gate shares. Immutable, or counted in atomics.
pub struct Common {
    pub catalog: Arc<Live<Catalog>>,
    /// Makes the catalog of file and tables. Whoever replaces the catalog holds it meanwhile.
    pub composer: Mutex<Composer>,
    pub authenticator: Arc<Live<Authenticator>>,
    /// Who failed to log in too often.
    pub throttle: Arc<Throttle>,
    pub registry: Arc<Registry>,
    pub accounts: Arc<Accounts>,
    pub client: Live<ClientSettings>,
    pub metrics: Metrics,
    pub audit: Audit,
    pub epoch: Instant,
    pub clock: Clock,
    /// Client connections of the process, and the most there may be.
    pub clients: AtomicUsize,
    pub clients_max: AtomicUsize,
    /// What the console holds back.
    pub holds: Arc<Live<Holds>>,
    /// No new session may start.
    pub stopping: AtomicBool,
}

impl Common {
    /// What a client is told that is refused: while nobody can tell who is known, all the same.
    fn unless_away(&self, error: Error) -> Error {
        if self.catalog.load().cannot_tell() { Error::CatalogUnavailable } else { error }
    }
}

/// A console client on its way from the door.
pub struct ConsoleArrival {
    pub stream: Stream,
    pub startup: Startup,
    pub peer: Peer,
}

/// Runs the gate until it is told to stop. An error is for the person who starts it.
pub fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let log = logging::init(&config.log)?;
    let mut inherited = Inherited::from_env()?;
    let manager = Arc::new(ServiceManager::from_env());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before anybody can connect and take the gate for started.
    let signals = runtime.block_on(async { stop::Signals::new() })?;
    let http = config.http.as_ref();
    let http = http.map(|http| listen::http(http, &mut inherited)).transpose()?;
    let listeners = listen::open(&config.listen, &mut inherited)?;
    inherited.finish()?;
    let started = config.clone();
    let (metrics, renderer) = Metrics::new();
    let catalog = Arc::new(Live::new(config.catalog.clone()));
    let lookups = config.table.as_ref().map(|it| Arc::new(Lookups::new(catalog.clone(), it.known)));
    let common = Arc::new(common(&config, metrics, catalog, lookups.clone())?);
    let usage = Usage::start(config.usage, &common)?;
    let (arbiters, mail) = Arbiters::new(config.gate.workers);
    let start = |(index, mail)| Worker::start(index, &common, &arbiters, mail);
    let workers: std::io::Result<Vec<Worker>> = mail.into_iter().enumerate().map(start).collect();
    let workers = Arc::new(workers.context("could not start a worker thread")?);
    let tables = config.table.as_ref().zip(lookups.as_ref());
    let table = tables.map(|(it, lookups)| Table::start(it, lookups, &common, &workers));
    let table = table.transpose().context("could not start the catalog's thread")?;
    let (consoles, arrivals) = mpsc::channel(CONSOLES_MAX);
    let terms = listeners.iter().map(|listener| listener.terms.clone()).collect();
    let closing = Closing::default();
    let doors = Doors {
        listeners: listeners.into_iter().map(Arc::new).collect(),
        common: common.clone(),
        workers: workers.clone(),
        consoles,
        closing: closing.clone(),
        lobby: Lobby::default(),
    };
    let threads: std::io::Result<Vec<_>> =
        (0..config.gate.doors).map(|index| doors.start(index)).collect();
    let threads = threads.context("could not start a door thread")?;
    drop(doors);
    let audit = common.audit.clone();
    let last = workers.clone();
    let parts = Parts { common, workers, path, renderer, started, table, terms, log, manager };
    let desk = Desk::new(parts, config.console);
    runtime.block_on(desk.work(signals, http, arrivals, closing))?;
    for thread in threads {
        // A door has nothing left to do; a panic in it was logged where it happened.
        let _ = thread.join();
    }
    runtime.block_on(stop::see_off(&last));
    audit.flush();
    usage.end();
    tracing::info!("stopped");
    Ok(())
}

/// What all threads share at the start.
fn common(
    config: &Config,
    metrics: Metrics,
    catalog: Arc<Live<Catalog>>,
    lookups: Option<Arc<Lookups>>,
) -> anyhow::Result<Common> {
    let mut authenticator = Authenticator::new(&config.issuers)?;
    authenticator.start(None).context("could not start a thread that fetches keys")?;
    authenticator.wait_for_keys(FIRST_KEYS);
    let audit = open_audit(config, &metrics)?;
    let composer = Composer::with_lookups(config.catalog.clone(), lookups);
    catalog.share(composer.catalog());
    Ok(Common {
        authenticator: Arc::new(Live::new(authenticator)),
        composer: Mutex::new(composer),
        catalog,
        throttle: Arc::default(),
        registry: Arc::default(),
        accounts: Arc::default(),
        client: Live::new(config.client.clone()),
        metrics,
        audit,
        epoch: Instant::now(),
        clock: Clock::start().context("could not start the clock's thread")?,
        clients: AtomicUsize::new(0),
        clients_max: AtomicUsize::new(config.gate.clients),
        holds: Arc::new(Live::new(Holds::default())),
        stopping: AtomicBool::new(false),
    })
}

fn open_audit(config: &Config, metrics: &Metrics) -> anyhow::Result<Audit> {
    let Some(settings) = &config.audit else { return Ok(Audit::default()) };
    Audit::start(settings, metrics.audit_lost.clone())
        .with_context(|| format!("could not open {}", settings.file.display()))
}
