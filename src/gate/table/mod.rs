//! Tenants in tables of a PostgreSQL database: read once as a whole, then followed row by row, on a
//! thread of their own. What was read last is kept in a file, so that the gate can start without
//! the database.

mod alone;
mod cache;
mod follow;
mod moving;
mod read;
mod records;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::catalog::{Catalog, Change, Composer, RowFault, TableSettings};
use crate::gate::worker::{Order, Worker};
use crate::gate::{Common, act};
pub use alone::Alone;
pub use moving::{MoveError, write};
use records::TenantRecord;
pub use records::{CredentialColumns, TenantColumns};
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
}

impl Table {
    /// Takes the last good copy over and starts to follow the tables. Returns when they were read,
    /// cannot be read, or it took too long.
    pub fn start(
        settings: &TableSettings,
        common: &Arc<Common>,
        workers: &Arc<Vec<Worker>>,
    ) -> io::Result<Self> {
        let (state, again) = (Arc::new(TableState::default()), Arc::new(Again::default()));
        let (common, workers) = (common.clone(), workers.clone());
        let mut books = Books { records: BTreeMap::new(), state: state.clone(), common, workers };
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
    let (_, records) = runtime.block_on(async {
        let link = read::Link::open(&settings.conninfo).await?;
        link.all().await
    })?;
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

/// What is known of the tables, and who is to be told of changes.
struct Books {
    /// By the tenant's id, as they were read.
    records: BTreeMap<String, TenantRecord>,
    state: Arc<TableState>,
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
}

impl Books {
    /// Takes the tables over as a whole: what differs from what is known.
    fn replace(&mut self, read: BTreeMap<String, TenantRecord>) {
        let gone = self.records.keys().filter(|id| !read.contains_key(*id));
        let mut changes: Vec<(String, Option<TenantRecord>)> =
            gone.map(|id| (id.clone(), None)).collect();
        let changed = read.into_iter().filter(|(id, new)| self.records.get(id) != Some(new));
        changes.extend(changed.map(|(id, new)| (id, Some(new))));
        self.change(changes);
    }

    /// Takes single tenants over; none stands for one that is gone.
    fn change(&mut self, changes: Vec<(String, Option<TenantRecord>)>) {
        if changes.is_empty() {
            return;
        }
        let row = |(id, record): &(String, Option<TenantRecord>)| match record {
            Some(record) => Change::Put(record.row()),
            None => Change::Gone(id.clone()),
        };
        let rows = changes.iter().map(row).collect();
        let ids: Vec<String> = changes.iter().map(|(id, _)| id.clone()).collect();
        for (id, record) in changes {
            match record {
                Some(record) => drop(self.records.insert(id, record)),
                None => drop(self.records.remove(&id)),
            }
        }
        let common = &self.common;
        let mut composer = common.composer.lock();
        let moved = composer.apply(rows);
        let catalog = composer.catalog();
        common.catalog.share(catalog.clone());
        drop(composer);
        let tenants = catalog.tenants().len();
        common.metrics.catalog_tenants.set(tenants as f64);
        common.metrics.catalog_faults.set(catalog.faults().len() as f64);
        for id in &ids {
            tell(id, catalog.faults_of(id));
        }
        let (changed, version) = (moved.len(), catalog.version());
        tracing::info!(changed, tenants, version, "took changes of the catalog's tables over");
        act::note_changes(&common.audit, "the catalog's tables", moved.iter());
        if !moved.is_empty() {
            let moved: Arc<[_]> = moved.into();
            self.workers.iter().for_each(|worker| worker.order(Order::Changed(moved.clone())));
        }
    }

    /// Begins with the last good copy, if there is one.
    fn restore(&mut self, file: &std::path::Path) {
        match cache::read(file) {
            Ok(Some((version, records))) => {
                let tenants = records.len();
                tracing::info!(tenants, version, "begins with the last good copy of the catalog");
                self.replace(records);
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
