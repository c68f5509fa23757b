//! Walks a text token by token and statement by statement: knows semicolons and parentheses,
//! and nothing of what statements mean.

use crate::guard::denial::{Denial, Denials, Watch};
use crate::guard::lexer::{Kind, Lexer, Token, Unreadable};
use crate::guard::rules::Rule;
use crate::guard::{ReadOptions, Suspicion};

/// Why reading stopped before the end of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Unreadable,
    Refused(Rule),
}

impl From<Unreadable> for Stop {
    fn from(Unreadable: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// A place in a text.
pub(super) struct Cursor<'text> {
    lexer: Lexer<'text>,
    depth: usize,
    /// The current statement has met its semicolon, or none has begun.
    ended: bool,
    /// The end of the last token that belongs to a statement.
    last_end: usize,
    watch: Watch,
    denied: Denials,
    suspicion: Suspicion,
}

impl<'text> Cursor<'text> {
    pub(super) fn new(text: &'text [u8], options: ReadOptions) -> Self {
        let lexer = Lexer::new(text, options.standard_conforming_strings);
        let (watch, denied) = (options.watch, Denials::NONE);
        let suspicion = Suspicion::None;
        Self { lexer, depth: 0, ended: true, last_end: 0, watch, denied, suspicion }
    }

    pub(super) fn text(&self) -> &'text [u8] {
        self.lexer.text()
    }

    /// How many parentheses are open.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn last_end(&self) -> usize {
        self.last_end
    }

    /// The first token of the next statement that has one.
    pub(super) fn begin(&mut self) -> Result<Option<Token>, Stop> {
        loop {
            self.ended = false;
            if let Some(token) = self.next()? {
                return Ok(Some(token));
            }
            if !self.ended {
                return Ok(None);
            }
        }
    }

    /// The next token of the current statement. A semicolon ends a statement only outside
    /// parentheses: CREATE RULE may have several statements inside.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Token>, Stop> {
        if self.ended {
            return Ok(None);
        }
        let Some(token) = self.lexer.next().transpose()? else {
            return if self.depth == 0 { Ok(None) } else { Err(Stop::Unreadable) };
        };
        match token.kind {
            Kind::Open => self.depth += 1,
            Kind::Close => self.depth = self.depth.checked_sub(1).ok_or(Stop::Unreadable)?,
            Kind::Semicolon if self.depth == 0 => {
                self.ended = true;
                return Ok(None);
            }
            _ => {}
        }
        self.last_end = token.range().end;
        Ok(Some(token))
    }

    /// The tokens after this place, if there are and they can be read.
    pub(super) fn ahead<const COUNT: usize>(&self) -> [Option<Token>; COUNT] {
        let Some(mut lexer) = self.lexer_ahead() else { return [None; COUNT] };
        std::array::from_fn(|_| lexer.next().and_then(Result::ok))
    }

    /// The same one by one, for who looks no further than it must: the text may ask to be looked
    /// at so at every other token.
    pub(super) fn lexer_ahead(&self) -> Option<Lexer<'text>> {
        (!self.ended).then(|| self.lexer.clone())
    }

    /// Notes that the current statement falls under a rule, if the rule is for this tenant.
    pub(super) fn deny(&mut self, rule: Denial) {
        if rule.is_for(self.watch) {
            self.denied.add(rule);
        }
    }

    /// The same for rules that were found to be.
    pub(super) fn deny_all(&mut self, rules: Denials) {
        self.denied = self.denied.with(rules);
    }

    /// The rules the statement was found to fall under.
    pub(super) fn take_denied(&mut self) -> Denials {
        std::mem::take(&mut self.denied)
    }

    /// Notes that the current statement may make something that stays with the server.
    pub(super) fn suspect(&mut self, suspicion: Suspicion) {
        self.suspicion = self.suspicion.max(suspicion);
    }

    /// What the statement was found to make.
    pub(super) fn take_suspicion(&mut self) -> Suspicion {
        std::mem::take(&mut self.suspicion)
    }

    /// Steps over the rest of the statement.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        while self.next()?.is_some() {}
        Ok(())
    }
}
