//! Prepared statements as a server connection holds them. Names on the server are the client's own:
//! a server is handed to another tenant only after a scrub that drops them all, and within a tenant
//! an entry counts only if its text and types are the very ones the session means.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::server::stand_ins::StandIns;

/// A prepared statement as it was parsed: what follows the name in its Parse message, or a PREPARE
/// of SQL.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Statement {
    pub text: Box<[u8]>,
    /// Parameter types as they stand on the wire, count included.
    pub types: Box<[u8]>,
    /// The text is a PREPARE, which must be run.
    pub from_sql: bool,
    /// The settings a server's scanner read the text under, where they matter; see [`UNSURE`].
    pub read_under: Box<str>,
}

/// Among the settings a text was read under: nobody can tell one of them. Such a statement is like
/// no other.
pub const UNSURE: &str = "?";

/// A statement a server holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub statement: Rc<Statement>,
    /// The digest of what the server said of its parameters and columns, if it did.
    pub shape: Option<u64>,
}

impl From<Rc<Statement>> for Held {
    fn from(statement: Rc<Statement>) -> Self {
        Self { statement, shape: None }
    }
}

/// What a server connection has prepared, by name; the unnamed statement's name is empty.
#[derive(Debug, Default)]
pub struct Statements {
    held: HashMap<Box<[u8]>, Held, RandomState>,
    /// Those among them that stand in for unnamed ones, if any do.
    pub stand_ins: Option<Box<StandIns>>,
}

impl Statements {
    /// Whether the server holds exactly this statement under this name, and takes and gives what
    /// it did when it was prepared, as far as that is known.
    pub fn holds(&self, name: &[u8], statement: &Rc<Statement>, shape: Option<u64>) -> bool {
        let Some(held) = self.held.get(name) else { return false };
        let same = Rc::ptr_eq(&held.statement, statement)
            || held.statement == *statement && !statement.read_under.contains(UNSURE);
        same && held.shape.zip(shape).is_none_or(|(now, then)| now == then)
    }

    /// Notes what the server said of a statement, if it still holds it.
    pub fn describe(&mut self, name: &[u8], statement: &Rc<Statement>, shape: u64) {
        if let Some(held) =
            self.held.get_mut(name).filter(|it| Rc::ptr_eq(&it.statement, statement))
        {
            held.shape = Some(shape);
        }
    }

    /// Whether what it holds under this name is the very statement.
    pub fn is(&self, name: &[u8], statement: &Rc<Statement>) -> bool {
        self.held.get(name).is_some_and(|held| Rc::ptr_eq(&held.statement, statement))
    }

    /// Whether the name is taken, by whatever statement.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.held.contains_key(name)
    }

    /// Notes that the server was told to prepare this.
    pub fn insert(&mut self, name: &[u8], statement: impl Into<Held>) {
        match self.held.get_mut(name) {
            Some(held) => *held = statement.into(),
            None => {
                self.held.insert(name.into(), statement.into());
            }
        }
    }

    /// Notes that the server no longer has it, and says what it had.
    pub fn remove(&mut self, name: &[u8]) -> Option<Held> {
        self.held.remove(name)
    }

    /// DEALLOCATE ALL: the unnamed one stays.
    pub fn clear_named(&mut self) {
        self.held.retain(|name, _| name.is_empty());
    }

    /// The names of all that have one.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.held.keys().map(|name| &**name).filter(|name| !name.is_empty())
    }

    /// Whether the server holds none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many the server holds.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}
