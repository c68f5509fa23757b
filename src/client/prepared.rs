//! Prepared statements as a session knows them, whichever server it is on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::budget::{Account, Texts};
use crate::client::due::{Effect, Step};
use crate::error::Error;
use crate::guard::{ReadOptions, Suspicion, Watch};
use crate::isolation::NAME_BYTES_MAX;
use crate::server::Statement;
use crate::wire::frontend::Parse;

/// Most named statements of one session, and most bytes of their texts: what PostgreSQL would hold
/// in its own memory the gate holds too, so it has a bound.
pub const NAMED_MAX: usize = 10_000;
const NAMED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most portals of session commands in one transaction; what they run counts against
/// [`NAMED_BYTES_MAX`]. They are looked through one by one.
const PORTALS_MAX: usize = 1_000;

/// Longest unnamed statement remembered beyond its life; longer ones are read again.
const LAST_BYTES_MAX: usize = 16 * 1024;

/// More statements than there may be.
fn too_many(place: &str) -> Error {
    let what = format!("so many prepared statements {place}").into();
    Error::NotSupported { what, hint: "Deallocate the ones that are not used any more." }
}

/// More portals than one transaction may have.
pub fn too_many_portals() -> Error {
    let what = "so many portals of session commands in one transaction".into();
    Error::NotSupported { what, hint: "Bind the unnamed portal again and again instead." }
}

/// The name PostgreSQL keeps a statement of the protocol under: it cuts longer ones short.
pub fn key(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

/// A statement the session prepared and what the gate has to know of it.
#[derive(Debug)]
pub struct Known {
    pub statement: Rc<Statement>,
    /// It leaves nothing behind on the server.
    pub harmless: bool,
    pub suspicion: Suspicion,
    /// It only controls transactions.
    pub control: bool,
    /// It is COMMIT or ROLLBACK.
    pub ends_transaction: bool,
    /// How its text was read; `None` if that was in doubt.
    pub read_as: Option<ReadOptions>,
    /// What it was looked through for, and for whom it was judged, as `Talk::audience` counts.
    pub watch: Watch,
    pub audience: Cell<u64>,
    /// The session's own text, where servers get another in its place.
    pub asked: Option<Box<[u8]>>,
    /// What its execution means to the gate, if anything.
    pub special: Option<Box<Step>>,
    /// Other statements it is about.
    pub needs: Needs,
    /// What the server said of it when it was prepared, if it was asked.
    pub shape: RefCell<Option<Rc<Shape>>>,
}

/// What a statement takes and gives.
#[derive(Debug)]
pub struct Shape {
    /// The parameters' types as they stand on the wire, count included.
    pub types: Box<[u8]>,
    /// Of the types, and of the names and types of the columns. It tells changes from one day to
    /// the next; nobody gains by making two of them equal.
    pub digest: u64,
}

impl Known {
    /// The text as the session sent it.
    pub fn text(&self) -> &[u8] {
        self.asked.as_deref().unwrap_or(&self.statement.text)
    }

    /// What it costs to remember.
    fn bytes(&self) -> usize {
        let said = match self.special.as_deref().map(|step| &step.effect) {
            Some(Some(Effect::Act(said))) => said.bytes(),
            _ => 0,
        };
        said + self.statement.text.len() + self.asked.as_ref().map_or(0, |asked| asked.len())
    }

    pub fn digest(&self) -> Option<u64> {
        self.shape.borrow().as_ref().map(|shape| shape.digest)
    }
}

/// Statements that the server must have, or lack, as the session does.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    pub names: Vec<(Rc<[u8]>, Need)>,
    /// All of them: it reads the list.
    pub all: bool,
}

impl Needs {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.all
    }
}

/// What the server must have under the name of a statement that the session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That statement.
    Itself,
    /// Any: it is to be let go, or stands in the way of another.
    Any,
}

/// A portal and the special statement it runs.
#[derive(Debug)]
struct Portal {
    name: Box<[u8]>,
    known: Rc<Known>,
    /// Settings that its values may name.
    named: Vec<String>,
}

/// All statements of a session.
#[derive(Debug)]
pub struct Prepared {
    unnamed: Option<Rc<Known>>,
    /// The last unnamed statement, alive or not: drivers send the same text over and over.
    last: Option<Rc<Known>>,
    /// The unnamed statement's name, which all sessions share.
    empty: Rc<[u8]>,
    /// Who logged in: what is kept counts for it, also while it acts for others.
    account: Arc<Account>,
    /// Once there was any of it: whoever sends none has no room for it.
    more: Option<Box<More>>,
}

/// What not every session has.
#[derive(Debug)]
struct More {
    /// Statements with names.
    named: HashMap<Rc<[u8]>, Rc<Known>, RandomState>,
    named_texts: Texts,
    /// Portals bound to special statements, by name.
    portals: Vec<Portal>,
}

impl More {
    fn of(account: &Arc<Account>) -> Box<Self> {
        let (named, named_texts) = (HashMap::default(), Texts::of(account));
        Box::new(Self { named, named_texts, portals: Vec::new() })
    }
}

impl Prepared {
    pub fn new(empty: Rc<[u8]>, account: Arc<Account>) -> Self {
        Self { unnamed: None, last: None, empty, account, more: None }
    }

    /// The unnamed statement's name.
    pub fn unnamed_name(&self) -> Rc<[u8]> {
        self.empty.clone()
    }

    /// A name to keep: the one known already, if it is.
    pub fn name(&self, name: &[u8]) -> Rc<[u8]> {
        if name.is_empty() {
            return self.empty.clone();
        }
        let name = key(name);
        let known = self.more.as_ref().and_then(|more| more.named.get_key_value(name));
        known.map_or_else(|| name.into(), |(name, _)| name.clone())
    }

    /// What is known of an unnamed Parse that repeats the last one, if the gate has no part in it.
    pub fn same_as_last(
        &self,
        message: Parse<'_>,
        options: Option<ReadOptions>,
    ) -> Option<Rc<Known>> {
        let known = self.last.as_ref().filter(|known| known.special.is_none())?;
        let (text, types) = (&*known.statement.text, &*known.statement.types);
        let same_text = text == message.text && types == message.types;
        let same_way = options.is_some() && known.read_as == options;
        let same = message.name.is_empty() && same_text && same_way;
        same.then(|| known.clone())
    }

    /// The statement of this name; the unnamed one's name is empty.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Rc<Known>> {
        match name.is_empty() {
            true => self.unnamed.as_ref(),
            false => self.more.as_ref()?.named.get(key(name)),
        }
    }

    /// Refuses so many more, of so many bytes, if that would be too much.
    pub fn check_room(&self, count: usize, bytes: usize) -> Result<(), Error> {
        let held = self.more.as_ref().map(|more| (more.named.len(), more.named_texts.bytes()));
        let held = held.unwrap_or_default();
        if held.0 + count > NAMED_MAX || held.1 + bytes > NAMED_BYTES_MAX {
            return Err(too_many("in one session"));
        }
        if !self.account.has_room_for_text(bytes) {
            return Err(too_many("of one tenant"));
        }
        Ok(())
    }

    /// Takes a statement up.
    pub fn insert(&mut self, name: &Rc<[u8]>, known: Rc<Known>) {
        if name.is_empty() {
            self.last = Some(known.clone()).filter(|it| it.statement.text.len() <= LAST_BYTES_MAX);
            self.unnamed = Some(known);
            return;
        }
        let more = self.more.get_or_insert_with(|| More::of(&self.account));
        more.named_texts.add(known.bytes());
        if let Some(old) = more.named.insert(name.clone(), known) {
            more.named_texts.remove(old.bytes());
        }
    }

    /// Forgets a statement and says what it was.
    pub fn remove(&mut self, name: &[u8]) -> Option<Rc<Known>> {
        if name.is_empty() {
            return self.unnamed.take();
        }
        let more = self.more.as_mut()?;
        let old = more.named.remove(key(name))?;
        more.named_texts.remove(old.bytes());
        Some(old)
    }

    /// A simple Query destroys the unnamed statement (PostgreSQL manual, 55.2.3).
    #[inline]
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// The last one was sent in another encoding: its bytes may mean something else now.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    /// DEALLOCATE ALL: the unnamed one stays.
    pub fn clear(&mut self) {
        if let Some(more) = &mut self.more {
            more.named.clear();
            more.named_texts.clear();
        }
    }

    /// Forgets what SQL has prepared.
    pub fn forget_sql(&mut self) {
        let Some(more) = &mut self.more else { return };
        let texts = &mut more.named_texts;
        more.named.retain(|_, known| {
            let stays = !known.statement.from_sql;
            if !stays {
                texts.remove(known.bytes());
            }
            stays
        });
    }

    /// The names of all that have one.
    pub fn names(&self) -> impl Iterator<Item = &Rc<[u8]>> {
        self.more.iter().flat_map(|more| more.named.keys())
    }

    /// Whether a portal of this name may run one more session command.
    pub fn takes_portal(&self, portal: &[u8], known: &Known) -> bool {
        let others = self.portals().iter().filter(|bound| bound.name.as_ref() != portal);
        let texts = others.clone().map(|bound| bound.known.bytes());
        let bytes = texts.sum::<usize>() + known.bytes();
        others.count() < PORTALS_MAX && bytes <= NAMED_BYTES_MAX
    }

    fn portals(&self) -> &[Portal] {
        self.more.as_ref().map_or(&[], |more| &more.portals)
    }

    /// Notes which statement a portal runs.
    #[inline]
    pub fn bind(&mut self, portal: &[u8], known: Option<&Rc<Known>>, named: Vec<String>) {
        if let Some(more) = self.more.as_mut().filter(|more| !more.portals.is_empty()) {
            more.portals.retain(|bound| bound.name.as_ref() != portal);
        }
        if let Some(known) = known.filter(|known| known.special.is_some()) {
            let more = self.more.get_or_insert_with(|| More::of(&self.account));
            more.portals.push(Portal { name: portal.into(), known: known.clone(), named });
        }
    }

    /// What running a portal means, if anything.
    #[inline]
    pub fn step(&self, portal: &[u8]) -> Option<Box<Step>> {
        let bound = self.portals().iter().find(|bound| bound.name.as_ref() == portal)?;
        let mut step = bound.known.special.clone()?;
        step.touched.guessed.clone_from(&bound.named);
        Some(step)
    }

    /// Portals end with their transaction.
    #[inline]
    pub fn forget_portals(&mut self) {
        if let Some(more) = &mut self.more {
            more.portals.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::TEXT_BYTES_MAX;

    #[test]
    fn what_all_sessions_of_a_tenant_keep_has_a_bound() {
        let account = Arc::new(Account::default());
        let of = |account: &Arc<Account>| Prepared::new(Rc::from([]), account.clone());
        let (prepared, others) = (of(&account), of(&Arc::new(Account::default())));
        let mut texts = Texts::of(&account);
        texts.add(TEXT_BYTES_MAX - 5);
        assert_eq!(prepared.check_room(1, 5), Ok(()));
        let refused = prepared.check_room(1, 6).unwrap_err();
        assert!(refused.message().contains("prepared statements of one tenant"), "{refused:?}");
        assert_eq!(others.check_room(1, 6), Ok(()), "others have their own");
        drop(texts);
        assert_eq!(prepared.check_room(1, 6), Ok(()));
    }
}
