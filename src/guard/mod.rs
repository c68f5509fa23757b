//! What a statement text would do to a pooled session, read before a server sees it.
//!
//! Pure functions over bytes. Whether a reading is obeyed, refused or carried to the next server
//! is the session's business; what functions, views and triggers hide cannot be seen from here.

mod acting;
mod allow;
mod cache;
mod cursor;
mod denial;
mod lasting;
mod ledger;
mod lexer;
#[cfg(test)]
mod linear_tests;
mod literal;
mod prepared;
mod quick;
mod rules;
mod session;
mod stand_in;
mod statement;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use crate::guard::cursor::{Cursor, Stop};
use crate::guard::rules::Rule;

pub use acting::{Act, Argument, Call, Key, Mark, OWN_PREFIX, act, only_looks};
pub use cache::Cache;
pub use denial::{Denial, Denials, Watch};
pub use lasting::is_lasting;
pub use ledger::{Entry, Ledger};
pub use lexer::{Kind, Lexer};
pub use prepared::is_query;
pub use stand_in::set_config_calls;

/// What the server's scanner would read differently from session to session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The session's value when the server receives the text: off makes a backslash in `'text'`
    /// an escape.
    pub standard_conforming_strings: bool,
    /// Which rules of level guard are looked for.
    pub watch: Watch,
}

/// What a text is to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Forward unchanged, the gate has no part in it.
    Ordinary(Ordinary),
    /// At least one statement concerns the session; one part per statement, in order.
    Special(Box<[Part]>),
    /// Cannot be served in transaction pooling (SQLSTATE 0A000): what, and a hint.
    Refused { what: Cow<'static, str>, hint: &'static str },
}

/// A text that does nothing to the session, as far as can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordinary {
    /// Another session of the same tenant may use the server next, without a scrub.
    pub harmless: bool,
    /// No statement at all: blanks, comments, semicolons.
    pub empty: bool,
    /// Exactly one COMMIT, END, ROLLBACK or ABORT that leaves no transaction open.
    pub ends_transaction: bool,
    /// At least one statement, and all of them only control transactions.
    pub control: bool,
    pub suspicion: Suspicion,
}

/// Whether a statement may make something that stays with the server when its transaction is over:
/// only the server knows whether it did. What functions do is not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    #[default]
    None,
    /// It makes nothing of the kind, and may let go of some.
    Release,
    /// A temporary object, a cursor WITH HOLD, a channel.
    Some,
    /// An advisory lock, maybe with others of these.
    Lock,
}

/// One statement of a special text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its bytes in the text, first token to last, without the semicolon.
    pub range: Range<usize>,
    pub command: Command,
    /// The rules of level guard it falls under, of those that were looked for.
    pub denied: Denials,
    pub suspicion: Suspicion,
}

/// What one statement does to the session. Names of settings are in lower case, as PostgreSQL
/// compares them, quoted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Anything that is none of the below.
    Other {
        harmless: bool,
        /// The settings it names literally in calls of set_config.
        touches: Vec<Touch>,
        /// It may change settings that cannot be read from the text.
        unknown_settings: bool,
        /// It reads the list of prepared statements.
        lists_prepared: bool,
    },
    /// `PREPARE name AS …`, and what the statement does when it is executed.
    Prepare {
        name: String,
        runs: Box<Self>,
    },
    /// EXECUTE, also behind EXPLAIN or CREATE TABLE … AS.
    Execute {
        name: String,
        /// What happens beside it.
        around: Box<Self>,
        /// Constants among its values that may be names of settings of one's own.
        named: Vec<String>,
    },
    Set {
        /// Several only for SET SESSION CHARACTERISTICS.
        names: Vec<String>,
        value: SetValue,
        local: bool,
    },
    Reset {
        name: String,
    },
    ResetAll,
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES or TEMP.
    DiscardPart,
    /// SHOW idle_session_timeout, which the gate keeps.
    ShowIdle,
    DeallocateAll,
    Deallocate {
        name: String,
    },
    CloseAll,
    Listen,
    /// UNLISTEN, of all channels or of one.
    UnlistenAll,
    /// Exactly `SELECT pg_advisory_unlock_all()`.
    AdvisoryUnlockAll,
}

impl Command {
    /// Nothing to the session, as far as can be seen.
    fn plain(harmless: bool) -> Self {
        let (touches, unknown_settings, lists_prepared) = (Vec::new(), false, false);
        Self::Other { harmless, touches, unknown_settings, lists_prepared }
    }

    /// Whether it changes what the session is, or may.
    fn concerns_session(&self) -> bool {
        match self {
            Self::Other { touches, unknown_settings, lists_prepared, .. } => {
                !touches.is_empty() || *unknown_settings || *lists_prepared
            }
            _ => true,
        }
    }

    /// Whether it lets go of what stays with the server and is harmless in every other way.
    fn suspicion(&self) -> Suspicion {
        match self {
            Self::DiscardPart | Self::CloseAll | Self::UnlistenAll | Self::AdvisoryUnlockAll => {
                Suspicion::Release
            }
            _ => Suspicion::None,
        }
    }
}

/// A call of set_config with a plain string for its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// In lower case.
    pub name: String,
    /// If that is a plain string too.
    pub value: Option<String>,
}

/// The value a SET gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    Default,
    /// One plain constant, word or number; as the setting will read it.
    Text(String),
    /// A list, an expression, FROM CURRENT.
    Other,
}

/// Reads a text of any number of statements. Allocates nothing unless the text is special.
pub fn read(text: &[u8], options: ReadOptions) -> Reading {
    match quick::read(text, options) {
        Some(ordinary) => Reading::Ordinary(ordinary),
        None => read_on(text, options),
    }
}

/// Most statements of a text that the gate has a part in, and most calls of set_config in one of
/// them: it keeps some hundred bytes for each, however short it is.
pub const STATEMENTS_MAX: usize = 65_536;

/// The long way.
fn read_on(text: &[u8], options: ReadOptions) -> Reading {
    let mut cursor = Cursor::new(text, options);
    let mut all = Ordinary {
        harmless: true,
        empty: true,
        ends_transaction: false,
        control: true,
        suspicion: Suspicion::None,
    };
    loop {
        match statement::read(&mut cursor) {
            Ok(Some(statement)) if !statement.is_plain() => {
                if all.empty {
                    return read_parts(cursor, vec![statement.into_part()]);
                }
                return read_parts(Cursor::new(text, options), Vec::new());
            }
            Ok(Some(statement)) => {
                all.harmless &= statement.is_harmless();
                all.control &= statement.control;
                all.suspicion = all.suspicion.max(statement.suspicion);
                all.ends_transaction = all.empty && statement.ends_transaction;
                all.empty = false;
            }
            Ok(None) => {
                all.control &= !all.empty;
                return Reading::Ordinary(all);
            }
            Err(Stop::Refused(rule)) => return refused(rule),
            Err(Stop::Unreadable) if options.watch != Watch::Off => {
                return Reading::Special(Box::new([unreadable(text)]));
            }
            // All that can be read is ordinary; the server answers with a syntax error and runs
            // none of it.
            Err(Stop::Unreadable) => {
                return Reading::Ordinary(Ordinary {
                    harmless: false,
                    empty: false,
                    ends_transaction: false,
                    control: false,
                    suspicion: all.suspicion,
                });
            }
        }
    }
}

/// Reads the rest of a text that turned out to be special, keeping every statement.
fn read_parts(mut cursor: Cursor<'_>, mut parts: Vec<Part>) -> Reading {
    loop {
        match statement::read(&mut cursor) {
            Ok(Some(_)) if parts.len() == STATEMENTS_MAX => return refused(Rule::TooMany),
            Ok(Some(statement)) => parts.push(statement.into_part()),
            Ok(None) => break,
            Err(Stop::Refused(rule)) => return refused(rule),
            Err(Stop::Unreadable) if parts.iter().any(|it| it.command.concerns_session()) => {
                return refused(Rule::UnreadableRest);
            }
            Err(Stop::Unreadable) => {
                let mut whole = unreadable(cursor.text());
                whole.denied = parts.iter().fold(whole.denied, |all, it| all.with(it.denied));
                return Reading::Special(Box::new([whole]));
            }
        }
    }
    Reading::Special(parts.into_boxed_slice())
}

/// A text that the server will refuse as a whole, as far as can be told.
fn unreadable(text: &[u8]) -> Part {
    let (command, denied) = (Command::plain(false), Denials::of(Denial::Unreadable));
    Part { range: 0..text.len(), command, denied, suspicion: Suspicion::None }
}

fn refused(rule: Rule) -> Reading {
    let (what, hint) = rule.texts();
    Reading::Refused { what: what.into(), hint }
}
