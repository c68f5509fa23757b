//! Where idle servers lie: clean ones and parked ones, counted, so that nobody has to look into
//! every pool to learn that there is nothing.

use std::time::Instant;

use crate::pool::arbiter::Place;
use crate::pool::{ClusterPools, Idle, Parked, Pool, lease};
use crate::server::{Clean, Server};

impl Pool {
    /// Puts a clean server where the next one who needs it finds it.
    pub(super) fn shelve_clean(&self, idle: Idle<Clean>) {
        self.with_clean(|clean| clean.push(idle));
    }

    /// Puts a bound one there.
    #[inline]
    pub(super) fn shelve_parked(&self, parked: Parked) {
        self.with_parked(|all| all.push(parked));
    }

    /// Takes the clean server used last, if there is one that is alive.
    pub(super) fn pop_clean(&self) -> Option<Idle<Clean>> {
        self.with_clean(|clean| {
            while let Some(mut last) = clean.pop() {
                if lease::is_quiet(last.server.connection()) {
                    return Some(last);
                }
            }
            None
        })
    }

    /// Takes a parked server that fits, if it is alive.
    #[inline]
    pub(super) fn take_parked(&self, fits: impl Fn(&Parked) -> bool) -> Option<Parked> {
        let mut taken = self.with_parked(|parked| {
            let at = parked.iter().position(fits)?;
            Some(parked.swap_remove(at))
        })?;
        lease::is_quiet(taken.idle.server.connection()).then_some(taken)
    }

    /// Takes the server that has been parked longest, if there is one that is alive.
    pub(super) fn pop_parked(&self) -> Option<Parked> {
        while let Some(oldest) = self.longest_parked() {
            let taken = self.take_parked(|parked| parked.idle.since == oldest);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Since when the one that has been parked longest is.
    pub(super) fn longest_parked(&self) -> Option<Instant> {
        self.parked.borrow().iter().map(|parked| parked.idle.since).min()
    }

    /// Takes everything clean.
    pub(super) fn take_all_clean(&self) -> Vec<Idle<Clean>> {
        self.with_clean(std::mem::take)
    }

    /// Takes everything parked.
    pub(super) fn take_all_parked(&self) -> Vec<Parked> {
        self.with_parked(std::mem::take)
    }

    /// Takes the server that has been idle longest, dead or alive, to close it.
    fn pop_idle(&self) -> Option<(Server, Place)> {
        let clean = self.with_clean(|clean| match clean.is_empty() {
            true => None,
            false => Some(clean.remove(0)),
        });
        if let Some(idle) = clean {
            return Some((idle.server.into_server(), idle.place));
        }
        let oldest = self.longest_parked()?;
        let taken = self.with_parked(|parked| {
            let at = parked.iter().position(|parked| parked.idle.since == oldest)?;
            Some(parked.swap_remove(at).idle)
        })?;
        Some((taken.server.into_server(), taken.place))
    }

    #[inline]
    fn with_clean<T>(&self, work: impl FnOnce(&mut Vec<Idle<Clean>>) -> T) -> T {
        let mut clean = self.clean.borrow_mut();
        let before = clean.len();
        let done = work(&mut clean);
        self.cluster.recount(before, clean.len());
        done
    }

    #[inline]
    fn with_parked<T>(&self, work: impl FnOnce(&mut Vec<Parked>) -> T) -> T {
        let mut parked = self.parked.borrow_mut();
        let before = parked.len();
        let done = work(&mut parked);
        self.cluster.recount(before, parked.len());
        done
    }
}

impl ClusterPools {
    /// Takes an idle server of any pool, to close it.
    pub(super) fn pop_idle(&self) -> Option<(Server, Place)> {
        match self.idle.get() {
            0 => None,
            _ => self.pools.borrow().values().flatten().find_map(|pool| pool.pop_idle()),
        }
    }

    #[inline]
    fn recount(&self, before: usize, after: usize) {
        self.idle.set(self.idle.get() + after - before);
    }
}
