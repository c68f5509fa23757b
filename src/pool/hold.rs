//! What the console asks of a pool: close what idles, replace what comes back, and say what is
//! still on its way.

use std::rc::Rc;
use std::time::Instant;

use crate::catalog::TenantId;
use crate::pool::{Parked, Pool};
use crate::server::ServerFacts;

impl Pool {
    /// Closes the servers that idle now, and the others as they come back.
    pub fn reconnect(&self) {
        self.stale.set(Some(Instant::now()));
        self.close_idle();
    }

    /// Whether a server of this pool must not be used again.
    pub fn is_outdated(&self, facts: &ServerFacts) -> bool {
        self.obsolete.get() || self.stale.get().is_some_and(|moment| facts.since < moment)
    }

    /// Closes the idle servers that are bound to one of these tenants.
    pub fn close_parked_of(self: &Rc<Self>, of: impl Fn(&TenantId) -> bool) {
        let parked = self.take_all_parked();
        let (gone, kept): (Vec<Parked>, Vec<Parked>) =
            parked.into_iter().partition(|parked| of(&parked.tenant));
        kept.into_iter().for_each(|parked| self.shelve_parked(parked));
        for parked in gone {
            self.cluster.close_bound(*parked.idle.server, parked.idle.place);
        }
    }

    /// Servers being connected, and being scrubbed: nobody has them, and they are not idle.
    pub fn in_motion(&self) -> (usize, usize) {
        (self.connecting.get(), self.scrubbing.get())
    }
}
