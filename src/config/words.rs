//! The words of TOML and serde in ours: what is wrong, and nothing of the value it is wrong with.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::error::{Names, Problem};
use crate::spelling;

/// Most mistakes in the TOML itself that are told: one brings about the next.
const SYNTAX_MAX: usize = 3;

/// Shorter texts stand in messages by chance.
const FRAGMENT_MIN: usize = 4;

/// Values that are no secrets: those a key allows.
const KNOWN: [&str; 10] =
    ["row", "schema", "silo", "plain", "guard", "sealed", "strict", "require", "allow", "disable"];

/// What toml says where the choices of an enumeration stand, and neither a word nor a table does.
pub(super) const NO_CHOICE: &str = "wanted string or table";

/// What toml says of a key that stands there twice.
const TWICE: &str = "duplicate key";

/// So many words are listed even if one of them is near enough to be meant.
const LISTED_MAX: usize = 8;

/// Mistakes in the TOML itself.
pub(super) fn syntax(text: &str, root: &DeTable<'_>, errors: &[Error]) -> Vec<Problem> {
    let span = |error: &Error| error.span().unwrap_or(0..0);
    let first = errors.iter().map(|error| span(error).start).min().unwrap_or(0);
    let names = Names::before(root, first);
    let problem = |error: &Error| {
        // The library says what it wanted. Should it ever say what it found, that is not shown.
        let span = span(error);
        let found = text.get(span.clone()).unwrap_or_default().trim();
        let twice =
            earlier(text, error).map(|line| format!("{TWICE}: it stands on line {line}, too"));
        let message = twice.unwrap_or_else(|| without(error.message().to_owned(), found));
        Problem::new(text, span, &names, message)
    };
    // Keys of a table that stands there twice would all be there twice.
    let shown = if is_table_twice(text, errors) { 1 } else { SYNTAX_MAX };
    errors.iter().take(shown).map(problem).collect()
}

/// Whether the first mistake is a table's second head.
fn is_table_twice(text: &str, errors: &[Error]) -> bool {
    let first = errors.first().filter(|error| error.message() == TWICE);
    let before = first.and_then(|error| text.get(..error.span()?.start));
    before.and_then(|text| text.lines().last()).is_some_and(|line| line.trim().starts_with('['))
}

/// On which line, from 1, the key stood first that a mistake says stands there twice.
fn earlier(text: &str, error: &Error) -> Option<usize> {
    let span = error.span().filter(|_| error.message() == TWICE)?;
    let number = text.get(..span.start)?.matches('\n').count();
    let lines: Vec<&str> = text.lines().take(number + 1).map(str::trim).collect();
    let (again, before) = lines.split_last()?;
    if again.starts_with('[') {
        return before.iter().position(|line| line == again).map(|at| at + 1);
    }
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let own = before.iter().rev().take_while(|line| !line.starts_with('['));
    let found = own.clone().position(|line| key(line).is_some() && key(line) == key(again))?;
    Some(number - found)
}

/// A file that is no text; `before` is what is.
pub(super) fn not_utf8(before: &str) -> Problem {
    let message = "the file is not UTF-8 from here on".to_owned();
    let end = before.len();
    Problem::new(before, end..end, &Names::none(), message)
}

/// A message without what stands at a place of the file.
pub(super) fn without_values(root: &DeTable<'_>, span: &Range<usize>, message: String) -> String {
    let mut message = message;
    visit(root, span, &mut |value| message = without(std::mem::take(&mut message), value));
    message
}

/// Calls `each` with every value that stands within a range of the text, or around it.
fn visit(table: &DeTable<'_>, span: &Range<usize>, each: &mut impl FnMut(&str)) {
    for value in table.values() {
        visit_value(value, span, each);
    }
}

fn visit_value(
    value: &toml::Spanned<DeValue<'_>>,
    span: &Range<usize>,
    each: &mut impl FnMut(&str),
) {
    let here = value.span();
    match value.get_ref() {
        DeValue::Table(table) => visit(table, span, each),
        DeValue::Array(values) => values.iter().for_each(|value| visit_value(value, span, each)),
        _ if here.end <= span.start || span.end <= here.start => {}
        DeValue::String(text) => each(text),
        DeValue::Integer(number) => each(&number.to_string()),
        DeValue::Float(number) => each(&number.to_string()),
        DeValue::Datetime(moment) => each(&moment.to_string()),
        DeValue::Boolean(_) => {}
    }
}

fn without(message: String, value: &str) -> String {
    if value.is_empty() || KNOWN.contains(&value) {
        return message;
    }
    let message = message.replace(&format!("\"{}\"", value.escape_debug()), "\"…\"");
    match value.chars().count() >= FRAGMENT_MIN {
        true => message.replace(value, "…"),
        false => message,
    }
}

/// Serde's words in ours.
pub(super) struct Reworded {
    pub message: String,
    /// The word that was probably meant.
    pub nearest: Option<String>,
    pub hint: Option<String>,
}

/// Quotes for back-ticks, keys for fields, and the nearest of what serde lists. What serde found
/// is left out, unless it is a key.
pub(super) fn reworded(message: &str) -> Reworded {
    let plain = |message| Reworded { message, nearest: None, hint: None };
    if message == NO_CHOICE {
        return plain("this is not a text".to_owned());
    }
    if let Some((found, wanted)) = mistaken(message) {
        return plain(format!("this is {}, wanted: {}", kind(found), expected(wanted)));
    }
    let quoted = message.replace('`', "\"");
    // What was found may hold the same words, so it is the last that count.
    let listed = quoted.rsplit_once(", expected one of ").or_else(|| {
        let (found, one) = quoted.rsplit_once(", expected ")?;
        found.starts_with("unknown ").then_some((found, one))
    });
    let Some((found, list)) = listed else {
        let field = quoted.strip_prefix("missing field ");
        let message = field.map(|name| format!("missing key {name}")).unwrap_or(quoted);
        return plain(message);
    };
    let known: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let typed = found.split('"').nth(1).unwrap_or_default();
    let nearest = spelling::nearest(typed, known.iter().copied()).map(str::to_owned);
    let hint = allowed(typed, &known);
    let message = match found.strip_prefix("unknown field") {
        Some(key) => format!("unknown key{key}"),
        None => "unknown value".to_owned(),
    };
    Reworded { message, nearest, hint }
}

/// What is said of a key that is not there.
pub(super) fn missing(key: &str) -> String {
    format!("missing key \"{key}\"")
}

/// The word that was probably meant, and those there are, unless that is found among many.
pub(super) fn allowed(typed: &str, known: &[&str]) -> Option<String> {
    let all = || format!("Allowed: {}.", known.join(", "));
    Some(match spelling::nearest(typed, known.iter().copied()) {
        Some(word) if known.len() > LISTED_MAX => format!("Did you mean \"{word}\"?"),
        Some(word) => format!("Did you mean \"{word}\"? {}", all()),
        None => all(),
    })
}

/// What was found and what was expected, of a value of the wrong type or out of range.
pub(super) fn mistaken(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("invalid type: ");
    // What was found may be a text with anything in it.
    rest.or_else(|| message.strip_prefix("invalid value: "))?.rsplit_once(", expected ")
}

/// What serde expects, as people call it.
pub(super) fn expected(what: &str) -> Cow<'_, str> {
    match what {
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number from 0".into(),
        "i32" | "i64" => "a whole number".into(),
        "a string" | "path string" => "a text".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, in brackets".into(),
        "a map" => "a table".into(),
        what if what.starts_with("struct ") => "a table".into(),
        what => what.replace('`', "\"").into(),
    }
}

/// What was found, not which: it may be a password.
fn kind(found: &str) -> &'static str {
    match found.split([' ', ',']).next() {
        Some("string" | "character") => "a text",
        Some("integer" | "floating") => "a number",
        Some("boolean") => "true or false",
        Some("sequence") => "a list",
        Some("map") => "a table",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_rust_and_nothing_that_was_found_is_told() {
        for (message, wanted) in [
            (
                "invalid type: string \"hunter2, expected u8\", expected usize",
                "this is a text, wanted: a whole number from 0",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "this is a number, wanted: a whole number from 0 to 4294967295",
            ),
            (
                "invalid type: string \"x\", expected a sequence",
                "this is a text, wanted: a list, in brackets",
            ),
            (
                "invalid type: boolean `true`, expected struct ClusterShape",
                "this is true or false, wanted: a table",
            ),
            ("invalid type: map, expected a string", "this is a table, wanted: a text"),
            (NO_CHOICE, "this is not a text"),
            ("missing field `capacity`", "missing key \"capacity\""),
        ] {
            assert_eq!(reworded(message).message, wanted);
        }
    }

    #[test]
    fn many_words_are_listed_only_if_none_is_near() {
        let known = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"];
        assert_eq!(allowed("gama", &known).unwrap(), "Did you mean \"gamma\"?");
        assert!(allowed("banana", &known).unwrap().starts_with("Allowed: alpha, beta, "));
        assert_eq!(
            allowed("gama", &known[..3]).unwrap(),
            "Did you mean \"gamma\"? Allowed: alpha, beta, gamma."
        );
    }
}
