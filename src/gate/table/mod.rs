//! Tenants in tables of a PostgreSQL database: read once as a whole, then followed row by row, on a
//! thread of their own. Where there are too many to keep, they are looked up by those who need one.
//! What was known last is kept in a file, so that the gate can start without the database.

mod alone;
mod cache;
mod copy;
mod follow;
mod lookup;
mod moving;
mod read;
mod records;
mod sample;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::catalog::{Catalog, Change, Composer, Lookups, Moved, RowFault, TableSettings};
use crate::gate::worker::{Order, Worker};
use crate::gate::{Common, act};
use crate::secret::scram::Verifier;
pub use alone::Alone;
use cache::About;
use follow::Surveyed;
pub use moving::{MoveError, write};
use records::TenantRecord;
pub use records::{CredentialColumns, TenantColumns};
pub use sample::{Sample, sample};
pub use state::{TableFigures, TableState, shown};

/// How long the start waits for the tables. Without them the gate serves what the file of the last
/// good copy has, and the tenants of the settings.
const FIRST_READ: Duration = Duration::from_secs(5);

/// The handle on the thread that follows the tables.
#[derive(Clone)]
pub struct Table {
    pub state: Arc<TableState>,
    again: Arc<Again>,
    /// A copy is kept on disk.
    has_copy: bool,
}

/// What others want of the thread that follows the tables.
#[derive(Default)]
struct Again {
    /// All of the tables are to be read again.
    wanted: AtomicBool,
    /// The copy on disk is to be written now.
    copy: AtomicBool,
    /// Tenants that the copy must not have at the moment.
    withheld: Mutex<BTreeSet<String>>,
    told: Notify,
    /// Told to all when it was done, or something else was new.
    caught_up: Notify,
}

impl Table {
    /// Takes the last good copy over and starts to follow the tables. Returns when they were read,
    /// cannot be read, or it took too long.
    pub fn start(
        settings: &TableSettings,
        lookups: &Arc<Lookups>,
        common: &Arc<Common>,
        workers: &Arc<Vec<Worker>>,
    ) -> io::Result<Self> {
        let (state, again) = (Arc::new(TableState::default()), Arc::new(Again::default()));
        lookup::start(lookup::Asker {
            conninfo: settings.conninfo.clone(),
            common: common.clone(),
            lookups: lookups.clone(),
            state: state.clone(),
            again: again.clone(),
        })?;
        let (common, workers, lookups) = (common.clone(), workers.clone(), lookups.clone());
        let records = BTreeMap::new();
        let mut books = Books { records, state: state.clone(), common, workers, lookups };
        if let Some(file) = &settings.cache_file {
            books.restore(file);
        }
        let (first, done) = sync_channel(1);
        let follower = follow::Follower::new(settings.clone(), books, again.clone(), first);
        thread::Builder::new().name("catalog".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(follower.follow()),
                Err(error) => tracing::error!(%error, "the catalog's tables are not followed"),
            }
        })?;
        if done.recv_timeout(FIRST_READ) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the catalog's tables were not read in time; the gate starts without");
        }
        Ok(Self { state, again, has_copy: settings.cache_file.is_some() })
    }

    /// Has all of the tables read again.
    pub fn read_again(&self) {
        self.again.wanted.store(true, Ordering::Release);
        self.again.told.notify_one();
    }
}

/// The catalog that a gate would make of a file's tenants and the tables as they are now.
///
/// # Errors
///
/// The tables cannot be read.
pub fn look(settings: &TableSettings, file: Catalog) -> anyhow::Result<Arc<Catalog>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let conninfo = &settings.conninfo;
    let records = runtime.block_on(async {
        let link = read::Link::open(conninfo).await?;
        link.begin().await?;
        link.all().await
    });
    let records = records.with_context(|| sample::unreadable(settings))?;
    let mut composer = Composer::new(file);
    composer.apply(records.values().map(|record| Change::Put(record.row())).collect());
    Ok(composer.catalog())
}

/// Tells the log what is wrong with a tenant's rows.
pub fn tell(id: &str, faults: &[RowFault]) {
    for RowFault { row, column, message, .. } in faults {
        let (tenant, row, fault) = (shown(id), row.as_str(), message.as_str());
        tracing::error!(tenant, row, column, fault, "a row of the catalog is at fault");
    }
}

fn change_of((id, record): &(String, Option<TenantRecord>)) -> Change {
    match record {
        Some(record) => Change::Put(record.row()),
        None => Change::Gone(id.clone()),
    }
}

/// What is known of the tables, and who is to be told of changes.
struct Books {
    /// By the tenant's id, as they were read, where all are kept.
    records: Records,
    state: Arc<TableState>,
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    lookups: Arc<Lookups>,
}

/// Rows as they were read.
type Records = BTreeMap<String, Arc<TenantRecord>>;

/// Most faults that are logged at once: the console has them all.
pub const FAULTS_TOLD: usize = 100;

impl Drop for Books {
    /// The thread has ended, which only a panic brings about: nothing is followed any more.
    fn drop(&mut self) {
        let error = "the thread that follows the tables has ended: restart the gate";
        self.state.failed(error.to_owned());
        self.common.metrics.catalog_connected.set(0.0);
        self.lookups.set_away(true);
        tracing::error!("{error}");
    }
}

impl Books {
    /// Takes the tables over as a whole: what differs from what is known. False as for a change.
    fn replace(&mut self, read: BTreeMap<String, TenantRecord>, version: i64) -> bool {
        let gone = self.records.keys().filter(|id| !read.contains_key(*id));
        let mut changes: Vec<(String, Option<TenantRecord>)> =
            gone.map(|id| (id.clone(), None)).collect();
        let is_new = |id: &String, new: &TenantRecord| {
            self.records.get(id).is_none_or(|known| **known != *new)
        };
        let changed = read.into_iter().filter(|(id, new)| is_new(id, new));
        changes.extend(changed.map(|(id, new)| (id, Some(new))));
        self.change(changes, version)
    }

    /// Takes single tenants over; none stands for one that is gone. False if all rows must be read
    /// first: the file was read again meanwhile.
    fn change(&mut self, changes: Vec<(String, Option<TenantRecord>)>, version: i64) -> bool {
        let rows: Vec<Change> = changes.iter().map(change_of).collect();
        let ids: Vec<String> = changes.iter().map(|(id, _)| id.clone()).collect();
        let is_whole = self.in_force(|composer| match composer.follow(rows, version) {
            Some(moved) => (Some(!composer.is_partial()), moved),
            None => (None, Vec::new()),
        });
        match is_whole {
            None => return false,
            Some(true) => {
                for (id, record) in changes {
                    match record {
                        Some(record) => drop(self.records.insert(id, Arc::new(record))),
                        None => drop(self.records.remove(&id)),
                    }
                }
            }
            Some(false) => self.records.clear(),
        }
        let catalog = self.common.catalog.load();
        let faulty = ids.iter().filter(|id| !catalog.faults_of(id).is_empty());
        faulty.take(FAULTS_TOLD).for_each(|id| tell(id, catalog.faults_of(id)));
        true
    }

    /// Takes over what changed of those who are known, while all rows are read. From here on there
    /// may be others.
    fn hear(&mut self, changes: Vec<(String, Option<TenantRecord>)>) {
        self.records.clear();
        let changes = changes.iter().map(change_of).collect();
        self.in_force(|composer| ((), composer.hear(changes)));
    }

    /// Takes over what all rows take up, the rows of those that are known, and what changed since
    /// these were read. False if that was looked at with another file.
    fn survey(
        &mut self,
        read: Surveyed,
        changes: Vec<(String, Option<TenantRecord>)>,
        version: i64,
    ) -> bool {
        let rows = read.records.values().map(TenantRecord::row).collect();
        let changes = changes.iter().map(change_of).collect();
        self.records.clear();
        self.in_force(|composer| {
            let taken = composer.take_survey(read.survey, rows, read.version);
            let Some(mut moved) = taken else { return (false, Vec::new()) };
            // Of one and the same moment for all who look.
            moved.extend(composer.follow(changes, version).into_iter().flatten());
            (true, moved)
        })
    }

    /// Has the composer make another catalog, which is in force from then on.
    fn in_force<T>(&self, make: impl FnOnce(&mut Composer) -> (T, Vec<Moved>)) -> T {
        let common = &self.common;
        let mut composer = common.composer.lock();
        let former = composer.catalog().version();
        let (made, moved) = make(&mut composer);
        let catalog = composer.catalog();
        common.catalog.share(catalog.clone());
        let (tenants, known) = (composer.tenants(), catalog.tenants().len());
        // Whoever is only not known any more is not gone.
        let is_noted = |moved: &&Moved| {
            moved.after.is_some() || moved.id().is_some_and(|id| !composer.has(id))
        };
        act::note_changes(&common.audit, "the catalog's tables", moved.iter().filter(is_noted));
        drop(composer);
        common.metrics.catalog_tenants.set(tenants as f64);
        common.metrics.catalog_known.set(known as f64);
        common.metrics.catalog_faults.set(catalog.faulty() as f64);
        let (changed, version) = (moved.len(), catalog.version());
        if version != former {
            tracing::info!(changed, tenants, version, "took over changes of the catalog's tables");
        }
        if !moved.is_empty() {
            let moved: Arc<[_]> = moved.into();
            self.workers.iter().for_each(|worker| worker.order(Order::Changed(moved.clone())));
        }
        made
    }

    /// Takes over what verifiers of nobody are made of.
    fn mock(&self, about: &About) {
        let samples: Vec<Verifier> =
            about.samples.iter().filter_map(|text| Verifier::parse(text)).collect();
        self.in_force(|composer| {
            composer.mock(about.secret.as_bytes(), &samples);
            ((), Vec::new())
        });
    }

    /// Begins with the last good copy, if there is one.
    fn restore(&mut self, file: &std::path::Path) {
        match cache::read(file) {
            Ok(Some((about, records))) => {
                let (tenants, version) = (records.len(), about.version);
                tracing::info!(tenants, version, "begins with the last good copy of the catalog");
                self.mock(&about);
                let rows = records.values();
                self.in_force(|composer| match about.is_part {
                    true => {
                        let seated =
                            |record: &Arc<TenantRecord>| (record.row(), record.seat.clone());
                        ((), composer.restore_part(rows.map(seated).collect()))
                    }
                    false => {
                        let put = |record: &Arc<TenantRecord>| Change::Put(record.row());
                        ((), composer.apply(rows.map(put).collect()))
                    }
                });
                if !about.is_part {
                    self.records = records;
                }
                self.state.restored(version);
            }
            Ok(None) => {}
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "the last good copy of the catalog is not used");
            }
        }
    }
}
