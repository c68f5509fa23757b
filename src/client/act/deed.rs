//! [`Deed`]: a statement that the gate answers itself, with its values, and the portals that hold
//! one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::client::carry::Touched;
use crate::client::due::{Effect, Step};
use crate::client::prepared::{Known, Needs};
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{Act, Argument, Call, Command, Key, Mark, Reading, Suspicion};
use crate::server::Statement;
use crate::wire::frontend::{Bind, Parse};

/// What is to be done, whichever protocol it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    Empty,
    Begin { sql: String, tag: &'static str },
    Mark { mark: Mark, name: String },
    End { commit: bool },
    Choose(Choice),
    Show,
}

/// A choice of a tenant, or of none.
#[derive(Clone, PartialEq, Eq)]
pub struct Choice {
    pub key: Key,
    pub value: Option<String>,
    pub local: bool,
    pub answer: Answer,
}

/// How the client is told that it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As a command.
    Tag(&'static str),
    /// As a row with one column of this name.
    Row(String),
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be a token.
        out.debug_struct("Choice").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A portal of such a statement.
#[derive(Debug)]
pub struct Portal {
    pub name: Box<[u8]>,
    pub deed: Deed,
    /// The format its column was asked for in: text is the same in both.
    pub format: i16,
}

/// The type of text, and of boolean.
const TEXT: u32 = 25;
const BOOL: u32 = 16;

impl Deed {
    /// What a statement without parameters does; nothing of the gate's is `None`.
    pub fn of(act: Act) -> Result<Option<Self>, Error> {
        let deed = match act {
            Act::Other => return Ok(None),
            Act::Empty => Self::Empty,
            Act::Begin { sql, tag } => Self::Begin { sql, tag },
            Act::Mark { mark, name } => Self::Mark { mark, name },
            Act::End { commit } => Self::End { commit },
            Act::Show => Self::Show,
            Act::Set { key, value, local, tag } => {
                Self::Choose(Choice { key, value, local, answer: Answer::Tag(tag) })
            }
            Act::Call(call) => return Self::call(&call, None),
            Act::Chain | Act::Mixed => return Err(control()),
            Act::Hidden => return Err(hidden()),
        };
        Ok(Some(deed))
    }

    /// What a call does with these values; `None` if it names another setting.
    pub fn call(call: &Call, bind: Option<&Bind<'_>>) -> Result<Option<Self>, Error> {
        let Some(name) = value(&call.name, bind)? else { return Err(hidden()) };
        let Some(key) = Key::named(&name) else { return Ok(None) };
        let local = value(&call.local, bind)?.unwrap_or_default();
        let local = match local.to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "1" | "\u{1}" => true,
            "f" | "false" | "off" | "no" | "0" | "\0" => false,
            _ => return Err(hidden()),
        };
        let value = value(&call.value, bind)?.filter(|text| !text.is_empty());
        let answer = Answer::Row(call.label.clone());
        Ok(Some(Self::Choose(Choice { key, value, local, answer })))
    }

    /// The name of its column, if it has one.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Choose(Choice { answer: Answer::Row(label), .. }) => Some(label),
            Self::Show => Some("tenantgate.tenant"),
            _ => None,
        }
    }
}

/// An argument as text; NULL is `None`.
fn value(argument: &Argument, bind: Option<&Bind<'_>>) -> Result<Option<String>, Error> {
    let number = match argument {
        Argument::Text(text) => return Ok(Some(text.clone())),
        Argument::Parameter(number) => *number,
    };
    let Some(bound) = bind.and_then(|bind| bind.values.get(number.saturating_sub(1))) else {
        return Err(Error::Protocol { what: "a parameter has no value".into() });
    };
    let Some(bytes) = bound else { return Ok(None) };
    String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| hidden())
}

/// The types of a call's parameters, as the server would describe them.
pub fn parameter_types(act: &Act, declared: &[u8]) -> Vec<u32> {
    let Act::Call(call) = act else { return declared_types(declared) };
    let mut types = declared_types(declared);
    types.resize(types.len().max(call.parameters()), 0);
    for (at, oid) in types.iter_mut().enumerate().filter(|(_, oid)| **oid == 0) {
        let flag = call.local == Argument::Parameter(at + 1);
        *oid = if flag { BOOL } else { TEXT };
    }
    types
}

fn declared_types(types: &[u8]) -> Vec<u32> {
    let (oids, _) = types.get(2..).unwrap_or_default().as_chunks::<4>();
    oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect()
}

/// A choice in the books. Its value may be a token: no text is kept that could be sent anywhere.
#[derive(Clone)]
pub struct Said {
    act: Rc<Act>,
    bytes: usize,
}

impl Said {
    /// What it costs to remember.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Said").finish_non_exhaustive()
    }
}

impl Known {
    /// What it chooses, if it is a choice of a tenant.
    pub(super) fn choice(&self) -> Option<&Act> {
        match self.special.as_deref().map(|step| &step.effect) {
            Some(Some(Effect::Act(said))) => Some(&said.act),
            _ => None,
        }
    }

    /// Whether it is the choice of a tenant.
    pub fn is_choice(&self) -> bool {
        self.choice().is_some()
    }
}

/// Takes such a statement into the session's books.
pub fn known(act: Act, message: Parse<'_>, talk: &Talk) -> Rc<Known> {
    // What it shows is put in its place whenever a server gets it.
    // And a call has not been judged.
    let is_late = matches!(act, Act::Show | Act::Call(_));
    let audience = if is_late { u64::MAX } else { talk.audience };
    let control = matches!(act, Act::Begin { .. } | Act::Mark { .. } | Act::End { .. });
    let ends_transaction = matches!(act, Act::End { .. });
    let chooses = match &act {
        Act::Set { .. } => true,
        Act::Call(call) => call.name.text().is_some(),
        _ => false,
    };
    let step = match act {
        act if chooses => {
            let said = Said { act: Rc::new(act), bytes: message.text.len() };
            Some(Step { effect: Some(Effect::Act(said)), ..Step::default() })
        }
        Act::Call(_) => {
            let touched = Touched { unknown: true, ..Touched::default() };
            Some(Step { touched, ..Step::default() })
        }
        Act::Show => Some(Step { tag: Some(SHOW), shows_tenant: true, ..Step::default() }),
        _ => None,
    };
    let text = if chooses { Box::default() } else { message.text.into() };
    let statement = Statement {
        types: message.types.into(),
        from_sql: false,
        read_under: talk.reads_under(&text),
        text,
    };
    Rc::new(Known {
        statement: Rc::new(statement),
        harmless: step.is_none(),
        suspicion: Suspicion::None,
        control,
        ends_transaction,
        read_as: talk.read_options(),
        watch: talk.tenant.watch(),
        audience: Cell::new(audience),
        asked: None,
        special: step.map(Box::new),
        needs: Needs::default(),
        shape: RefCell::default(),
    })
}

/// The tag of SHOW.
pub const SHOW: &str = "SHOW";

/// Whether a statement in the books is SHOW tenantgate.tenant.
pub fn is_show(known: &Known) -> bool {
    known.special.as_ref().is_some_and(|step| step.shows_tenant)
}

/// A statement about a tenant's choice that has no answer.
pub fn hidden() -> Error {
    Error::ContextProtected { setting: "tenantgate.tenant".to_owned() }
}

/// The end of a transaction where the session could not be seen to leave its tenant.
pub fn control() -> Error {
    let what = "AND CHAIN, or transaction control beside other statements, in a service's session,";
    let hint = "Send BEGIN, COMMIT and ROLLBACK in messages of their own.";
    Error::NotSupported { what: what.into(), hint }
}

/// Whether a text resets the session, and with it whom it acts for.
pub fn resets(reading: &Reading) -> bool {
    let Reading::Special(parts) = reading else { return false };
    parts.iter().any(|part| matches!(part.command, Command::ResetAll | Command::DiscardAll))
}

/// The client meant a statement that its session does not have.
pub fn unknown(name: &[u8]) -> Error {
    Error::UnknownStatement { name: String::from_utf8_lossy(name).into_owned() }
}
