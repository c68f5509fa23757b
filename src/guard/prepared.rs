//! PREPARE and EXECUTE: the name, which the session must know on every server, and what the
//! statement inside does (`gram.y`, PrepareStmt and ExecuteStmt).

use crate::guard::Command;
use crate::guard::cursor::{Cursor, Stop};
use crate::guard::lexer::{Kind, Lexer, Token};
use crate::guard::literal;
use crate::guard::rules::Rule;
use crate::guard::session::NAME_BYTES_MAX;
use crate::guard::statement::{Head, head};
use crate::guard::walk::Walk;

/// Most constants of an EXECUTE that are kept as names of settings.
const NAMED_MAX: usize = 16;

/// `PREPARE name [(types)] AS statement`, or PREPARE TRANSACTION.
pub(super) fn prepare(cursor: &mut Cursor<'_>, first: Token) -> Result<Command, Stop> {
    let text = cursor.text();
    let [target, id] = cursor.ahead();
    let is_transaction = target.is_some_and(|token| token.is(text, "transaction"));
    if is_transaction && id.is_some_and(|id| id.kind.is_text()) {
        return Err(Stop::Refused(Rule::TwoPhase));
    }
    let Some(name) = read_name(cursor)? else { return misses_a_name(cursor) };
    loop {
        match cursor.next()? {
            Some(token) if cursor.depth() == 0 && token.is(text, "as") => break,
            Some(_) => {}
            // The server says what is missing.
            None => return Ok(Command::plain(false)),
        }
    }
    let inner = cursor.next()?.unwrap_or(first);
    let reads = inner.kind == Kind::Open || matches!(head(text, inner), Head::Query);
    let mut walk = Walk::new(text, inner, reads);
    while walk.next(cursor)?.is_some() {}
    Ok(Command::Prepare { name, runs: Box::new(walk.command()) })
}

/// Whether a text begins with a query: what those give may change, and what commands give only
/// depends on what they find.
pub fn is_query(text: &[u8]) -> bool {
    let first = Lexer::new(text, true).next().and_then(Result::ok);
    first.is_some_and(|first| {
        first.kind == Kind::Open
            || first.kind == Kind::Word && matches!(head(text, first), Head::Query)
    })
}

/// `name [(values)]`, behind EXECUTE.
pub(super) fn execute(cursor: &mut Cursor<'_>) -> Result<Command, Stop> {
    let Some(name) = read_name(cursor)? else { return misses_a_name(cursor) };
    let text = cursor.text();
    let mut named = Vec::new();
    // Not a call: the parenthesis is stepped over before anybody takes it for one.
    let around = match cursor.next()? {
        Some(open) => {
            let mut walk = Walk::new(text, open, open.kind == Kind::Open);
            while let Some(token) = walk.next(cursor)? {
                let constant = literal::string(text, token).filter(|it| it.contains('.'));
                named.extend(constant.filter(|_| named.len() < NAMED_MAX));
            }
            walk.command()
        }
        None => Command::plain(true),
    };
    Ok(Command::Execute { name, around: Box::new(around), named })
}

/// The name of a statement, behind the word before it; `None` if no name stands there.
pub(super) fn read_name(cursor: &mut Cursor<'_>) -> Result<Option<String>, Stop> {
    let Some(token) = cursor.next()?.filter(|token| token.kind.is_name()) else { return Ok(None) };
    let name = literal::name(cursor.text(), token).and_then(kept);
    name.map(Some).ok_or(Stop::Refused(Rule::UnreadableCommand))
}

/// The server answers with a syntax error.
fn misses_a_name(cursor: &mut Cursor<'_>) -> Result<Command, Stop> {
    cursor.finish()?;
    Ok(Command::plain(false))
}

/// What PostgreSQL keeps of a name. Where it cuts a longer one depends on the encoding, unless that
/// is all ASCII.
pub(super) fn kept(mut name: String) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        if !name.is_ascii() {
            return None;
        }
        name.truncate(NAME_BYTES_MAX);
    }
    (!name.is_empty()).then_some(name)
}
