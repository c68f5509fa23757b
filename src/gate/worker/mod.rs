//! A worker: one thread with its own runtime, on which sessions, their servers and those who wait
//! live without locks. It is sent orders by the gate and post by other workers' pools; nothing else
//! reaches it.

mod errand;
mod floor;
mod guest;
mod homes;
mod index;
mod report;
mod review;
mod rows;
mod still;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::catalog::Moved;
use crate::client::Arrival;
use crate::gate::Common;
use crate::gate::door::Slot;
use crate::net::{Buffers, Peer};
use crate::pool::{Arbiters, Mail, Pools, SessionId};
pub use errand::{Errand, KILL_WAIT, all, each};
use floor::Floor;
pub use rows::{Part, Parts, WorkerRows};

/// After how many polls of tasks a busy worker looks whether other threads have woken one, and
/// after how many whether a socket is ready. The first is a lock that hardly anybody holds, the
/// second a system call.
const POST_INTERVAL: u32 = 7;
const SOCKET_INTERVAL: u32 = 31;

/// A client on its way from the door.
pub struct Newcomer {
    pub arrival: Arrival,
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    pub slot: Slot,
}

/// What a worker can be told.
pub enum Order {
    Adopt(Box<Newcomer>),
    /// Answered, by dropping the sender, when the cancel has arrived or there is nothing to cancel.
    Cancel {
        session: SessionId,
        done: oneshot::Sender<()>,
    },
    /// The catalog was replaced.
    Reload,
    /// The catalog was replaced by one in which these tenants are others.
    Changed(Arc<[Moved]>),
    /// A credential that counted may count no more.
    Recheck,
    /// Something the console wants.
    Errand(Errand),
    /// End every session: at its next transaction boundary, or now. Answered when all are gone.
    End {
        now: bool,
        done: oneshot::Sender<()>,
    },
    Snapshot(Parts, oneshot::Sender<WorkerRows>),
    /// Answered at once, by a worker that is alive.
    Ping(oneshot::Sender<()>),
}

/// The handle others have on a worker.
pub struct Worker(mpsc::UnboundedSender<Order>);

impl Worker {
    /// Starts a worker's thread; returns when it is ready to work.
    pub fn start(
        index: usize,
        common: &Arc<Common>,
        arbiters: &Arc<Arbiters>,
        mail: Mail,
    ) -> io::Result<Self> {
        let (sender, orders) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let (common, arbiters) = (common.clone(), arbiters.clone());
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _lost = Lost { index, arbiters: arbiters.clone() };
            let mut builder = Builder::new_current_thread();
            builder.global_queue_interval(POST_INTERVAL).event_interval(SOCKET_INTERVAL);
            let runtime = match builder.enable_io().build_local(Default::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let clock = common.clock.clone();
            let pools = |buffers: &Buffers| Pools::new(buffers.clone(), clock, index, arbiters);
            runtime.block_on(Floor::new(common, pools).work(orders, mail));
        })?;
        let ended = || io::Error::other("the thread ended at once");
        started.blocking_recv().unwrap_or_else(|_| Err(ended())).map(|()| Self(sender))
    }

    /// A handle whose orders nobody obeys unless the test does.
    #[cfg(test)]
    pub fn unattended() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self(sender), orders)
    }

    /// Sends an order. A worker that is gone has no sessions, so nothing is lost.
    pub fn order(&self, order: Order) {
        let _ = self.0.send(order);
    }

    /// Sends a client. It comes back if the worker is gone.
    pub fn adopt(&self, newcomer: Box<Newcomer>) -> Result<(), Box<Newcomer>> {
        match self.0.send(Order::Adopt(newcomer)) {
            Err(mpsc::error::SendError(Order::Adopt(newcomer))) => Err(newcomer),
            _ => Ok(()),
        }
    }
}

/// The end of a worker's thread. In good order it ends with the process; if it panicked outside of
/// everything it runs, its servers are gone and others may have their places.
struct Lost {
    index: usize,
    arbiters: Arc<Arbiters>,
}

impl Drop for Lost {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                worker = self.index,
                "a worker was lost with its sessions; its tenants are refused until a restart"
            );
            self.arbiters.lose(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a lease: closing what it holds takes a task.
    struct ClosesInATask;

    impl Drop for ClosesInATask {
        fn drop(&mut self) {
            tokio::task::spawn_local(async {});
        }
    }

    #[test]
    fn a_thread_that_panics_unwinds_with_all_its_tasks() {
        let ended = thread::spawn(|| {
            let (arbiters, _) = Arbiters::new(1);
            let _lost = Lost { index: 0, arbiters };
            let builder = &mut Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(Default::default()).unwrap();
            runtime.block_on(async {
                let leased = ClosesInATask;
                tokio::task::spawn_local(async move {
                    let _leased = leased;
                    std::future::pending::<()>().await;
                });
                tokio::task::yield_now().await;
                panic!("as if the worker were broken");
            });
        });
        assert!(ended.join().is_err());
    }
}
