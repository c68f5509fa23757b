//! The commands that change a session: SET, RESET, DISCARD, DEALLOCATE, CLOSE ALL, UNLISTEN, in
//! every form of PostgreSQL's grammar (`gram.y`, VariableSetStmt and its neighbours).

use std::borrow::Cow;

use crate::guard::cursor::{Cursor, Stop};
use crate::guard::lexer::{Kind, Token};
use crate::guard::literal;
use crate::guard::prepared;
use crate::guard::rules::Rule;
use crate::guard::{Command, SetValue};

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1); it cuts longer ones short.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Most tokens of a session command that are looked at, which is more than any has whose value is
/// no list: a name with a dozen dots, or every mode of a transaction twice.
const PIECES_MAX: usize = 40;

/// The first word of a session command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    Reset,
    Discard,
    Deallocate,
    Close,
    Unlisten,
}

/// What such a command does.
pub(super) enum Effect {
    Command(Command),
    /// SET TRANSACTION: gone with the transaction, and part of its control.
    Transaction,
    /// Nothing to the session: CLOSE of one cursor, SET CONSTRAINTS.
    Nothing {
        harmless: bool,
    },
}

/// Reads the rest of the statement.
pub(super) fn read(cursor: &mut Cursor<'_>, verb: Verb) -> Result<Effect, Stop> {
    let pieces = pieces(cursor)?;
    let effect = match verb {
        Verb::Set => set(&pieces),
        Verb::Reset => reset(&pieces).map(Effect::Command),
        Verb::Discard => discard(&pieces).map(Effect::Command),
        Verb::Deallocate => deallocate(&pieces).map(Effect::Command),
        Verb::Close => Some(close(&pieces)),
        Verb::Unlisten => Some(Effect::Command(Command::UnlistenAll)),
    };
    effect.ok_or(Stop::Refused(Rule::UnreadableCommand))
}

/// A token with its value.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'text> {
    /// Without quotes, in lower case.
    Word(Cow<'text, str>),
    Quoted(String),
    Text(String),
    /// A number, as written.
    Number(&'text str),
    /// An operator or punctuation, as written.
    Sign(&'text str),
    /// A value that cannot be told here.
    Opaque,
}

impl Piece<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(own) if *own == sign)
    }

    /// What stands after the name of a setting, so that a keyword before it was a name.
    fn follows_name(&self) -> bool {
        self.is_sign(".") || self.is_sign("=") || self.is("to") || self.is("from")
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) => Some(name),
            Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

/// The first tokens of the statement with their values. One with more has a list for its value,
/// which is not looked at; it ends with a piece that is none of what a command can end with.
fn pieces<'text>(cursor: &mut Cursor<'text>) -> Result<Vec<Piece<'text>>, Stop> {
    let text = cursor.text();
    let mut pieces = Vec::new();
    loop {
        match cursor.next() {
            Ok(Some(token)) if pieces.len() < PIECES_MAX => pieces.push(piece(text, token)),
            Ok(Some(_)) if pieces.len() == PIECES_MAX => pieces.push(Piece::Opaque),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(pieces),
            Err(Stop::Unreadable) => return Err(Stop::Refused(Rule::UnreadableCommand)),
            Err(refused) => return Err(refused),
        }
    }
}

fn piece(text: &[u8], token: Token) -> Piece<'_> {
    let written = || std::str::from_utf8(token.bytes(text)).ok();
    let piece = match token.kind {
        Kind::Word => written().map(|word| Piece::Word(lower(word))),
        Kind::QuotedName | Kind::UnicodeName => literal::name(text, token).map(Piece::Quoted),
        Kind::Number => written().map(Piece::Number),
        Kind::BitString | Kind::Parameter => None,
        kind if kind.is_text() => literal::string(text, token).map(Piece::Text),
        _ => written().map(Piece::Sign),
    };
    piece.unwrap_or(Piece::Opaque)
}

fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(word.to_ascii_lowercase());
    }
    Cow::Borrowed(word)
}

fn set(pieces: &[Piece<'_>]) -> Option<Effect> {
    let (local, rest) = match pieces {
        [scope, next, ..] if !next.follows_name() && scope.is("local") => (true, pieces.get(1..)?),
        [scope, next, ..] if !next.follows_name() && scope.is("session") => {
            (false, pieces.get(1..)?)
        }
        _ => (false, pieces),
    };
    let (first, after) = rest.split_first()?;
    if first.is("transaction") && !after.first()?.follows_name() {
        return Some(Effect::Transaction);
    }
    if first.is("constraints") && !after.first()?.follows_name() {
        return Some(Effect::Nothing { harmless: true });
    }
    // SESSION here is the scope if nothing else was: SET SESSION AUTHORIZATION.
    let (names, value) = match rest {
        [session, rest @ ..] if session.is("session") && !rest.first()?.follows_name() => {
            named_form(rest)?
        }
        _ => named_form(rest)?,
    };
    Some(Effect::Command(Command::Set { names, value, local }))
}

/// `TIME ZONE x` and its like, then `name = value`.
fn named_form(rest: &[Piece<'_>]) -> Option<(Vec<String>, SetValue)> {
    let one = |name: &str, value| Some((vec![name.to_owned()], value));
    match rest {
        [_, next, ..] if next.follows_name() => assignment(rest),
        [time, zone, value] if time.is("time") && zone.is("zone") && value.is("local") => {
            one("timezone", SetValue::Default)
        }
        [time, zone, rest @ ..] if time.is("time") && zone.is("zone") => {
            one("timezone", value(rest)?)
        }
        [names] if names.is("names") => one("client_encoding", SetValue::Default),
        [names, rest @ ..] if names.is("names") => one("client_encoding", value(rest)?),
        [schema, rest @ ..] if schema.is("schema") => one("search_path", value(rest)?),
        [role, rest @ ..] if role.is("role") => one("role", value(rest)?),
        [authorization, rest @ ..] if authorization.is("authorization") => {
            one("session_authorization", value(rest)?)
        }
        [xml, option, rest @ ..] if xml.is("xml") && option.is("option") => {
            one("xmloption", value(rest)?)
        }
        [characteristics, of, transaction, modes @ ..]
            if characteristics.is("characteristics")
                && of.is("as")
                && transaction.is("transaction") =>
        {
            characteristics_of(modes)
        }
        _ => None,
    }
}

/// `name[.name…] = value`, `name TO value`, `name FROM CURRENT`.
fn assignment(rest: &[Piece<'_>]) -> Option<(Vec<String>, SetValue)> {
    let (name, rest) = setting_name(rest)?;
    let (sign, rest) = rest.split_first()?;
    if sign.is("from") {
        return matches!(rest, [current] if current.is("current"))
            .then(|| (vec![name], SetValue::Other));
    }
    let assigns = sign.is_sign("=") || sign.is("to");
    Some((vec![name], value(rest).filter(|_| assigns)?))
}

/// A name with its dots, in lower case: PostgreSQL compares names of settings so, even quoted.
fn setting_name<'pieces, 'text>(
    pieces: &'pieces [Piece<'text>],
) -> Option<(String, &'pieces [Piece<'text>])> {
    let (first, mut rest) = pieces.split_first()?;
    let mut name = short(first)?.to_ascii_lowercase();
    while let [dot, next, after @ ..] = rest {
        if !dot.is_sign(".") {
            break;
        }
        name.push('.');
        name.push_str(&short(next)?.to_ascii_lowercase());
        rest = after;
    }
    Some((name, rest))
}

fn short<'piece>(piece: &'piece Piece<'_>) -> Option<&'piece str> {
    piece.name().filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))
}

fn value(pieces: &[Piece<'_>]) -> Option<SetValue> {
    Some(match pieces {
        [] => return None,
        [default] if default.is("default") => SetValue::Default,
        [Piece::Word(text)] => SetValue::Text(text.to_string()),
        [Piece::Quoted(text) | Piece::Text(text)] => SetValue::Text(text.clone()),
        [Piece::Number(text)] => SetValue::Text((*text).to_owned()),
        [minus, Piece::Number(number)] if minus.is_sign("-") => {
            SetValue::Text(format!("-{number}"))
        }
        [plus, Piece::Number(number)] if plus.is_sign("+") => SetValue::Text((*number).to_owned()),
        _ => SetValue::Other,
    })
}

/// The modes of SET SESSION CHARACTERISTICS AS TRANSACTION.
fn characteristics_of(modes: &[Piece<'_>]) -> Option<(Vec<String>, SetValue)> {
    let mut names = Vec::new();
    let mut values = Vec::new();
    let mut rest = modes;
    while let Some((first, after)) = rest.split_first() {
        let (name, value, next) = match (first, after) {
            (comma, _) if comma.is_sign(",") => {
                rest = after;
                continue;
            }
            (isolation, [level, one, two, next @ ..])
                if isolation.is("isolation")
                    && level.is("level")
                    && (one.is("read") || one.is("repeatable")) =>
            {
                ("isolation", format!("{} {}", one.name()?, two.name()?), next)
            }
            (isolation, [level, one, next @ ..])
                if isolation.is("isolation") && level.is("level") =>
            {
                ("isolation", one.name()?.to_owned(), next)
            }
            (read, [only, next @ ..]) if read.is("read") && only.is("only") => {
                ("read_only", "on".to_owned(), next)
            }
            (read, [write, next @ ..]) if read.is("read") && write.is("write") => {
                ("read_only", "off".to_owned(), next)
            }
            (not, [deferrable, next @ ..]) if not.is("not") && deferrable.is("deferrable") => {
                ("deferrable", "off".to_owned(), next)
            }
            (deferrable, next) if deferrable.is("deferrable") => {
                ("deferrable", "on".to_owned(), next)
            }
            _ => return None,
        };
        names.push(format!("default_transaction_{name}"));
        values.push(value);
        rest = next;
    }
    match values.len() {
        0 => None,
        1 => Some((names, SetValue::Text(values.pop()?))),
        _ => Some((names, SetValue::Other)),
    }
}

fn reset(pieces: &[Piece<'_>]) -> Option<Command> {
    let named = |name: &str| Some(Command::Reset { name: name.to_owned() });
    match pieces {
        [all] if all.is("all") => Some(Command::ResetAll),
        [time, zone] if time.is("time") && zone.is("zone") => named("timezone"),
        [session, authorization] if session.is("session") && authorization.is("authorization") => {
            named("session_authorization")
        }
        [transaction, isolation, level]
            if transaction.is("transaction") && isolation.is("isolation") && level.is("level") =>
        {
            named("transaction_isolation")
        }
        _ => {
            let (name, rest) = setting_name(pieces)?;
            rest.is_empty().then_some(Command::Reset { name })
        }
    }
}

fn discard(pieces: &[Piece<'_>]) -> Option<Command> {
    let [target] = pieces else { return None };
    if target.is("all") {
        return Some(Command::DiscardAll);
    }
    let parts = ["plans", "sequences", "temp", "temporary"];
    parts.iter().any(|part| target.is(part)).then_some(Command::DiscardPart)
}

fn deallocate(pieces: &[Piece<'_>]) -> Option<Command> {
    let target = match pieces {
        [target] => target,
        [prepare, target] if prepare.is("prepare") => target,
        _ => return None,
    };
    if target.is("all") {
        return Some(Command::DeallocateAll);
    }
    Some(Command::Deallocate { name: prepared::kept(target.name()?.to_owned())? })
}

fn close(pieces: &[Piece<'_>]) -> Effect {
    match pieces {
        [all] if all.is("all") => Effect::Command(Command::CloseAll),
        _ => Effect::Nothing { harmless: false },
    }
}
