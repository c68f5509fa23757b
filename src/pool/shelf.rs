//! Where idle servers lie: clean ones and parked ones, counted, so that nobody has to look into
//! every pool to learn that there is nothing.

use std::rc::Rc;
use std::time::Instant;

use crate::pool::arbiter::Place;
use crate::pool::{ClusterPools, Idle, Parked, Pool, lease};
use crate::server::{Clean, Server};

impl Pool {
    /// Puts a clean server where the next one who needs it finds it.
    pub(super) fn shelve_clean(self: &Rc<Self>, idle: Idle<Clean>) {
        self.with_clean(|clean| clean.push(idle));
        self.list();
        if !self.cluster.aside.borrow().is_empty() {
            self.call_first();
        }
    }

    /// Puts a bound one there.
    #[inline]
    pub(super) fn shelve_parked(self: &Rc<Self>, parked: Parked) {
        self.with_parked(|all| all.push(parked));
        self.list();
        if !self.cluster.aside.borrow().is_empty() {
            self.call_first();
        }
    }

    /// Has the cluster know that something may be idle here. It is taken off that list by
    /// housekeeping, not by whoever takes the last server: that one is about to bring it back.
    #[inline]
    fn list(self: &Rc<Self>) {
        if !self.listed.replace(true) {
            self.cluster.listed.borrow_mut().push(self.clone());
        }
    }

    /// Since when the one that has been idle longest is.
    fn longest_idle(&self) -> Option<Instant> {
        let clean = self.clean.borrow().iter().map(|idle| idle.since).min();
        [clean, self.longest_parked()].into_iter().flatten().min()
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

    /// Takes the server that has been idle since this moment, dead or alive, to close it.
    fn take_idle(&self, since: Instant) -> Option<(Server, Place)> {
        let clean = self.with_clean(|clean| {
            let at = clean.iter().position(|idle| idle.since == since)?;
            Some(clean.remove(at))
        });
        if let Some(idle) = clean {
            return Some((idle.server.into_server(), idle.place));
        }
        let taken = self.with_parked(|parked| {
            let at = parked.iter().position(|parked| parked.idle.since == since)?;
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
    /// Takes the server that has been idle longest, of whatever pool, to close it. Looks at pools
    /// that were used lately and at idle servers, of which there are no more than places.
    pub(super) fn pop_idle(&self) -> Option<(Server, Place)> {
        let (since, pool) = self.idlest()?;
        pool.take_idle(since)
    }

    /// Since when that one is idle.
    pub(super) fn longest_idle(&self) -> Option<Instant> {
        self.idlest().map(|(since, _)| since)
    }

    fn idlest(&self) -> Option<(Instant, Rc<Pool>)> {
        if self.idle.get() == 0 {
            return None;
        }
        let listed = self.listed.borrow();
        let idle = listed.iter().filter_map(|pool| Some((pool.longest_idle()?, pool)));
        idle.min_by_key(|(since, _)| *since).map(|(since, pool)| (since, pool.clone()))
    }

    #[inline]
    fn recount(&self, before: usize, after: usize) {
        self.idle.set(self.idle.get() + after - before);
    }
}
