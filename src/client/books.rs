//! The books on prepared statements, of a session and of the server it is on, kept equal to what
//! the server will have once it has read what was sent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::client::back::out_of_step;
use crate::client::due::{Asked, Closed, Due, Effect, Step};
use crate::client::judge::verdict::read_otherwise;
use crate::client::prepared::{Known, Need, Needs, Shape};
use crate::client::relay::{Ahead, Ended, Exchange};
use crate::error::Error;
use crate::guard::Suspicion;
use crate::server::Statement;
use crate::wire::backend;
use crate::wire::frontend::{self, Parse};

/// Under this name the gate runs the PREPARE of a statement; it is gone when that has run.
const OWN_NAME: &[u8] = b"tenantgate_prepares";

/// The tags of the answers to a Parse, and to a PREPARE that is run.
const PARSE_ANSWERS: &[u8] = b"1";
const RUN_ANSWERS: &[u8] = b"3312C33";

/// What statements of a text have prepared, and let go, by name.
type Made = HashMap<Rc<[u8]>, Option<Rc<Known>>, RandomState>;

/// What must be done so that the server has, or lacks, a statement as the session does.
enum Lack {
    Statement(Rc<Known>),
    /// Any statement of that name.
    Any,
    /// It has one that the session does not know.
    Stranger,
}

impl Exchange<'_> {
    /// Makes sure that the server has what the session means by this name, and nothing else, and
    /// what that statement is about in turn. False if an answer must be waited for.
    ///
    /// # Errors
    ///
    /// The text was judged under other settings, and this server may read it as something else; or
    /// what the statement takes or gives has changed since it was prepared.
    pub(super) fn ensure_prepared(&mut self, name: &[u8]) -> Result<bool, Error> {
        let Some(known) = self.known(name)? else {
            self.forget_stranger(name);
            return Ok(true);
        };
        if !self.ensure_needs(&known.needs)? {
            return Ok(false);
        }
        match self.lack(name, Need::Itself)? {
            Some(lack) => Ok(!self.supply(name, lack) || self.waits()),
            None => Ok(true),
        }
    }

    /// In a batch: false, because what stands behind it has to wait.
    fn waits(&mut self) -> bool {
        self.wait_for_answers(None);
        false
    }

    /// Makes sure that the server has, or lacks, these as the session does. In a failed transaction
    /// it would take none of them, and runs nothing either.
    pub(super) fn ensure_needs(&mut self, needs: &Needs) -> Result<bool, Error> {
        Ok(!self.supply_needs(needs)? || self.waits())
    }

    /// The same; true if what stands behind it has to wait.
    fn supply_needs(&mut self, needs: &Needs) -> Result<bool, Error> {
        if self.relay.status == b'E' || needs.is_empty() {
            return Ok(false);
        }
        let prepared = &self.talk.prepared;
        let lists = |known: &Rc<Known>| known.needs.all;
        let all = needs.all || needs.names.iter().any(|it| prepared.find(&it.0).is_some_and(lists));
        let mut names = needs.names.clone();
        if all {
            names = self.names_to_list();
            let prepared = &self.talk.prepared;
            let held = self.lease.bound().map(|bound| bound.statements.names());
            let unknown = held.into_iter().flatten().filter(|name| prepared.find(name).is_none());
            names.extend(unknown.map(|name| (name.into(), Need::Itself)));
        }
        let mut lacks = Vec::new();
        for (name, need) in names {
            lacks.extend(self.lack(&name, need)?.map(|lack| (name, lack)));
        }
        let mut waits = false;
        for (name, lack) in lacks {
            waits |= self.supply(&name, lack);
        }
        Ok(waits)
    }

    /// The names of all statements that a server may have now.
    fn names_to_list(&mut self) -> Vec<(Rc<[u8]>, Need)> {
        let talk = &self.talk;
        // Who acts for one tenant after the other shows each what it used itself: texts have
        // values in them.
        let is_seen = |name: &&Rc<[u8]>| {
            let known = talk.prepared.find(name);
            talk.act.is_none() || known.is_some_and(|it| it.audience.get() == talk.audience)
        };
        let mut names: Vec<_> = talk.prepared.names().filter(is_seen).cloned().collect();
        names.retain(|name| {
            let known = self.known(name);
            known.is_ok_and(|known| known.is_some_and(|known| !known.is_choice()))
        });
        names.into_iter().map(|name| (name, Need::Itself)).collect()
    }

    /// The same for a Query, which no open batch may precede: false if it has to wait.
    pub(super) fn ensure_ahead(&mut self, needs: &Needs) -> Result<bool, Error> {
        let runs = self.relay.batch_runs;
        self.supply_needs(needs)?;
        if self.relay.due.is_empty() {
            return Ok(true);
        }
        self.relay.ahead = Ahead::Sent;
        if runs {
            // A Sync would end the transaction that the batch has begun.
            self.wait_for_answers(None);
            return Ok(false);
        }
        self.flush_judged();
        if let Some(bound) = self.lease.bound() {
            frontend::put_sync(&mut bound.connection().output);
        }
        self.relay.due.push(Due::OwnSync);
        self.relay.batch_open = false;
        self.relay.batch_runs = false;
        self.relay.executed = false;
        self.relay.barrier = true;
        Ok(false)
    }

    /// What the statements of a text come to that execute others: their settings are touched, and
    /// their traces left. A statement that the text itself prepares is in `steps`.
    ///
    /// # Errors
    ///
    /// It executes a command of the session, which only a text shows.
    pub(super) fn resolve(&mut self, steps: &mut [Step]) -> Result<Suspicion, Error> {
        let mut suspicion = Suspicion::None;
        let mut own = Made::default();
        let mut cleared = false;
        for step in steps {
            match &step.effect {
                Some(Effect::Prepare(name, known)) => {
                    own.insert(name.clone(), Some(known.clone()));
                }
                Some(Effect::Deallocate(name)) => {
                    own.insert(name.clone(), None);
                }
                Some(Effect::DeallocateAll) => {
                    own.clear();
                    cleared = true;
                }
                _ => {}
            }
            let Some(executes) = &step.executes else { continue };
            let known = match own.get(&executes.name) {
                Some(known) => known.clone(),
                None if cleared => None,
                None => self.known(&executes.name)?,
            };
            let Some(known) = known else {
                // A function may have prepared it.
                self.note_trace(false);
                continue;
            };
            self.note_trace(known.harmless);
            suspicion = suspicion.max(known.suspicion);
            let Some(special) = known.special.as_deref() else { continue };
            if special.is_command() {
                let what = "EXECUTE of a session command that the protocol prepared".into();
                return Err(Error::NotSupported { what, hint: "Bind and Execute it." });
            }
            step.touched.extend(&special.touched);
            if special.touched.unknown {
                self.forbids_values(&executes.named)?;
                step.touched.guessed.extend(executes.named.iter().cloned());
            }
        }
        Ok(suspicion)
    }

    /// A statement was prepared on the server.
    pub(super) fn keep_prepared(&mut self, name: &Rc<[u8]>, known: Rc<Known>) {
        if let Some(bound) = self.lease.bound() {
            bound.statements.insert(name, known.statement.clone());
        }
        self.talk.prepared.insert(name, known);
    }

    fn lack(&mut self, name: &[u8], need: Need) -> Result<Option<Lack>, Error> {
        let Some(bound) = self.lease.bound() else { return Ok(None) };
        let held = bound.statements.knows(name);
        if need == Need::Any && self.talk.prepared.find(name).is_some() {
            return Ok((!held).then_some(Lack::Any));
        }
        let Some(known) = self.known(name)? else {
            return Ok(held.then_some(Lack::Stranger));
        };
        if known.is_choice() {
            // Servers never hear of one.
            return Err(Error::ActTooLate);
        }
        let Some(bound) = self.lease.bound() else { return Ok(None) };
        if bound.statements.holds(name, &known.statement, known.digest()) {
            return Ok(None);
        }
        if self.relay.changed.take_if(|changed| Rc::ptr_eq(changed, &known)).is_some() {
            return Err(Error::ResultChanged);
        }
        if !self.talk.reads_as_before(&known) {
            return Err(read_otherwise());
        }
        Ok(Some(Lack::Statement(known)))
    }

    /// True if the server was asked whether the statement is still what it was.
    fn supply(&mut self, name: &[u8], lack: Lack) -> bool {
        let known = match lack {
            Lack::Stranger => {
                self.forget_stranger(name);
                return false;
            }
            Lack::Any => None,
            Lack::Statement(known) => Some(known),
        };
        let statement = match &known {
            Some(known) => known.statement.clone(),
            None => Rc::new(Statement { types: Box::new([0, 0]), ..Statement::default() }),
        };
        if !name.is_empty() {
            // A Parse replaces the unnamed statement by itself.
            self.forget_stranger(name);
        }
        self.flush_judged();
        let Some(bound) = self.lease.bound() else { return false };
        let shape = known.as_ref().and_then(|known| known.shape.borrow().clone());
        // What a parameter was taken for then it is taken for now.
        let types = shape.as_ref().map_or(&statement.types, |shape| &shape.types);
        let text = &statement.text;
        let out = &mut bound.connection().output;
        let answers = match statement.from_sql {
            true => {
                frontend::put_run(out, OWN_NAME, text);
                frontend::put_close_both(out, OWN_NAME);
                RUN_ANSWERS
            }
            false => {
                frontend::put_parse(out, Parse { name, text, types });
                PARSE_ANSWERS
            }
        };
        bound.statements.insert(name, statement);
        let name: Rc<[u8]> = name.into();
        self.begin(Due::OwnPrepare(answers, name.clone()));
        let Some(known) = known.filter(|_| shape.is_some()) else { return false };
        self.ask_shape(&name, known);
        true
    }

    /// Asks the server what a statement takes and gives.
    pub(super) fn ask_shape(&mut self, name: &Rc<[u8]>, known: Rc<Known>) {
        // A frame that is on its way goes first; a Parse is all here.
        self.relay.to_server += std::mem::take(&mut self.relay.client_left);
        self.flush_judged();
        if let Some(bound) = self.lease.bound() {
            frontend::put_describe_statement(&mut bound.connection().output, name);
        }
        let asked = Asked { name: name.clone(), known, types: Box::default() };
        self.begin(Due::OwnDescribe(Box::new(asked)));
    }

    /// Ahead of the error that its columns have changed a statement's parameters are described.
    pub(super) fn tell_parameters(&mut self, name: &[u8]) {
        let shape = self.talk.prepared.find(name).and_then(|known| known.shape.borrow().clone());
        if let Some(shape) = shape {
            self.hand_judged();
            backend::put_parameter_description(&mut self.client.output, &shape.types);
        }
    }

    /// Takes up what the server says of a statement: its parameters, then its columns, if it has
    /// any. One that has changed since it was prepared is noted.
    pub(super) fn described(&mut self, tag: u8, body: &[u8]) -> Result<(), Ended> {
        if tag == b't' {
            let Some(Due::OwnDescribe(asked)) = self.relay.due.front() else {
                return Err(out_of_step());
            };
            asked.types = parameter_types(body).ok_or_else(out_of_step)?;
            return Ok(());
        }
        let Some(Due::OwnDescribe(asked)) = self.relay.due.pop() else { return Err(out_of_step()) };
        let Asked { name, known, types } = *asked;
        let columns = match tag {
            b'T' => Some(backend::columns(body).ok_or_else(out_of_step)?),
            _ => None,
        };
        let mut hasher = DefaultHasher::new();
        (&types, columns).hash(&mut hasher);
        let digest = hasher.finish();
        if let Some(bound) = self.lease.bound() {
            bound.statements.describe(&name, &known.statement, digest);
        }
        if known.digest().is_some_and(|before| before != digest) {
            self.relay.changed = Some(known);
            return Ok(());
        }
        known.shape.replace(Some(Rc::new(Shape { types, digest })));
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
            Due::OwnPrepare(_, name) => name,
            _ => return,
        };
        if let Some(bound) = self.lease.bound() {
            bound.statements.remove(&name);
        }
    }
}

/// The types of a ParameterDescription, in the layout of a Parse message.
fn parameter_types(body: &[u8]) -> Option<Box<[u8]>> {
    let (count, oids) = body.split_first_chunk::<2>()?;
    (oids.len() == usize::from(u16::from_be_bytes(*count)) * 4).then(|| body.into())
}
