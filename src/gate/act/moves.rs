//! `MOVE TENANT`: a tenant's requests wait, what it has begun ends, its route is another, and they
//! go on there; or nothing has changed. The new route is written where it lasts (the tables, or the
//! file that the operator has edited) before anybody goes there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Holds, Pin, Relocated, RoutePlan, Scope, Tenant};
use crate::config::{self, Config};
use crate::console::{Done, Fault, MoveOrder, NewRoute, Target};
use crate::gate::Common;
use crate::gate::act::ask;
use crate::gate::act::changes::place;
use crate::gate::desk::{Desk, Stop};
use crate::gate::table::{MoveError, Table, write};
use crate::gate::worker::{self, Errand, Order, Worker};
use crate::isolation::Isolation;
use crate::net::OwnPlaces;
use crate::server::Conninfo;

/// How long transactions may go on unless the order says otherwise, and the most it can say.
const WITHIN: Duration = Duration::from_secs(10);
const WITHIN_MAX: Duration = Duration::from_secs(600);

/// Most routes that are tried at the same time, each with a connection beside its cluster's
/// capacity.
const TRIED_MAX: usize = 4;

/// Longest that a try of the new route may take.
const VERIFIED: Duration = Duration::from_secs(15);

/// How long it takes to ask again whether a route was written.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest wait for another move that is writing its route.
const TURN: Duration = Duration::from_secs(5);

/// Moves that are under way.
pub struct Moves {
    under_way: Arc<Mutex<BTreeMap<String, UnderWay>>>,
    /// Of several moves one writes at a time: each is held against what the others have written.
    writing: Arc<tokio::sync::Mutex<()>>,
    tries: Arc<Semaphore>,
    switches: mpsc::Sender<Switch>,
    switched: RefCell<Option<mpsc::Receiver<Switch>>>,
}

/// A move, as others see it.
struct UnderWay {
    by_file: bool,
    /// Somebody wants it to end.
    off: CancellationToken,
}

/// The settings file is to be in force now: nothing of the tenant is at work.
pub struct Switch {
    tenant: Arc<Tenant>,
    loaded: Box<Config>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Default for Moves {
    fn default() -> Self {
        let (switches, switched) = mpsc::channel(1);
        let switched = RefCell::new(Some(switched));
        let tries = Arc::new(Semaphore::new(TRIED_MAX));
        Self { under_way: Arc::default(), writing: Arc::default(), tries, switches, switched }
    }
}

impl Moves {
    /// A tenant that is being moved.
    pub fn under_way(&self) -> Option<String> {
        self.under_way.lock().keys().next().cloned()
    }

    /// Notes that a move begins. A file has the routes of many tenants in it, so nobody else moves
    /// while one does by the file.
    fn begin(&self, id: &str, by_file: bool) -> Result<CancellationToken, Fault> {
        let mut under_way = self.under_way.lock();
        let other = under_way.iter().find(|(it, other)| *it == id || by_file || other.by_file);
        if let Some((other, _)) = other {
            let what = format!("tenant \"{other}\" is being moved");
            return Err(Fault::OutOfPlace { what });
        }
        let off = CancellationToken::new();
        under_way.insert(id.to_owned(), UnderWay { by_file, off: off.clone() });
        Ok(off)
    }

    /// Has a move end as soon as it can without a new route. False if there is none.
    pub fn call_off(&self, id: &str) -> bool {
        let under_way = self.under_way.lock();
        let meant = under_way.get(id);
        meant.inspect(|it| it.off.cancel()).is_some()
    }

    /// A move that has come to its switch.
    pub async fn switched(&self) -> Option<Switch> {
        // The receiver is here but while this waits; there is one who does.
        std::future::poll_fn(|cx| match self.switched.borrow_mut().as_mut() {
            Some(switched) => switched.poll_recv(cx),
            None => std::task::Poll::Ready(None),
        })
        .await
    }
}

/// Where the new route is kept.
enum Source {
    /// In the tables, written by this login.
    Table {
        table: Table,
        mover: Arc<Conninfo>,
        former: Box<RoutePlan>,
        new: Box<RoutePlan>,
        writing: Arc<tokio::sync::Mutex<()>>,
    },
    File {
        loaded: Box<Config>,
        switches: mpsc::Sender<Switch>,
    },
}

/// A move, from its order to its end.
struct Move {
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    tenant: Relocated,
    within: Duration,
    source: Source,
    /// Leave to try a route.
    tries: Arc<Semaphore>,
    /// Somebody wants it to end.
    off: CancellationToken,
    /// It ended before it was known where the tenant is: its requests go on waiting.
    in_doubt: AtomicBool,
    /// Keeps the tenant known as long as this lasts.
    _pin: Option<Pin>,
}

/// What a move is planned with.
struct Ground {
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    path: PathBuf,
    /// Where this gate listens.
    own: OwnPlaces,
    /// The tables, and the login that may write a route there.
    table: Option<(Table, Arc<Conninfo>)>,
    switches: mpsc::Sender<Switch>,
    writing: Arc<tokio::sync::Mutex<()>>,
    tries: Arc<Semaphore>,
}

impl Desk {
    /// Begins a move. It is planned and ends in a task of its own.
    pub(super) fn move_tenant(
        &self,
        order: MoveOrder,
        reply: oneshot::Sender<Done>,
    ) -> Option<Stop> {
        let id = order.tenant.clone();
        let off = match self.moves.begin(&id, order.route.is_none()) {
            Ok(off) => off,
            Err(fault) => {
                drop(reply.send(Err(fault)));
                return None;
            }
        };
        let under_way = self.moves.under_way.clone();
        let mover = self.started.table.as_ref().and_then(|table| table.mover.clone());
        let ground = Ground {
            common: self.common.clone(),
            workers: self.workers.clone(),
            path: self.path.clone(),
            own: self.started.own(),
            table: self.table.clone().zip(mover),
            switches: self.moves.switches.clone(),
            writing: self.moves.writing.clone(),
            tries: self.moves.tries.clone(),
        };
        tokio::spawn(async move {
            let done = match ground.plan(order, off).await {
                // Should it panic, its tenant is held back as in doubt.
                Ok(plan) => {
                    tokio::spawn(plan.carry_out()).await.unwrap_or_else(|_| Err(left_in_doubt(&id)))
                }
                Err(fault) => Err(fault),
            };
            under_way.lock().remove(&id);
            // The one who asked may have hung up.
            let _ = reply.send(done);
        });
        None
    }

    /// Has the settings that a move read in force: its tenant is at rest.
    pub fn switch(&self, switch: Switch) {
        let Switch { tenant, loaded, done } = switch;
        // What was read at the beginning may not fit what came since.
        let found = self.common.composer.lock().in_file(tenant.id.as_str(), &loaded.catalog);
        let switched = found.and_then(|_| self.take_over(*loaded));
        // Whoever waited may be gone; then the tenant stays held back.
        let _ = done.send(switched.map(drop));
    }
}

impl Ground {
    async fn plan(self, order: MoveOrder, off: CancellationToken) -> Result<Move, Fault> {
        let Self { common, workers, path, own, table, switches, writing, tries } = self;
        let MoveOrder { tenant: id, route, within } = order;
        let within = within.map(|text| {
            let limit = config::duration(&text).filter(|it| !it.is_zero() && *it <= WITHIN_MAX);
            limit.ok_or_else(|| {
                failed(format!("\"{}\" is not a time up to 10 min", text.escape_debug()))
            })
        });
        let within = within.transpose()?.unwrap_or(WITHIN);
        let in_doubt = AtomicBool::new(false);
        let catalog = common.catalog.load();
        let found = catalog.seek(&id).await.map_err(|error| failed(error.to_string()))?;
        let Some((_, pin)) = found else {
            return Err(Fault::UnknownTarget { target: Target::Tenant(id), other: false });
        };
        let (tenant, source) = if let Some(route) = route {
            let new = plan_of(route).map_err(failed)?;
            let (tenant, former) = common.composer.lock().on_route(&id, &new).map_err(failed)?;
            let Some((table, mover)) = table else {
                let what = "the settings name no login that may move tenants: \
                            mover_connection_string in [catalog]";
                return Err(failed(what.to_owned()));
            };
            let (former, new) = (Box::new(former), Box::new(new));
            (tenant, Source::Table { table, mover, former, new, writing })
        } else {
            let loaded = config::load_beside(&path, &own)
                .map_err(|error| Fault::BadSettings { problems: error.to_string() })?;
            let found = common.composer.lock().in_file(&id, &loaded.catalog);
            let source = Source::File { loaded: Box::new(loaded), switches };
            (found.map_err(failed)?, source)
        };
        Ok(Move { common, workers, tenant, within, source, tries, off, in_doubt, _pin: pin })
    }
}

impl Move {
    async fn carry_out(self) -> Done {
        let id = self.tenant.now.id.clone();
        let (from, to) = (place(&self.tenant.now), place(&self.tenant.then));
        // Nobody waits for a route that cannot be used.
        self.verify().await?;
        self.hold(true);
        let done = self.switch_at_rest().await;
        let in_doubt = self.in_doubt.load(Ordering::Relaxed);
        if !in_doubt {
            self.hold(false);
        }
        match &done {
            Ok(_) => tracing::info!(tenant = %id, from, to, "moved a tenant"),
            Err(fault @ Fault::OutOfPlace { .. }) => {
                let reason = fault.message();
                tracing::error!(tenant = %id, from, to, %reason, in_doubt, "a move went wrong");
            }
            Err(fault) => {
                let reason = fault.message();
                tracing::warn!(tenant = %id, from, to, %reason, "a move failed; nothing changed");
            }
        }
        done
    }

    async fn switch_at_rest(&self) -> Done {
        let rest = ask(&self.workers, |done| Errand::Rest(self.tenant.now.clone(), done));
        let rested = tokio::select! {
            () = self.off.cancelled() => return Err(called_off()),
            rested = tokio::time::timeout(self.within, worker::each(rest)) => rested,
        };
        match rested {
            Ok(true) => {}
            Ok(false) => {
                let what = "a worker could not say whether the tenant is at rest: see the log";
                return Err(failed(what.to_owned()));
            }
            Err(_) => {
                let within = self.within.as_secs_f32();
                return Err(failed(format!("its transactions did not end within {within} s")));
            }
        }
        // What was so before may not be so any more.
        self.verify().await?;
        if self.off.is_cancelled() {
            return Err(called_off());
        }
        match &self.source {
            Source::File { loaded, switches } => {
                let (done, switched) = oneshot::channel();
                let (tenant, loaded) = (self.tenant.now.clone(), loaded.clone());
                let gone = || failed("the gate is stopping".to_owned());
                let switch = Switch { tenant, loaded, done };
                switches.send(switch).await.map_err(|_| gone())?;
                let switched = switched.await.map_err(|_| gone())?;
                switched.map_err(failed)?;
                Ok(Vec::new())
            }
            Source::Table { table, mover, former, new, writing } => {
                let id = self.tenant.now.id.as_str();
                let turn = tokio::time::timeout(TURN, writing.lock()).await;
                let _turn = turn.map_err(|_| {
                    failed("another tenant's route is being written: try again".to_owned())
                })?;
                let withheld = table.withhold(id).await;
                withheld.map_err(failed).inspect_err(|_| table.give_back(id))?;
                let done = self.switch_table(table, mover, (former, new)).await;
                if !self.in_doubt.load(Ordering::Relaxed) {
                    table.give_back(id);
                }
                done
            }
        }
    }

    /// Writes the route to the tables, and waits until it was read there: then it is in force.
    async fn switch_table(
        &self,
        table: &Table,
        mover: &Conninfo,
        (former, new): (&RoutePlan, &RoutePlan),
    ) -> Done {
        let id = self.tenant.now.id.as_str();
        let (found, read) = self.common.composer.lock().on_route(id, new).map_err(failed)?;
        if read != *former || !found.then.is_routed_as(&self.tenant.then) {
            return Err(failed("its row was changed meanwhile".to_owned()));
        }
        let mut lost = false;
        let version = loop {
            match write(mover, id, former, new).await {
                Ok(version) => break version,
                Err(MoveError::Refused(why)) if !lost => return Err(failed(why)),
                // Nobody goes anywhere before it is known where to. To write it again is no harm,
                // and waits for whoever is still at it.
                Err(error) => {
                    lost = true;
                    tracing::error!(tenant = id, %error, "cannot know yet whether a tenant moved");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        () = self.off.cancelled() => return Err(self.doubt()),
                    }
                    if self.is_elsewhere(former, new).await {
                        return Err(failed("its row was changed meanwhile".to_owned()));
                    }
                }
            }
        };
        loop {
            if table.follows(version).await
                && let Some(done) = self.arrived().await
            {
                return done;
            }
            tracing::error!(tenant = id, "a tenant moved, and the tables cannot be read");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.off.cancelled() => return Err(self.doubt()),
            }
        }
    }

    /// What became of the tenant whose new route was written and read. None while all rows are
    /// read, or it cannot be looked up: then it is not known whether it is out.
    async fn arrived(&self) -> Option<Done> {
        let id = self.tenant.now.id.as_str();
        // With the pin, whoever is there stays known.
        let found = self.common.catalog.load().seek(id).await.ok()?;
        let catalog = {
            let composer = self.common.composer.lock();
            composer.route_of(id).ok()?;
            composer.catalog()
        };
        match catalog.known(id) {
            Some(tenant) if tenant.is_routed_as(&self.tenant.then) => Some(Ok(Vec::new())),
            Some(_) => Some(Ok(vec!["its row was changed again: see SHOW TENANTS".to_owned()])),
            None if found.is_some() => None,
            None => {
                let faults: Vec<&str> =
                    catalog.faults_of(id).iter().map(|fault| fault.message.as_str()).collect();
                let faults = faults.join("; ");
                let what = format!("the route was written, and the tenant is out: {faults}");
                Some(Err(Fault::OutOfPlace { what }))
            }
        }
    }

    /// Ends without knowing where the tenant is.
    fn doubt(&self) -> Fault {
        self.in_doubt.store(true, Ordering::Relaxed);
        left_in_doubt(self.tenant.now.id.as_str())
    }

    /// Whether the tables were read since with a route that is neither. While it cannot be told
    /// what they say, it may be either.
    async fn is_elsewhere(&self, former: &RoutePlan, new: &RoutePlan) -> bool {
        let id = self.tenant.now.id.as_str();
        // With the pin, whoever is there stays known.
        let Ok(found) = self.common.catalog.load().seek(id).await else { return false };
        let read = self.common.composer.lock().route_of(id);
        match (read, found) {
            (Ok(Some(read)), _) => read != *former && read != *new,
            (Ok(None), None) => true,
            (Ok(None), Some(_)) | (Err(_), _) => false,
        }
    }

    async fn verify(&self) -> Result<(), Fault> {
        let (done, answer) = oneshot::channel();
        let Some(worker) = self.workers.first() else { return Err(failed("no worker".into())) };
        let answer = tokio::time::timeout(VERIFIED, async {
            let permit = self.tries.clone().acquire_owned().await.ok()?;
            worker.order(Order::Errand(Errand::Verify(self.tenant.then.clone(), permit, done)));
            answer.await.ok()
        });
        let answer = answer.await;
        let late = || format!("no answer from the new route within {} s", VERIFIED.as_secs());
        let tried = answer
            .map_err(|_| late())
            .and_then(|answer| answer.unwrap_or_else(|| Err("the worker is gone".to_owned())));
        tried.map_err(|why| failed(format!("the new route cannot be used: {why}")))
    }

    /// Holds the tenant's requests back, or lets them go on. What was ordered before, such as news
    /// of the tenant, a worker has by then.
    fn hold(&self, on: bool) {
        let scope = Scope::Tenant(self.tenant.now.id.to_string());
        let mut holds = Holds::clone(&self.common.holds.load());
        match on {
            true => holds.moving.add(&scope),
            false => drop(holds.moving.remove(&scope)),
        }
        self.common.holds.replace(holds);
        drop(ask(&self.workers, Errand::Hold));
    }
}

fn plan_of(route: NewRoute) -> Result<RoutePlan, String> {
    let NewRoute { isolation, cluster, connection_string, schema, role } = route;
    let Some(isolation) = Isolation::named(&isolation) else {
        let other = isolation.escape_debug();
        return Err(format!("\"{other}\" is no isolation: row, schema, silo"));
    };
    let named = [&connection_string, &schema, &role].into_iter().flatten();
    if named.chain([&cluster]).any(|text| text.chars().any(char::is_control)) {
        return Err("there are control characters in the route".to_owned());
    }
    Ok(RoutePlan { isolation, cluster, connection_string, schema, role })
}

fn called_off() -> Fault {
    failed("RESUME ended the move".to_owned())
}

fn left_in_doubt(id: &str) -> Fault {
    let what = format!(
        "nobody knows yet where tenant \"{id}\" is: its requests wait until RESUME TENANT is \
         said once more"
    );
    Fault::OutOfPlace { what }
}

fn failed(what: String) -> Fault {
    Fault::NotMoved { what }
}
