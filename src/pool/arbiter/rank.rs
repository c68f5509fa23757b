//! [`Rank`]: whose turn it is among those who wait. Before everybody stand tenants below their
//! minimum, then those who use less than their share of the places, then the others, who borrow
//! what nobody else wants. Who stands in one class goes by the server time its tenant has had per
//! weight, and then by arrival.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{Account, ClusterNumber, Share};
use crate::pool::arbiter::{LaneId, TenantKey, tenant_key};

/// How much earlier somebody elsewhere must have come to be served before those of a worker's own,
/// or how much less server time per weight its tenant must have had. A move costs a scrub, two
/// registrations and a wake-up, so equals are not worth it.
pub const HEAD_START: Duration = Duration::from_millis(2);

/// When somebody began to wait. Earlier is smaller; no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub since: Instant,
    pub number: u64,
    pub worker: usize,
}

impl Ticket {
    fn has_head_start(self, other: Self) -> bool {
        self.since + HEAD_START <= other.since
    }
}

/// What a tenant uses beside what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    BelowMinimum,
    UnderShare,
    /// Servers in use, per a thousand of weight and in thousandths: who has least goes first.
    Over(u64),
}

/// A turn: the least is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    class: Class,
    /// Server time of the tenant by its weight, in microseconds: see [`Standing`].
    spent: u64,
    pub ticket: Ticket,
}

impl Rank {
    /// Whether its tenant has less than its minimum.
    pub fn is_below_minimum(self) -> bool {
        self.class == Class::BelowMinimum
    }

    /// Whether its tenant has less than it may claim.
    pub fn is_due(self) -> bool {
        !matches!(self.class, Class::Over(_))
    }

    #[cfg(test)]
    pub fn spent(self) -> u64 {
        self.spent
    }

    /// Whether this one, on another worker, is served before one who waits here.
    pub fn goes_before(self, own: Self) -> bool {
        if self.class != own.class {
            return self.class < own.class;
        }
        let margin = HEAD_START.as_micros() as u64;
        match self.spent.abs_diff(own.spent) > margin {
            true => self.spent < own.spent,
            false => self.ticket.has_head_start(own.ticket),
        }
    }
}

/// What the tenants that wait or use anything may claim together.
#[derive(Clone, Copy, Debug, Default)]
pub struct All {
    pub weights: u64,
    pub minima: u64,
}

impl All {
    /// Counts one share in, and another out.
    pub fn exchange(&mut self, old: Option<Share>, new: Option<Share>) {
        let sum = |of: fn(Share) -> u64, all: u64| {
            all.saturating_add(new.map_or(0, of)).saturating_sub(old.map_or(0, of))
        };
        self.weights = sum(|share| share.weight, self.weights);
        self.minima = sum(|share| share.minimum.into(), self.minima);
    }

    /// What is kept of a minimum: all of it if all fit into the places together. If not, each gets
    /// its part of all places but one, which stays for those without.
    fn minimum_of(self, share: Share, places: usize) -> u64 {
        let minimum = u64::from(share.minimum);
        let places = places as u64;
        match self.minima > places {
            true => minimum.saturating_mul(places.saturating_sub(1)) / self.minima,
            false => minimum,
        }
    }
}

/// Of how many places one is kept free for tenants that asked a moment ago and have little, while
/// those that have much would borrow it. Where there are few places, none.
const KEPT: usize = 8;
pub const FEW: usize = 4;

/// So much longer than a request takes is kept what tenants that have little had at once, up to
/// twice the places above: they may want it again. To take a server from one and to bring it back
/// costs two scrubs, moves and binds.
const LATELY: Duration = Duration::from_millis(100);

/// Servers in use, or on their way, of the tenants that wait or did a moment ago. Here all of those
/// claim a share: who asks often and briefly is rarely seen waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct InUse {
    weights: u64,
    /// By tenants that have their share of that, or more.
    much: u64,
    /// By all others, now, and at most of a moment ago.
    little: u64,
    lately: u64,
    /// How many tenants these are, without those that wait.
    gone: usize,
    /// And those that wait.
    waiting: usize,
}

/// What one tenant is counted for in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    weight: u64,
    used: u64,
    lately: u64,
    pub much: bool,
    waits: bool,
}

impl InUse {
    /// Counts one out, and the same one in as it is now.
    pub fn exchange(&mut self, old: Option<Counted>, new: Option<Counted>) {
        let add = |sum: u64, by: u64| sum.saturating_add(by);
        let less = |sum: u64, by: u64| sum.saturating_sub(by);
        for (it, change) in [(old, less as fn(u64, u64) -> u64), (new, add)] {
            let Some(Counted { weight, used, lately, much, waits }) = it else { continue };
            self.weights = change(self.weights, weight);
            if much {
                self.much = change(self.much, used);
                continue;
            }
            self.little = change(self.little, used);
            self.lately = change(self.lately, lately);
            let tenants = if waits { &mut self.waiting } else { &mut self.gone };
            *tenants = change(*tenants as u64, 1) as usize;
        }
    }

    /// Whether anybody has as much as its share, or more.
    pub fn has_much(&self) -> bool {
        self.much > 0
    }

    /// Whether nobody who has little waits, and one more for another takes nothing from those.
    pub fn is_free(&self, places: usize) -> bool {
        self.waiting == 0 && !self.is_kept(places)
    }

    /// Whether anything may be kept at all.
    pub fn keeps_for_some(&self, places: usize) -> bool {
        places >= FEW && self.gone + self.waiting > 0
    }

    /// Whether one more for a tenant that has much would leave too little to who may come.
    pub fn is_kept(&self, places: usize) -> bool {
        // Those who have little and wait go first anyway.
        if places < FEW || self.waiting > 0 {
            return false;
        }
        let part = (places / KEPT).max(1);
        let kept = part.min(self.gone) as u64;
        let lately = self.lately.min(2 * part as u64);
        kept > 0 && self.much + 1 + kept.max(self.little).max(lately) > places as u64
    }
}

/// What there is of one cluster's places to whom, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub places: usize,
    pub weights: u64,
    /// Whose are counted in that, with which weight.
    pub counted: HashMap<TenantKey, u64>,
}

impl Claims {
    /// How many places are due to one with this weight if it wants them, in hundredths.
    pub fn due(&self, account: &Account, weight: u64) -> u64 {
        let counted = self.counted.get(&tenant_key(account)).copied().unwrap_or(0);
        let weights = self.weights.saturating_sub(counted).saturating_add(weight).max(1);
        let due = self.places as u128 * 100 * u128::from(weight) / u128::from(weights);
        u64::try_from(due).unwrap_or(u64::MAX)
    }
}

/// A tenant that waits, or did a moment ago.
#[derive(Debug)]
pub struct Standing {
    pub account: Arc<Account>,
    cluster: ClusterNumber,
    pub share: Share,
    /// Server time since it began to wait, in microseconds divided by its weight, from where the
    /// one was who had least: nobody saves up, and nobody pays for what nobody else wanted.
    pub spent: u64,
    /// The account's server time up to which `spent` counts.
    counted_us: u64,
    /// The part of `spent`, not yet divided, for what runs now: the account has it at the end.
    ahead_us: u64,
    /// When that was counted last, and how many servers were in use then.
    settled: (Instant, u32),
    /// The most that were, of a moment ago, and when.
    lately: (Instant, u32),
    /// Places that are being opened or moved for it.
    pub pledged: usize,
    /// Workers that are about to serve one of its own.
    pub serving: usize,
    /// Where it waits, for a place or for a host, or something comes for it.
    pub lanes: Vec<LaneId>,
    /// How many of its own wait.
    pub waiting: usize,
    /// What the book compares its `spent` with others' by, while any of its own wait.
    pub level: Option<u64>,
    /// What the book has counted of its share, while it waits or uses anything.
    pub counted: Option<Share>,
    /// And of what it uses, unless it only waits for a host.
    pub used: Option<Counted>,
    /// When the last of those was over.
    pub left: Option<Instant>,
}

impl Standing {
    pub fn new(account: &Arc<Account>, cluster: ClusterNumber, share: Share, now: Instant) -> Self {
        let (in_use, had_us) = account.in_cluster(cluster);
        Self {
            account: account.clone(),
            cluster,
            share,
            spent: 0,
            counted_us: had_us,
            ahead_us: 0,
            settled: (now, in_use),
            lately: (now, in_use),
            pledged: 0,
            serving: 0,
            lanes: Vec::new(),
            waiting: 0,
            level: None,
            counted: None,
            used: None,
            left: None,
        }
    }

    /// Whether any of its own wait for a place, or something comes for it.
    pub fn wants_places(&self) -> bool {
        self.waiting > 0 || self.pledged > 0
    }

    fn in_use(&self) -> u32 {
        self.account.in_cluster(self.cluster).0
    }

    /// Whether it has any server.
    pub fn uses_any(&self) -> bool {
        self.in_use() > 0
    }

    /// Counts the server time up to now, of what still runs as well: a long transaction is paid for
    /// while it lasts. What the account says at its end makes that exact.
    pub fn settle(&mut self, now: Instant) {
        let (since, were) = self.settled;
        let (in_use, all) = self.account.in_cluster(self.cluster);
        self.settled = (now.max(since), in_use);
        let (then, most) = self.lately;
        if in_use >= most || now.saturating_duration_since(then) >= LATELY {
            self.lately = self.settled;
        }
        let passed = now.saturating_duration_since(since).as_micros() as u64;
        let running = passed.saturating_mul(u64::from(were));
        self.ahead_us = self.ahead_us.saturating_add(running);
        let fresh = all.saturating_sub(self.counted_us);
        self.counted_us = all;
        let known = fresh.min(self.ahead_us);
        self.ahead_us -= known;
        let unknown = fresh - known;
        self.spent = self.spent.saturating_add(self.by_weight(running.saturating_add(unknown)));
        if in_use == 0 {
            // Nothing runs, so nothing more will be said of it.
            let too_much = std::mem::take(&mut self.ahead_us);
            self.spent = self.spent.saturating_sub(self.by_weight(too_much));
        }
    }

    fn by_weight(&self, time_us: u64) -> u64 {
        time_us.saturating_mul(Share::WHOLE) / self.share.weight.max(1)
    }

    /// What it is to be counted for in what is in use.
    pub fn counts(&self, places: usize, all: InUse) -> Option<Counted> {
        if !self.lanes.is_empty() && !self.wants_places() && !self.uses_any() {
            return None;
        }
        let used = u64::from(self.settled.1) + (self.pledged + self.serving) as u64;
        let weight = self.share.weight.max(1);
        let known = all.weights.saturating_sub(self.used.map_or(0, |it| it.weight)) + weight;
        let part = (places as u64).saturating_mul(weight);
        let much = used > 0 && used.saturating_mul(known) >= part;
        let lately = u64::from(self.lately.1);
        Some(Counted { weight, used, lately, much, waits: self.waiting > 0 })
    }

    /// The rank of one of its own if so many more places were in use.
    pub fn rank(&self, more: usize, places: usize, all: All) -> impl Fn(Ticket) -> Rank {
        let (class, spent) = (self.class(more, places, all), self.spent);
        move |ticket| Rank { class, spent, ticket }
    }

    fn class(&self, more: usize, places: usize, all: All) -> Class {
        let used = u64::from(self.in_use()).saturating_add(more as u64);
        let weight = self.share.weight.max(1);
        let part = (places as u64).saturating_mul(weight);
        if used < all.minimum_of(self.share, places) {
            Class::BelowMinimum
        } else if used == 0 || used.saturating_mul(all.weights) < part {
            Class::UnderShare
        } else {
            Class::Over(used.saturating_mul(1000 * Share::WHOLE) / weight)
        }
    }
}
