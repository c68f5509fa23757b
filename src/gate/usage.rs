//! The thread that writes usage records: a slow disk holds up nobody.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::budget::{Reader, Sums};
use crate::gate::Common;
use crate::telemetry::{UsageBooks, UsageSettings, Used};

/// How often accounts are read at least, so that those of tenants that are gone can be forgotten.
const BOOK_EVERY: Duration = Duration::from_secs(60);

/// The records of a gate that runs.
pub struct Usage(Option<(SyncSender<()>, JoinHandle<()>)>);

impl Usage {
    /// Starts the thread, if the settings want one. The file is opened once, so that a mistake is
    /// seen at once.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or there is no thread.
    pub fn start(settings: Option<UsageSettings>, common: &Arc<Common>) -> anyhow::Result<Self> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let (file, common) = (settings.file.display().to_string(), common.clone());
        drop(settings.open().with_context(|| format!("could not open {file}"))?);
        common.accounts.keep_for(Reader::Usage);
        let (stop, stopped) = sync_channel::<()>(1);
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        let mut books = UsageBooks::new(format!("{since:x}-{:08x}", fastrand::u32(..)), now);
        let thread = thread::Builder::new().name("usage".to_owned()).spawn(move || {
            let mut next = Instant::now() + settings.interval;
            loop {
                let rest = next.saturating_duration_since(Instant::now()).min(BOOK_EVERY);
                let goes_on = stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout);
                let steps = common.accounts.read(Reader::Usage).into_iter();
                books.book(steps.map(|(tenant, sums)| (tenant, used(&sums))));
                if goes_on && Instant::now() < next {
                    continue;
                }
                next += settings.interval;
                // At the end there may be lines that could not be written before, and new ones.
                for _ in 0..=usize::from(!goes_on) {
                    let ended = books.end_interval(SystemTime::now(), || settings.open());
                    if let Err(error) = ended {
                        tracing::error!(%error, file, "cannot write usage records, they are kept");
                    }
                }
                if !goes_on {
                    return;
                }
            }
        })?;
        Ok(Self(Some((stop, thread))))
    }

    /// Writes the last records.
    pub fn end(self) {
        if let Some((stop, thread)) = self.0 {
            // A thread that is gone has said why in the log.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

fn used(sums: &Sums) -> Used {
    Used {
        transactions: sums.transactions,
        requests: sums.requests,
        received_bytes: sums.bytes_received,
        sent_bytes: sums.bytes_sent,
        database_us: sums.database_us,
        server_us: sums.server_us,
        wait_us: sums.wait_us,
        refusals: sums.refusals,
    }
}
