//! What a name or a string constant in a text stands for, with quotes and escapes undone.
//! `None` wherever the server would refuse it or the answer depends on its encoding.

use std::ops::RangeInclusive;

use crate::guard::lexer::{Kind, Lexer, Token, continued, looks_at};

/// The name a token gives: a word in lower case, a quoted name as it is.
pub(super) fn name(text: &[u8], token: Token) -> Option<String> {
    let bytes = token.bytes(text);
    looks_at(bytes.len());
    match token.kind {
        Kind::Word => String::from_utf8(bytes.to_ascii_lowercase()).ok(),
        Kind::QuotedName => String::from_utf8(content(bytes, b'"', token.kind)?.0).ok(),
        Kind::UnicodeName => unicode(bytes, b'"', token.kind),
        _ => None,
    }
}

/// The value of a string constant.
pub(super) fn string(text: &[u8], token: Token) -> Option<String> {
    let bytes = token.bytes(text);
    looks_at(bytes.len());
    match token.kind {
        Kind::String => String::from_utf8(content(bytes, b'\'', token.kind)?.0).ok(),
        Kind::EscapeString => escaped(&content(bytes, b'\'', token.kind)?.0),
        Kind::UnicodeString => unicode(bytes, b'\'', token.kind),
        Kind::DollarString => {
            let tag = bytes.iter().skip(1).position(|&byte| byte == b'$')? + 2;
            let inner = bytes.get(tag..bytes.len().checked_sub(tag)?)?;
            String::from_utf8(inner.to_vec()).ok()
        }
        _ => None,
    }
}

/// What stands between the quotes, doubled quotes undone, pieces joined, backslashes still in
/// place; and the position after the last quote.
fn content(bytes: &[u8], quote: u8, kind: Kind) -> Option<(Vec<u8>, usize)> {
    let mut at = bytes.iter().position(|&byte| byte == quote)? + 1;
    let mut inner = Vec::new();
    loop {
        let byte = *bytes.get(at)?;
        if byte == b'\\' && kind == Kind::EscapeString {
            inner.extend([byte, *bytes.get(at + 1)?]);
            at += 2;
        } else if byte != quote {
            inner.push(byte);
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            inner.push(quote);
            at += 2;
        } else {
            let next = if quote == b'\'' { continued(bytes, at + 1) } else { None };
            match next {
                Some(next) => at = next,
                None => return Some((inner, at + 1)),
            }
        }
    }
}

/// Undoes the backslashes of an E string (PostgreSQL manual, 4.1.2.2).
fn escaped(inner: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&letter, after) = rest.split_first()?;
        rest = match letter {
            b'0'..=b'7' => code(&mut out, rest, 8, 1..=3)?,
            b'x' if after.first().is_some_and(u8::is_ascii_hexdigit) => {
                code(&mut out, after, 16, 1..=2)?
            }
            b'u' => character(&mut out, after, 4)?,
            b'U' => character(&mut out, after, 8)?,
            _ => {
                out.push(match letter {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                });
                after
            }
        };
    }
    String::from_utf8(out).ok()
}

/// A byte given by its number; as many digits as there are, within the lengths.
fn code<'rest>(
    out: &mut Vec<u8>,
    rest: &'rest [u8],
    radix: u32,
    lengths: RangeInclusive<usize>,
) -> Option<&'rest [u8]> {
    let digits = rest.iter().take(*lengths.end());
    let digits = digits.take_while(|&&byte| char::from(byte).is_digit(radix)).count();
    let (digits, after) = rest.split_at_checked(digits.max(*lengths.start()))?;
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    // The server keeps the low byte of an octal number above 255.
    out.push(u8::try_from(number & 0xff).ok()?);
    Some(after)
}

/// A character given by its code point in so many hexadecimal digits. Halves of surrogate pairs
/// are left undone; nobody writes the names we look for with them.
fn character<'rest>(out: &mut Vec<u8>, rest: &'rest [u8], digits: usize) -> Option<&'rest [u8]> {
    let (digits, after) = rest.split_at_checked(digits)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let point = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    let character = char::from_u32(point).filter(|&character| character != '\0')?;
    out.extend(character.encode_utf8(&mut [0; 4]).bytes());
    Some(after)
}

/// Undoes the escapes of a U& constant or name (4.1.1, 4.1.2.3).
fn unicode(bytes: &[u8], quote: u8, kind: Kind) -> Option<String> {
    let (inner, end) = content(bytes, quote, kind)?;
    let escape = escape_character(bytes.get(end..)?)?;
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != escape {
            out.push(byte);
            continue;
        }
        rest = match rest.first()? {
            b'+' => character(&mut out, rest.get(1..)?, 6)?,
            &again if again == escape => {
                out.push(escape);
                rest.get(1..)?
            }
            _ => character(&mut out, rest, 4)?,
        };
    }
    String::from_utf8(out).ok()
}

/// The character of a UESCAPE clause, the backslash if there is none.
fn escape_character(clause: &[u8]) -> Option<u8> {
    let mut tokens = Lexer::new(clause, true);
    if tokens.next().is_none() {
        return Some(b'\\');
    }
    let constant = tokens.next()?.ok()?;
    match string(clause, constant)?.as_bytes() {
        &[escape] => Some(escape),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<String> {
        let token = Lexer::new(text.as_bytes(), true).next()?.ok()?;
        assert_eq!(token.range().end, text.len(), "{text}");
        if token.kind.is_name() {
            name(text.as_bytes(), token)
        } else {
            string(text.as_bytes(), token)
        }
    }

    #[test]
    fn names_and_strings_read_as_the_server_reads_them() {
        let cases = [
            ("Set_Config", "set_config"),
            ("\"Set\"\"x\"", "Set\"x"),
            (r#"U&"s\0065t_config""#, "set_config"),
            (r#"u&"s!0065t!+00005F!!" uescape '!'"#, "set_!"),
            ("'it''s'", "it's"),
            (r"'a\'", r"a\"),
            ("'a' -- it's\n  'b'", "ab"),
            (r"E'\'\x41\101\u0042\n\q'", "'AAB\nq"),
            (
                r"e'a'
              '\''",
                "a'",
            ),
            (r"U&'app\002etenant'", "app.tenant"),
            ("$$it's$$", "it's"),
            ("$q$a$$b$q$", "a$$b"),
            ("N'x'", "x"),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_server_refuses_has_no_value() {
        for text in [r"E'\u00'", r"U&'\00'", r"U&'\0000'", r"E'\xff'", "B'01'", r"U&'\D83D\DE00'"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
