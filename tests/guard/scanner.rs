//! The lexer against PostgreSQL's own scanner, on texts made of pieces that are dangerous next to
//! each other. The scanner is reached through PL/pgSQL: it reads the condition of a WHILE with the
//! core scanner, whatever tokens stand there, up to LOOP, and says where the first semicolon or
//! the first parenthesis too many is. Nothing is run.

use tenantgate::guard::{Kind, Lexer};

use crate::harness::cluster::{shared, superuser};
use crate::harness::messages::{Frame, frame};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::harness::unique;
use crate::harness::wire::{Login, Wire};

/// Texts in one run of the suite, and the seed of the first; a million others are
/// `TENANTGATE_SCAN_COUNT=1000000 TENANTGATE_SCAN_SEED=5 cargo test --test main scanner`.
const COUNT: u64 = 250_000;
const SEED: u64 = 1;

/// Texts on their way at once.
const FLIGHT: u64 = 250;

/// What is in front of a text and behind it. The line break ends a comment.
const HEAD: &str = "DO $tgoracle$BEGIN RETURN; WHILE 1 ";
const TAIL: &str = "\n LOOP END LOOP; END$tgoracle$";

const PIECES: [&str; 92] = [
    "'",
    "'",
    "''",
    "\"",
    "\"\"",
    "$",
    "$$",
    "$$",
    "$a$",
    "$a$",
    "$A$",
    "$é$",
    "$1",
    "$1a",
    "$0$",
    "a$b$",
    "\\",
    "\\'",
    "\\\\",
    "E'",
    "e'",
    "U&'",
    "u&\"",
    "U&\"",
    "U &'",
    "N'",
    "n'",
    "B'",
    "X'",
    "xE'",
    "é'",
    "_'",
    "1'",
    "--",
    "--",
    "---",
    "/*",
    "/*",
    "*/",
    "*/",
    "//",
    "/**/",
    "*/*",
    "@--",
    "+-",
    "-+",
    "<--",
    "|/*",
    "!",
    "?",
    "\n",
    "\n",
    "\r",
    "\t",
    "\u{b}",
    "\u{c}",
    " ",
    " ",
    ";",
    ";",
    ";",
    "(",
    ")",
    "[",
    "]",
    "{",
    ",",
    ".",
    "..",
    "::",
    ":=",
    "=>",
    "=",
    "-",
    "+",
    "*",
    "a",
    "Z",
    "é",
    "\u{a0}",
    "\u{feff}",
    "1",
    "1.5e3",
    "1e",
    "1..2",
    "0x1F",
    "1_0",
    ".5",
    "UESCAPE '!'",
    "SET",
    "SELECT",
    "\u{1}",
];

fn text(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = Vec::new();
    for _ in 0..random.usize(1..20) {
        match random.u8(..16) {
            0 => text.push(random.u8(1..)),
            _ => text.extend(PIECES[random.usize(..PIECES.len())].bytes()),
        }
    }
    text
}

/// The first thing in a text that PL/pgSQL would stumble over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Nothing: every parenthesis is closed, and there is no semicolon.
    Nothing,
    Semicolon(usize),
    /// A parenthesis or bracket closes what was never opened.
    Unbalanced(usize),
    /// At the end of the text some are open.
    Open,
    /// A quote or comment without end.
    Unreadable,
    /// A token that only a syntax error can come of, at this place.
    Refused(Option<usize>),
}

fn ours(text: &[u8], standard_conforming_strings: bool) -> Event {
    let mut depth = 0_usize;
    for token in Lexer::new(text, standard_conforming_strings) {
        let Ok(token) = token else { return Event::Unreadable };
        let at = token.range().start;
        match (token.kind, token.bytes(text)) {
            (Kind::Open, _) | (Kind::Mark, b"[") => depth += 1,
            (Kind::Close, _) | (Kind::Mark, b"]") => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Event::Unbalanced(at),
            },
            (Kind::Semicolon, _) => return Event::Semicolon(at),
            _ => {}
        }
    }
    if depth == 0 { Event::Nothing } else { Event::Open }
}

fn theirs(text: &[u8], frames: &[Frame]) -> Event {
    let Some(error) = frames.iter().find(|frame| frame.tag == b'E') else { return Event::Nothing };
    let message = error.field('M').unwrap_or_default();
    let position = |letter| error.field(letter).and_then(|at| at.parse::<usize>().ok());
    if message.starts_with("invalid byte sequence") {
        // An escape in a string that stands for no character: the server does not say where.
        return Event::Refused(None);
    }
    // In the whole statement, or in the body of the block.
    let inner = HEAD.find("BEGIN").unwrap();
    let at = position('P').or_else(|| position('p').map(|at| at + inner));
    let at = at.unwrap_or_else(|| panic!("no position: {error:?}")).checked_sub(HEAD.len() + 1);
    let at = at.unwrap_or_else(|| panic!("before the text: {error:?}"));
    match message.as_str() {
        _ if message.starts_with("unterminated") => Event::Unreadable,
        _ if message.starts_with("missing \"LOOP\" at end") && at < text.len() => {
            Event::Semicolon(at)
        }
        _ if message.starts_with("mismatched parentheses") => match text.get(at) {
            None => Event::Open,
            Some(b';') => Event::Semicolon(at),
            Some(_) => Event::Unbalanced(at),
        },
        _ if REFUSALS.iter().any(|refusal| message.starts_with(refusal)) => {
            Event::Refused(Some(at))
        }
        _ => panic!("{:?}: {error:?}", String::from_utf8_lossy(text)),
    }
}

/// What the scanner itself refuses.
const REFUSALS: [&str; 11] = [
    "trailing junk after",
    "invalid hexadecimal integer",
    "invalid octal integer",
    "invalid binary integer",
    "zero-length delimited identifier",
    "invalid Unicode escape",
    "invalid Unicode surrogate pair",
    "unsafe use of",
    "operator too long",
    "parameter number too large",
    "invalid hexadecimal digit",
];

/// A text the server refuses at a token of ours, before what we found, is read alike: nothing of it
/// will ever run.
fn agree(text: &[u8], standard_conforming_strings: bool, ours: Event, theirs: Event) -> bool {
    let Event::Refused(at) = theirs else { return ours == theirs };
    let Some(at) = at else { return true };
    let before = match ours {
        Event::Semicolon(found) | Event::Unbalanced(found) => at < found,
        Event::Nothing | Event::Open | Event::Unreadable | Event::Refused(_) => true,
    };
    let mut tokens = Lexer::new(text, standard_conforming_strings);
    let inside = tokens.any(|token| match token {
        Ok(token) => token.range().contains(&at),
        // Its beginning is all that is known of a token that has no end.
        Err(_) => true,
    });
    before && inside
}

#[tokio::test]
async fn the_lexer_reads_as_postgresql_does() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (count, first) =
        (number("TENANTGATE_SCAN_COUNT", COUNT), number("TENANTGATE_SCAN_SEED", SEED));
    println!("{count} texts from seed {first}");
    let scanner = format!("scanner_{}", unique());
    // Without an encoding every byte goes, and positions count bytes.
    let admin = superuser(shared().await, "postgres").await;
    for sql in [
        format!("CREATE ROLE {scanner} LOGIN PASSWORD '{LOGIN_PASSWORD}'"),
        format!("CREATE DATABASE {scanner} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"),
    ] {
        admin.batch_execute(&sql).await.unwrap();
    }
    let mut seen = [0_u64; 6];
    for standard_conforming_strings in [true, false] {
        let mut wire = reader(&scanner, standard_conforming_strings).await;
        let half = count.div_ceil(2);
        let seeds = first.wrapping_mul(1 << 32)..first.wrapping_mul(1 << 32) + half;
        let mut start = seeds.start;
        while start < seeds.end {
            let end = seeds.end.min(start + FLIGHT);
            let texts: Vec<Vec<u8>> = (start..end).map(text).filter(|it| is_usable(it)).collect();
            wire.send(texts.iter().flat_map(|text| question(text)).collect::<Vec<u8>>()).await;
            for text in &texts {
                let theirs = theirs(text, &wire.until_ready().await);
                let ours = ours(text, standard_conforming_strings);
                let shown = String::from_utf8_lossy(text);
                assert!(
                    agree(text, standard_conforming_strings, ours, theirs),
                    "{shown:?} {standard_conforming_strings}: {ours:?}, the server {theirs:?}"
                );
                let kind = match theirs {
                    Event::Nothing => 0,
                    Event::Semicolon(_) => 1,
                    Event::Unbalanced(_) => 2,
                    Event::Open => 3,
                    Event::Unreadable => 4,
                    Event::Refused(_) => 5,
                };
                seen[kind] += 1;
            }
            start = end;
        }
    }
    println!("nothing, semicolon, unbalanced, open, unreadable, refused: {seen:?}");
    let total: u64 = seen.iter().sum();
    assert!(total > count * 9 / 10, "{seen:?}");
    assert!(seen.iter().all(|kind| *kind > count / 100), "every outcome is met: {seen:?}");
}

/// A server connection that reads texts this way, and does not read SQL for PL/pgSQL's sake.
async fn reader(name: &str, standard_conforming_strings: bool) -> Wire {
    let login = Login { user: name, dbname: name, password: LOGIN_PASSWORD, more: &[] };
    let mut wire = Wire::login(shared().await.port(), &login).await;
    let settings = format!(
        "SET check_function_bodies = off; SET escape_string_warning = off;
         SET client_encoding = 'SQL_ASCII';
         SET standard_conforming_strings = {standard_conforming_strings}"
    );
    let said = wire.query(&settings).await;
    assert!(!said.contains("E("), "{said}");
    wire
}

fn question(text: &[u8]) -> Vec<u8> {
    frame(b'Q', &[HEAD.as_bytes(), text, TAIL.as_bytes(), b"\0"].concat())
}

/// Not the words that would end what stands around it.
fn is_usable(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    let holds = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    !holds(b"loop") && !holds(b"$tgoracle$")
}
