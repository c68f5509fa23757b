//! Statements that consist only of calls of `set_config` and `current_setting`: drivers and
//! pg_dump send them, and the revoke pack takes the former from everybody.

use std::ops::Range;

use crate::guard::ReadOptions;
use crate::guard::lexer::{Kind, Lexer, Token};

/// Where such a statement, or the PREPARE of one, names `set_config`, with its schema if it has
/// one, in order; `None` for any other. A name in quotes, and a call inside another, make it
/// another one.
pub fn set_config_calls(text: &[u8], options: ReadOptions) -> Option<Vec<Range<usize>>> {
    let mut rest = Rest::new(text, options);
    if rest.word("prepare").is_some() {
        rest.prepared_name()?;
    }
    rest.word("select")?;
    let mut calls = Vec::new();
    loop {
        let first = rest.first?;
        if rest.word("pg_catalog").is_some() {
            rest.kind(Kind::Dot)?;
        }
        let name = rest.first?;
        if rest.word("set_config").is_some() {
            calls.push(first.range().start..name.range().end);
        } else {
            rest.word("current_setting")?;
        }
        rest.arguments()?;
        rest.alias()?;
        match rest.kind(Kind::Comma) {
            Some(()) => {}
            None => break,
        }
    }
    if rest.first.is_some() {
        rest.view()?;
    }
    (rest.is_over() && !calls.is_empty()).then_some(calls)
}

/// Tokens that were not looked at yet: none is kept but the first.
struct Rest<'text> {
    text: &'text [u8],
    lexer: Lexer<'text>,
    first: Option<Token>,
    unreadable: bool,
}

impl<'text> Rest<'text> {
    fn new(text: &'text [u8], options: ReadOptions) -> Self {
        let lexer = Lexer::new(text, options.standard_conforming_strings);
        let mut rest = Self { text, lexer, first: None, unreadable: false };
        rest.advance();
        rest
    }

    fn advance(&mut self) {
        let next = self.lexer.next();
        self.unreadable |= matches!(next, Some(Err(_)));
        self.first = next.and_then(Result::ok);
    }

    /// Whether all of the text was looked at.
    fn is_over(&self) -> bool {
        self.first.is_none() && !self.unreadable
    }

    fn step(&mut self, is: bool) -> Option<()> {
        self.first.filter(|_| is)?;
        self.advance();
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is = self.first?.is(self.text, word);
        self.step(is)
    }

    fn kind(&mut self, kind: Kind) -> Option<()> {
        let is = self.first?.kind == kind;
        self.step(is)
    }

    /// `name [(types)] AS`, behind PREPARE.
    fn prepared_name(&mut self) -> Option<()> {
        let named = self.first?.kind.is_name();
        self.step(named)?;
        if self.first?.kind == Kind::Open {
            self.arguments()?;
        }
        self.word("as")
    }

    /// Parentheses and what is between them.
    fn arguments(&mut self) -> Option<()> {
        self.kind(Kind::Open)?;
        let mut depth = 1_usize;
        while depth > 0 {
            let token = self.first?;
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                Kind::Semicolon => return None,
                _ if token.is(self.text, "set_config") => return None,
                _ => {}
            }
            self.step(true)?;
        }
        Some(())
    }

    /// `AS name`, if it is there.
    fn alias(&mut self) -> Option<()> {
        if self.word("as").is_none() {
            return Some(());
        }
        let named = self.first?.kind.is_name();
        self.step(named)
    }

    /// `FROM pg_settings WHERE name = 'setting'`, as pg_dump writes.
    fn view(&mut self) -> Option<()> {
        for word in ["from", "pg_settings", "where", "name"] {
            self.word(word)?;
        }
        let equals = self.first?.bytes(self.text) == b"=";
        self.step(equals)?;
        let value = self.first?.kind.is_text();
        self.step(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Watch;

    fn calls(text: &str) -> Option<Vec<&str>> {
        let options = ReadOptions { standard_conforming_strings: true, watch: Watch::Row };
        let found = set_config_calls(text.as_bytes(), options)?;
        Some(found.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn statements_of_nothing_but_such_calls_are_known() {
        let dump = "SELECT pg_catalog.set_config('search_path', '', false)";
        assert_eq!(calls(dump), Some(vec!["pg_catalog.set_config"]));
        let asyncpg = "SELECT current_setting('jit') AS cur, set_config('jit', $1, false) AS new";
        assert_eq!(calls(asyncpg), Some(vec!["set_config"]));
        let two = "select SET_CONFIG('a', upper('b'), true), pg_catalog . set_config($1, $2, true)";
        assert_eq!(calls(two), Some(vec!["SET_CONFIG", "pg_catalog . set_config"]));
        let prepared = "PREPARE \"P\" (text, numeric(1, 0)) AS SELECT set_config('a', $1, false)";
        assert_eq!(calls(prepared), Some(vec!["set_config"]));
        assert_eq!(calls("prepare p as select set_config('a', 'b', true)").unwrap().len(), 1);
        let view = "SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'x'";
        assert_eq!(calls(view), Some(vec!["set_config"]));
    }

    #[test]
    fn any_other_statement_is_left_as_it_is() {
        let others = [
            "SELECT current_setting('jit')",
            "SELECT set_config('a', 'b', true) FROM t",
            "SELECT set_config('a', set_config('b', 'c', true), true)",
            "SELECT 1, set_config('a', 'b', true)",
            "SELECT public.set_config('a', 'b', true)",
            "SELECT \"set_config\"('a', 'b', true)",
            "SELECT set_config('a', 'b', true) || 'x'",
            "SELECT set_config('a', 'b', true); SELECT 1",
            "SELECT set_config('a', 'b', true",
            "SELECT set_config",
            "PREPARE p SELECT set_config('a', 'b', true)",
            "PREPARE p AS PREPARE q AS SELECT set_config('a', 'b', true)",
            "EXECUTE p(set_config('a', 'b', true))",
            "INSERT INTO t SELECT set_config('a', 'b', true)",
            "",
        ];
        for other in others {
            assert_eq!(calls(other), None, "{other}");
        }
    }
}
