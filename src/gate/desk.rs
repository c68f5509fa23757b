//! The desk: the thread that operators talk to. Signals, console sessions and scrapes end up here;
//! it reloads, drains, and asks the workers what is going on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Reader;
use crate::catalog::{Live, Tenant};
use crate::config::{Config, Setting};
use crate::console::{
    self, ConsoleEnv, ConsoleLogin, ConsoleSettings, Control, Fault, Snapshot, Subject,
};
use crate::gate::act::Moves;
use crate::gate::budgets::Overridden;
use crate::gate::door::Closing;
use crate::gate::ledger::Ledger;
use crate::gate::listen::Terms;
use crate::gate::service::ServiceManager;
use crate::gate::table::Table;
use crate::gate::worker::{Order, Worker};
use crate::gate::{CONSOLES_MAX, Common, ConsoleArrival, snapshot, status, stop};
use crate::telemetry::http::{self, HttpEnv, Scrape};
use crate::telemetry::logging::Log;
use crate::telemetry::{Board, Renderer};

/// How often files that credentials hang on are looked at: what is revoked ends within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the desk is given.
pub struct Parts {
    pub common: Arc<Common>,
    pub workers: Arc<Vec<Worker>>,
    pub path: PathBuf,
    pub renderer: Renderer,
    /// What the process was started with; what only a restart changes stays so.
    pub started: Config,
    pub table: Option<Table>,
    /// Of each listener, in the order of the settings.
    pub terms: Vec<Arc<Live<Terms>>>,
    pub log: Log,
    pub manager: Arc<ServiceManager>,
}

/// The thread that operators talk to, and what it works with.
pub struct Desk {
    pub common: Arc<Common>,
    pub workers: Arc<Vec<Worker>>,
    pub path: PathBuf,
    renderer: Renderer,
    pub started: Config,
    pub table: Option<Table>,
    pub terms: Vec<Arc<Live<Terms>>>,
    pub log: Log,
    pub console: Arc<Live<ConsoleSettings>>,
    /// Every setting in force.
    pub settings: RefCell<Vec<Setting>>,
    manager: Arc<ServiceManager>,
    pub drain_timeout: Cell<Duration>,
    ledger: RefCell<Ledger>,
    /// The series of tenants, where there are metrics.
    board: Option<Arc<Mutex<Board>>>,
    /// Whether the gate takes clients: what `/ready` answers.
    pub ready: Arc<AtomicBool>,
    /// The console drained the gate; `RESUME` opens it again.
    pub draining: Cell<bool>,
    /// For those who wait elsewhere until it is time to stop.
    pub stops: mpsc::Sender<Stop>,
    stopped: RefCell<Option<mpsc::Receiver<Stop>>>,
    /// Changes of credentials that the workers know of.
    changes_seen: Cell<u64>,
    /// Limits that were set for a while.
    pub overridden: Overridden,
    pub moves: Moves,
}

/// The process is to end.
pub struct Stop {
    /// How long transactions get.
    pub limit: Duration,
}

impl Desk {
    /// A desk for a gate that was started with these.
    pub fn new(parts: Parts, console: ConsoleSettings) -> Self {
        let Parts { common, workers, path, renderer, started, table, terms, log, manager } = parts;
        let (stops, stopped) = mpsc::channel(1);
        common.accounts.keep_for(Reader::Console);
        let board = started.http.as_ref().map(|http| {
            common.accounts.keep_for(Reader::Metrics);
            Arc::new(Mutex::new(Board::new(http.tenants_top, &http.tenants)))
        });
        Self {
            common,
            workers,
            path,
            renderer,
            settings: RefCell::new(started.table()),
            drain_timeout: Cell::new(started.gate.drain_timeout),
            started,
            table,
            terms,
            log,
            manager,
            console: Arc::new(Live::new(console)),
            ledger: RefCell::default(),
            board,
            ready: Arc::new(AtomicBool::new(true)),
            draining: Cell::new(false),
            stops,
            stopped: RefCell::new(Some(stopped)),
            changes_seen: Cell::new(0),
            overridden: Overridden::default(),
            moves: Moves::default(),
        }
    }

    /// From the first signal to the last session. Probes and metrics are served to the end: while
    /// it drains, the gate is alive and not ready.
    pub async fn work(
        &self,
        signals: stop::Signals,
        http: Option<TcpListener>,
        mut arrivals: mpsc::Receiver<ConsoleArrival>,
        doors: Closing,
    ) -> anyhow::Result<()> {
        let ending = CancellationToken::new();
        let (scrape, scrapes) = mpsc::channel(1);
        tokio::spawn(self.renderer.clone().keep_up(ending.clone()));
        let (common, workers) = (self.common.clone(), self.workers.clone());
        if let Some((socket, board)) = http.zip(self.board.clone()) {
            let (looks, looking) = mpsc::channel(1);
            let (renderer, ready) = (self.renderer.clone(), self.ready.clone());
            let env = HttpEnv { renderer, board, ready, scrape, looks };
            tokio::spawn(http::serve(socket, env, ending.clone()));
            let (shared, table) = ((common.clone(), workers.clone()), self.table.clone());
            tokio::spawn(status::keep(shared, table, looking, ending.clone()));
        }
        tokio::spawn(self.manager.clone().keep_up(common, workers, ending.clone()));
        self.announce();
        self.manager.ready();
        let consoles = TaskTracker::new();
        let Stop { limit } = self.serve(signals, &mut arrivals, scrapes, &consoles).await;
        self.manager.stopping(limit);
        self.ready.store(false, Ordering::Relaxed);
        doors.close().await;
        // Nobody hears their orders any more: they are told so.
        let (unheard, _) = mpsc::channel(1);
        arrivals.close();
        while let Ok(arrival) = arrivals.try_recv() {
            self.open_console(arrival, &unheard, &consoles);
        }
        stop::drain(&self.common, &self.workers, limit).await;
        consoles.close();
        if tokio::time::timeout(stop::FAREWELL, consoles.wait()).await.is_err() {
            tracing::warn!("some console sessions did not end");
        }
        ending.cancel();
        Ok(())
    }

    /// Answers signals, console and scrapes until it is time to stop.
    async fn serve(
        &self,
        mut signals: stop::Signals,
        arrivals: &mut mpsc::Receiver<ConsoleArrival>,
        mut scrapes: mpsc::Receiver<Scrape>,
        consoles: &TaskTracker,
    ) -> Stop {
        let (control, mut controls) = mpsc::channel::<Control>(CONSOLES_MAX);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let Some(mut stopped) = self.stopped.take() else { return Stop { limit: Duration::ZERO } };
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    // What is wrong is in the log.
                    stop::Signal::Reload => drop(self.reload().await),
                    stop::Signal::Stop => return Stop { limit: self.drain_timeout.get() },
                },
                Some(stop) = stopped.recv() => return stop,
                Some(switch) = self.moves.switched() => self.switch(switch),
                Some(arrival) = arrivals.recv() => self.open_console(arrival, &control, consoles),
                Some(control) = controls.recv() => match control {
                    Control::Snapshot(subject, reply) => {
                        let snapshot = self.snapshot(subject).await;
                        // The one who asked may have hung up meanwhile.
                        let _ = reply.send(snapshot);
                    }
                    Control::Act { act, reply } => {
                        if let Some(stop) = self.act(act, reply).await {
                            return stop;
                        }
                    }
                },
                Some(Scrape(reply)) = scrapes.recv() => {
                    self.book();
                    let _ = reply.send(());
                }
                () = self.period_ends() => self.end_period(),
                () = self.override_ends() => self.end_overrides(),
                _ = look.tick() => self.look_at_credentials(),
            }
        }
    }

    /// Books what tenants did on their series.
    fn book(&self) {
        if let Some(board) = &self.board {
            let steps = snapshot::steps(&self.common);
            board.lock().book(&steps);
        }
    }

    async fn snapshot(&self, subject: Subject) -> Snapshot {
        let (common, parts) = (&self.common, snapshot::parts(subject));
        let mut snapshot = snapshot::take(common, &self.workers, parts).await;
        match subject {
            Subject::Config => snapshot.config = snapshot::config(&self.settings.borrow()),
            Subject::Users | Subject::Lists => {
                snapshot.users.extend(snapshot::console_users(&self.console.load()));
            }
            Subject::Catalog | Subject::CatalogFaults => {
                let table = self.table.as_ref().map(|table| table.state.figures());
                snapshot.catalog = snapshot::catalog(common, table);
            }
            Subject::Stats | Subject::StatsTotals | Subject::StatsAverages => {
                let mut ledger = self.ledger.borrow_mut();
                ledger.observe(common);
                snapshot.databases_stats = ledger.databases(common);
            }
            Subject::StatsTenants => {
                let mut ledger = self.ledger.borrow_mut();
                ledger.observe(common);
                snapshot.tenants_stats = ledger.tenants();
            }
            Subject::Top => {
                let mut ledger = self.ledger.borrow_mut();
                ledger.observe(common);
                snapshot.top = ledger.top(&snapshot.working);
            }
            _ => {}
        }
        snapshot
    }

    /// Returns when the statistics' period is over.
    async fn period_ends(&self) {
        let since = self.ledger.borrow().since();
        tokio::time::sleep_until((since + self.console.load().stats_period).into()).await;
    }

    /// Ends the period, and forgets the accounts of tenants that are gone. The series are brought
    /// up to date as well: nobody may be scraping them.
    fn end_period(&self) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.observe(&self.common);
        ledger.end_period();
        self.book();
        self.common.accounts.forget(self.common.epoch.elapsed());
    }

    /// Reads the settings again. Says what only a restart applies, or what is wrong.
    pub async fn reload(&self) -> Result<Vec<String>, Fault> {
        self.manager.reloading();
        let applied = self.apply_settings();
        // Also after a file that changed nothing: the gate serves on.
        self.manager.ready();
        let metrics = &self.common.metrics.reloads;
        match applied {
            Ok(fixed) => {
                metrics.applied.increment(1);
                Ok(fixed)
            }
            Err(problems) => {
                metrics.rejected.increment(1);
                tracing::error!("reload rejected, everything stays as it was\n{problems}");
                Err(Fault::BadSettings { problems })
            }
        }
    }

    /// Reads watched files again; should a credential that counted count no more, the workers look
    /// at theirs.
    fn look_at_credentials(&self) {
        let authenticator = self.common.authenticator.load();
        authenticator.look();
        let changes = authenticator.changes();
        if self.changes_seen.replace(changes) != changes {
            self.workers.iter().for_each(|worker| worker.order(Order::Recheck));
        }
    }

    fn announce(&self) {
        let catalog = self.common.catalog.load();
        let tenants = self.common.composer.lock().tenants();
        self.common.metrics.catalog_known.set(catalog.tenants().len() as f64);
        self.common.metrics.catalog_tenants.set(tenants as f64);
        tracing::info!(tenants, workers = self.workers.len(), "ready");
        let facts = |tenant: &Arc<Tenant>| {
            let leaves_open = tenant.leaves_open();
            let cluster = tenant.route.cluster.name.clone();
            (cluster, tenant.isolation.name(), tenant.level_in_words(), leaves_open)
        };
        let levels: BTreeSet<_> = catalog.tenants().map(facts).collect();
        for (cluster, isolation, level, leaves_open) in levels {
            tracing::info!(cluster, isolation, level, leaves_open, "level of protection");
        }
    }

    fn open_console(
        &self,
        arrival: ConsoleArrival,
        control: &mpsc::Sender<Control>,
        consoles: &TaskTracker,
    ) {
        let ConsoleArrival { mut stream, startup, peer } = arrival;
        if stream.attach().is_err() || consoles.len() >= CONSOLES_MAX {
            return;
        }
        let user = startup.parameter("user").unwrap_or_default().to_owned();
        let secure = stream.is_secure();
        let login = ConsoleLogin { user, peer, secure, parameters: startup.parameters };
        let env = ConsoleEnv {
            settings: self.console.clone(),
            control: control.clone(),
            audit: self.common.audit.clone(),
        };
        tokio::spawn(consoles.track_future(console::run(stream, login, env)));
    }
}
