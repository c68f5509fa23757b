//! [`Throttle`]: who may try a credential. Failures are counted by address and by the tenant that
//! is named, in a table of fixed size; who got in before is counted alone, so that strangers who
//! guess do not lock out those who know.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failed logins that are taken in a minute; both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuessLimits {
    /// From one address (IPv6: from one /64); default 60.
    pub per_address: u32,
    /// At one tenant, or one user who proves a password; default 600.
    pub per_tenant: u32,
}

impl Default for GuessLimits {
    fn default() -> Self {
        Self { per_address: 60, per_tenant: 600 }
    }
}

/// Who tries, as far as it is known before the proof.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Knocker {
    /// Where it comes from, an address or an IPv6 network; `None` is somebody on a Unix socket.
    pub network: Option<IpAddr>,
    /// Whom it says it is, in all.
    pub name: String,
    /// What somebody who guesses would guess at, if it is one thing: a tenant, or a user.
    pub target: Option<String>,
}

/// Sets of slots, and slots in a set: 16 Ki keys in 512 KiB.
const SETS: usize = 4096;
const WAYS: usize = 4;

/// A minute's worth of failures may come at once, then they leak out.
const WINDOW: Duration = Duration::from_secs(60);

/// For so long an address that got in is counted alone.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// How often the log is told of tries that were not taken.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The gate's memory of failed logins.
#[derive(Debug)]
pub struct Throttle {
    slots: Mutex<Vec<Slot>>,
    /// Keyed at random: nobody can choose whose slots to push out.
    hasher: RandomState,
    since: Instant,
    /// By the name of a refusal: when the log was last told of one, and how many there were since.
    told: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// 0 is empty.
    key: u64,
    /// Failures that have not leaked out yet, at `seconds`.
    level: f64,
    seconds: f64,
    /// Until then its bearer is one that got in.
    trusted_until: f64,
}

/// A slot's key and how much leaks out of it in a minute.
#[derive(Clone, Copy)]
struct Bucket {
    key: u64,
    limit: f64,
}

impl Default for Throttle {
    fn default() -> Self {
        let slots = Mutex::new(vec![Slot::default(); SETS * WAYS]);
        let (hasher, told) = (RandomState::new(), Mutex::default());
        Self { slots, hasher, since: Instant::now(), told }
    }
}

impl Throttle {
    /// Whether a try is taken now.
    ///
    /// # Errors
    ///
    /// Too many have failed: when to come again.
    pub fn check(&self, who: &Knocker, limits: GuessLimits, now: Instant) -> Result<(), Duration> {
        let now = self.seconds(now);
        let slots = self.slots.lock();
        let mut wait: f64 = 0.0;
        for bucket in self.buckets(&slots, who, limits, now) {
            let level = find(&slots, bucket.key).map_or(0.0, |slot| slot.level(bucket.limit, now));
            let over = level + 1.0 - bucket.limit;
            wait = wait.max(over * WINDOW.as_secs_f64() / bucket.limit);
        }
        if wait > 0.0 { Err(Duration::from_secs_f64(wait)) } else { Ok(()) }
    }

    /// Counts a refusal of this name. `Some`, at most once a second, is how many there were since
    /// the last time: strangers do not write logs at the speed they can knock with.
    pub fn turned_away(&self, name: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock();
        let Some((at, count)) = told.get_mut(name) else {
            told.insert(name, (now, 0));
            return Some(1);
        };
        *count = count.saturating_add(1);
        if now.saturating_duration_since(*at) < TELL_EVERY {
            return None;
        }
        *at = now;
        Some(std::mem::take(count))
    }

    /// Counts a try that failed.
    pub fn failed(&self, who: &Knocker, limits: GuessLimits, now: Instant) {
        let now = self.seconds(now);
        let mut slots = self.slots.lock();
        for bucket in self.buckets(&slots, who, limits, now) {
            if let Some(slot) = take(&mut slots, bucket, now) {
                // No higher than full: however many failed, a minute is the longest wait.
                slot.level = (slot.level(bucket.limit, now) + 1.0).min(bucket.limit);
                slot.seconds = now;
            }
        }
    }

    /// Remembers who got in. What failed before leaks out as ever: behind one address somebody else
    /// may be guessing.
    pub fn succeeded(&self, who: &Knocker, limits: GuessLimits, now: Instant) {
        let now = self.seconds(now);
        let bucket = self.alone(who, limits);
        if let Some(slot) = take(&mut self.slots.lock(), bucket, now) {
            slot.level = slot.level(bucket.limit, now);
            slot.seconds = now;
            slot.trusted_until = now + REMEMBERED.as_secs_f64();
        }
    }

    /// What a try is counted in: the bucket of its own, or those it shares with others.
    fn buckets(&self, slots: &[Slot], who: &Knocker, limits: GuessLimits, now: f64) -> Vec<Bucket> {
        let alone = self.alone(who, limits);
        if find(slots, alone.key).is_some_and(|slot| slot.trusted_until > now) {
            return vec![alone];
        }
        let address = Bucket { key: self.key(("from", who.network)), ..alone };
        let limit = f64::from(limits.per_tenant);
        let target = who.target.as_ref();
        let target = target.map(|target| Bucket { key: self.key(("to", target)), limit });
        target.into_iter().chain([address]).collect()
    }

    fn alone(&self, who: &Knocker, limits: GuessLimits) -> Bucket {
        let key = self.key((who.network, &who.name, &who.target));
        Bucket { key, limit: f64::from(limits.per_address) }
    }

    fn key(&self, what: impl Hash) -> u64 {
        self.hasher.hash_one(what).max(1)
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.since).as_secs_f64()
    }
}

impl Slot {
    fn level(&self, limit: f64, now: f64) -> f64 {
        let leaked = (now - self.seconds).max(0.0) * limit / WINDOW.as_secs_f64();
        (self.level - leaked).max(0.0)
    }
}

fn set(key: u64) -> std::ops::Range<usize> {
    let first = usize::try_from(key % SETS as u64).unwrap_or(0) * WAYS;
    first..first + WAYS
}

fn find(slots: &[Slot], key: u64) -> Option<&Slot> {
    slots.get(set(key))?.iter().find(|slot| slot.key == key)
}

/// The slot of a key; where it has none, that of whoever is missed least. Who got in is missed more
/// than anybody who failed.
fn take(slots: &mut [Slot], bucket: Bucket, now: f64) -> Option<&mut Slot> {
    let set = slots.get_mut(set(bucket.key))?;
    let worth = |slot: &Slot| match slot.key {
        key if key == bucket.key => -2.0,
        0 => -1.0,
        _ if slot.trusted_until > now => f64::MAX,
        _ => slot.level(bucket.limit, now),
    };
    let least = set.iter_mut().min_by(|a, b| worth(a).total_cmp(&worth(b)))?;
    if least.key != bucket.key {
        *least = Slot { key: bucket.key, ..Slot::default() };
    }
    Some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GuessLimits = GuessLimits { per_address: 3, per_tenant: 5 };

    fn who(address: &str, name: &str) -> Knocker {
        let target = Some(format!("tenant of {name}"));
        Knocker { network: Some(address.parse().unwrap()), name: name.to_owned(), target }
    }

    fn fail(throttle: &Throttle, who: &Knocker, times: usize, now: Instant) -> usize {
        let tries = (0..times).filter(|_| {
            let taken = throttle.check(who, LIMITS, now).is_ok();
            if taken {
                throttle.failed(who, LIMITS, now);
            }
            taken
        });
        tries.count()
    }

    #[test]
    fn who_is_turned_away_is_told_of_once_a_second_and_none_is_forgotten() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.turned_away("x", now), Some(1));
        for step in 0..900 {
            assert_eq!(throttle.turned_away("x", now + Duration::from_millis(step)), None);
        }
        let other = throttle.turned_away("y", now + Duration::from_millis(999));
        assert_eq!(other, Some(1), "each refusal is told of by itself");
        assert_eq!(throttle.turned_away("x", now + Duration::from_millis(1000)), Some(901));
        assert_eq!(throttle.turned_away("x", now + Duration::from_millis(2001)), Some(1));
    }

    #[test]
    fn an_address_that_fails_must_wait_and_others_need_not() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(fail(&throttle, &who("10.0.0.1", "a"), 9, now), 3);
        assert_eq!(fail(&throttle, &who("10.0.0.1", "b"), 9, now), 0, "other names do not help");
        assert_eq!(fail(&throttle, &who("10.0.0.2", "b"), 1, now), 1);
        let wait = throttle.check(&who("10.0.0.1", "a"), LIMITS, now).unwrap_err();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        let later = now + wait + Duration::from_millis(100);
        assert_eq!(fail(&throttle, &who("10.0.0.1", "a"), 9, later), 1);
    }

    #[test]
    fn a_tenant_is_guessed_at_from_many_addresses_only_so_often() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let home = who("10.0.0.1", "a");
        throttle.succeeded(&home, LIMITS, now);
        let from = |last: u8| who(&format!("10.0.1.{last}"), "a");
        let taken: usize = (0..100).map(|last| fail(&throttle, &from(last), 1, now)).sum();
        assert_eq!(taken, 5);
        // Who got in before is counted alone, and only so far.
        assert_eq!(fail(&throttle, &home, 9, now), 3);
        let later = now + REMEMBERED + Duration::from_secs(1);
        assert_eq!(fail(&throttle, &who("10.0.0.9", "a"), 9, later), 3);
    }

    #[test]
    fn the_table_stays_its_size_and_keeps_the_worst() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let worst = who("10.0.0.1", "a");
        assert_eq!(fail(&throttle, &worst, 9, now), 3);
        for number in 0..200_000_u32 {
            let network = Some(IpAddr::from(number.to_be_bytes()));
            let name = number.to_string();
            throttle.failed(&Knocker { network, name, target: None }, LIMITS, now);
        }
        assert!(throttle.check(&worst, LIMITS, now).is_err());
        assert_eq!(throttle.slots.lock().len(), SETS * WAYS);
    }
}
