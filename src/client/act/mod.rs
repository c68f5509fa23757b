//! Sessions of a service, which choose a tenant for each transaction. [`Acting`] is what such a
//! session knows: whether a transaction is open as its client sees it, and whom it acts for.
//!
//! Between two transactions every message passes through `front.rs`: BEGIN is held back, a choice
//! is carried out (`choose.rs`), the rest goes to a server: `judge.rs` says what may.

mod answer;
mod choose;
mod deed;
mod front;
mod judge;
mod rights;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::{Authenticator, Identity, Throttle};
use crate::budget::{Account, Accounts};
use crate::catalog::{Catalog, Holds, Live, Pin, Service, Tenant};
use crate::client::act::deed::Portal;
pub use crate::client::act::deed::Said;
use crate::client::login::Papers;
use crate::error::{Ending, Error};
use crate::net::Peer;
use crate::server::Settings;

/// Where a session learns whom it may act for. The same values the doors have.
#[derive(Debug)]
pub struct Reception {
    pub catalog: Arc<Live<Catalog>>,
    pub authenticator: Arc<Live<Authenticator>>,
    pub accounts: Arc<Accounts>,
    pub holds: Arc<Live<Holds>>,
    pub throttle: Arc<Throttle>,
}

/// What a session of a service knows.
#[derive(Debug)]
pub struct Acting {
    /// What it has in a tenant's place until it chooses one.
    home: Arc<Tenant>,
    account: Arc<Account>,
    peer: Peer,
    /// What it logged in with: it may say for whom the service acts.
    login: Rc<Papers>,
    block: Block,
    chosen: Option<Chosen>,
    portals: Vec<Portal>,
    /// Portals on the server that end the transaction, by name.
    ends: Vec<Box<[u8]>>,
    /// One of them was executed in the batch at work.
    ended: Cell<bool>,
}

/// The transaction as the client sees it.
#[derive(Debug)]
enum Block {
    None,
    /// `sql` begins it, `now` are the settings a ROLLBACK returns to.
    Open {
        sql: String,
        now: Rc<Settings>,
        marks: Marks,
    },
    Failed {
        sql: String,
        now: Rc<Settings>,
        marks: Marks,
    },
}

/// Savepoints set before a tenant was chosen, and the settings they return to.
type Marks = Vec<(String, Rc<Settings>)>;

/// Whom it acts for, and what it returns to.
#[derive(Debug)]
struct Chosen {
    /// For one transaction.
    local: bool,
    /// That transaction has begun on a server.
    begun: bool,
    /// What was shown; `None` if the service's own list was enough.
    identity: Option<Rc<Identity>>,
    /// Keeps the tenant known meanwhile.
    _pin: Option<Pin>,
    start: Rc<Settings>,
    now: Rc<Settings>,
    reported: Vec<(String, String)>,
}

impl Chosen {
    /// What the client hears when it may not go on: outside of a transaction the session ends.
    fn is_lost(&self, why: Ending) -> Error {
        if self.local { Error::ActDenied } else { Error::Ended(why) }
    }
}

impl Acting {
    /// From then on what was shown for the tenant opens nothing any more.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.chosen.as_ref()?.identity.as_ref()?.expires_at
    }

    /// A session of a service that has just arrived; `None` for one of a tenant.
    pub fn of(papers: &Rc<Papers>, account: &Arc<Account>, peer: Peer) -> Option<Box<Self>> {
        let tenant = &papers.identity.tenant;
        tenant.service.as_ref()?;
        Some(Box::new(Self {
            home: tenant.clone(),
            account: account.clone(),
            peer,
            login: papers.clone(),
            block: Block::None,
            chosen: None,
            portals: Vec::new(),
            ends: Vec::new(),
            ended: Cell::new(false),
        }))
    }

    /// Takes news of the service over. False if they are in force at once: it acts for nobody.
    pub fn take_news(&mut self, service: &Arc<Tenant>) -> bool {
        self.home = service.clone();
        self.chosen.is_some()
    }

    fn service(&self) -> Option<&Service> {
        self.home.service.as_deref()
    }

    /// It acts for a tenant, for one transaction.
    pub fn is_local(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.local)
    }

    /// It acts for a tenant until it says otherwise.
    pub fn is_session_wide(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| !chosen.local)
    }

    /// It acts for nobody.
    fn is_at_home(&self) -> bool {
        self.chosen.is_none()
    }

    /// The transaction has begun on a server.
    pub fn has_begun(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.begun)
    }

    /// Whether the client sees a transaction, open or failed.
    pub fn in_block(&self) -> bool {
        !matches!(self.block, Block::None)
    }

    fn has_failed(&self) -> bool {
        matches!(self.block, Block::Failed { .. })
    }

    fn has_marks(&self) -> bool {
        matches!(&self.block, Block::Open { marks, .. } if !marks.is_empty())
    }

    /// What ReadyForQuery says while no transaction is open on a server.
    pub fn status(&self) -> u8 {
        match self.block {
            Block::None => b'I',
            Block::Open { .. } => b'T',
            Block::Failed { .. } => b'E',
        }
    }

    /// A statement failed.
    pub fn fail(&mut self) {
        self.block = match std::mem::replace(&mut self.block, Block::None) {
            Block::Open { sql, now, marks } => Block::Failed { sql, now, marks },
            block => block,
        };
    }

    /// Whether the next statement runs in a transaction that was held back.
    pub fn has_chosen_block(&self) -> bool {
        self.in_block() && self.chosen.is_some()
    }

    /// A statement is bound on the server. False if too many of those are that end a transaction.
    /// A name stays until the transaction ends: the server may refuse to bind another to it, and
    /// then it is still the end.
    pub fn note_bind(&mut self, portal: &[u8], ends: bool) -> bool {
        if !ends || self.ends.iter().any(|name| **name == *portal) {
            return true;
        }
        let room = self.ends.len() < PORTALS_MAX;
        if room {
            self.ends.push(portal.into());
        }
        room
    }

    /// A portal is executed on the server.
    pub fn note_execute(&self, portal: &[u8]) {
        let ends = self.ends.iter().any(|name| **name == *portal);
        self.ended.set(self.ended.get() || ends);
    }

    /// A batch is over.
    pub fn end_batch(&mut self) {
        self.ended.set(false);
        if !self.in_block() {
            self.portals.clear();
            self.ends.clear();
        }
    }
}

/// Most portals of the gate's own, or to the end of a transaction, at the same time.
const PORTALS_MAX: usize = 256;
