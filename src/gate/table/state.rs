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
    /// Which run of which server is followed, if it says so.
    pub lineage: Option<String>,
    /// Counts the runs that were followed, as far as they can be told from each other.
    pub run: u64,
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

    /// Notes which run of which server is followed from here on. Says whether its numbers may be
    /// others than those before.
    pub(super) fn meets(&self, lineage: Option<&String>) -> bool {
        let mut figures = self.figures.lock();
        let is_another = lineage.is_none() || figures.lineage.as_ref() != lineage;
        figures.lineage = lineage.cloned();
        figures.run += u64::from(is_another);
        is_another
    }

    pub(super) fn synced(&self, version: i64) {
        let mut figures = self.figures.lock();
        (figures.connected, figures.version, figures.from_file) = (true, version, false);
        figures.synced_at = Some(SystemTime::now());
        figures.error = String::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_say_which_it_is_is_another_each_time() {
        let state = TableState::default();
        let (one, other) = ("one".to_owned(), "other".to_owned());
        let met = [None, None, Some(&one), Some(&one), Some(&other), None];
        let runs = met.map(|lineage| (state.meets(lineage), state.figures().run));
        let told = [(true, 1), (true, 2), (true, 3), (false, 3), (true, 4), (true, 5)];
        assert_eq!(runs, told);
    }
}
