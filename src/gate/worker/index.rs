//! The index of a worker's sessions: whose they are, and until when their credentials count. Who is
//! meant by a change is found without a look at the others.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::client::Papers;
use crate::gate::worker::guest::Guest;
use crate::gate::worker::homes::Homes;
use crate::pool::SessionId;

/// The sessions of a worker by what they are looked up by.
#[derive(Default)]
pub struct Index {
    homes: RefCell<Homes>,
    /// Those whose credentials end, the next one first.
    expiries: RefCell<BTreeSet<(SystemTime, SessionId)>>,
    /// Until when those whose credentials have ended may finish a transaction.
    graces: RefCell<BTreeSet<(Instant, SessionId)>>,
}

impl Index {
    /// The papers of a newcomer, which is about to enter.
    pub fn file(&self, papers: Papers) -> Rc<Papers> {
        self.homes.borrow_mut().file(papers)
    }

    pub fn enter(&self, id: SessionId, guest: &Guest) {
        if let Some(at) = guest.papers.identity.expires_at {
            self.expiries.borrow_mut().insert((at, id));
        }
        let tenant = guest.tenant.borrow();
        self.homes.borrow_mut().enter(id, &tenant.id, tenant.service.is_some());
    }

    pub fn leave(&self, id: SessionId, guest: &Guest) {
        if let Some(at) = guest.papers.identity.expires_at {
            self.expiries.borrow_mut().remove(&(at, id));
        }
        self.homes.borrow_mut().leave(id, &guest.tenant.borrow().id);
    }

    pub fn give_grace(&self, until: Instant, id: SessionId) {
        self.graces.borrow_mut().insert((until, id));
    }

    /// The sessions of these tenants, and of services those that `acts` says act for one.
    pub fn of(&self, tenants: &HashSet<&str>, acts: impl Fn(&SessionId) -> bool) -> Vec<SessionId> {
        self.homes.borrow().of(tenants, acts)
    }

    /// Takes out one whose credential has ended.
    pub fn next_expired(&self) -> Option<SessionId> {
        pop_due(&self.expiries, SystemTime::now)
    }

    /// Takes out one that may not finish a transaction any longer.
    pub fn next_out_of_grace(&self) -> Option<SessionId> {
        pop_due(&self.graces, Instant::now)
    }
}

/// The next session whose time has come. No clock is read where nobody waits for one.
fn pop_due<T: Copy + Ord>(
    due: &RefCell<BTreeSet<(T, SessionId)>>,
    now: fn() -> T,
) -> Option<SessionId> {
    let mut due = due.borrow_mut();
    let (_, id) = due.first().copied().filter(|(at, _)| *at <= now())?;
    due.pop_first();
    Some(id)
}
