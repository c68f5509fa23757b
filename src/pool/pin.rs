//! [`Pin`]: that a session may keep its server between transactions; and what a lease can do that
//! outlives one.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::budget::{Account, Limits, PinSlot};
use crate::pool::arbiter::Arbiter;
use crate::pool::lease::Held;
use crate::pool::{Lease, Pool, Want, count};
use crate::server::{BindError, Bound, Failed};

/// A session may keep its server. Dropping this takes that back.
#[derive(Debug)]
pub struct Pin {
    _slot: PinSlot,
    arbiter: Arc<Arbiter>,
}

/// Why a session may not keep its server: the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPin {
    OfTenant(u32),
    OfCluster(u32),
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.arbiter.pinned.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// Asks leave to keep the server: of the tenant, whose limit is half of the cluster's capacity
    /// without one of its own, and of the cluster, of which all tenants together keep all but one.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    pub fn pin(&self, account: &Arc<Account>, limits: &Limits) -> Result<Box<Pin>, NoPin> {
        let capacity = self.pool.cluster().capacity;
        let half = u32::try_from(capacity / 2).unwrap_or(u32::MAX).max(1);
        let own = limits.pins.unwrap_or(half);
        let slot = account.pin(own).ok_or(NoPin::OfTenant(own))?;
        let all = capacity.saturating_sub(1).max(1);
        let arbiter = self.pool.cluster.arbiter.clone();
        if !take_below(&arbiter.pinned, all) {
            return Err(NoPin::OfCluster(u32::try_from(all).unwrap_or(u32::MAX)));
        }
        Ok(Box::new(Pin { _slot: slot, arbiter }))
    }

    /// The session is idle and keeps the server: books the time it was used.
    pub fn rest(&mut self) {
        let spent = self.since.elapsed().as_micros() as u64;
        self.slot.book(spent);
        self.since = Instant::now();
        self.asked = self.since;
    }

    /// The session goes on with the server it kept.
    pub fn resume(&mut self) {
        self.since = Instant::now();
        self.asked = self.since;
    }

    /// Whether its server is one of this pool.
    pub fn is_of(&self, pool: &Rc<Pool>) -> bool {
        Rc::ptr_eq(&self.pool, pool)
    }

    /// Whether what the session wants is in force.
    pub fn is_bound_as(&mut self, want: Want<'_>) -> bool {
        let bound = self.held.as_ref().map(|held| &held.bound);
        bound.is_some_and(|bound| {
            Arc::ptr_eq(bound.context(), &want.tenant.context)
                && bound.settings.as_ref() == want.settings.as_ref()
        })
    }

    /// Sets context and settings anew, and keeps what the server holds for the session.
    pub async fn refresh(&mut self, want: Want<'_>) -> Result<(), BindError> {
        let Held { bound, place } = self.held.take().ok_or(BindError::Unexpected('?'))?;
        let limit = self.pool.cluster().scrub_timeout;
        count(&self.pool.cluster.counts.binds);
        let bound = bound.refresh(&want.tenant.context, want.settings, limit).await;
        self.put_back(bound, place)
    }

    /// Takes everything off the server and binds it for the same session anew.
    pub async fn renew(&mut self, want: Want<'_>) -> Result<(), BindError> {
        let Held { bound, place } = self.held.take().ok_or(BindError::Unexpected('?'))?;
        let limit = self.pool.cluster().scrub_timeout;
        count(&self.pool.cluster.counts.scrubs);
        count(&self.pool.cluster.counts.binds);
        let bound = bound.rebind(&want.tenant.context, want.settings, limit).await;
        self.trace = false;
        self.put_back(bound, place)
    }

    fn put_back(
        &mut self,
        bound: Result<Box<Bound>, Box<Failed>>,
        place: crate::pool::arbiter::Place,
    ) -> Result<(), BindError> {
        match bound {
            Ok(bound) => {
                self.held = Some(Held { bound, place });
                Ok(())
            }
            Err(failed) => Err(self.pool.close_failed(failed, place)),
        }
    }
}

fn take_below(count: &AtomicUsize, limit: usize) -> bool {
    let take = |now: usize| (now < limit).then_some(now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}
