//! [`Capacity`]: how many server connections a cluster may have, over all its databases, logins and
//! tenants. Whoever has a [`Place`] may have one.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use crate::pool::ClusterPools;

/// A cluster's places.
#[derive(Debug)]
pub struct Capacity {
    places: Cell<usize>,
    taken: Cell<usize>,
    /// Places on their way back: servers that are being closed to make room.
    closing: Cell<usize>,
    owner: Weak<ClusterPools>,
}

/// The right to one server connection. Dropping it gives it back and looks who waits.
#[derive(Debug)]
pub struct Place(Rc<Capacity>);

impl Capacity {
    /// `places` of them, none taken.
    pub fn new(places: usize, owner: Weak<ClusterPools>) -> Self {
        Self { places: Cell::new(places), taken: Cell::new(0), closing: Cell::new(0), owner }
    }

    /// Changes how many there are; what is taken above that comes back by itself.
    pub fn resize(&self, places: usize) {
        self.places.set(places);
    }

    /// One place, if there is one.
    pub fn take(self: &Rc<Self>) -> Option<Place> {
        if self.taken.get() >= self.places.get() {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(self.clone()))
    }

    /// Whether more is taken than there is, after a resize.
    pub fn is_exceeded(&self) -> bool {
        self.taken.get() > self.places.get()
    }

    /// Whether a place is free.
    pub fn has_room(&self) -> bool {
        self.taken.get() < self.places.get()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Servers being closed to make room for somebody.
    pub fn closing(&self) -> &Cell<usize> {
        &self.closing
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        if let Some(cluster) = self.0.owner.upgrade() {
            // Not from within a drop: whoever drops may hold a borrow of what pump reads.
            cluster.pump_soon();
        }
    }
}
