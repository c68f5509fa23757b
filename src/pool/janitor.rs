//! Housekeeping of idle server connections: scrub what lingered long enough, close what is old,
//! unused or gone. Called by the worker ten times a second; looks only at pools that were used
//! since or have something idle, however many there are.

use std::rc::Rc;
use std::time::Instant;

use crate::pool::lease::is_quiet;
use crate::pool::{ClusterPools, Idle, Parked, Pool, Pools, count};
use crate::server::Clean;

impl Pools {
    /// One round over everything idle.
    pub fn tidy(&self) {
        let now = Instant::now();
        let clusters: Vec<_> = self.clusters.borrow().values().cloned().collect();
        clusters.iter().for_each(|cluster| cluster.tidy(now));
    }

    /// Closes everything idle and whatever comes back from now on, at the end of the process.
    pub fn close(&self) {
        self.closing.set(true);
        self.all().iter().for_each(|pool| pool.close_idle());
    }

    /// How many server connections the process has, by cluster.
    pub fn servers(&self) -> Vec<(String, usize)> {
        let clusters = self.clusters.borrow();
        let taken = clusters.iter().map(|(name, it)| (name.clone(), it.arbiter.taken()));
        taken.collect()
    }
}

impl ClusterPools {
    /// A pool with nothing idle is let go: whoever uses it holds it, and when nobody does it ends.
    fn tidy(&self, now: Instant) {
        let mut kept = Vec::new();
        for pool in self.listed.take() {
            pool.tidy(now);
            match pool.has_idle() {
                true => kept.push(pool),
                false => pool.listed.set(false),
            }
        }
        self.listed.borrow_mut().append(&mut kept);
        self.arbiter.publish(self.worker, self.longest_idle());
        // Whatever was missed or held back, nobody waits long beside what is idle.
        self.pump_soon();
    }
}

impl Pool {
    fn has_idle(&self) -> bool {
        !self.clean.borrow().is_empty() || !self.parked.borrow().is_empty()
    }

    fn tidy(self: &Rc<Self>, now: Instant) {
        let settings = self.cluster();
        let expired = |since: Instant, born: Instant| {
            self.obsolete.get()
                || now.duration_since(since) >= settings.server_idle_timeout
                || now.duration_since(born) >= settings.server_lifetime
        };
        let mut closing = Vec::new();
        let mut keep = Vec::new();
        for mut idle in self.take_all_clean() {
            let old = expired(idle.since, idle.server.facts().since);
            match old || !is_quiet(idle.server.connection()) {
                true => closing.push((idle.server.into_server(), idle.place)),
                false => keep.push(idle),
            }
        }
        keep.into_iter().for_each(|idle| self.shelve_clean(idle));
        let mut keep = Vec::new();
        for mut parked in self.take_all_parked() {
            let old = expired(parked.idle.since, parked.idle.server.facts().since);
            let rested = now.duration_since(parked.idle.since) >= settings.linger;
            if old || !is_quiet(parked.idle.server.connection()) {
                closing.push((parked.idle.server.into_server(), parked.idle.place));
            } else if rested && !parked.harmless {
                // What it may hold (locks, temporary tables) must not outlive the session's need.
                self.scrub_soon(parked);
            } else {
                keep.push(parked);
            }
        }
        keep.into_iter().for_each(|parked| self.shelve_parked(parked));
        for (server, place) in closing {
            let counts = self.cluster.counts.clone();
            crate::pool::lease::close_soon(server, place, false, counts);
        }
    }

    fn scrub_soon(self: &Rc<Self>, parked: Parked) {
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            if let Some(idle) = pool.scrub(parked).await {
                pool.offer(idle);
            }
        });
    }

    /// Scrubs a parked server; one that cannot be scrubbed is closed.
    pub(super) async fn scrub(self: &Rc<Self>, parked: Parked) -> Option<Idle<Clean>> {
        let limit = self.cluster().scrub_timeout;
        // A scrub is no use of it: what has been idle long stays so.
        let Idle { server, place, since, .. } = parked.idle;
        count(&self.cluster.counts.scrubs);
        self.scrubbing.set(self.scrubbing.get() + 1);
        let scrubbed = server.scrub(limit).await;
        self.scrubbing.set(self.scrubbing.get() - 1);
        match scrubbed {
            Ok(server) => Some(Idle { server, place, since, fresh: false }),
            Err(failed) => {
                count(&self.cluster.counts.scrub_failures);
                let error = self.close_failed(failed, place);
                tracing::warn!(%error, "a scrub failed, the server connection is closed");
                None
            }
        }
    }
}
