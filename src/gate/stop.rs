//! Signals, and the way out: no new client, transactions end, servers are told goodbye.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::oneshot;

use crate::gate::Common;
use crate::gate::worker::{Order, Worker};

/// How long servers get to hear goodbye after the last session, and sessions after the deadline.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// How long a worker's close of its idle servers is given once its sessions are gone.
const SERVERS_FAREWELL: Duration = Duration::from_millis(200);

/// What the outside asks for.
pub enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// The signals the gate listens to.
pub struct Signals {
    hangup: unix::Signal,
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Starts to listen.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: unix::signal(SignalKind::hangup())?,
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
        }
    }
}

/// Ends every session at its next transaction boundary, and after the deadline wherever it is.
pub async fn drain(common: &Common, workers: &[Worker], limit: Duration) {
    common.stopping.store(true, Ordering::Relaxed);
    tracing::info!(deadline = ?limit, "draining");
    end_within(workers, limit).await;
}

/// Ends those whom a closing door let in while the workers had said already that nobody is left.
/// Behind the doors' end nobody can come any more.
pub async fn see_off(workers: &[Worker]) {
    end_within(workers, FAREWELL).await;
    tokio::time::sleep(SERVERS_FAREWELL).await;
}

async fn end_within(workers: &[Worker], limit: Duration) {
    if tokio::time::timeout(limit, end(workers, false)).await.is_ok() {
        return;
    }
    tracing::warn!("the drain's deadline is over, ending sessions in their transactions");
    if tokio::time::timeout(FAREWELL, end(workers, true)).await.is_err() {
        tracing::warn!("some sessions did not end");
    }
}

async fn end(workers: &[Worker], now: bool) {
    let mut endings = Vec::new();
    for worker in workers {
        let (done, ended) = oneshot::channel();
        worker.order(Order::End { now, done });
        endings.push(ended);
    }
    for ended in endings {
        // A worker that is gone has no sessions left.
        let _ = ended.await;
    }
}
