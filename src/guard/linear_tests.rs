//! Reading is linear in the length of a text, whatever stands in it, and takes no more stack for a
//! longer one: held by counting the bytes that are looked at.

use crate::guard::ledger::Fingerprint;
use crate::guard::{
    Kind, Lexer, ReadOptions, Watch, act, is_lasting, is_query, only_looks, read, read_on,
    set_config_calls,
};

#[cfg(test)]
mod count {
    use std::cell::Cell;

    thread_local! {
        pub static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }
}

/// Counts bytes that are looked at.
pub(super) fn looks_at(bytes: usize) {
    count::LOOKED_AT.with(|all| all.set(all.get() + bytes));
}

/// Most looks at each byte of a text, all readers together: there are a dozen, and in a row of
/// signs each asks some eight times what the next byte is.
const EACH_MAX: usize = 120;

/// What a text may begin with.
const HEADS: [&str; 26] = [
    "",
    "SELECT ",
    "SELECT E'', ",
    "SELECT set_config('a', ",
    "select set_config(name, ",
    "WITH a AS (",
    "UPDATE pg_settings SET ",
    "INSERT INTO a ",
    "SET a.b = ",
    "SET LOCAL ",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ",
    "RESET ",
    "SHOW ",
    "PREPARE p AS ",
    "PREPARE p (",
    "EXECUTE p(",
    "EXPLAIN (",
    "EXPLAIN ANALYZE ",
    "CREATE TEMP TABLE a AS ",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC ",
    "DECLARE c CURSOR WITH HOLD FOR ",
    "LOCK TABLE a IN ",
    "COPY a FROM ",
    "DEALLOCATE ",
    "END ",
    "SET a.b = 1; ",
];

/// What a text may be made of: whatever makes a reader look ahead, look back or go deeper.
const FRAGMENTS: [&str; 92] = [
    "U&'' ",
    "U&\"a\" ",
    "U&''",
    "U&'' UESCAPE '!' ",
    "U&'' UESCAPE ",
    "U&'' uescape U&'' ",
    "U&\"\" UESCAPE $$!$$",
    "UESCAPE ",
    "uescape'",
    "+-",
    "+",
    "- ",
    "-+-@",
    "=+",
    "*",
    "/",
    "/*",
    "*/",
    "/* */",
    "--",
    "--\n",
    " \n",
    "\t",
    "'",
    "''",
    "'' ",
    "'a'\n",
    "'a' --\n",
    "N'' ",
    "B'0' ",
    "X'",
    "E'\\'",
    "E'\\\\' ",
    "E'' ",
    "\\",
    "$",
    "$$",
    "$a",
    "$a$",
    "$a$b",
    "$a1$ ",
    "$1",
    "$1::int ",
    "é",
    "\"",
    "\"\"",
    "\"a\"",
    "\"a\".",
    "a",
    "a ",
    "a.",
    "a, ",
    ".",
    "..",
    "1",
    "1e+",
    "1.",
    ".5",
    "0x",
    "::",
    ":",
    "[",
    "(",
    ")",
    "()",
    "a(",
    "(a)",
    ",",
    ";",
    "; ;",
    "set_config(",
    "set_config('a.b', 'c', true), ",
    "set_config(name, 'v', false) FROM pg_settings WHERE name = ",
    "set_config(name, 'v', false) FROM pg_settings WHERE name = 'x' ",
    "U&\"set_config\"(",
    "pg_advisory_unlock_all(",
    "pg_temp.",
    "U&\"pg_temp\".",
    "INTO ",
    "with a as (",
    "as execute p ",
    "begin atomic ",
    "EXPLAIN ",
    "RESET ALL;",
    "RESET a.b;",
    "SET a.b = 1;",
    "PREPARE p AS SELECT 1;",
    "DEALLOCATE a;",
    "BEGIN;",
    "READ ONLY, ",
    "isolation level read ",
    "tenantgate.tenant ",
];

/// What opens and what closes.
const NESTS: [(&str, &str); 7] = [
    ("(", ")"),
    ("/*", "*/"),
    ("a(", ")"),
    ("set_config('a.b', ", ")"),
    ("set_config(name, 'v', false", ")"),
    ("WITH a AS (", ") SELECT 1"),
    ("$a$", "$a$"),
];

/// A message's types of parameters: none.
const NO_TYPES: &[u8] = &[0, 0];

fn options() -> [ReadOptions; 2] {
    [(true, Watch::Row), (false, Watch::Off)].map(|(standard_conforming_strings, watch)| {
        ReadOptions { standard_conforming_strings, watch }
    })
}

/// Reads a text in every way that a session may.
fn read_every_way(text: &[u8]) {
    for options in options() {
        let reading = read(text, options);
        read_on(text, options);
        act(text, options, &reading);
        only_looks(text, options);
        set_config_calls(text, options);
    }
    is_lasting(text, NO_TYPES);
    is_query(text);
    Fingerprint::of(text);
}

/// How many bytes are looked at for that.
fn work(text: &str) -> usize {
    count::LOOKED_AT.with(|all| all.set(0));
    read_every_way(text.as_bytes());
    count::LOOKED_AT.with(|all| all.get())
}

/// Twice the text is at most a little more than twice the work.
fn is_linear(what: &str, make: impl Fn(usize) -> String) {
    let (one, two) = (make(1), make(2));
    let (less, more) = (work(&one), is_bounded(what, &two));
    assert!(more <= less * 22 / 10 + 1000, "{what}: {less}, then {more}");
}

/// Every byte is looked at a few times and no more, which at these lengths nothing does that is
/// worse than linear.
fn is_bounded(what: &str, text: &str) -> usize {
    let work = work(text);
    assert!(work <= EACH_MAX * (text.len() + 100), "{what}: {work} for {} bytes", text.len());
    work
}

/// So many repetitions that they take about so many bytes: an even number, so that quotes close.
fn times(fragment: &str, bytes: usize) -> String {
    fragment.repeat(2 * bytes.div_ceil(2 * fragment.len()))
}

#[test]
fn what_is_looked_at_grows_as_the_text_does() {
    for head in HEADS {
        for fragment in FRAGMENTS {
            let text = |as_long: usize| head.to_owned() + &times(fragment, 1000 * as_long);
            is_linear(&format!("{head:?} {fragment:?}"), text);
        }
    }
}

#[test]
fn pairs_of_fragments_are_no_worse() {
    for (at, one) in FRAGMENTS.iter().enumerate() {
        // A quarter of them, each with each other kind: all would take minutes.
        for (other_at, other) in FRAGMENTS.iter().enumerate().skip(at % 4).step_by(4) {
            let head = HEADS[(at + other_at) % HEADS.len()];
            let pair = format!("{one}{other}");
            is_bounded(&format!("{head:?} {pair:?}"), &(head.to_owned() + &times(&pair, 600)));
            let rows = format!("SELECT {} {}", times(one, 300), times(other, 300));
            is_bounded(&format!("a row of {one:?}, then of {other:?}"), &rows);
        }
    }
}

#[test]
fn nesting_is_no_worse() {
    for (open, close) in NESTS {
        for head in HEADS {
            let text = |times_as_long: usize| {
                let depth = 400 * times_as_long;
                format!("{head}{}{}", open.repeat(depth), close.repeat(depth))
            };
            is_linear(&format!("{head:?} {open:?}"), text);
        }
    }
    let tag = |times_as_long: usize| {
        let tag = format!("${}$", "a".repeat(1000 * times_as_long));
        format!("SELECT {tag}{}{tag}", "$a $aa ".repeat(1000 * times_as_long))
    };
    is_linear("a long tag", tag);
    let almost = |times_as_long: usize| {
        let tag = "a".repeat(50);
        format!("SELECT ${tag}${}${tag}$", format!("${tag}").repeat(50 * times_as_long))
    };
    is_linear("almost a tag", almost);
}

/// A message may be 16 MiB; what is worse than linear would not end here, and what calls itself
/// for every piece of a text would end the process.
#[test]
fn a_long_text_takes_no_more_stack_than_a_short_one() {
    let read_all = || {
        for fragment in FRAGMENTS {
            for head in ["SELECT E'', ", "SET a.b = "] {
                let text = head.to_owned() + &times(fragment, 1 << 16);
                let reading = read(text.as_bytes(), options()[0]);
                act(text.as_bytes(), options()[0], &reading);
            }
        }
        for (open, close) in NESTS {
            let text = format!("SELECT {}{}", open.repeat(30_000), close.repeat(30_000));
            read(text.as_bytes(), options()[0]);
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(read_all);
    thread.unwrap().join().unwrap();
}

#[test]
fn a_run_of_signs_is_read_as_before() {
    let tokens = |text: &str| -> Vec<(Kind, String)> {
        let read = Lexer::new(text.as_bytes(), true).map(|token| token.unwrap());
        read.map(|token| (token.kind, text[token.range()].to_owned())).collect()
    };
    let operators = |text: &str| -> Vec<String> {
        tokens(text).into_iter().map(|(_, written)| written).collect()
    };
    assert_eq!(operators("+-+-1"), ["+", "-", "+", "-", "1"]);
    assert_eq!(operators("=+-1"), ["=", "+", "-", "1"]);
    assert_eq!(operators("+-@+-1"), ["+-@+-", "1"]);
    assert_eq!(operators("<=-+--a\n+-*"), ["<=", "-", "+", "+-*"]);
    assert_eq!(operators("+- -+/* */-"), ["+", "-", "-", "+", "-"]);
    assert_eq!(tokens("U&'a' UESCAPE '!'").len(), 1);
    assert_eq!(tokens("U&\"a\"/* */uescape/* */e'!' b").len(), 2);
    assert_eq!(tokens("U&'a' uescapes '!'").len(), 3);
    for wrong in ["U&'a' UESCAPE U&'!'", "U&'a' UESCAPE N'!'", "U&'a' UESCAPE x", "U&'' UESCAPE"] {
        assert!(Lexer::new(wrong.as_bytes(), true).any(|token| token.is_err()), "{wrong}");
    }
}
