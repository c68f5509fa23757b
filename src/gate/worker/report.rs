//! The counters of a worker on their way to the metrics and to the accounts of tenants.

use std::sync::atomic::Ordering;

use crate::gate::worker::floor::Floor;
use crate::gate::worker::guest::Guest;

/// What was handed to the metrics so far: they take differences.
#[derive(Debug, Default)]
pub struct Report {
    sent: Vec<u64>,
    refusals: Vec<(&'static str, u64)>,
    waiting: usize,
    pinned: usize,
    would_refuse: Vec<u64>,
}

impl Report {
    /// Hands the counters of a worker on.
    pub fn send(&mut self, floor: &Floor) {
        let metrics = &floor.common.metrics;
        floor.book_bytes();
        let (counts, pools) = (&floor.env.counts, &floor.env.pools.counts);
        let pairs = [
            (counts.requests.get(), &metrics.requests),
            (counts.transactions.get(), &metrics.transactions),
            (counts.bytes_received.get(), &metrics.client_received_bytes),
            (counts.bytes_sent.get(), &metrics.client_sent_bytes),
            (counts.time_exceeded.get(), &metrics.query_time_exceeded),
            (pools.connects.get(), &metrics.server_connects),
            (pools.connect_failures.get(), &metrics.server_connect_failures),
            (pools.probes.get(), &metrics.host_probes),
            (pools.level_shortfalls.get(), &metrics.level_shortfalls),
            (pools.binds.get(), &metrics.binds),
            (pools.bind_failures.get(), &metrics.bind_failures),
            (pools.scrubs.get(), &metrics.scrubs),
            (pools.scrub_failures.get(), &metrics.scrub_failures),
            (pools.moves.get(), &metrics.server_moves),
            (pools.by_session.get(), &metrics.acquires.session),
            (pools.by_context.get(), &metrics.acquires.context),
            (pools.by_clean.get(), &metrics.acquires.clean),
            (pools.by_connect.get(), &metrics.acquires.connect),
            (pools.by_wait.get(), &metrics.acquires.wait),
        ];
        self.sent.resize(pairs.len(), 0);
        for ((now, metric), sent) in pairs.into_iter().zip(&mut self.sent) {
            metric.increment(now - *sent);
            *sent = now;
        }
        for (name, side, now) in counts.refusals.borrow().iter() {
            let known = self.refusals.iter_mut().find(|(known, _)| known == name);
            let sent = match known {
                Some((_, sent)) => std::mem::replace(sent, *now),
                None => {
                    self.refusals.push((name, *now));
                    0
                }
            };
            metrics.refusals(name, side).increment(now - sent);
        }
        let totals: Vec<_> = counts.would_refuse.borrow().totals().collect();
        self.would_refuse.resize(totals.len(), 0);
        for ((rule, now), sent) in totals.into_iter().zip(&mut self.would_refuse) {
            if now > *sent {
                metrics.would_refuse(rule.name()).increment(now - *sent);
                *sent = now;
            }
        }
        for waited in pools.waits.take() {
            metrics.wait.record(waited.as_secs_f64());
        }
        metrics.tiers.add(&counts.times);
        let waiting = floor.env.pools.waiting();
        // One figure for all workers: each adds what has changed on it.
        metrics.clients_waiting.increment(waiting as f64 - self.waiting as f64);
        self.waiting = waiting;
        let is_pinned = |guest: &Guest| !guest.shared.pins.get().is_empty();
        let pinned = floor.guests.borrow().values().filter(|guest| is_pinned(guest)).count();
        metrics.clients_pinned.increment(pinned as f64 - self.pinned as f64);
        self.pinned = pinned;
        metrics.clients.set(floor.common.clients.load(Ordering::Relaxed) as f64);
        for (cluster, servers) in floor.env.pools.servers() {
            metrics.servers(&cluster).set(servers as f64);
        }
        for (cluster, health) in floor.env.pools.health() {
            metrics.hosts_down(&cluster).set(health.down() as f64);
        }
    }
}

impl Floor {
    /// Books what sessions received and sent since the last time: they do not do it themselves
    /// before they end.
    pub fn book_bytes(&self) {
        let counts = &self.env.counts;
        for guest in self.guests.borrow().values() {
            let (received, sent) = guest.shared.unbooked();
            if received + sent == 0 {
                continue;
            }
            let totals = &guest.account.totals;
            totals.bytes_received.fetch_add(received, Ordering::Relaxed);
            totals.bytes_sent.fetch_add(sent, Ordering::Relaxed);
            counts.bytes_received.set(counts.bytes_received.get() + received);
            counts.bytes_sent.set(counts.bytes_sent.get() + sent);
        }
    }
}
