//! Housekeeping of idle server connections: scrub what lingered long enough, close what is old,
//! unused or gone. Called by the worker ten times a second; does nothing where nothing is idle.

use std::rc::Rc;
use std::time::Instant;

use crate::pool::lease::is_quiet;
use crate::pool::{Idle, Parked, Pool, Pools, count};

impl Pools {
    /// One round over everything idle.
    pub fn tidy(&self) {
        let now = Instant::now();
        for pool in self.all() {
            pool.tidy(now);
        }
        for cluster in self.clusters.borrow().values() {
            let mut pools = cluster.pools.borrow_mut();
            pools.retain(|_, same_key| {
                same_key.retain(|pool| !(pool.obsolete.get() && Rc::strong_count(pool) == 1));
                !same_key.is_empty()
            });
        }
    }

    /// Closes everything idle, at the end of the process.
    pub fn close_idle(&self) {
        self.all().iter().for_each(|pool| pool.close_idle());
    }

    /// How many server connections there are, by cluster.
    pub fn servers(&self) -> Vec<(String, usize)> {
        let clusters = self.clusters.borrow();
        let taken = clusters.iter().map(|(name, it)| (name.clone(), it.capacity.taken()));
        taken.collect()
    }
}

impl Pool {
    fn tidy(self: &Rc<Self>, now: Instant) {
        let settings = self.cluster();
        let expired = |since: Instant, born: Instant| {
            now.duration_since(since) >= settings.server_idle_timeout
                || now.duration_since(born) >= settings.server_lifetime
        };
        let mut closing = Vec::new();
        let mut keep = Vec::new();
        for mut idle in std::mem::take(&mut *self.clean.borrow_mut()) {
            let old = expired(idle.since, idle.server.facts().since);
            match old || !is_quiet(idle.server.connection()) {
                true => closing.push((idle.server.into_server(), idle.place)),
                false => keep.push(idle),
            }
        }
        self.clean.borrow_mut().append(&mut keep);
        let mut keep = Vec::new();
        for mut parked in std::mem::take(&mut *self.parked.borrow_mut()) {
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
        self.parked.borrow_mut().append(&mut keep);
        for (server, place) in closing {
            let counts = self.cluster.counts.clone();
            crate::pool::lease::close_soon(server, place, false, counts);
        }
    }

    fn scrub_soon(self: &Rc<Self>, parked: Parked) {
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let limit = pool.cluster().scrub_timeout;
            let Idle { server, place, .. } = parked.idle;
            count(&pool.cluster.counts.scrubs);
            match server.scrub(limit).await {
                Ok(server) => {
                    pool.offer(Idle { server, place, since: Instant::now(), fresh: false });
                }
                Err(failed) => {
                    count(&pool.cluster.counts.scrub_failures);
                    let error = pool.close_failed(failed, place);
                    tracing::warn!(%error, "a scrub failed, the server connection is closed");
                }
            }
        });
    }

    /// Takes the server that has been idle longest, to close it.
    pub(super) fn take_longest_idle(
        &self,
    ) -> Option<(crate::server::Server, crate::pool::capacity::Place)> {
        let mut clean = self.clean.borrow_mut();
        if !clean.is_empty() {
            let idle = clean.remove(0);
            return Some((idle.server.into_server(), idle.place));
        }
        let mut parked = self.parked.borrow_mut();
        let oldest = (0..parked.len()).min_by_key(|at| parked.get(*at).map(|it| it.idle.since))?;
        let taken = parked.swap_remove(oldest);
        Some((taken.idle.server.into_server(), taken.idle.place))
    }
}
