//! [`Follower`]: the thread's story. Connect, read what is new, wait to be told of more; after an
//! outage the same again, with growing pauses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::cache::About;
use super::copy::CopyOnDisk;
use super::read::{self, Facts, Line, Link, ReadError};
use super::records::TenantRecord;
use super::{Again, Books};
use crate::catalog::{Survey, TableSettings};
use crate::server::Conninfo;

/// Pauses between two tries to connect, doubled each time, with a quarter more or less by chance so
/// that many gates do not come at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long more is waited for when something is told, so that nobody who tells all the time has
/// the gate ask all the time.
const GATHER: Duration = Duration::from_millis(20);

/// Who follows the tables.
pub(super) struct Follower {
    settings: TableSettings,
    books: Books,
    again: Arc<Again>,
    /// Told once, when the first try has come to an end.
    first: SyncSender<()>,
    /// The number of the last change that was read; none before the first read.
    version: Option<i64>,
    /// Which run of which server it is of.
    lineage: Option<String>,
    /// What all rows take up is known as it is now.
    settled: bool,
    survey: Reading,
    about: About,
    copy: CopyOnDisk,
}

impl Follower {
    pub(super) fn new(
        settings: TableSettings,
        books: Books,
        again: Arc<Again>,
        first: SyncSender<()>,
    ) -> Self {
        let about = About::default();
        let copy = CopyOnDisk::new(&settings, again.clone());
        let survey = Reading::default();
        let (version, lineage, settled) = Default::default();
        Self { settings, books, again, first, version, lineage, settled, survey, about, copy }
    }

    /// Follows the tables as long as the process lives.
    pub(super) async fn follow(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let Err(error) = self.session(&mut pause).await;
            let error = error.to_string();
            self.books.common.metrics.catalog_connected.set(0.0);
            if self.books.state.failed(error.clone()) {
                tracing::error!(error, "cannot follow the catalog's tables; what was read stays");
            }
            self.books.lookups.set_away(true);
            // Whoever waits for the start has waited long enough.
            let _ = self.first.try_send(());
            let chance = 0.75 + fastrand::f64() / 2.0;
            tokio::time::sleep(pause.mul_f64(chance)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// From one connection to its end.
    async fn session(
        &mut self,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, ReadError> {
        let mut link = Link::open(&self.settings.conninfo).await?;
        self.survey.give_up();
        if self.books.state.meets(link.lineage()) {
            // Another server, or one that has forgotten what it had not written: its numbers are
            // others.
            (self.version, self.settled) = (None, false);
            self.books.common.composer.lock().stand_at(None);
        }
        self.lineage = link.lineage().cloned();
        loop {
            self.catch_up(&link).await?;
            *pause = PAUSE_MIN;
            if self.settled {
                // Nobody may be waiting any more.
                let _ = self.first.try_send(());
                self.copy.keep(&self.books, &self.about, self.lineage.as_ref());
            }
            let poll = self.settings.poll;
            let wait = self.copy.due().map_or(poll, |due| due.min(poll));
            tokio::select! {
                read = self.survey.done() => self.take_over(read?, &link).await?,
                written = self.copy.written() => self.copy.end(written, &self.books.state),
                told = link.notified() => {
                    told?;
                    tokio::time::sleep(GATHER).await;
                }
                () = self.again.told.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads what is new: all of it the first time, when somebody wants that, and when the tables
    /// went back to a state before the one that is known.
    async fn catch_up(&mut self, link: &Link) -> Result<(), ReadError> {
        if self.again.wanted.swap(false, Ordering::AcqRel) {
            // So that it is not forgotten should the read fail.
            self.settled = false;
            self.survey.give_up();
        }
        let Facts { version, secret, samples } = link.begin().await?;
        let about = About { version, is_part: false, secret, samples };
        if (&about.secret, &about.samples) != (&self.about.secret, &self.about.samples) {
            self.books.mock(&about);
            (self.about.secret, self.about.samples) = (about.secret, about.samples);
        }
        if self.version.is_some_and(|known| known > version) {
            (self.version, self.settled) = (None, false);
            self.survey.give_up();
            self.books.common.composer.lock().stand_at(None);
        }
        if !self.settled {
            return self.begin_anew(link, version).await;
        }
        let known = self.version.unwrap_or(version);
        let changes = if known < version { link.since(known).await? } else { Some(Vec::new()) };
        link.end().await?;
        let Some(changes) = changes else {
            self.want_all();
            return Ok(());
        };
        self.copy.stale |= !changes.is_empty();
        match known == version || self.books.change(changes, version) {
            true => self.stands_at(version),
            // The file was read again meanwhile.
            false => self.want_all(),
        }
        Ok(())
    }

    /// Has all rows read.
    fn want_all(&mut self) {
        self.settled = false;
        self.again.wanted.store(true, Ordering::Release);
        self.again.told.notify_one();
    }

    /// Reads all rows where all may be kept. Else they are read beside, for what they take up,
    /// while those who are known are followed here: who is revoked is so at once.
    async fn begin_anew(&mut self, link: &Link, version: i64) -> Result<(), ReadError> {
        let (is_partial, most) = {
            let composer = self.books.common.composer.lock();
            (composer.is_partial(), composer.known_max())
        };
        if !is_partial && !link.has_more_than(most).await? {
            self.copy.stale = true;
            let records = link.all().await?;
            link.end().await?;
            match self.books.replace(records, version) {
                true => self.stands_at(version),
                false => self.want_all(),
            }
            return Ok(());
        }
        let heard = match self.version {
            Some(known) if known < version => link.since(known).await?,
            Some(_) => Some(Vec::new()),
            None => None,
        };
        let heard = match heard {
            Some(heard) => heard,
            // What they were is from another server, from a copy, or long ago.
            None => {
                let known = self.books.common.composer.lock().known();
                let mut read = link.line.of_many(&known).await?;
                let now = |id: String| {
                    let record = read.remove(&id);
                    (id, record)
                };
                known.into_iter().map(now).collect()
            }
        };
        link.end().await?;
        self.books.hear(heard);
        self.version = Some(version);
        if !self.survey.is_on() {
            let composer = self.books.common.composer.lock();
            let (survey, known) = (composer.survey(), composer.known());
            drop(composer);
            let conninfo = self.settings.conninfo.clone();
            self.survey.begin(read_all(conninfo, self.lineage.clone(), survey, known));
        }
        Ok(())
    }

    /// Takes over what was read beside, and what has changed since then.
    async fn take_over(&mut self, read: Surveyed, link: &Link) -> Result<(), ReadError> {
        let Facts { version, .. } = link.begin().await?;
        let changes = match read.version <= version {
            true => link.since(read.version).await?,
            false => return Err(ReadError::Another),
        };
        link.end().await?;
        self.copy.stale = true;
        // Too much has changed, or the file was read again: it is read once more.
        let taken = changes.is_some_and(|changes| self.books.survey(read, changes, version));
        match taken {
            true => self.stands_at(version),
            false => self.want_all(),
        }
        Ok(())
    }

    /// What stands here is what the tables say at this number.
    fn stands_at(&mut self, version: i64) {
        let metrics = &self.books.common.metrics;
        let composer = self.books.common.composer.lock();
        if !self.books.state.figures().connected {
            let tenants = composer.rows();
            tracing::info!(tenants, table_version = version, "follows the catalog's tables");
        }
        drop(composer);
        self.about.version = version;
        (self.version, self.settled) = (Some(version), true);
        self.books.state.synced(version);
        self.books.lookups.set_away(false);
        self.again.caught_up.notify_waiters();
        metrics.catalog_connected.set(1.0);
        metrics.catalog_version.set(version as f64);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        metrics.catalog_synced.set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

/// All rows as they were at one moment, with what they take up.
pub(super) struct Surveyed {
    pub survey: Survey,
    /// Those who were known when it began.
    pub records: read::Records,
    pub version: i64,
}

/// All rows being read, on a connection of their own.
#[derive(Default)]
struct Reading(Option<JoinHandle<Result<Surveyed, ReadError>>>);

impl Reading {
    fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&mut self, all: impl Future<Output = Result<Surveyed, ReadError>> + Send + 'static) {
        self.give_up();
        self.0 = Some(tokio::spawn(all));
    }

    fn give_up(&mut self) {
        self.0.take().iter().for_each(JoinHandle::abort);
    }

    /// Waits for its end.
    async fn done(&mut self) -> Result<Surveyed, ReadError> {
        let Some(reading) = &mut self.0 else { return std::future::pending().await };
        let done = reading.await;
        self.0 = None;
        done.unwrap_or_else(|error| Err(io::Error::from(error).into()))
    }
}

async fn read_all(
    conninfo: Arc<Conninfo>,
    lineage: Option<String>,
    mut survey: Survey,
    known: Vec<String>,
) -> Result<Surveyed, ReadError> {
    let line = Line::open(&conninfo, None).await?;
    if !line.is_of(lineage.as_ref()) {
        return Err(ReadError::Another);
    }
    let take = |some: Vec<TenantRecord>| {
        survey.add(&some.iter().map(|record| record.row()).collect::<Vec<_>>());
    };
    let (version, records) = line.all(take, &known).await?;
    Ok(Surveyed { survey, records, version })
}
