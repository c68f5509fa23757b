//! The guard against its corpus (`tests/corpus/reading.txt`) and against random texts.

use crate::guard::lexer::{Kind, Lexer};
use crate::guard::{
    Command, Denial, Ordinary, Part, ReadOptions, Reading, SetValue, Suspicion, Watch, quick, read,
    read_on,
};

const CORPUS: &str = include_str!("../../tests/corpus/reading.txt");

const ON: ReadOptions = ReadOptions { standard_conforming_strings: true, watch: Watch::Off };
const OFF: ReadOptions = ReadOptions { standard_conforming_strings: false, watch: Watch::Off };

/// A reading in the words of the corpus.
fn words(reading: &Reading) -> String {
    match reading {
        Reading::Ordinary(Ordinary { empty: true, .. }) => "empty".to_owned(),
        Reading::Ordinary(Ordinary { ends_transaction: true, .. }) => "ends".to_owned(),
        Reading::Ordinary(Ordinary { control: true, .. }) => "control".to_owned(),
        Reading::Ordinary(Ordinary { harmless: true, .. }) => "harmless".to_owned(),
        Reading::Ordinary(Ordinary { suspicion, .. }) => match suspicion {
            Suspicion::None | Suspicion::Release => "harmful".to_owned(),
            Suspicion::Some => "suspect".to_owned(),
            Suspicion::Lock => "locks".to_owned(),
        },
        Reading::Refused { what, .. } => format!("refused: {what}"),
        Reading::Special(parts) => {
            let words = |part: &Part| {
                let suspicion = match part.suspicion {
                    Suspicion::None | Suspicion::Release => "",
                    Suspicion::Some => " suspect",
                    Suspicion::Lock => " locks",
                };
                command_words(&part.command) + suspicion
            };
            parts.iter().map(words).collect::<Vec<_>>().join(" ; ")
        }
    }
}

fn command_words(command: &Command) -> String {
    match command {
        Command::Other { harmless, touches, unknown_settings, lists_prepared } => {
            let mut words = if *harmless { "harmless" } else { "harmful" }.to_owned();
            if !touches.is_empty() {
                let names: Vec<&str> = touches.iter().map(|touch| touch.name.as_str()).collect();
                words += &format!(" touches {}", names.join(","));
            }
            words += if *unknown_settings { " unknown" } else { "" };
            words + if *lists_prepared { " lists" } else { "" }
        }
        Command::Prepare { name, runs } => format!("prepare {name} {}", command_words(runs)),
        Command::Execute { name, around, named } => {
            let named: String = named.iter().map(|name| format!(" {name}?")).collect();
            format!("execute {name} {}{named}", command_words(around))
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
        Command::ShowIdle => "show idle_session_timeout".to_owned(),
        Command::DeallocateAll => "deallocate all".to_owned(),
        Command::Deallocate { name } => format!("deallocate {name}"),
        Command::CloseAll => "close all".to_owned(),
        Command::Listen => "listen".to_owned(),
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

#[test]
fn every_command_reads_the_same_name_of_a_statement() {
    let mut random = fastrand::Rng::with_seed(29);
    let letters = ["a", "A", "_", "\"\"", " ", "é", "$", "\\", "select", "1", "0123456789"];
    let gaps = [" ", "\n", "/* ; */", "\t--'\n", "/*/**/*/ "];
    for _ in 0..20_000 {
        let name: String =
            (0..random.usize(1..12)).map(|_| letters[random.usize(..letters.len())]).collect();
        let meant = name.replace("\"\"", "\"");
        let fits = meant.len() <= 63 || meant.is_ascii();
        let kept = meant.get(..63).unwrap_or(&meant);
        let gap = |random: &mut fastrand::Rng| gaps[random.usize(..gaps.len())];
        let [one, two, three] = [(); 3].map(|()| gap(&mut random));
        let quoted = format!("\"{name}\"");
        let texts = [
            (
                format!("PREPARE{one}{quoted}{two}AS{three}SELECT 1"),
                format!("prepare {kept} harmless"),
            ),
            (format!("exeCUTE{one}{quoted}{two}"), format!("execute {kept} harmless")),
            (
                format!("EXPLAIN{one}EXECUTE{two}{quoted}{three}(1)"),
                format!("execute {kept} harmless"),
            ),
            (format!("DEALLOCATE{one}PREPARE{two}{quoted}{three};"), format!("deallocate {kept}")),
        ];
        for (text, expected) in texts {
            let read = words(&read(text.as_bytes(), ON));
            match fits {
                true => assert_eq!(read, expected, "{text}"),
                false => assert!(read.starts_with("refused: a session command"), "{text}: {read}"),
            }
        }
    }
}

/// Pieces that are dangerous next to each other.
const PIECES: [&str; 58] = [
    "PREPARE p",
    " AS SELECT ",
    "EXECUTE ",
    "pg_prepared_statements",
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

/// Texts as applications send them, with something odd now and then.
fn likely_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let pick =
        |random: &mut fastrand::Rng, words: &[&'static str]| words[random.usize(..words.len())];
    let mut text = pick(random, &HEADS).to_owned();
    for _ in 0..random.usize(..16) {
        text += pick(random, &[" ", " ", " ", "", "\n"]);
        text += match random.u8(..10) {
            0 => PIECES[random.usize(..PIECES.len())],
            _ => pick(random, &LIKELY),
        };
    }
    text.into_bytes()
}

const HEADS: [&str; 12] = [
    "SELECT",
    " select",
    "INSERT INTO t",
    "insert into \"a\".b (c) VALUES",
    "UPDATE t SET",
    "DELETE",
    "VALUES",
    "COMMIT",
    "BEGIN",
    "end",
    "WITH a AS (SELECT 1)",
    "LOCK TABLE",
];

const LIKELY: [&str; 56] = [
    "a",
    "b",
    "t.c",
    "\"T\"",
    "\"a\".\"b\"",
    "\"a\"\"b\"",
    "\"pg_settings\"",
    "pg_settings",
    "PG_Settings",
    "FROM",
    "WHERE",
    "AND",
    "INTO",
    "AS",
    "WITH",
    "ON",
    "IN",
    "FOR",
    "UPDATE",
    "VALUES",
    "OVER",
    "count(*)",
    "f(",
    "lower(",
    "LOWER (",
    "numeric(10, 2)",
    "a(",
    "s.f(",
    "(",
    "(",
    ")",
    ")",
    ")",
    ",",
    ",",
    "=",
    "<>",
    "::",
    "||",
    "-",
    "/",
    "--x\n",
    "/* x */",
    "/* /* */ */",
    "1",
    "1.5",
    "2.",
    "3..4",
    "5e",
    "$1",
    "$1a",
    "'x'",
    "'it''s'",
    "'\\'",
    ";",
    "set_config('a.b', 'c', true)",
];

#[test]
fn the_short_way_says_what_the_long_way_says_or_nothing() {
    let mut random = fastrand::Rng::with_seed(9);
    let mut short = 0;
    let watched = ReadOptions { watch: Watch::Row, ..ON };
    let held = |text: &[u8], options| {
        let Some(ordinary) = quick::read(text, options) else { return 0 };
        let shown = String::from_utf8_lossy(text);
        assert_eq!(Reading::Ordinary(ordinary), read_on(text, options), "{shown}");
        1
    };
    for round in 0..300_000 {
        let text = match round % 3 {
            0 => random_text(&mut random),
            _ => likely_text(&mut random),
        };
        short += [ON, OFF, watched].map(|options| held(&text, options)).iter().sum::<usize>();
    }
    for (_, text, options) in cases() {
        held(text.as_bytes(), options);
    }
    assert!(short > 50_000, "only {short} went the short way");
}

#[test]
fn what_applications_send_most_goes_the_short_way() {
    for text in [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "UPDATE pgbench_accounts SET abalance = abalance + -4 WHERE aid = 1;",
        "INSERT INTO pgbench_history (tid, bid, mtime) VALUES (1, 2, CURRENT_TIMESTAMP);",
        "SELECT \"users\".* FROM \"users\" WHERE \"users\".\"id\" = $1 LIMIT $2",
        "INSERT INTO \"orders\" (\"id\", \"item\") VALUES ($1, 'it''s') RETURNING \"id\"",
        "SELECT count(*), max(t.x)::numeric(10,2) FROM t WHERE a IN (1, 2.5) /* app:web */",
        "BEGIN",
        "commit;",
    ] {
        assert!(quick::read(text.as_bytes(), ON).is_some(), "{text}");
    }
}

/// The rules a text falls under, for a tenant of this kind.
fn denied(text: &str, watch: Watch) -> Vec<&'static str> {
    let reading = read(text.as_bytes(), ReadOptions { watch, ..ON });
    let Reading::Special(parts) = reading else { return Vec::new() };
    parts.iter().flat_map(|part| part.denied.iter()).map(Denial::name).collect()
}

#[test]
fn each_rule_is_for_the_tenants_it_names() {
    for (text, rule, [row, schema, silo]) in [
        ("ALTER DATABASE app SET x = 1", "alter-database", [true, true, true]),
        ("ALTER ROLE r SET x = 1", "alter-role", [true, true, true]),
        ("SELECT set_config($1, 'x', true)", "computed-setting", [true, true, false]),
        ("DO $$ BEGIN END $$", "do-block", [true, false, false]),
        ("LOCK TABLE t", "lock-table", [true, false, false]),
        ("CREATE FUNCTION f() RETURNS int RETURN 1", "routine", [true, false, false]),
        ("SELECT query_to_xml('x', true, true, '')", "sql-in-text", [true, false, false]),
        ("FROBNICATE t", "unknown-statement", [true, true, true]),
        ("SELECT 'x", "unreadable", [true, true, true]),
    ] {
        for (watch, held) in [(Watch::Row, row), (Watch::Schema, schema), (Watch::Silo, silo)] {
            let wanted = if held { vec![rule] } else { vec![] };
            assert_eq!(denied(text, watch), wanted, "{text} {watch:?}");
        }
        assert!(denied(text, Watch::Off).is_empty(), "{text}");
    }
}
