//! The books on prepared statements, of a session and of the server it is on, kept equal to what
//! the server will have once it has read what was sent.

use crate::client::due::{Closed, Due};
use crate::client::relay::Exchange;
use crate::error::Error;
use crate::wire::frontend::{self, Parse};

impl Exchange<'_> {
    /// Makes sure that the server has what the session means by this name, and nothing else.
    ///
    /// # Errors
    ///
    /// The text was judged under another value of standard_conforming_strings, and this server may
    /// read it as something else.
    pub(super) fn ensure_prepared(&mut self, name: &[u8]) -> Result<(), Error> {
        let Some(known) = self.talk.prepared.find(name).cloned() else {
            self.forget_stranger(name);
            return Ok(());
        };
        let Some(bound) = self.lease.bound() else { return Ok(()) };
        if bound.statements.holds(name, &known.statement) {
            return Ok(());
        }
        if !self.talk.reads_as_before(&known) {
            let what = "a statement prepared under another standard_conforming_strings".into();
            let hint = "Prepare it again under the value in force, or write E'' strings.";
            return Err(Error::NotSupported { what, hint });
        }
        if !name.is_empty() {
            // A Parse replaces the unnamed statement by itself.
            self.forget_stranger(name);
        }
        self.flush_judged();
        let Some(bound) = self.lease.bound() else { return Ok(()) };
        let (text, types) = (&known.statement.text, &known.statement.types);
        frontend::put_parse(&mut bound.connection().output, Parse { name, text, types });
        bound.statements.insert(name, known.statement.clone());
        self.begin(Due::OwnParse(name.into()));
        Ok(())
    }

    /// Closes a statement that another session of the tenant left on the server under this name.
    pub(super) fn forget_stranger(&mut self, name: &[u8]) {
        let Some(bound) = self.lease.bound() else { return };
        let Some(held) = bound.statements.remove(name) else { return };
        self.flush_judged();
        if let Some(bound) = self.lease.bound() {
            frontend::put_close_statement(&mut bound.connection().output, name);
        }
        let closed = Closed { name: name.into(), known: None, held: Some(held) };
        self.begin(Due::OwnClose(Box::new(closed)));
    }

    /// A simple Query destroys the unnamed statement, on both sides.
    pub(super) fn forget_unnamed(&mut self) {
        self.talk.prepared.forget_unnamed();
        if let Some(bound) = self.lease.bound().filter(|bound| !bound.statements.is_empty()) {
            bound.statements.remove(b"");
        }
    }

    /// Closes the unnamed statement, in a batch in which that may be skipped.
    pub(super) fn close_unnamed(&mut self) {
        let known = self.talk.prepared.remove(b"");
        let held = self.lease.bound().and_then(|bound| bound.statements.remove(b""));
        if known.is_none() && held.is_none() {
            return;
        }
        self.flush_judged();
        if let Some(bound) = self.lease.bound() {
            frontend::put_close_statement(&mut bound.connection().output, b"");
        }
        let closed = Closed { name: self.talk.prepared.unnamed_name(), known, held };
        self.begin(Due::OwnClose(Box::new(closed)));
    }

    /// Takes back what a message that will never be answered had entered in the books.
    pub(super) fn undo(&mut self, due: Due) {
        let name = match due {
            Due::Close(Some(closed)) | Due::OwnClose(closed) => {
                let Closed { name, known, held } = *closed;
                if let Some((bound, held)) = self.lease.bound().zip(held) {
                    bound.statements.insert(&name, held);
                }
                if let Some(known) = known {
                    self.talk.prepared.insert(&name, known);
                }
                return;
            }
            Due::Parse(Some(name)) => {
                self.talk.prepared.remove(&name);
                name
            }
            Due::OwnParse(name) => name,
            _ => return,
        };
        if let Some(bound) = self.lease.bound() {
            bound.statements.remove(&name);
        }
    }
}
