//! One statement: told by its first words what it is, refused if its effect on the session cannot
//! be carried, else handed to the file that reads its kind.

use std::ops::Range;

use crate::guard::cursor::{Cursor, Stop};
use crate::guard::denial::{Denial, Denials};
use crate::guard::lexer::{Kind, Token};
use crate::guard::literal;
use crate::guard::rules::Rule;
use crate::guard::walk::{Walk, is_temporary_schema};
use crate::guard::{Command, Part, Suspicion};
use crate::guard::{prepared, session};

/// One statement of a text.
pub(super) struct Statement {
    pub range: Range<usize>,
    pub command: Command,
    pub control: bool,
    pub ends_transaction: bool,
    /// The rules of level guard it falls under.
    pub denied: Denials,
    /// It may make something that stays with the server.
    pub suspicion: Suspicion,
    /// It has a BEGIN ATOMIC body, whose semicolons are not the text's.
    atomic: bool,
}

impl Statement {
    fn new(command: Command) -> Self {
        let (control, ends_transaction, atomic) = (false, false, false);
        let (denied, suspicion) = (Denials::NONE, Suspicion::None);
        Self { range: 0..0, command, control, ends_transaction, denied, suspicion, atomic }
    }

    fn plain(harmless: bool) -> Self {
        Self::new(Command::plain(harmless))
    }

    fn control(ends_transaction: bool) -> Self {
        Self { control: true, ends_transaction, ..Self::plain(true) }
    }

    /// Whether the gate has no part in the statement.
    pub fn is_plain(&self) -> bool {
        self.denied.is_empty() && !self.command.concerns_session()
    }

    pub fn into_part(self) -> Part {
        let Self { range, command, denied, suspicion, .. } = self;
        let suspicion = suspicion.max(command.suspicion());
        Part { range, command, denied, suspicion }
    }

    pub fn is_harmless(&self) -> bool {
        matches!(self.command, Command::Other { harmless: true, .. })
    }
}

/// Reads the next statement; `None` at the end of the text.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Option<Statement>, Stop> {
    let Some(first) = cursor.begin()? else { return Ok(None) };
    let mut statement = judge(cursor, first)?;
    if statement.atomic {
        swallow(cursor)?;
    }
    statement.denied = cursor.take_denied();
    statement.suspicion = cursor.take_suspicion();
    statement.range = first.range().start..cursor.last_end();
    Ok(Some(statement))
}

/// What the first word of a statement says about the rest.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// Rows in or out; may call functions.
    Query,
    /// Reads and leaves nothing behind, calls no function.
    Look,
    Show,
    Copy,
    Explain,
    /// Opens a transaction or a savepoint, or lets go of one.
    Control,
    /// COMMIT, ROLLBACK and their other names.
    End,
    Create,
    Alter,
    Declare,
    Do,
    Lock,
    Session(session::Verb),
    Execute,
    Prepare,
    Listen,
    Load,
    /// Names functions without calling any.
    Names,
    /// Anything else that PostgreSQL knows.
    Other,
    Unknown,
}

pub(super) fn head(text: &[u8], first: Token) -> Head {
    let mut lowered = [0_u8; 10];
    let Some(word) = lowered.get_mut(..first.bytes_len()) else { return Head::Unknown };
    for (to, from) in word.iter_mut().zip(first.bytes(text)) {
        *to = from.to_ascii_lowercase();
    }
    match &*word {
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"merge" | b"values"
        | b"table" => Head::Query,
        b"begin" | b"start" | b"savepoint" | b"release" => Head::Control,
        b"commit" | b"rollback" | b"end" | b"abort" => Head::End,
        b"set" => Head::Session(session::Verb::Set),
        b"reset" => Head::Session(session::Verb::Reset),
        b"discard" => Head::Session(session::Verb::Discard),
        b"deallocate" => Head::Session(session::Verb::Deallocate),
        b"close" => Head::Session(session::Verb::Close),
        b"unlisten" => Head::Session(session::Verb::Unlisten),
        b"show" => Head::Show,
        b"fetch" => Head::Look,
        b"copy" => Head::Copy,
        b"explain" => Head::Explain,
        b"create" => Head::Create,
        b"alter" => Head::Alter,
        b"declare" => Head::Declare,
        b"prepare" => Head::Prepare,
        b"execute" => Head::Execute,
        b"listen" => Head::Listen,
        b"load" => Head::Load,
        b"grant" | b"revoke" | b"comment" | b"drop" | b"security" => Head::Names,
        b"do" => Head::Do,
        b"lock" => Head::Lock,
        b"analyse" | b"analyze" | b"call" | b"checkpoint" | b"cluster" | b"import" | b"move"
        | b"notify" | b"reassign" | b"refresh" | b"reindex" | b"truncate" | b"vacuum" => {
            Head::Other
        }
        _ => Head::Unknown,
    }
}

fn judge(cursor: &mut Cursor<'_>, first: Token) -> Result<Statement, Stop> {
    let head = match first.kind {
        Kind::Word => head(cursor.text(), first),
        Kind::Open => Head::Query,
        _ => Head::Unknown,
    };
    match head {
        Head::Query => query(cursor, first, true),
        Head::Control => {
            cursor.finish()?;
            Ok(Statement::control(false))
        }
        Head::End => end(cursor),
        Head::Session(verb) => session_command(cursor, verb),
        Head::Look | Head::Names => {
            cursor.finish()?;
            Ok(Statement::plain(matches!(head, Head::Look)))
        }
        Head::Show => show(cursor),
        Head::Copy => copy(cursor, first),
        Head::Explain => explain(cursor),
        Head::Create => create(cursor, first),
        Head::Alter => alter(cursor, first),
        Head::Declare => declare(cursor, first),
        Head::Execute => prepared::execute(cursor).map(Statement::new),
        Head::Prepare => prepared::prepare(cursor, first).map(Statement::new),
        Head::Listen => {
            cursor.suspect(Suspicion::Some);
            cursor.finish()?;
            Ok(Statement::new(Command::Listen))
        }
        Head::Load => Err(Stop::Refused(Rule::Load)),
        Head::Do => {
            cursor.deny(Denial::DoBlock);
            query(cursor, first, false)
        }
        Head::Lock => lock(cursor),
        Head::Other => query(cursor, first, false),
        Head::Unknown => {
            cursor.deny(Denial::UnknownStatement);
            query(cursor, first, false)
        }
    }
}

/// LOCK TABLE … IN ACCESS SHARE MODE is what every SELECT takes; any other mode stops others. IN
/// is a reserved word, so it names no table.
fn lock(cursor: &mut Cursor<'_>) -> Result<Statement, Stop> {
    let text = cursor.text();
    let mut mode = Vec::new();
    let mut in_mode = false;
    while let Some(token) = cursor.next()? {
        // One more than any mode has, with NOWAIT.
        if in_mode && mode.len() < 5 {
            mode.push(token);
        }
        in_mode |= token.is(text, "in");
    }
    if mode.last().is_some_and(|last| last.is(text, "nowait")) {
        mode.pop();
    }
    let shares = ["access", "share", "mode"];
    let is_shared = mode.len() == shares.len()
        && mode.iter().zip(shares).all(|(token, word)| token.is(text, word));
    if !is_shared {
        cursor.deny(Denial::LockTable);
    }
    Ok(Statement::plain(false))
}

fn query(cursor: &mut Cursor<'_>, first: Token, harmless: bool) -> Result<Statement, Stop> {
    let mut walk = Walk::new(cursor.text(), first, harmless);
    while walk.next(cursor)?.is_some() {}
    Ok(Statement::new(walk.command()))
}

fn end(cursor: &mut Cursor<'_>) -> Result<Statement, Stop> {
    let text = cursor.text();
    let (mut ends, mut negated, mut first) = (true, false, true);
    while let Some(token) = cursor.next()? {
        if first && token.is(text, "prepared") {
            return Err(Stop::Refused(Rule::TwoPhase));
        }
        first = false;
        let filler = ["work", "transaction", "and", "no"].iter().any(|word| token.is(text, word));
        ends &= filler || (negated && token.is(text, "chain"));
        negated = token.is(text, "no");
    }
    Ok(Statement::control(ends))
}

fn session_command(cursor: &mut Cursor<'_>, verb: session::Verb) -> Result<Statement, Stop> {
    Ok(match session::read(cursor, verb)? {
        session::Effect::Command(command) => Statement::new(command),
        session::Effect::Transaction => Statement::control(false),
        session::Effect::Nothing { harmless } => Statement::plain(harmless),
    })
}

/// SHOW of a setting that no server has, because the gate keeps it.
fn show(cursor: &mut Cursor<'_>) -> Result<Statement, Stop> {
    let text = cursor.text();
    let name = cursor.next()?;
    let kept = name.is_some_and(|name| is_named(text, name, "idle_session_timeout"));
    let alone = cursor.next()?.is_none();
    cursor.finish()?;
    Ok(if kept && alone { Statement::new(Command::ShowIdle) } else { Statement::plain(true) })
}

/// Whether a token is this name, in quotes or not.
fn is_named(text: &[u8], token: Token, name: &str) -> bool {
    match token.kind {
        Kind::QuotedName | Kind::UnicodeName => {
            literal::name(text, token).is_some_and(|quoted| quoted.eq_ignore_ascii_case(name))
        }
        _ => token.is(text, name),
    }
}

/// COPY with a program runs it on the server's machine.
fn copy(cursor: &mut Cursor<'_>, first: Token) -> Result<Statement, Stop> {
    let text = cursor.text();
    let mut walk = Walk::new(text, first, true);
    let mut before = first;
    while let Some(token) = walk.next(cursor)? {
        if token.is(text, "program") && (before.is(text, "from") || before.is(text, "to")) {
            walk.harms();
        }
        before = token;
    }
    Ok(Statement::new(walk.command()))
}

/// EXPLAIN ANALYZE runs what it explains; without ANALYZE the same rules are no loss.
fn explain(cursor: &mut Cursor<'_>) -> Result<Statement, Stop> {
    let text = cursor.text();
    let mut inner = cursor.next()?;
    if inner.is_some_and(|token| token.kind == Kind::Open) {
        let [next] = cursor.ahead();
        let select = next.is_some_and(|next| {
            next.kind == Kind::Open
                || ["select", "with", "values", "table"].iter().any(|word| next.is(text, word))
        });
        if !select {
            while cursor.depth() > 0 && cursor.next()?.is_some() {}
            inner = cursor.next()?;
        }
    }
    let is_option = |token: Token| {
        ["analyze", "analyse", "verbose"].iter().any(|option| token.is(text, option))
    };
    while inner.is_some_and(is_option) {
        inner = cursor.next()?;
    }
    let Some(inner) = inner else { return Ok(Statement::plain(false)) };
    let kind = if inner.kind == Kind::Word { head(text, inner) } else { Head::Other };
    match kind {
        Head::Query => query(cursor, inner, true),
        Head::Execute => prepared::execute(cursor).map(Statement::new),
        Head::Create => create(cursor, inner),
        Head::Declare => declare(cursor, inner),
        _ => query(cursor, inner, inner.kind == Kind::Open),
    }
}

fn create(cursor: &mut Cursor<'_>, first: Token) -> Result<Statement, Stop> {
    let text = cursor.text();
    let is_any = |token: Token, words: &[&str]| words.iter().any(|word| token.is(text, word));
    let is_prefix = |token: Token| is_any(token, &["or", "replace", "local", "global", "unlogged"]);
    let mut object = cursor.next()?;
    while object.is_some_and(is_prefix) {
        object = cursor.next()?;
    }
    let temporary = object.is_some_and(|token| is_any(token, &["temp", "temporary"]));
    if temporary {
        object = cursor.next()?;
    }
    let Some(object) = object else { return Ok(Statement::plain(false)) };
    let routine = is_any(object, &["function", "procedure"]);
    if is_routine(text, object) {
        cursor.deny(Denial::Routine);
    }

    let mut walk = Walk::new(text, object, false);
    walk.judge_calls(!routine);
    let (mut drops, mut query_begun, mut atomic) = (false, false, false);
    let mut executes = None;
    let mut before = [first, object];
    while let Some(token) = walk.next(cursor)? {
        let [second_last, last] = before;
        let outside = cursor.depth() == 0;
        drops |= token.is(text, "drop") && last.is(text, "commit") && second_last.is(text, "on");
        if token.kind == Kind::Dot && is_temporary_schema(text, last) {
            cursor.suspect(Suspicion::Some);
        }
        // Only the first AS opens the query; later ones name columns.
        if outside && last.is(text, "as") && !query_begun {
            query_begun = true;
            if token.is(text, "execute") && object.is(text, "table") {
                executes = prepared::read_name(cursor)?;
            }
        }
        if routine && outside && token.is(text, "atomic") && last.is(text, "begin") {
            atomic = true;
            walk.judge_calls(true);
        }
        before = [last, token];
    }
    if temporary && !drops {
        cursor.suspect(Suspicion::Some);
    }
    let command = match executes {
        Some(name) => {
            Command::Execute { name, around: Box::new(walk.command()), named: Vec::new() }
        }
        None => walk.command(),
    };
    Ok(Statement { atomic, ..Statement::new(command) })
}

fn alter(cursor: &mut Cursor<'_>, first: Token) -> Result<Statement, Stop> {
    let text = cursor.text();
    let [object] = cursor.ahead();
    let Some(object) = object else { return query(cursor, first, false) };
    let is_any = |words: &[&str]| words.iter().any(|word| object.is(text, word));
    if is_any(&["role", "user", "group"]) {
        cursor.deny(Denial::AlterRole);
    }
    if is_any(&["database", "system"]) {
        cursor.deny(Denial::AlterDatabase);
    }
    if is_routine(text, object) {
        cursor.deny(Denial::Routine);
        cursor.finish()?;
        return Ok(Statement::plain(false));
    }
    query(cursor, first, false)
}

/// Whether this is the kind of a thing that runs code of its own, or brings some: behind CREATE
/// and its options, or behind ALTER.
fn is_routine(text: &[u8], object: Token) -> bool {
    let kinds = [
        "function",
        "procedure",
        "routine",
        "aggregate",
        "language",
        "trusted",
        "procedural",
        "extension",
        "event",
        "transform",
    ];
    kinds.iter().any(|kind| object.is(text, kind))
}

fn declare(cursor: &mut Cursor<'_>, first: Token) -> Result<Statement, Stop> {
    let text = cursor.text();
    let mut walk = Walk::new(text, first, false);
    let (mut before, mut in_query) = (first, false);
    while let Some(token) = walk.next(cursor)? {
        if !in_query && token.is(text, "hold") && before.is(text, "with") {
            cursor.suspect(Suspicion::Some);
        }
        in_query |= token.is(text, "for");
        before = token;
    }
    Ok(Statement::new(walk.command()))
}

/// To the end of the text, after a function body with BEGIN ATOMIC. Where such a body ends only a
/// full parser knows (END may be the name of a column), so what follows is taken to be part of it
/// and must be nothing that concerns the session wherever it stands.
fn swallow(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    let mut denied = cursor.take_denied();
    while let Some(first) = cursor.begin()? {
        if judge(cursor, first)?.command.concerns_session() {
            return Err(Stop::Refused(Rule::AtomicBody));
        }
        // RETURN and END begin what looks like statements here.
        denied = denied.with(cursor.take_denied().without(Denials::of(Denial::UnknownStatement)));
    }
    cursor.deny_all(denied);
    Ok(())
}
