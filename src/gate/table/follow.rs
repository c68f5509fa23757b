//! [`Follower`]: the thread's story. Connect, read what is new, wait to be told of more; after an
//! outage the same again, with growing pauses.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::read::{Link, ReadError};
use super::{Again, Books, cache};
use crate::catalog::TableSettings;

/// Pauses between two tries to connect, doubled each time, with a quarter more or less by chance so
/// that many gates do not come at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long more is waited for when something is told, so that nobody who tells all the time has
/// the gate ask all the time.
const GATHER: Duration = Duration::from_millis(20);

/// How often the copy on disk is written at most: all of it is written each time.
const COPY_EVERY: Duration = Duration::from_secs(5);

/// Who follows the tables.
pub(super) struct Follower {
    settings: TableSettings,
    books: Books,
    again: Arc<Again>,
    /// Told once, when the first try has come to an end.
    first: SyncSender<()>,
    /// The number of the last change that was read; none before the first read.
    version: Option<i64>,
    /// Whether the copy on disk is older than what is known, and when it was last written.
    stale: bool,
    copied: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        settings: TableSettings,
        books: Books,
        again: Arc<Again>,
        first: SyncSender<()>,
    ) -> Self {
        Self { settings, books, again, first, version: None, stale: false, copied: None }
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
        // It may be another server by now, whose numbers are others (after a failover).
        self.version = None;
        loop {
            self.catch_up(&link).await?;
            *pause = PAUSE_MIN;
            let _ = self.first.try_send(());
            self.copy();
            let wait =
                if self.stale { COPY_EVERY.min(self.settings.poll) } else { self.settings.poll };
            tokio::select! {
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
            self.version = None;
        }
        let changes = match self.version {
            Some(version) => link.since(version).await?,
            None => None,
        };
        let version = match changes {
            Some(changes) => {
                self.stale |= !changes.tenants.is_empty();
                self.books.change(changes.tenants);
                changes.version
            }
            None => {
                let (version, records) = link.all().await?;
                self.stale = true;
                self.books.replace(records);
                version
            }
        };
        let metrics = &self.books.common.metrics;
        if !self.books.state.figures().connected {
            let tenants = self.books.records.len();
            tracing::info!(tenants, version, "follows the catalog's tables");
        }
        self.version = Some(version);
        self.books.state.synced(version);
        metrics.catalog_connected.set(1.0);
        metrics.catalog_version.set(version as f64);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        metrics.catalog_synced.set(since.map_or(0.0, |since| since.as_secs_f64()));
        Ok(())
    }

    /// Writes the copy on disk, unless that was done just now.
    fn copy(&mut self) {
        let Some(file) = self.settings.cache_file.as_ref() else { return };
        let at_once = self.again.copy.swap(false, Ordering::AcqRel);
        let recent = self.copied.is_some_and(|copied| copied.elapsed() < COPY_EVERY);
        if !at_once && (!self.stale || recent) {
            return;
        }
        self.copied = Some(Instant::now());
        let withheld = self.again.withheld.lock().clone();
        let version = self.version.unwrap_or_default();
        match cache::write(file, version, &self.books.records, &withheld) {
            Ok(()) => {
                self.stale = false;
                self.books.state.copied();
            }
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "could not keep the copy of the catalog");
            }
        }
    }
}
