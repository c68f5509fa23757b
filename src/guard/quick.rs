//! The short way through the texts that applications send most: one query made of words, names,
//! numbers and plain strings, or one word that begins or ends a transaction. It says what the
//! long way would say, or nothing; `tests.rs` holds the two against each other.

use crate::guard::lexer::continued;
use crate::guard::{Ordinary, ReadOptions, Suspicion, allow};

/// Reads a text whose every token is of a kind that can do nothing to the session; `None` sends
/// it the long way, whatever the reason.
pub(super) fn read(text: &[u8], options: ReadOptions) -> Option<Ordinary> {
    let mut scan = Scan {
        text,
        at: 0,
        plain_strings: options.standard_conforming_strings,
        depth: 0,
        before: Before::Name,
        name: 0,
        qualified: false,
        behind: Before::Other,
        word_before: 0,
        harmless: true,
    };
    while class(scan.peek()?) == Class::Blank {
        scan.at += 1;
    }
    match scan.first_word()? {
        SELECT | UPDATE | DELETE | VALUES => {}
        INSERT => scan.insert_into()?,
        BEGIN => return scan.control(false),
        COMMIT | ROLLBACK | END | ABORT => return scan.control(true),
        _ => return None,
    }
    scan.query()
}

/// The letters of a word of up to eight bytes without regard to case. Of the bytes a word is made
/// of, only the two cases of a letter fold to that letter.
const fn key(word: &[u8]) -> u64 {
    let (mut key, mut at) = (0, 0);
    while at < word.len() {
        key = key << 8 | (word[at] | 0x20) as u64;
        at += 1;
    }
    key
}

const SELECT: u64 = key(b"select");
const INSERT: u64 = key(b"insert");
const UPDATE: u64 = key(b"update");
const DELETE: u64 = key(b"delete");
const VALUES: u64 = key(b"values");
const BEGIN: u64 = key(b"begin");
const COMMIT: u64 = key(b"commit");
const ROLLBACK: u64 = key(b"rollback");
const END: u64 = key(b"end");
const ABORT: u64 = key(b"abort");
const INTO: u64 = key(b"into");
const WITH: u64 = key(b"with");

/// The longest word before a parenthesis that `allow.rs` knows.
const KNOWN_BYTES_MAX: usize = 34;

/// The most parentheses the long way looks into.
const DEPTH_MAX: u32 = 64;

/// What the last token was, as far as the next one depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Name,
    QuotedName,
    Into,
    Dot,
    Open,
    /// A comma or an operator, no cast.
    Sign,
    Other,
}

struct Scan<'text> {
    text: &'text [u8],
    at: usize,
    plain_strings: bool,
    depth: u32,
    before: Before,
    /// Where the last word begins.
    name: usize,
    /// The last name has a dot before it.
    qualified: bool,
    /// What stood before the last name and its dots.
    behind: Before,
    /// If that was a word, where it begins.
    word_before: usize,
    harmless: bool,
}

impl Scan<'_> {
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Steps over a word.
    #[inline(always)]
    fn word(&mut self) -> Option<&[u8]> {
        let rest = self.text.get(self.at..)?;
        let mut bytes = 1;
        while rest.get(bytes).is_some_and(|&byte| is_name_byte(byte)) {
            bytes += 1;
        }
        if bytes == 1 && matches!(rest.get(1), Some(b'\'' | b'&')) {
            // E'…', U&"…" and their like.
            return None;
        }
        self.name = self.at;
        self.at += bytes;
        rest.get(..bytes)
    }

    fn first_word(&mut self) -> Option<u64> {
        if class(self.peek()?) != Class::Word {
            return None;
        }
        self.word().filter(|word| word.len() <= 8).map(key)
    }

    /// The INTO of an INSERT, which names no new table.
    fn insert_into(&mut self) -> Option<()> {
        while class(self.peek()?) == Class::Blank {
            self.at += 1;
        }
        if self.first_word()? != INTO {
            return None;
        }
        self.before = Before::Into;
        Some(())
    }

    /// The end of a statement that is only its first word.
    fn control(&mut self, ends_transaction: bool) -> Option<Ordinary> {
        self.only_blanks()?;
        let (harmless, empty, control, suspicion) = (true, false, true, Suspicion::None);
        Some(Ordinary { harmless, empty, ends_transaction, control, suspicion })
    }

    fn only_blanks(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.iter().all(|&byte| byte == b';' || class(byte) == Class::Blank).then_some(())
    }

    #[inline(always)]
    fn query(&mut self) -> Option<Ordinary> {
        while let Some(byte) = self.peek() {
            match class(byte) {
                Class::Blank => self.at += 1,
                Class::Word => self.plain_word()?,
                Class::Digit => self.number()?,
                Class::Comma | Class::Operator => {
                    self.at += 1;
                    self.before = Before::Sign;
                }
                Class::Colon => self.other(1),
                Class::Open => self.open()?,
                Class::Close => {
                    self.depth = self.depth.checked_sub(1)?;
                    self.other(1);
                }
                Class::Dot => self.dot()?,
                Class::Quote => self.string()?,
                Class::DoubleQuote => self.quoted_name()?,
                Class::Dollar => self.parameter()?,
                Class::Minus | Class::Slash => self.operator_or_comment(byte)?,
                Class::Semicolon if self.depth == 0 => {
                    self.only_blanks()?;
                    break;
                }
                Class::Semicolon | Class::Stop => return None,
            }
        }
        let (empty, ends_transaction, control) = (false, false, false);
        let (harmless, suspicion) = (self.harmless, Suspicion::None);
        let read = Ordinary { harmless, empty, ends_transaction, control, suspicion };
        (self.depth == 0).then_some(read)
    }

    #[inline(always)]
    fn other(&mut self, bytes: usize) {
        self.at += bytes;
        self.before = Before::Other;
    }

    #[inline(always)]
    fn plain_word(&mut self) -> Option<()> {
        let opened = self.before == Before::Open;
        let last = self.name;
        let word = self.word()?;
        // An UPDATE of pg_settings is set_config by another name; the list of statements is the
        // session's.
        let matters = match word.len() {
            4 => key(word) == INTO || (opened && key(word) == WITH),
            11 => word.eq_ignore_ascii_case(b"pg_settings"),
            21 => word.eq_ignore_ascii_case(b"pg_prepared_statement"),
            22 => word.eq_ignore_ascii_case(b"pg_prepared_statements"),
            _ => false,
        };
        self.named(last, Before::Name);
        (!matters).then_some(())
    }

    #[inline(always)]
    fn named(&mut self, word_before: usize, kind: Before) {
        self.qualified = self.before == Before::Dot;
        if !self.qualified {
            self.behind = self.before;
            self.word_before = word_before;
        }
        self.before = kind;
    }

    fn open(&mut self) -> Option<()> {
        match self.before {
            // The columns of what stands behind INTO.
            Before::Name | Before::QuotedName if self.behind == Before::Into => {}
            Before::Name => self.called()?,
            Before::QuotedName | Before::Into => return None,
            Before::Dot | Before::Open | Before::Sign | Before::Other => {}
        }
        self.depth += 1;
        self.at += 1;
        self.before = Before::Open;
        (self.depth <= DEPTH_MAX).then_some(())
    }

    fn called(&mut self) -> Option<()> {
        let word = self.word_at(self.name);
        let mut lowered = [0; KNOWN_BYTES_MAX];
        let lowered = lowered.get_mut(..word.len())?;
        for (to, from) in lowered.iter_mut().zip(word) {
            *to = from.to_ascii_lowercase();
        }
        if !self.qualified && (allow::is_construct(lowered) || allow::is_harmless_function(lowered))
        {
            return Some(());
        }
        // A function of somebody's own, if it stands where only a function can.
        let follows = match self.behind {
            Before::Open | Before::Sign => true,
            Before::Name => !self.is_behind_name_of_its_own(),
            Before::QuotedName | Before::Into | Before::Dot | Before::Other => false,
        };
        let own = follows && !self.qualified && !allow::concerns_session(lowered);
        self.harmless &= !own;
        own.then_some(())
    }

    /// The word that begins here, looked at again because few are.
    fn word_at(&self, start: usize) -> &[u8] {
        let rest = self.text.get(start..).unwrap_or_default();
        let bytes = rest.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(rest.len());
        rest.get(..bytes).unwrap_or_default()
    }

    /// Whether the word before the last name makes that name something that is not called.
    fn is_behind_name_of_its_own(&self) -> bool {
        let word = self.word_at(self.word_before);
        let words: [&[u8]; 9] = [
            b"as",
            b"with",
            b"recursive",
            b"copy",
            b"not",
            b"on",
            b"grouping",
            b"tablesample",
            b"then",
        ];
        words.iter().any(|own| word.eq_ignore_ascii_case(own))
    }

    #[inline(always)]
    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// `1`, `1.`, `1.5`; what has letters in it goes the long way.
    #[inline(always)]
    fn number(&mut self) -> Option<()> {
        self.digits();
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits();
        }
        self.ends_number()
    }

    fn parameter(&mut self) -> Option<()> {
        self.at += 1;
        self.peek().filter(u8::is_ascii_digit)?;
        self.digits();
        self.ends_number()
    }

    #[inline(always)]
    fn ends_number(&mut self) -> Option<()> {
        self.before = Before::Other;
        match self.peek() {
            Some(b'.') => None,
            Some(byte) if is_name_byte(byte) => None,
            _ => Some(()),
        }
    }

    fn dot(&mut self) -> Option<()> {
        self.at += 1;
        self.before = Before::Dot;
        self.peek().is_none_or(|byte| !byte.is_ascii_digit()).then_some(())
    }

    /// From a quote to behind the next one like it.
    #[inline(always)]
    fn quoted(&mut self, quote: u8) -> Option<()> {
        let rest = self.text.get(self.at + 1..)?;
        self.at += rest.iter().position(|&byte| byte == quote)? + 2;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        if !self.plain_strings {
            return None;
        }
        self.quoted(b'\'')?;
        while self.peek() == Some(b'\'') {
            // A quote that stands for itself.
            self.quoted(b'\'')?;
        }
        self.before = Before::Other;
        continued(self.text, self.at).is_none().then_some(())
    }

    fn quoted_name(&mut self) -> Option<()> {
        let start = self.at;
        self.quoted(b'"')?;
        if self.peek() == Some(b'"') {
            return None;
        }
        let name = self.text.get(start..self.at)?;
        self.named(0, Before::QuotedName);
        let matters = name == b"\"pg_settings\"" || name.starts_with(b"\"pg_prepared_statement");
        (!matters).then_some(())
    }

    fn operator_or_comment(&mut self, byte: u8) -> Option<()> {
        match (byte, self.text.get(self.at + 1)) {
            (b'-', Some(b'-')) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let line = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                self.at += line.unwrap_or(rest.len());
            }
            (b'/', Some(b'*')) => {
                self.at += 2;
                loop {
                    match (self.peek()?, self.text.get(self.at + 1)) {
                        (b'*', Some(b'/')) => break self.at += 2,
                        (b'/', Some(b'*')) => return None,
                        _ => self.at += 1,
                    }
                }
            }
            _ => {
                self.at += 1;
                self.before = Before::Sign;
            }
        }
        Some(())
    }
}

/// What a byte begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Digit,
    Dollar,
    Stop,
    Blank,
    Comma,
    Operator,
    Colon,
    Open,
    Close,
    Dot,
    Quote,
    DoubleQuote,
    Minus,
    Slash,
    Semicolon,
}

#[inline(always)]
fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Stop)
}

#[inline(always)]
fn is_name_byte(byte: u8) -> bool {
    matches!(class(byte), Class::Word | Class::Digit | Class::Dollar)
}

/// One look at a table tells what to do with a byte. Brackets go with colons: what they mean is
/// nothing to the session.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Stop; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Blank,
            b',' => Class::Comma,
            b'(' => Class::Open,
            b')' => Class::Close,
            b'.' => Class::Dot,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'-' => Class::Minus,
            b'/' => Class::Slash,
            b';' => Class::Semicolon,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' => Class::Operator,
            b'+' | b'*' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            b'[' | b']' | b':' => Class::Colon,
            _ => Class::Stop,
        };
        byte += 1;
    }
    classes
};
