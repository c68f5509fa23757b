//! [`Gift`]: a clean server on its way from one worker's pools to another's, socket and all. What
//! makes it safe is its type: only [`Clean`] can become a [`Crossing`], so nothing bound to a
//! tenant ever leaves its worker.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::pool::arbiter::{Claim, Need, Place, PoolId, Rank};
use crate::pool::lease::close_soon;
use crate::pool::{ClusterPools, Idle, Parked, Pool, Pools, count};
use crate::server::{Clean, ConnectPlan, Crossing};

/// A clean server for somebody who waits on another worker.
#[derive(Debug)]
pub struct Gift {
    cluster: Arc<str>,
    plan: Arc<ConnectPlan>,
    server: Crossing,
    place: Place,
}

impl Pools {
    /// Takes a server that another worker gave up.
    pub(super) fn accept(&self, gift: Gift) {
        let Gift { cluster, plan, server, mut place } = gift;
        // Kept to the end: until then whoever it is for is not looked at as one without help.
        let _pledge = place.take_pledge();
        let cluster = self.clusters.borrow().get(&*cluster).cloned();
        let pool = cluster.and_then(|cluster| cluster.find(&plan, true));
        match (server.arrive(&self.buffers), pool) {
            (Ok(server), Some(pool)) => {
                pool.note(server.facts());
                pool.offer(Idle { server, place, since: Instant::now(), fresh: false });
            }
            (Ok(server), None) => {
                close_soon(server.into_server(), place, false, self.counts.clone());
            }
            (Err(error), _) => tracing::warn!(%error, "a server was lost between two workers"),
        }
    }
}

impl ClusterPools {
    /// Gives idle servers to those on other workers whose turn it is, before one who waits here.
    pub(super) fn give(self: &Rc<Self>, before: Option<Rank>) {
        while self.asked.get() && self.idle.get() > 0 {
            match self.arbiter.claim(self.worker, before) {
                Claim::Nobody => self.asked.set(false),
                Claim::Later => return,
                Claim::Need(need) => {
                    if !self.help(need) {
                        return;
                    }
                }
            }
        }
    }

    /// Moves a server of the same pool over, or closes another so that its place goes over. False
    /// if there is nothing alive after all.
    fn help(self: &Rc<Self>, need: Need) -> bool {
        let Need { pool, plan, pledge } = need;
        let own = self.find(&plan, false).filter(|_| !self.is_exceeded());
        if let Some(own) = own {
            if let Some(mut idle) = own.pop_clean() {
                idle.place.carry(pledge);
                own.send_off(idle, pool);
                return true;
            }
            if let Some(mut parked) = own.pop_parked() {
                parked.idle.place.carry(pledge);
                own.scrub_for(parked, pool);
                return true;
            }
        }
        let Some((server, mut place)) = self.pop_idle() else { return false };
        place.carry(pledge);
        close_soon(server, place, false, self.counts.clone());
        true
    }
}

impl Pool {
    fn scrub_for(self: &Rc<Self>, parked: Parked, to: PoolId) {
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            if let Some(idle) = pool.scrub(parked).await {
                pool.send_off(idle, to);
            }
        });
    }

    /// Sends a clean server to another worker's pool; one that cannot leave is closed.
    fn send_off(&self, idle: Idle<Clean>, to: PoolId) {
        let Idle { server, mut place, .. } = idle;
        let counts = &self.cluster.counts;
        match server.depart() {
            Ok(server) => {
                count(&counts.moves);
                place.move_to(to.worker);
                let cluster = self.cluster.settings.borrow().name.as_str().into();
                let gift = Gift { cluster, plan: self.plan.clone(), server, place };
                self.cluster.arbiters.send(to.worker, Box::new(gift));
            }
            Err(server) => close_soon(*server, place, false, counts.clone()),
        }
    }
}
