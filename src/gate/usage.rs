//! The thread that writes usage records: a slow disk holds up nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::budget::Account;
use crate::gate::Common;
use crate::telemetry::{UsageBooks, UsageSettings, Used};

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
        let (stop, stopped) = sync_channel::<()>(1);
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        let mut books = UsageBooks::new(format!("{since:x}-{:08x}", fastrand::u32(..)), now);
        let thread = thread::Builder::new().name("usage".to_owned()).spawn(move || {
            let mut next = Instant::now() + settings.interval;
            loop {
                let rest = next.saturating_duration_since(Instant::now());
                let goes_on = stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout);
                next += settings.interval;
                // At the end there may be lines that could not be written before, and new ones.
                for _ in 0..=usize::from(!goes_on) {
                    let totals = common.accounts.all().into_iter();
                    let totals = totals.map(|(tenant, account)| (tenant, used(&account)));
                    let ended = books.end_interval(totals, SystemTime::now(), || settings.open());
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

fn used(account: &Account) -> Used {
    let totals = &account.totals;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let server_us = read(&totals.server_time_us);
    Used {
        transactions: read(&totals.transactions),
        requests: read(&totals.requests),
        received_bytes: read(&totals.bytes_received),
        sent_bytes: read(&totals.bytes_sent),
        database_us: server_us.saturating_sub(read(&totals.idle_time_us)),
        server_us,
        wait_us: read(&totals.wait_time_us),
        refusals: read(&totals.refusals),
    }
}
