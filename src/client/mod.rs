//! The side that faces applications: start-up and login (on a door), the session and its relay (on
//! a worker).

mod act;
mod back;
mod books;
mod carry;
mod due;
mod extended;
mod forward;
mod judge;
mod login;
mod meter;
mod prepared;
mod refuse;
mod registry;
mod relay;
mod session;
mod settings;
mod startup;
mod talk;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub use act::Reception;
pub use login::{
    Arrival, Asking, MayTry, Papers, Proven, Turned, Wishes, authenticate, prove_bearer,
    prove_scram,
};
pub use meter::refusal;
pub use refuse::put as put_refusal;
pub use registry::Registry;
pub use relay::Relays;
pub use session::{End, Life, Session, Workplaces};
pub use settings::ClientSettings;
pub use startup::{DoorTls, Ended, Hello, negotiate};
pub use talk::{Phase, Shared};

use crate::guard;
use crate::net::{Buffers, Clock};
use crate::pool::Pools;
use crate::telemetry::{Audit, Times};

/// What a worker hands every session.
#[derive(Debug)]
pub struct Env {
    pub pools: Pools,
    pub buffers: Buffers,
    /// A reload replaces them, for all sessions.
    pub settings: RefCell<Arc<ClientSettings>>,
    /// Budgets count time from here, on every worker alike.
    pub epoch: Instant,
    pub counts: Rc<Counts>,
    /// What statement texts were read as.
    pub readings: RefCell<guard::Cache>,
    pub relays: Relays,
    pub workplaces: Workplaces,
    /// The name of unnamed statements, made once.
    pub no_name: Rc<[u8]>,
    pub clock: Clock,
    pub audit: Audit,
    /// Whom sessions of a service may act for.
    pub reception: Reception,
}

/// Counters of one worker's sessions since it started; the gate turns them into metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: Cell<u64>,
    pub transactions: Cell<u64>,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    pub time_exceeded: Cell<u64>,
    /// Refusals by name and side.
    pub refusals: RefCell<Vec<(&'static str, &'static str, u64)>>,
    /// What level guard would have refused.
    pub would_refuse: RefCell<crate::guard::Ledger>,
    /// How long transactions took, by tier.
    pub times: Times,
}
