//! The service manager, if one started us: what it is told over NOTIFY_SOCKET (sd_notify(3)), and
//! its watchdog, which is fed only while every worker answers.

use std::env;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::gate::Common;
use crate::gate::worker::{Order, Worker};

/// How often the line that `systemctl status` shows is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// What the drain may take beyond its deadline: the last goodbyes.
const STOP_SPARE: Duration = Duration::from_secs(10);

/// The way to the service manager; without one, nothing is said.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment says. A manager that cannot be reached is a warning: it will notice.
    pub fn from_env() -> Self {
        let name = env::var("NOTIFY_SOCKET").unwrap_or_default();
        let socket = match name.is_empty() {
            true => None,
            false => connect(&name)
                .inspect_err(|error| tracing::warn!(name, %error, "cannot reach NOTIFY_SOCKET"))
                .ok(),
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| for_us && *micros > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Clients are served.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload begins; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The drain begins and may take `limit`, whatever the manager thought.
    pub fn stopping(&self, limit: Duration) {
        let micros = (limit + STOP_SPARE).as_micros();
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=draining"));
    }

    /// Keeps the status line up to date, and the watchdog quiet while all workers answer.
    pub async fn keep_up(
        self: Arc<Self>,
        common: Arc<Common>,
        workers: Arc<Vec<Worker>>,
        stop: CancellationToken,
    ) {
        if self.socket.is_none() {
            return;
        }
        // A third to sleep, a third to wait for the workers, a third to spare.
        let limit = self.watchdog.map_or(STATUS_EVERY, |limit| limit / 3);
        let mut told = String::new();
        loop {
            let status = status(&common);
            if status != told {
                self.say(&format!("STATUS={status}"));
                told = status;
            }
            if self.watchdog.is_some() {
                self.feed(&workers, limit).await;
            }
            let pause = tokio::time::sleep(limit.min(STATUS_EVERY));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn feed(&self, workers: &[Worker], limit: Duration) {
        match tokio::time::timeout(limit, all_answer(workers)).await {
            Ok(()) => self.say("WATCHDOG=1"),
            Err(_) => tracing::error!("a worker does not answer, the watchdog is not fed"),
        }
    }

    fn say(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::warn!(%error, text, "the service manager was not told");
        }
    }
}

/// A path, or an abstract name that starts with `@`.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the gate up.
    socket.set_nonblocking(true)?;
    let address = match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)?
        }
        _ => SocketAddr::from_pathname(name)?,
    };
    socket.connect_addr(&address)?;
    Ok(socket)
}

async fn all_answer(workers: &[Worker]) {
    for worker in workers {
        let (reply, answer) = oneshot::channel();
        worker.order(Order::Ping(reply));
        if answer.await.is_err() {
            // Its thread is gone, which is no answer either.
            std::future::pending::<()>().await;
        }
    }
}

fn status(common: &Common) -> String {
    let (clients, tenants) =
        (common.clients.load(Ordering::Relaxed), common.catalog.load().tenants().len());
    match common.stopping.load(Ordering::Relaxed) {
        true => format!("draining, {clients} clients left"),
        false => format!("{clients} clients, {tenants} tenants"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(watchdog: Option<Duration>) -> (ServiceManager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ServiceManager { socket: Some(ours), watchdog }, theirs)
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[tokio::test]
    async fn a_worker_that_does_not_answer_leaves_the_watchdog_hungry() {
        let (manager, socket) = manager(None);
        let limit = Duration::from_millis(20);
        manager.feed(&[], limit).await;
        assert_eq!(heard(&socket).as_deref(), Some("WATCHDOG=1"));
        let (stuck, _orders) = Worker::unattended();
        manager.feed(&[stuck], limit).await;
        assert_eq!(heard(&socket), None);
        let (gone, orders) = Worker::unattended();
        drop(orders);
        manager.feed(&[gone], limit).await;
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn a_reload_carries_the_time_of_the_clock_systemd_looks_at() {
        let (manager, socket) = manager(None);
        manager.reloading();
        let first = heard(&socket).unwrap();
        let micros = first.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let before: u64 = micros.parse().unwrap();
        manager.reloading();
        let then = heard(&socket).unwrap();
        assert!(then.rsplit('=').next().unwrap().parse::<u64>().unwrap() >= before);
    }
}
