//! The guard against its corpus (`tests/corpus/reading.txt`) and against random texts.

use crate::guard::lexer::{Kind, Lexer};
use crate::guard::{Command, Ordinary, Part, ReadOptions, Reading, SetValue, read};

const CORPUS: &str = include_str!("../../tests/corpus/reading.txt");

const ON: ReadOptions = ReadOptions { standard_conforming_strings: true };
const OFF: ReadOptions = ReadOptions { standard_conforming_strings: false };

/// A reading in the words of the corpus.
fn words(reading: &Reading) -> String {
    match reading {
        Reading::Ordinary(Ordinary { empty: true, .. }) => "empty".to_owned(),
        Reading::Ordinary(Ordinary { ends_transaction: true, .. }) => "ends".to_owned(),
        Reading::Ordinary(Ordinary { control: true, .. }) => "control".to_owned(),
        Reading::Ordinary(Ordinary { harmless: true, .. }) => "harmless".to_owned(),
        Reading::Ordinary(_) => "harmful".to_owned(),
        Reading::Refused { what, .. } => format!("refused: {what}"),
        Reading::Special(parts) => {
            parts.iter().map(|part| command_words(&part.command)).collect::<Vec<_>>().join(" ; ")
        }
    }
}

fn command_words(command: &Command) -> String {
    match command {
        Command::Other { harmless, touches, unknown_settings } => {
            let mut words = if *harmless { "harmless" } else { "harmful" }.to_owned();
            if !touches.is_empty() {
                words += &format!(" touches {}", touches.join(","));
            }
            words + if *unknown_settings { " unknown" } else { "" }
        }
        Command::Set { names, value, local } => {
            let local = if *local { "local " } else { "" };
            let value = match value {
                SetValue::Default => "default",
                SetValue::Text(text) => text,
                SetValue::Other => "*",
            };
            format!("set {local}{} = {value}", names.join(","))
        }
        Command::Reset { name } => format!("reset {name}"),
        Command::ResetAll => "reset all".to_owned(),
        Command::DiscardAll => "discard all".to_owned(),
        Command::DiscardPart => "discard part".to_owned(),
        Command::DeallocateAll => "deallocate all".to_owned(),
        Command::Deallocate { name } => format!("deallocate {name}"),
        Command::CloseAll => "close all".to_owned(),
        Command::UnlistenAll => "unlisten".to_owned(),
        Command::AdvisoryUnlockAll => "unlock all".to_owned(),
    }
}

fn cases() -> impl Iterator<Item = (&'static str, String, ReadOptions)> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (expected, text) = line.split_once(" ::").expect("reading :: text");
        let text = text.strip_prefix(' ').unwrap_or(text).replace('⏎', "\n");
        match expected.strip_prefix("[off] ") {
            Some(expected) => (expected, text, OFF),
            None => (expected, text, ON),
        }
    })
}

#[test]
fn every_line_of_the_corpus_reads_as_written() {
    let wrong: Vec<String> = cases()
        .filter_map(|(expected, text, options)| {
            let found = words(&read(text.as_bytes(), options));
            (found != expected).then(|| format!("{text:?}\n  want {expected}\n   got {found}"))
        })
        .collect();
    assert!(cases().count() >= 200);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parts_hold_the_bytes_of_their_statements_without_semicolons() {
    let text = "SELECT 1 ; /* x */ SET a.b = 'c;d' -- y\n;; RESET a.b";
    let Reading::Special(parts) = read(text.as_bytes(), ON) else { panic!("special") };
    let texts: Vec<&str> = parts.iter().map(|part| &text[part.range.clone()]).collect();
    assert_eq!(texts, ["SELECT 1", "SET a.b = 'c;d'", "RESET a.b"]);
}

#[test]
fn bytes_that_are_not_utf_8_are_read_like_letters() {
    let harmless = read(b"SELECT '\xe9', \xe9 FROM \"\xe9\"", ON);
    assert_eq!(words(&harmless), "harmless");
    assert_eq!(words(&read(b"SET a.b = '\xe9'", ON)), "set a.b = *");
    let refused = words(&read(b"SET a.\xe9 = 1", ON));
    assert_eq!(refused, "refused: a session command that cannot be read");
}

#[test]
fn depth_and_length_have_no_limit_that_hurts() {
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(words(&read(deep.as_bytes(), ON)), "harmful");
    let bodies = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;".repeat(20_000);
    assert_eq!(words(&read(bodies.as_bytes(), ON)), "harmful");
    let comments = format!("{}{}SELECT 1", "/*".repeat(100_000), "*/".repeat(100_000));
    assert_eq!(words(&read(comments.as_bytes(), ON)), "harmless");
}

/// Pieces that are dangerous next to each other.
const PIECES: [&str; 54] = [
    "'",
    "\"",
    "$",
    "$$",
    "$a$",
    "$1",
    "\\",
    "E'",
    "e'",
    "U&'",
    "u&\"",
    "N'",
    "B'",
    "X'",
    "--",
    "/*",
    "*/",
    "\n",
    " ",
    ";",
    "(",
    ")",
    ",",
    ".",
    "::",
    ":=",
    "=",
    "-",
    "+",
    "@",
    "*",
    "/",
    "a",
    "é",
    "1",
    "1.5e3",
    "0x1F",
    "UESCAPE",
    "SET",
    "RESET",
    "ALL",
    "SELECT",
    "WITH",
    "BEGIN",
    "ATOMIC",
    "END",
    "CREATE",
    "FUNCTION",
    "TEMP",
    "INTO",
    "set_config",
    "EXPLAIN",
    "\t",
    "\r",
];

fn random_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.usize(..24) {
        match random.u8(..8) {
            0 => text.push(random.u8(1..)),
            _ => text.extend(PIECES[random.usize(..PIECES.len())].bytes()),
        }
    }
    text
}

#[test]
fn random_texts_never_panic_and_parts_are_in_order_and_in_bounds() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..100_000 {
        let text = random_text(&mut random);
        for options in [ON, OFF] {
            let Reading::Special(parts) = read(&text, options) else { continue };
            let mut at = 0;
            for Part { range, .. } in &parts {
                assert!(at <= range.start && range.start < range.end, "{text:?}");
                assert!(range.end <= text.len(), "{text:?}");
                at = range.end;
            }
        }
    }
}

#[test]
fn tokens_cover_a_text_but_for_blanks_and_comments() {
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..100_000 {
        let text = random_text(&mut random);
        let mut at = 0;
        let mut readable = true;
        for token in Lexer::new(&text, true) {
            let Ok(token) = token else {
                readable = false;
                break;
            };
            let range = token.range();
            assert!(at <= range.start && range.start < range.end && range.end <= text.len());
            assert!(is_blank(&text[at..range.start]), "{text:?}");
            at = range.end;
        }
        assert!(!readable || is_blank(&text[at..]), "{text:?}");
    }
}

/// White space and comments read as nothing.
fn is_blank(gap: &[u8]) -> bool {
    Lexer::new(gap, true).next().is_none()
}

#[test]
fn a_token_knows_its_kind() {
    let text = br#"a "b" U&"c" 'd' E'e' U&'f' X'1' $$g$$ 1.5 $1 <= ( ) , . ; :: ["#;
    let kinds: Vec<Kind> = Lexer::new(text, true).map(|token| token.unwrap().kind).collect();
    let expected = [
        Kind::Word,
        Kind::QuotedName,
        Kind::UnicodeName,
        Kind::String,
        Kind::EscapeString,
        Kind::UnicodeString,
        Kind::BitString,
        Kind::DollarString,
        Kind::Number,
        Kind::Parameter,
        Kind::Operator,
        Kind::Open,
        Kind::Close,
        Kind::Comma,
        Kind::Dot,
        Kind::Semicolon,
        Kind::Cast,
        Kind::Mark,
    ];
    assert_eq!(kinds, expected);
}

#[test]
#[ignore = "prints figures; worth reading in release only"]
fn how_long_a_reading_takes() {
    let select = "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567890;".to_owned();
    let filter = (0..36).map(|n| format!("c.region_{n} = 'north'")).collect::<Vec<_>>();
    let long = format!("SELECT count(*) FROM customers c WHERE {}", filter.join(" OR "));
    let set = "SET LOCAL work_mem = '64MB'".to_owned();
    for text in [select, long, "COMMIT".to_owned(), set] {
        let rounds = 100_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(read(std::hint::black_box(text.as_bytes()), ON));
        }
        println!("{} bytes: {:?}", text.len(), start.elapsed() / rounds);
    }
}
