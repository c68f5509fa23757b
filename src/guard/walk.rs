//! Walks the inside of a statement for what its first word does not tell: the functions it calls,
//! the settings they change, temporary tables made by SELECT INTO.

use crate::guard::allow;
use crate::guard::cursor::{Cursor, Stop};
use crate::guard::denial::Denial;
use crate::guard::lexer::{Kind, Token};
use crate::guard::literal;
use crate::guard::rules::Rule;
use crate::guard::{Command, STATEMENTS_MAX, Suspicion, Touch};

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// What the walk keeps per open parenthesis is one bit of a word.
const DEPTH_MAX: usize = 64;

/// A walk over one statement and what it has found.
pub(super) struct Walk<'text> {
    text: &'text [u8],
    first: Token,
    harmless: bool,
    calls_matter: bool,
    touches: Vec<Touch>,
    unknown_settings: bool,
    lists_prepared: bool,
    /// How many tokens came after the first.
    tokens: usize,
    previous: Token,
    chain: Chain,
    /// One bit per open parenthesis, the innermost lowest: common table expressions are being
    /// named here, so a name with a parenthesis behind it is one of them.
    naming: u64,
    /// Likewise: this parenthesis belongs to ON or OPERATOR, so an expression may follow it.
    leading: u64,
    /// The parenthesis closed last was such a one.
    closed_leading: bool,
    updates: bool,
    into: Into,
    /// Where `pg_advisory_unlock_all(` stood, counted in tokens.
    unlocks_at: Option<usize>,
}

/// The last name met, with the dots before it.
#[derive(Clone, Copy)]
struct Chain {
    /// The token before the whole of `a.b.c`.
    before: Token,
    qualifier: Option<Token>,
    name: Token,
}

/// How far a SELECT … INTO has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Into {
    None,
    /// The word before was INTO, or LOCAL or GLOBAL after it.
    Fresh,
    Past,
}

impl<'text> Walk<'text> {
    /// A walk that starts behind `first`.
    pub(super) fn new(text: &'text [u8], first: Token, harmless: bool) -> Self {
        Self {
            text,
            first,
            harmless,
            calls_matter: true,
            touches: Vec::new(),
            unknown_settings: false,
            lists_prepared: false,
            tokens: 0,
            previous: first,
            chain: Chain { before: first, qualifier: None, name: first },
            naming: u64::from(first.is(text, "with")),
            leading: 0,
            closed_leading: false,
            updates: first.is(text, "update"),
            into: Into::None,
            unlocks_at: None,
        }
    }

    /// A statement that defines a function calls nothing yet.
    pub(super) fn judge_calls(&mut self, matter: bool) {
        self.calls_matter = matter;
    }

    pub(super) fn harms(&mut self) {
        self.harmless = false;
    }

    /// The next token, taken into account.
    #[inline]
    pub(super) fn next(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Token>, Stop> {
        let token = match cursor.next() {
            Ok(Some(token)) => token,
            Err(Stop::Unreadable) if self.concerns_session() => {
                return Err(Stop::Refused(Rule::UnreadableSetConfig));
            }
            end => return end,
        };
        self.tokens += 1;
        match token.kind {
            Kind::Word => {
                self.keyword(token, cursor);
                self.name(token);
            }
            Kind::QuotedName | Kind::UnicodeName => {
                self.quoted(token, cursor);
                self.name(token);
            }
            Kind::Open => {
                self.open(cursor);
                if self.touches.len() > STATEMENTS_MAX {
                    return Err(Stop::Refused(Rule::TooMany));
                }
            }
            Kind::Close => self.close(),
            Kind::Dot => self.dot(cursor),
            _ => {}
        }
        self.previous = token;
        Ok(Some(token))
    }

    /// What the statement turned out to be.
    pub(super) fn command(self) -> Command {
        if self.first.is(self.text, "select")
            && self.unlocks_at.is_some_and(|open| self.tokens == open + 1)
        {
            return Command::AdvisoryUnlockAll;
        }
        let Self { harmless, touches, unknown_settings, lists_prepared, .. } = self;
        Command::Other { harmless, touches, unknown_settings, lists_prepared }
    }

    fn concerns_session(&self) -> bool {
        self.unknown_settings || !self.touches.is_empty()
    }

    /// Words that change how later tokens are read. Told apart by length first: this runs for
    /// every word of every statement.
    #[inline]
    fn keyword(&mut self, token: Token, cursor: &mut Cursor<'_>) {
        let text = self.text;
        let was_fresh = self.into == Into::Fresh;
        if was_fresh {
            self.into = Into::Past;
        }
        match token.bytes_len() {
            4 if token.is(text, "into") => self.meets_into(),
            4 if token.is(text, "with") && self.previous.kind == Kind::Open => self.naming |= 1,
            4 | 9 if was_fresh && (token.is(text, "temp") || token.is(text, "temporary")) => {
                cursor.suspect(Suspicion::Some);
            }
            5 | 6 if was_fresh && (token.is(text, "local") || token.is(text, "global")) => {
                self.into = Into::Fresh;
            }
            5 if self.naming & 1 == 1 => self.ends_naming(token, &["merge", "table"]),
            6 => {
                self.updates |= token.is(text, "update");
                if self.naming & 1 == 1 {
                    self.ends_naming(token, &["select", "insert", "update", "delete", "values"]);
                }
            }
            11 if self.updates && token.is(text, "pg_settings") => {
                self.unknown_setting(cursor);
            }
            21 => self.lists_prepared |= token.is(text, "pg_prepared_statement"),
            22 => self.lists_prepared |= token.is(text, "pg_prepared_statements"),
            _ => {}
        }
    }

    /// SELECT … INTO makes a table; the INTO of INSERT and MERGE, or a column of that name, not.
    fn meets_into(&mut self) {
        let before = self.previous;
        let target = before.is(self.text, "insert") || before.is(self.text, "merge");
        let label = before.kind == Kind::Dot || before.is(self.text, "as");
        if !target && !label {
            self.harmless = false;
            self.into = Into::Fresh;
        }
    }

    fn ends_naming(&mut self, token: Token, verbs: &[&str]) {
        if verbs.iter().any(|verb| token.is(self.text, verb)) {
            self.naming &= !1;
        }
    }

    /// It changes a setting that cannot be told: a computed name, or an UPDATE of pg_settings,
    /// which a rule on that view turns into set_config.
    fn unknown_setting(&mut self, cursor: &mut Cursor<'_>) {
        self.harmless = false;
        self.unknown_settings = true;
        cursor.deny(Denial::ComputedSetting);
    }

    fn quoted(&mut self, token: Token, cursor: &mut Cursor<'_>) {
        let decoded;
        let name = match token.kind {
            Kind::QuotedName => quoted_inside(token.bytes(self.text)),
            _ => {
                decoded = literal::name(self.text, token).unwrap_or_default();
                decoded.as_bytes()
            }
        };
        match name {
            b"pg_settings" if self.updates => self.unknown_setting(cursor),
            b"pg_prepared_statement" | b"pg_prepared_statements" => self.lists_prepared = true,
            _ => {}
        }
    }

    #[inline]
    fn name(&mut self, token: Token) {
        if self.previous.kind == Kind::Dot {
            self.chain.qualifier = Some(self.chain.name);
            self.chain.name = token;
        } else {
            self.chain = Chain { before: self.previous, qualifier: None, name: token };
        }
    }

    fn dot(&mut self, cursor: &mut Cursor<'_>) {
        if !self.previous.kind.is_name() {
            // `(row).field`: whatever name came earlier does not qualify what follows.
            self.chain.name = self.previous;
        }
        if self.into != Into::None && is_temporary_schema(self.text, self.previous) {
            cursor.suspect(Suspicion::Some);
        }
    }

    fn open(&mut self, cursor: &mut Cursor<'_>) {
        let before = self.previous;
        if before.kind.is_name() {
            self.called(cursor);
        }
        if before.kind == Kind::Close {
            // `WITH a AS (…) (SELECT …)`: the list of common table expressions is over.
            self.naming &= !1;
        }
        let leads = before.is(self.text, "on") || before.is(self.text, "operator");
        self.leading = self.leading << 1 | u64::from(leads);
        self.naming <<= 1;
        if cursor.depth() > DEPTH_MAX {
            self.harmless = false;
        }
    }

    fn close(&mut self) {
        self.closed_leading = self.leading & 1 == 1;
        self.leading >>= 1;
        self.naming >>= 1;
    }

    /// A name stands directly before a parenthesis.
    fn called(&mut self, cursor: &mut Cursor<'_>) {
        if !self.calls_matter {
            self.harmless = false;
            return;
        }
        let token = self.chain.name;
        let bytes = token.bytes(self.text);
        let mut lowered = [0; NAME_BYTES_MAX];
        let decoded;
        let name = match token.kind {
            Kind::Word => {
                for (to, from) in lowered.iter_mut().zip(bytes) {
                    *to = from.to_ascii_lowercase();
                }
                lowered.get(..bytes.len()).unwrap_or_default()
            }
            Kind::QuotedName if !quoted_inside(bytes).contains(&b'"') => quoted_inside(bytes),
            _ => {
                decoded = literal::name(self.text, token).unwrap_or_default();
                // A name the server may read and we cannot might be anything.
                if decoded.is_empty() && token.kind == Kind::UnicodeName {
                    self.unknown_setting(cursor);
                }
                decoded.as_bytes()
            }
        };
        self.call_of(name, cursor);
        self.harmless = self.harmless && self.is_harmless_before_open(name);
    }

    /// Functions that the session must know of, whatever stands around them.
    fn call_of(&mut self, name: &[u8], cursor: &mut Cursor<'_>) {
        match name {
            b"set_config" => self.calls_set_config(cursor),
            b"pg_advisory_unlock_all" => {
                let expected = match self.chain.qualifier {
                    None => 2,
                    Some(qualifier) if self.is_pg_catalog(qualifier) => 4,
                    Some(_) => return,
                };
                self.unlocks_at = (self.tokens == expected).then_some(expected);
            }
            b"pg_advisory_lock"
            | b"pg_advisory_lock_shared"
            | b"pg_try_advisory_lock"
            | b"pg_try_advisory_lock_shared" => cursor.suspect(Suspicion::Lock),
            _ if allow::runs_sql(name) => cursor.deny(Denial::SqlInText),
            _ => {}
        }
    }

    fn calls_set_config(&mut self, cursor: &mut Cursor<'_>) {
        self.harmless = false;
        let [name, comma, value, end] = cursor.ahead();
        let constant = |token: Option<Token>, end: Option<Token>| {
            let alone = end.is_some_and(|end| end.kind == Kind::Comma);
            token.filter(|_| alone).and_then(|token| literal::string(self.text, token))
        };
        match constant(name, comma) {
            Some(name) => {
                let (name, value) = (name.to_ascii_lowercase(), constant(value, end));
                self.touches.push(Touch { name, value });
            }
            None => match self.named_in_view(cursor) {
                Some(touch) => self.touches.push(touch),
                None => self.unknown_setting(cursor),
            },
        }
    }

    /// `SELECT set_config(name, 'value', false) FROM pg_settings WHERE name = 'setting'`, which is
    /// how pg_dump sets what older servers do not have: the name is there, only elsewhere.
    fn named_in_view(&self, cursor: &Cursor<'_>) -> Option<Touch> {
        let text = self.text;
        if !(self.first.is(text, "select") && self.chain.before == self.first) {
            return None;
        }
        // Token by token, so that nothing is looked at behind the first that does not fit.
        let mut ahead = cursor.lexer_ahead()?;
        let mut next = || ahead.next().and_then(Result::ok);
        let word = |token: Option<Token>, words: &[&str]| {
            token.filter(|token| words.iter().any(|word| token.is(text, word)))
        };
        let kind = |token: Option<Token>, kind: Kind| token.filter(|it| it.kind == kind);
        word(next(), &["name"])?;
        kind(next(), Kind::Comma)?;
        let value = next().filter(|token| token.kind.is_text())?;
        kind(next(), Kind::Comma)?;
        word(next(), &["false", "true"])?;
        kind(next(), Kind::Close)?;
        for due in ["from", "pg_settings", "where", "name"] {
            word(next(), &[due])?;
        }
        next().filter(|token| token.bytes(text) == b"=")?;
        let name = next().filter(|token| token.kind.is_text())?;
        let ends = next().is_none_or(|token| token.kind == Kind::Semicolon);
        let (name, value) = (literal::string(text, name)?, literal::string(text, value)?);
        ends.then(|| Touch { name: name.to_ascii_lowercase(), value: Some(value) })
    }

    /// Whether what stands before the parenthesis leaves the session as it was: a keyword, a
    /// function of the list, or a name that is not called at all (a table with its columns, an
    /// alias with its columns, a type with its length).
    fn is_harmless_before_open(&self, name: &[u8]) -> bool {
        let Chain { before, qualifier, name: token } = self.chain;
        if before.is(self.text, "into") || before.is(self.text, "copy") {
            return true;
        }
        if let Some(qualifier) = qualifier {
            return self.is_pg_catalog(qualifier) && allow::is_harmless_function(name);
        }
        if token.kind == Kind::Word && (allow::is_construct(name) || self.is_clause(name)) {
            return true;
        }
        match before.kind {
            Kind::Cast => true,
            Kind::Comma if self.naming & 1 == 1 => true,
            Kind::Close if !self.closed_leading => true,
            Kind::Word if ["as", "with", "recursive"].iter().any(|w| before.is(self.text, w)) => {
                true
            }
            _ => allow::is_harmless_function(name),
        }
    }

    /// Words that are SQL's own only in their place; elsewhere they could name a function.
    fn is_clause(&self, name: &[u8]) -> bool {
        let before = self.chain.before;
        let follows = |words: &[&str]| words.iter().any(|word| before.is(self.text, word));
        match name {
            b"over" | b"filter" => before.kind == Kind::Close,
            b"materialized" => follows(&["as", "not"]),
            b"conflict" => follows(&["on"]),
            b"sets" => follows(&["grouping"]),
            b"system" | b"bernoulli" => follows(&["tablesample"]),
            b"repeatable" => before.kind == Kind::Close,
            b"insert" => follows(&["then"]),
            _ => false,
        }
    }

    fn is_pg_catalog(&self, token: Token) -> bool {
        token.is(self.text, "pg_catalog") || token.bytes(self.text) == b"\"pg_catalog\""
    }
}

/// Whether a name is that of a temporary schema: `pg_temp`, or `pg_temp_3` as some clients write.
pub(super) fn is_temporary_schema(text: &[u8], token: Token) -> bool {
    if !token.kind.is_name() {
        return false;
    }
    let quick = token.bytes(text).to_ascii_lowercase();
    let decoded = if token.kind == Kind::Word { None } else { literal::name(text, token) };
    let name = decoded.as_deref().map_or(quick.as_slice(), str::as_bytes);
    name.strip_prefix(b"pg_temp").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_"))
}

fn quoted_inside(bytes: &[u8]) -> &[u8] {
    bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default()
}
