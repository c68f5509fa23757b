//! Limits that somebody has set for a while: they stand with the account, so they survive reloads,
//! and lie over whatever limits the catalog says. Where there are none, nobody pays for them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::budget::limits::{Kind, Limits};

/// A tenant's overrides, one of a kind at most.
#[derive(Debug, Default)]
pub struct Overrides {
    any: AtomicBool,
    list: Mutex<Vec<Override>>,
}

/// A limit for a while.
#[derive(Clone, Debug)]
pub struct Override {
    pub kind: Kind,
    /// Only the limit of that kind is meant.
    pub limits: Box<Limits>,
    /// For people; whoever set it takes it back then.
    pub until: SystemTime,
    /// Tells it from a later one of its kind.
    pub serial: u64,
}

/// The limits in force.
#[derive(Debug)]
pub enum InForce<'own> {
    Own(&'own Limits),
    Overridden(Box<Limits>),
}

impl Deref for InForce<'_> {
    type Target = Limits;

    #[inline]
    fn deref(&self) -> &Limits {
        match self {
            Self::Own(limits) => limits,
            Self::Overridden(limits) => limits,
        }
    }
}

impl Overrides {
    /// These limits with the overrides laid over them.
    #[inline]
    pub fn over<'own>(&self, own: &'own Limits) -> InForce<'own> {
        match self.any.load(Ordering::Relaxed) {
            false => InForce::Own(own),
            true => InForce::Overridden(self.laid_over(own)),
        }
    }

    #[cold]
    fn laid_over(&self, own: &Limits) -> Box<Limits> {
        let mut limits = Box::new(own.clone());
        for it in self.list.lock().iter() {
            it.kind.take(&mut limits, &it.limits);
        }
        limits
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Sets one, in the place of what there was of its kind.
    pub fn set(&self, new: Override) {
        let mut list = self.list.lock();
        list.retain(|it| it.kind != new.kind);
        list.push(new);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Takes away what `gone` says. False if there was nothing of it.
    pub fn remove(&self, gone: impl Fn(&Override) -> bool) -> bool {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|it| !gone(it));
        self.any.store(!list.is_empty(), Ordering::Relaxed);
        list.len() < before
    }

    /// When the one of this kind ends.
    pub fn until(&self, kind: Kind) -> Option<SystemTime> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.list.lock().iter().find(|it| it.kind == kind).map(|it| it.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Budget;

    const RATE: Kind = Kind::Budget(Budget::Rate);
    const CLIENTS: Kind = Kind::Budget(Budget::Clients);

    fn set(overrides: &Overrides, kind: Kind, limits: Limits, serial: u64) {
        let until = SystemTime::UNIX_EPOCH;
        overrides.set(Override { kind, limits: Box::new(limits), until, serial });
    }

    #[test]
    fn only_the_kind_that_was_set_is_laid_over() {
        let overrides = Overrides::default();
        let own = Limits {
            queries_per_second: Some(200),
            queries_burst: Some(400),
            clients: Some(3),
            ..Limits::default()
        };
        assert!(matches!(overrides.over(&own), InForce::Own(_)));
        let five = Limits { queries_per_second: Some(5), clients: Some(9), ..Limits::default() };
        set(&overrides, RATE, five, 1);
        let now = overrides.over(&own);
        assert_eq!(
            (now.queries_per_second, now.queries_burst, now.clients),
            (Some(5), None, Some(3))
        );
        // None lifts a limit; the deadline of the first does not end the second.
        set(&overrides, RATE, Limits::default(), 2);
        assert_eq!(overrides.over(&own).queries_per_second, None);
        assert!(!overrides.remove(|it| it.serial == 1));
        assert!(overrides.until(RATE).is_some() && overrides.until(CLIENTS).is_none());
        assert!(overrides.remove(|it| it.kind == RATE));
        assert!(matches!(overrides.over(&own), InForce::Own(_)));
    }

    #[test]
    fn every_kind_takes_its_own_limit_and_shows_it() {
        let window = std::time::Duration::from_secs(60);
        let some = Some(crate::budget::Allowance { amount: 1_000_000, window });
        let full = Limits {
            clients: Some(1),
            logins_per_second: Some(1),
            queries_per_second: Some(1),
            queries_at_once: Some(1),
            database_time: some,
            bytes_out: some,
            servers: Some(1),
            pins: Some(1),
            pin_idle: Some(window),
            query_time: Some(window),
            transaction_time: Some(window),
            client_idle: Some(window),
            idle_in_transaction: Some(window),
            breaker: Some(crate::budget::Trip { timeouts: 1, of: 2 }),
            budget_wait: window,
            weight: Some(1),
            servers_min: Some(1),
            ..Limits::default()
        };
        for kind in Kind::all() {
            let mut limits = Limits::default();
            kind.take(&mut limits, &full);
            let shown: Vec<_> = Kind::all().filter(|it| it.limit(&limits).is_some()).collect();
            assert_eq!(shown, [kind]);
            assert_eq!(Kind::named(&kind.name().to_uppercase()), Some(kind));
        }
    }
}
