//! [`Holdings`]: how many of a tenant's servers are of which cluster, and what time they have
//! served. A few words that threads share without a lock: nearly every tenant is in one cluster.

use std::sync::atomic::{AtomicU64, Ordering};

/// A cluster, by a number of the caller's: not zero, and not the last one there is.
pub type ClusterNumber = u32;

/// Clusters a tenant may have servers of at once, each counted by itself. Servers of others are
/// counted in all of them: a tenant gains nothing by that.
const HOLDINGS: usize = 4;

/// Of a holding that is being cleared for another cluster.
const NOBODY: ClusterNumber = ClusterNumber::MAX;

#[derive(Debug, Default)]
pub(super) struct Holdings {
    all: [Holding; HOLDINGS],
    /// Of all other clusters.
    rest: Holding,
}

/// Which holding a server was counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct HoldingId(u8);

#[derive(Debug, Default)]
struct Holding {
    /// The cluster in the upper half, its servers in the lower: both change at once.
    entry: AtomicU64,
    time_us: AtomicU64,
}

fn entry(cluster: ClusterNumber, servers: u32) -> u64 {
    u64::from(cluster) << 32 | u64::from(servers)
}

fn cluster_of(entry: u64) -> ClusterNumber {
    (entry >> 32) as u32
}

fn servers_of(entry: u64) -> u32 {
    entry as u32
}

impl Holdings {
    /// Counts one more server of a cluster.
    #[inline]
    pub fn enter(&self, cluster: ClusterNumber) -> HoldingId {
        let known = self.all.iter().position(|holding| holding.add(cluster));
        let at = known.unwrap_or_else(|| self.settle(cluster));
        HoldingId(at as u8)
    }

    /// Of two threads that come at once each may take a holding; both are counted.
    #[cold]
    fn settle(&self, cluster: ClusterNumber) -> usize {
        let taken = self.all.iter().position(|holding| holding.take_over(cluster));
        taken.unwrap_or_else(|| {
            self.rest.entry.fetch_add(1, Ordering::Relaxed);
            HOLDINGS
        })
    }

    fn holding(&self, id: HoldingId) -> &Holding {
        self.all.get(usize::from(id.0)).unwrap_or(&self.rest)
    }

    /// Takes back what [`Self::enter`] counted.
    #[inline]
    pub fn leave(&self, id: HoldingId) {
        // Whoever takes it over sees what was booked here before.
        self.holding(id).entry.fetch_sub(1, Ordering::Release);
    }

    /// Books time of a server that is counted.
    #[inline]
    pub fn book(&self, id: HoldingId, micros: u64) {
        self.holding(id).time_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Servers of a cluster, and the time booked for it, in microseconds. The time may begin anew
    /// while there are none.
    pub fn of(&self, cluster: ClusterNumber) -> (u32, u64) {
        let mut sums = (servers_of(self.rest.load()), self.rest.time_us.load(Ordering::Relaxed));
        for holding in &self.all {
            let entry = holding.load();
            if cluster_of(entry) == cluster {
                sums.0 = sums.0.saturating_add(servers_of(entry));
                sums.1 = sums.1.saturating_add(holding.time_us.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

impl Holding {
    fn load(&self) -> u64 {
        self.entry.load(Ordering::Acquire)
    }

    #[inline]
    fn add(&self, cluster: ClusterNumber) -> bool {
        let add = |now: u64| (cluster_of(now) == cluster).then_some(now + 1);
        self.entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes it for a cluster and one server of it, if nobody has any here.
    fn take_over(&self, cluster: ClusterNumber) -> bool {
        let now = self.load();
        let is_free = servers_of(now) == 0 && cluster_of(now) != NOBODY;
        let cleared = entry(NOBODY, 0);
        if !is_free
            || self
                .entry
                .compare_exchange(now, cleared, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return false;
        }
        self.time_us.store(0, Ordering::Relaxed);
        self.entry.store(entry(cluster, 1), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn servers_and_time_are_counted_by_cluster() {
        let all = Holdings::default();
        let [first, again, other] = [7, 7, 8].map(|cluster| all.enter(cluster));
        all.book(first, 5);
        all.book(other, 3);
        assert_eq!([7, 8, 9].map(|it| all.of(it)), [(2, 5), (1, 3), (0, 0)]);
        all.leave(first);
        all.leave(again);
        assert_eq!(all.of(7), (0, 5), "it may come back");
        all.enter(7);
        assert_eq!(all.of(7), (1, 5));
    }

    #[test]
    fn of_more_clusters_than_there_are_homes_the_last_count_everywhere() {
        let all = Holdings::default();
        let ids: Vec<HoldingId> = (1..=6).map(|cluster| all.enter(cluster)).collect();
        all.book(ids[5], 4);
        assert_eq!([1, 4, 5, 6].map(|it| all.of(it).0), [3, 3, 2, 2]);
        assert_eq!(all.of(1).1, 4);
        ids.into_iter().for_each(|id| all.leave(id));
        assert_eq!([1, 6].map(|it| all.of(it).0), [0, 0]);
        // A holding that nobody has anything in is the next one's, with nothing in it.
        let id = all.enter(9);
        all.book(id, 1);
        assert_eq!(all.of(9), (1, 4 + 1));
    }

    #[test]
    fn threads_that_come_and_go_leave_nothing_behind() {
        let all = Holdings::default();
        thread::scope(|scope| {
            for thread in 0..4 {
                let all = &all;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let cluster = 1 + (thread + round / 7) % 6;
                        let id = all.enter(cluster);
                        assert!(all.of(cluster).0 >= 1, "its own is counted");
                        all.leave(id);
                    }
                });
            }
        });
        assert!((1..=6).all(|cluster| all.of(cluster).0 == 0));
        assert_eq!(servers_of(all.rest.load()), 0);
    }
}
