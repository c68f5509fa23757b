//! [`Logins`]: which logins were turned away, at whichever host, and when each is tried again. One
//! look-up by database and login; what nobody has tried for long is forgotten.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::pool::health::{FORGOTTEN, Why};
use crate::server::ConnectPlan;

/// Most logins that are remembered because they were turned away.
const LOGINS_MAX: usize = 10_000;

/// How often those are looked for that can be forgotten.
const PURGED_EVERY: Duration = Duration::from_secs(5);

/// By a hash of database and login; several where a reload gave one of them another password.
#[derive(Debug, Default)]
pub(super) struct Logins {
    known: HashMap<u64, Vec<Login>, RandomState>,
    count: usize,
    purged: Option<Instant>,
}

/// A login that was turned away, or a role that no host has.
#[derive(Debug)]
pub(super) struct Login {
    /// All of it: another password, or other checks, are another login.
    plan: Arc<ConnectPlan>,
    pub why: Why,
    pub failures: u32,
    pub next: Instant,
    pub trying: bool,
}

impl Logins {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn get(&mut self, plan: &ConnectPlan) -> Option<&mut Login> {
        if self.is_empty() {
            return None;
        }
        let key = self.key(plan);
        self.known.get_mut(&key)?.iter_mut().find(|login| *login.plan == *plan)
    }

    pub fn get_or_new(&mut self, plan: &Arc<ConnectPlan>, why: Why) -> Option<&mut Login> {
        if self.get(plan).is_none() {
            if self.count >= LOGINS_MAX {
                self.make_room();
            }
            let (key, next) = (self.key(plan), Instant::now());
            let login = Login { plan: plan.clone(), why, failures: 0, next, trying: false };
            self.known.entry(key).or_default().push(login);
            self.count += 1;
        }
        self.get(plan)
    }

    /// True if it was known.
    pub fn remove(&mut self, plan: &ConnectPlan) -> bool {
        let key = self.key(plan);
        let Some(all) = self.known.get_mut(&key) else { return false };
        let before = all.len();
        all.retain(|login| *login.plan != *plan);
        let gone = before - all.len();
        if all.is_empty() {
            self.known.remove(&key);
        }
        self.count -= gone;
        gone > 0
    }

    /// Forgets those nobody has tried for long, now and then. True if there were any.
    pub fn purge(&mut self, now: Instant) -> bool {
        if self.is_empty() || self.purged.is_some_and(|at| now < at + PURGED_EVERY) {
            return false;
        }
        self.purged = Some(now);
        let before = self.count;
        self.retain(|login| now < login.next + FORGOTTEN);
        self.count < before
    }

    /// The half of them that is nearest to its next try goes, as it has waited for that longest.
    fn make_room(&mut self) {
        let mut times: Vec<Instant> = self.known.values().flatten().map(|it| it.next).collect();
        let middle = times.len() / 2;
        let (_, &mut middle, _) = times.select_nth_unstable(middle);
        self.retain(|login| login.next > middle);
    }

    /// Whoever is being tried stays: its end will be told.
    fn retain(&mut self, keep: impl Fn(&Login) -> bool) {
        self.known.retain(|_, all| {
            all.retain(|login| login.trying || keep(login));
            !all.is_empty()
        });
        self.count = self.known.values().map(Vec::len).sum();
    }

    fn key(&self, plan: &ConnectPlan) -> u64 {
        self.known.hasher().hash_one((&plan.conninfo.dbname, &plan.conninfo.user))
    }
}
