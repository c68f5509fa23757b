//! Prepared statements as a server connection holds them. Names on the server are the client's own:
//! a server is handed to another tenant only after a scrub that drops them all, and within a tenant
//! an entry counts only if its text and types are the very ones the session means.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

/// A prepared statement as it was parsed: what follows the name in its Parse message.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub text: Box<[u8]>,
    /// Parameter types as they stand on the wire, count included.
    pub types: Box<[u8]>,
}

/// What a server connection has prepared, by name; the unnamed statement's name is empty.
#[derive(Debug, Default)]
pub struct Statements(HashMap<Box<[u8]>, Rc<Statement>, RandomState>);

impl Statements {
    /// Whether the server holds exactly this statement under this name.
    pub fn holds(&self, name: &[u8], statement: &Rc<Statement>) -> bool {
        let held = self.0.get(name);
        held.is_some_and(|held| Rc::ptr_eq(held, statement) || held == statement)
    }

    /// Whether the name is taken, by whatever statement.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.0.contains_key(name)
    }

    /// Notes that the server was told to prepare this.
    pub fn insert(&mut self, name: &[u8], statement: Rc<Statement>) {
        match self.0.get_mut(name) {
            Some(held) => *held = statement,
            None => {
                self.0.insert(name.into(), statement);
            }
        }
    }

    /// Notes that the server no longer has it, and says what it had.
    pub fn remove(&mut self, name: &[u8]) -> Option<Rc<Statement>> {
        self.0.remove(name)
    }

    /// Whether the server holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many the server holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
