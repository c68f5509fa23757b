//! [`TableState`]: how it stands with the tables, for metrics, console and `/ready`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

/// How it stands with the tables. Shared by the thread that follows them and those who ask.
#[derive(Debug, Default)]
pub struct TableState {
    figures: Mutex<TableFigures>,
    /// How often the copy on disk was written.
    copies: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Debug, Default)]
pub struct TableFigures {
    pub connected: bool,
    /// The number of the last change that was read; 0 before the first.
    pub version: i64,
    /// When it was last known that nothing newer is there.
    pub synced_at: Option<SystemTime>,
    /// What is in force came from the file and has not been compared with the tables yet.
    pub from_file: bool,
    /// Why there is no connection.
    pub error: String,
}

impl TableState {
    /// The figures of this moment.
    pub fn figures(&self) -> TableFigures {
        self.figures.lock().clone()
    }

    /// How often the copy on disk was written so far.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Acquire)
    }

    pub(super) fn copied(&self) {
        self.copies.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn restored(&self, version: i64) {
        let mut figures = self.figures.lock();
        (figures.version, figures.from_file) = (version, true);
    }

    pub(super) fn synced(&self, version: i64) {
        *self.figures.lock() = TableFigures {
            connected: true,
            version,
            synced_at: Some(SystemTime::now()),
            from_file: false,
            error: String::new(),
        };
    }

    /// The connection is lost or cannot be had. Says whether that is news.
    pub(super) fn failed(&self, error: String) -> bool {
        let mut figures = self.figures.lock();
        let is_news = figures.connected || figures.error != error;
        (figures.connected, figures.error) = (false, error);
        is_news
    }
}

/// An id as it may be shown, whatever it is.
pub fn shown(id: &str) -> String {
    id.chars().take(64).flat_map(char::escape_debug).collect()
}
