//! The side that faces PostgreSQL, at about libpq's level: connect, log in, check what the login
//! may do, bind to a tenant, scrub, cancel, close.

mod begin;
mod bound;
mod cancel;
mod check;
mod check_level;
mod check_schema;
mod connect;
mod conninfo;
mod crossing;
mod dial;
mod knock;
mod login;
mod pins;
mod program;
mod read_back;
mod retire;
mod simple;
mod stand_ins;
mod statements;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub use bound::{BindError, Bound, Clean, Failed, Settings};
pub use cancel::{CancelTarget, cancel};
pub use check::{CheckError, POISON, Rights};
pub use check_level::{shortfalls, standing_sql};
pub use check_schema::Reach;
pub use connect::{Blame, ConnectError, ConnectPlan, Sign, connect, connect_host};
pub use conninfo::{Conninfo, ConninfoError, Host, Target, is_special};
pub use crossing::Crossing;
pub use dial::{Spot, Way, dial, spots};
pub use knock::knock;
pub use pins::Pins;
pub use program::{Also, OpenError, Program, open};
pub use read_back::Question;
pub use retire::{retire, watch};
pub use simple::{Reply, reply};
pub use stand_ins::StandIn;
pub use statements::{Held, Statement, Statements, UNSURE};

use crate::isolation::Seal;
use crate::net::{Clock, Connection};

/// A logged-in connection to PostgreSQL that belongs to nobody yet. Its login was checked.
#[derive(Debug)]
pub struct Server {
    connection: Connection,
    pub facts: Rc<ServerFacts>,
}

/// What does not change while a server connection lives.
#[derive(Debug)]
pub struct ServerFacts {
    pub conninfo: Arc<Conninfo>,
    /// Which of the conninfo's hosts answered.
    pub host: usize,
    /// At which address of it.
    pub spot: Spot,
    /// The server process, as it names itself for cancels.
    pub pid: i32,
    /// The number in the cancel key of the session that used it last; 0 before the first.
    pub session: Cell<i32>,
    secret: Vec<u8>,
    /// ParameterStatus as sent at login, in order.
    pub greeting: Vec<(String, String)>,
    /// Whether the login could do anything before it is bound.
    pub rights: Rights,
    /// What signs its tenants in; `None` where tenants are not sealed.
    seal: Option<Seal>,
    /// What the level wants and the database lacks, in words, where that is only told of.
    pub shortfall: Option<Box<str>>,
    /// Its tenants may not call `set_config`, and `tenantgate.set_config` is there for them.
    pub stand_in: bool,
    /// How many seconds its clock is ahead of this machine's.
    ahead: i64,
    /// The OID of the function that lets a sealed tenant in, which was checked at login; else 0.
    enter: u32,
    pub secure: bool,
    /// When the login was complete.
    pub since: Instant,
    /// For everything that has a limit.
    clock: Clock,
    role: Role,
}

/// What a server said last of its role; a standby that was promoted says so with its next answer.
#[derive(Debug, Default)]
struct Role {
    read_only: Cell<bool>,
    /// It is not what it was at login.
    changed: Cell<bool>,
}

impl ServerFacts {
    /// The value of a parameter the server reported at login.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.greeting.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Takes a parameter down that the server reported. True if only a scrub will show whether it
    /// speaks of the server or of what a client set.
    pub fn reported(&self, name: &str, value: &str) -> bool {
        match name {
            // No client can set it. Whatever was asked for: clients were told at their login.
            "in_hot_standby" => {
                self.role.changed.set(true);
                false
            }
            "default_transaction_read_only" if self.conninfo.target != Target::Any => {
                self.role.read_only.set(value == "on");
                true
            }
            _ => false,
        }
    }

    /// Everything a client set is gone: what was reported last is the server's own.
    fn scrubbed(&self) {
        let at_login = self.parameter("default_transaction_read_only") == Some("on");
        let by_writing = matches!(self.conninfo.target, Target::ReadWrite | Target::ReadOnly);
        if by_writing && self.role.read_only.get() != at_login {
            self.role.changed.set(true);
        }
    }

    /// Whether it is another by now than clients were told, or `target_session_attrs` asks for.
    pub fn has_changed_role(&self) -> bool {
        self.role.changed.get()
    }

    /// For everything that has a limit.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where and how to ask for a cancel of what this server runs.
    pub fn cancel_target(&self) -> CancelTarget {
        let (conninfo, secret) = (self.conninfo.clone(), self.secret.clone());
        let (host, spot) = (self.host, self.spot.clone());
        let (pid, secure, clock) = (self.pid, self.secure, self.clock.clone());
        CancelTarget { conninfo, host, spot, pid, secret, secure, clock }
    }
}
