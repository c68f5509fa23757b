//! [`Asker`]: asks the tables for the tenants that somebody needs, many at once, on connections
//! beside the one that follows changes.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use super::read::{Line, ReadError};
use super::{Again, TableState};
use crate::catalog::{CannotTell, Found, Key, LOOKUP_TIME, Lookups};
use crate::gate::Common;
use crate::server::Conninfo;

/// Connections for look-ups. Each asks for all that have come while it was busy, so that few are
/// enough; a second one is there for when the first waits.
const LINES: usize = 2;

/// How often those are looked at again that are of a state which has not been read yet.
const CATCH_UP: Duration = Duration::from_millis(200);

/// How often those are told who have waited for too long.
const SWEEP: Duration = Duration::from_millis(250);

/// The pause before the same is asked again of a server that has not come as far.
const AGAIN: Duration = Duration::from_millis(20);

/// The pause before one who asks begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection, and which of the runs of servers that were followed it is for.
type Asked = Option<(u64, Line)>;

/// Who asks.
pub(super) struct Asker {
    pub conninfo: Arc<Conninfo>,
    pub common: Arc<Common>,
    pub lookups: Arc<Lookups>,
    pub state: Arc<TableState>,
    pub again: Arc<Again>,
}

/// Starts the thread on which is asked.
pub(super) fn start(asker: Asker) -> io::Result<()> {
    // Apart from those who ask, who may have to wait for the composer.
    let lookups = asker.lookups.clone();
    thread::Builder::new().name("late lookups".to_owned()).spawn(move || {
        loop {
            thread::sleep(SWEEP);
            lookups.expire();
        }
    })?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("lookups".to_owned()).spawn(move || {
        let asker = Rc::new(asker);
        let lines = LocalSet::new();
        for _ in 0..LINES {
            let asker = asker.clone();
            lines.spawn_local(async move {
                loop {
                    let serving = asker.clone();
                    // It ends by a panic only, which must not leave those waiting who asked.
                    let ended = spawn_local(async move { serving.serve().await }).await;
                    tracing::error!(failed = ended.is_err(), "a look-up has ended; begins anew");
                    asker.lookups.fail_all();
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        runtime.block_on(lines);
    })?;
    Ok(())
}

impl Asker {
    /// Answers questions as long as the process lives.
    async fn serve(&self) {
        let mut line: Asked = None;
        loop {
            let keys = self.lookups.questions().await;
            self.common.metrics.catalog_lookups.increment(keys.len() as u64);
            let mut parts = vec![keys];
            while let Some(keys) = parts.pop() {
                let found = tokio::time::timeout(LOOKUP_TIME, self.find(&mut line, &keys)).await;
                let late = |_| Err(ReadError::Timeout(LOOKUP_TIME.as_secs()));
                match found.unwrap_or_else(late) {
                    Ok(()) => self.lookups.answer(&keys, Ok(())),
                    Err(ReadError::Refused(_)) if keys.len() > 1 => {
                        // One of them is no text there; the others have nothing to do with it.
                        let (one, other) = keys.split_at(keys.len() / 2);
                        parts.extend([one.to_vec(), other.to_vec()]);
                    }
                    Err(ReadError::Refused(_)) => {
                        self.lookups.never(&keys);
                        self.lookups.answer(&keys, Ok(()));
                    }
                    Err(error) => {
                        // Whatever it was doing, nobody waits for it any more.
                        line = None;
                        self.fail(&keys, &error);
                    }
                }
            }
        }
    }

    fn fail(&self, keys: &[Key], error: &ReadError) {
        self.common.metrics.catalog_lookups_failed.increment(keys.len() as u64);
        tracing::warn!(%error, keys = keys.len(), "could not look tenants up");
        self.lookups.answer(keys, Err(CannotTell));
    }

    /// Asks for these until the answer is of the state that is known of all others, and takes it
    /// over.
    async fn find(&self, line: &mut Asked, keys: &[Key]) -> Result<(), ReadError> {
        let mut open = keys.to_vec();
        loop {
            self.common.metrics.catalog_questions.increment(1);
            let (run, found) = self.look_up(line, &open).await?;
            let version = found.version;
            let caught_up = self.again.caught_up.notified();
            let mut caught_up = std::pin::pin!(caught_up);
            caught_up.as_mut().enable();
            open = self.take(&open, run, found)?;
            if open.is_empty() {
                return Ok(());
            }
            let position = self.common.composer.lock().position();
            if position.is_none_or(|position| position < version) {
                self.again.told.notify_one();
                // Told or not, it is looked at.
                let _ = tokio::time::timeout(CATCH_UP, caught_up).await;
            } else {
                // A server that lags behind, or a change at that very moment.
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Asks the server that is followed; says in which of its runs.
    async fn look_up(&self, line: &mut Asked, keys: &[Key]) -> Result<(u64, Found), ReadError> {
        let figures = self.state.figures();
        if !figures.connected {
            return Err(ReadError::Lost);
        }
        if let Some((run, known)) = line.as_ref().filter(|(run, _)| *run == figures.run) {
            match known.look_up(keys).await {
                Err(error) if !matches!(error, ReadError::Refused(_)) => {}
                answered => return Ok((*run, answered?)),
            }
        }
        // It may have been closed while nobody asked.
        *line = None;
        let new = Line::open(&self.conninfo, None).await?;
        if !new.is_of(figures.lineage.as_ref()) {
            return Err(ReadError::Another);
        }
        new.be_brief().await?;
        let (run, new) = line.insert((figures.run, new));
        Ok((*run, new.look_up(keys).await?))
    }

    /// Takes over what was found. Gives back what is still open.
    fn take(&self, keys: &[Key], run: u64, found: Found) -> Result<Vec<Key>, ReadError> {
        let mut composer = self.common.composer.lock();
        // Another server is noted before the composer hears of it.
        if self.state.figures().run != run {
            return Err(ReadError::Another);
        }
        let open = composer.admit(keys, found);
        let known = composer.catalog().tenants().len();
        drop(composer);
        self.common.metrics.catalog_known.set(known as f64);
        Ok(open)
    }
}
