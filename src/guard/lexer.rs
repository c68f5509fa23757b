//! SQL tokens as PostgreSQL's own scanner reads them (`src/backend/parser/scan.l`, 15 to 18).
//! Blanks and comments are stepped over; what a run of tokens means is left to the other files.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// Something that starts and never ends: a string, a quoted name, a comment. The server answers
/// such a text with a syntax error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a name without quotes; compares without regard to ASCII case.
    Word,
    /// `"name"`.
    QuotedName,
    /// `U&"name"`, with its UESCAPE clause if it has one.
    UnicodeName,
    /// `'text'` in which a backslash is a character like any other; also `N'text'`.
    String,
    /// `E'text'`, and `'text'` when standard_conforming_strings is off.
    EscapeString,
    /// `U&'text'`, with its UESCAPE clause if it has one.
    UnicodeString,
    /// `B'0101'` or `X'1F'`.
    BitString,
    /// `$$text$$` or `$tag$text$tag$`.
    DollarString,
    Number,
    /// `$1`.
    Parameter,
    Operator,
    Open,
    Close,
    Comma,
    Dot,
    Semicolon,
    /// `::`.
    Cast,
    /// Any other single byte: `[`, `]`, `:` and what no statement may contain.
    Mark,
}

impl Kind {
    /// Whether the token can name something.
    pub fn is_name(self) -> bool {
        matches!(self, Self::Word | Self::QuotedName | Self::UnicodeName)
    }

    /// Whether the token is a string constant whose value is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::EscapeString | Self::UnicodeString | Self::DollarString)
    }
}

/// A token and where it lies. Positions are 32 bits wide so that a token travels in registers; no
/// message of the protocol is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    start: u32,
    end: u32,
}

impl Token {
    /// Its bytes' positions in the text.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Its length in bytes.
    #[inline]
    pub fn bytes_len(self) -> usize {
        self.range().len()
    }

    /// The token's bytes as they stand in the text it was read from.
    #[inline]
    pub fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }

    /// Whether the token is this word, given in lower case, without quotes.
    #[inline]
    pub fn is(self, text: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.bytes(text).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Steps over the tokens of a text in any client encoding whose bytes below 0x80 are ASCII.
/// After an [`Unreadable`] there is nothing more.
#[derive(Clone, Debug)]
pub struct Lexer<'text> {
    text: &'text [u8],
    at: usize,
    standard_conforming_strings: bool,
    /// Up to here there is nothing but `+` and `-`, each an operator by itself.
    signs_end: usize,
}

impl<'text> Lexer<'text> {
    pub fn new(text: &'text [u8], standard_conforming_strings: bool) -> Self {
        Self { text, at: 0, standard_conforming_strings, signs_end: 0 }
    }

    /// The text that is being read.
    pub fn text(&self) -> &'text [u8] {
        self.text
    }

    #[inline]
    fn token(&mut self) -> Result<Option<Token>, Unreadable> {
        let start = self.skip_blanks()?;
        let Some(byte) = self.peek(0) else { return Ok(None) };
        let kind = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word_or_prefixed()?,
            b'0'..=b'9' => self.number(),
            b'\'' => self.plain_string(0)?,
            b'"' => self.quoted_name(0)?,
            b'$' => self.dollar()?,
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            b':' if self.peek(1) == Some(b':') => self.take(2, Kind::Cast),
            b'(' => self.take(1, Kind::Open),
            b')' => self.take(1, Kind::Close),
            b',' => self.take(1, Kind::Comma),
            b'.' => self.take(1, Kind::Dot),
            b';' => self.take(1, Kind::Semicolon),
            _ if is_operator(byte) => self.operator(),
            _ => self.take(1, Kind::Mark),
        };
        let start = u32::try_from(start).map_err(|_| Unreadable)?;
        let end = u32::try_from(self.at).map_err(|_| Unreadable)?;
        Ok(Some(Token { kind, start, end }))
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        looks_at(1);
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self, ahead: usize) -> &'text [u8] {
        self.text.get(self.at + ahead..).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize, kind: Kind) -> Kind {
        self.at += bytes;
        kind
    }

    #[inline]
    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) {
        let rest = self.rest(0);
        let bytes = rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len());
        looks_at(bytes);
        self.at += bytes;
    }

    /// To the next token, over white space and comments; its position.
    #[inline]
    fn skip_blanks(&mut self) -> Result<usize, Unreadable> {
        loop {
            self.take_while(|byte| has(byte, BLANK));
            match self.peek(0) {
                Some(b'-' | b'/') if self.comment()? => {}
                _ => return Ok(self.at),
            }
        }
    }

    /// Steps over a comment if one begins here, and tells whether one did.
    fn comment(&mut self) -> Result<bool, Unreadable> {
        match (self.peek(0), self.peek(1)) {
            (Some(b'-'), Some(b'-')) => self.line_comment(),
            (Some(b'/'), Some(b'*')) => self.block_comment()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Steps to where something was found in the rest, or else to its end.
    #[inline]
    fn skip_to(&mut self, found: Option<usize>) -> Result<(), Unreadable> {
        let bytes = found.unwrap_or(self.rest(0).len());
        looks_at(bytes);
        self.at += bytes;
        found.map(drop).ok_or(Unreadable)
    }

    fn line_comment(&mut self) {
        // The text may end with it.
        let _ = self.skip_to(memchr2(b'\n', b'\r', self.rest(0)));
    }

    /// Block comments nest, unlike in the SQL standard's entry level.
    fn block_comment(&mut self) -> Result<(), Unreadable> {
        let mut depth = 1_usize;
        self.at += 2;
        while depth > 0 {
            self.skip_to(memchr2(b'*', b'/', self.rest(0)))?;
            match (self.peek(0), self.peek(1)) {
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    #[inline]
    fn word_or_prefixed(&mut self) -> Result<Kind, Unreadable> {
        if matches!(self.peek(1), Some(b'\'' | b'&')) {
            return self.prefixed();
        }
        self.take_while(is_name_byte);
        Ok(Kind::Word)
    }

    /// A constant with a letter before its quote, or a name that only looks like one so far.
    fn prefixed(&mut self) -> Result<Kind, Unreadable> {
        match (self.peek(0).unwrap_or_default(), self.peek(1)) {
            (b'e' | b'E', Some(b'\'')) => return self.escape_string(1),
            (b'n' | b'N', Some(b'\'')) => return self.plain_string(1),
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => {
                self.string(1, Kind::BitString)?;
                return Ok(Kind::BitString);
            }
            (b'u' | b'U', Some(b'&')) => match self.peek(2) {
                Some(b'\'') => return self.unicode_string(),
                Some(b'"') => return self.unicode_name(),
                _ => {}
            },
            _ => {}
        }
        self.take_while(is_name_byte);
        Ok(Kind::Word)
    }

    fn plain_string(&mut self, prefix: usize) -> Result<Kind, Unreadable> {
        if !self.standard_conforming_strings {
            return self.escape_string(prefix);
        }
        self.string(prefix, Kind::String)?;
        Ok(Kind::String)
    }

    fn escape_string(&mut self, prefix: usize) -> Result<Kind, Unreadable> {
        self.string(prefix, Kind::EscapeString)?;
        Ok(Kind::EscapeString)
    }

    /// With standard_conforming_strings off the server refuses these.
    fn unicode_string(&mut self) -> Result<Kind, Unreadable> {
        if !self.standard_conforming_strings {
            return Err(Unreadable);
        }
        self.string(2, Kind::UnicodeString)?;
        self.escape_clause()?;
        Ok(Kind::UnicodeString)
    }

    fn unicode_name(&mut self) -> Result<Kind, Unreadable> {
        self.quoted_name(2)?;
        self.escape_clause()?;
        Ok(Kind::UnicodeName)
    }

    /// A constant in single quotes after a prefix, with all the pieces that continue it.
    fn string(&mut self, prefix: usize, kind: Kind) -> Result<(), Unreadable> {
        self.at += prefix + 1;
        loop {
            self.skip_to_quote(kind)?;
            if self.peek(1) == Some(b'\'') && kind != Kind::BitString {
                self.at += 2;
                continue;
            }
            self.at += 1;
            match continued(self.text, self.at) {
                Some(at) => self.at = at,
                None => return Ok(()),
            }
        }
    }

    /// Over what stands before the next single quote that no backslash protects.
    fn skip_to_quote(&mut self, kind: Kind) -> Result<(), Unreadable> {
        if kind != Kind::EscapeString {
            return self.skip_to(memchr(b'\'', self.rest(0)));
        }
        loop {
            self.skip_to(memchr2(b'\'', b'\\', self.rest(0)))?;
            if self.peek(0) == Some(b'\'') {
                return Ok(());
            }
            self.at = (self.at + 2).min(self.text.len());
        }
    }

    fn quoted_name(&mut self, prefix: usize) -> Result<Kind, Unreadable> {
        self.at += prefix + 1;
        loop {
            self.skip_to(memchr(b'"', self.rest(0)))?;
            self.at += 1;
            if self.peek(0) != Some(b'"') {
                return Ok(Kind::QuotedName);
            }
            self.at += 1;
        }
    }

    /// The server's parser glues `UESCAPE 'c'` to the constant or name before it, and takes no
    /// constant there that could have such a clause itself: so this looks one word ahead, and
    /// never at a constant that is not part of the clause.
    fn escape_clause(&mut self) -> Result<(), Unreadable> {
        const UESCAPE: &[u8] = b"uescape";
        let mut ahead = self.clone();
        ahead.skip_blanks()?;
        let (word, after) = ahead.rest(0).split_at_checked(UESCAPE.len()).unwrap_or_default();
        let ends = after.first().is_none_or(|&next| !is_name_byte(next));
        if !(word.eq_ignore_ascii_case(UESCAPE) && ends) {
            return Ok(());
        }
        ahead.at += UESCAPE.len();
        ahead.skip_blanks()?;
        let constant = match (ahead.peek(0), ahead.peek(1)) {
            (Some(b'\''), _) => ahead.plain_string(0)?,
            (Some(b'e' | b'E'), Some(b'\'')) => ahead.escape_string(1)?,
            (Some(b'$'), _) => ahead.dollar()?,
            _ => return Err(Unreadable),
        };
        if !constant.is_text() {
            return Err(Unreadable);
        }
        self.at = ahead.at;
        Ok(())
    }

    /// A parameter, a dollar-quoted string, or a dollar sign that fits nowhere.
    fn dollar(&mut self) -> Result<Kind, Unreadable> {
        if self.peek(1).is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
            self.take_while(|byte| byte.is_ascii_digit());
            return Ok(Kind::Parameter);
        }
        let Some(tag) = dollar_tag(self.rest(0)) else { return Ok(self.take(1, Kind::Mark)) };
        self.at += tag.len();
        loop {
            self.skip_to(memchr(b'$', self.rest(0)))?;
            if self.rest(0).starts_with(tag) {
                return Ok(self.take(tag.len(), Kind::DollarString));
            }
            self.at += 1;
        }
    }

    /// Wider than the server's rule, which turns letters glued to digits into an error: no number
    /// can contain a quote, a parenthesis or a comment, so nothing can hide in one.
    fn number(&mut self) -> Kind {
        let radix = self.peek(0) == Some(b'0')
            && matches!(self.peek(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B'));
        self.take_while(|byte| byte.is_ascii_digit());
        let (mut point, mut before) = (false, 0);
        while let Some(byte) = self.peek(0) {
            let next = self.peek(1);
            let belongs = match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => true,
                b'.' if !point && !radix => next != Some(b'.'),
                b'+' | b'-' => {
                    !radix
                        && matches!(before, b'e' | b'E')
                        && next.is_some_and(|next| next.is_ascii_digit())
                }
                _ => false,
            };
            if !belongs {
                break;
            }
            point |= byte == b'.';
            before = byte;
            self.at += 1;
        }
        Kind::Number
    }

    /// A run of operator characters ends where a comment begins, and gives back `+` and `-` at
    /// its end unless a character makes it an operator that SQL itself does not have
    /// (PostgreSQL manual, 4.1.3): `=-1` is `=` and `-1`, `@-` is one operator.
    ///
    /// What is given back is not looked at again: the text may have nothing but `+` and `-`.
    fn operator(&mut self) -> Kind {
        if self.at < self.signs_end {
            return self.take(1, Kind::Operator);
        }
        let run = self.rest(0);
        let mut bytes = 0;
        let mut foreign = false;
        while let Some(&byte) = run.get(bytes) {
            let next = run.get(bytes + 1);
            let comment = matches!((byte, next), (b'-', Some(b'-')) | (b'/', Some(b'*')));
            if !is_operator(byte) || comment {
                break;
            }
            foreign |=
                matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
            bytes += 1;
        }
        looks_at(bytes);
        self.signs_end = self.at + bytes;
        while !foreign && bytes > 1 && matches!(run.get(bytes - 1), Some(b'+' | b'-')) {
            bytes -= 1;
        }
        self.take(bytes, Kind::Operator)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, Unreadable>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let token = self.token();
        if token.is_err() {
            self.at = self.text.len();
        }
        token.transpose()
    }
}

/// Where a string constant goes on, if one that closed just before `at` does: another quote after
/// white space with a line break in it, in which only `--` comments may stand (4.1.2.1).
pub(super) fn continued(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut broken = false;
    loop {
        looks_at(1);
        match text.get(at)? {
            b' ' | b'\t' | 0x0b | 0x0c => at += 1,
            b'\n' | b'\r' => {
                broken = true;
                at += 1;
            }
            b'-' if text.get(at + 1) == Some(&b'-') => {
                let rest = text.get(at..)?;
                let found = memchr2(b'\n', b'\r', rest);
                looks_at(found.unwrap_or(rest.len()));
                at += found?;
            }
            b'\'' if broken => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The opening `$tag$` of a dollar-quoted string.
fn dollar_tag(rest: &[u8]) -> Option<&[u8]> {
    let name = rest.get(1..)?;
    let found = name.iter().position(|&byte| byte == b'$' || !is_name_byte(byte));
    looks_at(found.unwrap_or(name.len()));
    let length = found?;
    let closed = name.get(length) == Some(&b'$');
    let starts_well = name.first().is_some_and(|first| !first.is_ascii_digit());
    if closed && starts_well { rest.get(..length + 2) } else { None }
}

/// Notes that so many bytes are looked at, for the tests that hold reading to be linear.
#[inline(always)]
pub(super) fn looks_at(bytes: usize) {
    #[cfg(test)]
    crate::guard::linear_tests::looks_at(bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

/// A byte that may stand in a name after the first.
#[inline]
fn is_name_byte(byte: u8) -> bool {
    has(byte, NAME)
}

#[inline]
fn is_operator(byte: u8) -> bool {
    has(byte, OPERATOR)
}

#[inline]
fn has(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

const NAME: u8 = 1;
const OPERATOR: u8 = 2;
const BLANK: u8 = 4;

/// What each byte can be part of; a table, for this is asked of nearly every byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | 0x80.. => NAME,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => BLANK,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' => OPERATOR,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        byte += 1;
    }
    classes
};
