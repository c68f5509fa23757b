//! Cuts a connection string into its keys and values: libpq's URL and keyword forms with their
//! quoting (PostgreSQL manual, 34.1.1). What the keys mean is `parse.rs`'s.

use super::parse::ConninfoError;

/// Keys and values in the order they stand in; the last of two equal keys counts.
pub(super) type Pairs = Vec<(String, String)>;

/// Cuts either form.
pub(super) fn split(text: &str) -> Result<Pairs, ConninfoError> {
    // Neither libpq nor a server's start-up packet can carry a NUL byte.
    if text.contains('\0') {
        return Err(ConninfoError::Nul);
    }
    let url = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => split_url(rest),
        None => split_keywords(text),
    }
}

fn split_keywords(text: &str) -> Result<Pairs, ConninfoError> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let offset = text.len() - rest.len();
        let end = rest.find(|c: char| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        // The word is not shown: it may be what follows a blank in an unquoted password.
        let value = after.trim_start_matches(is_space).strip_prefix('=');
        let value = value.ok_or(ConninfoError::EqualsMissing { position: offset + 1 })?;
        let value = value.trim_start_matches(is_space);
        let (value, after) = match value.strip_prefix('\'') {
            Some(quoted) => take_quoted(quoted).ok_or(ConninfoError::Unterminated)?,
            None => take_plain(value),
        };
        pairs.push((key.to_owned(), value));
        rest = after.trim_start_matches(is_space);
    }
    Ok(pairs)
}

/// A value up to the next blank; a backslash keeps what follows it as it is.
fn take_plain(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        if is_space(c) {
            return (value, text.get(index..).unwrap_or_default());
        }
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// A value up to its closing quote, which need not be followed by a blank.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '\'' => return Some((value, chars.as_str())),
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
}

fn split_url(text: &str) -> Result<Pairs, ConninfoError> {
    let mut pairs = Pairs::new();
    let mut keep = |key: &str, raw: &str| -> Result<(), ConninfoError> {
        if !raw.is_empty() {
            pairs.push((key.to_owned(), decode(raw)?));
        }
        Ok(())
    };
    let mut rest = text;
    // As in libpq: credentials are there if an @ comes before the first slash.
    if let Some((credentials, after)) = text.split_once('@')
        && !credentials.contains('/')
    {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        keep("user", user)?;
        keep("password", password)?;
        rest = after;
    }
    let (hosts, ports, after) = split_hosts(rest)?;
    keep("host", &hosts)?;
    keep("port", &ports)?;
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    keep("dbname", path.strip_prefix('/').unwrap_or(path))?;
    split_query(query, &mut pairs)?;
    Ok(pairs)
}

/// The comma-separated hosts and ports, and what follows them.
fn split_hosts(text: &str) -> Result<(String, String, &str), ConninfoError> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut rest = text;
    loop {
        let host;
        if let Some(inner) = rest.strip_prefix('[') {
            let (address, after) = inner.split_once(']').ok_or(ConninfoError::Bracket)?;
            if address.is_empty() || !(after.is_empty() || after.starts_with([':', '/', '?', ',']))
            {
                return Err(ConninfoError::Bracket);
            }
            (host, rest) = (address, after);
        } else {
            (host, rest) = cut_before(rest, &[':', '/', '?', ',']);
        }
        hosts.push_str(host);
        if let Some(after) = rest.strip_prefix(':') {
            let port;
            (port, rest) = cut_before(after, &['/', '?', ',']);
            ports.push_str(port);
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok((hosts, ports, rest)),
        }
        hosts.push(',');
        ports.push(',');
    }
}

fn split_query(query: &str, pairs: &mut Pairs) -> Result<(), ConninfoError> {
    let mut rest = query;
    while !rest.is_empty() {
        let (parameter, after) = rest.split_once('&').unwrap_or((rest, ""));
        rest = after;
        let (key, value) = parameter.split_once('=').ok_or(ConninfoError::QueryEquals)?;
        if value.contains('=') {
            return Err(ConninfoError::QueryEquals);
        }
        let (key, value) = (decode(key)?, decode(value)?);
        // JDBC's spelling, which libpq understands in URLs only.
        let pair = if key == "ssl" && value == "true" {
            ("sslmode".to_owned(), "require".to_owned())
        } else {
            (key, value)
        };
        pairs.push(pair);
    }
    Ok(())
}

/// Undoes percent-encoding. Blanks around the text are dropped and blanks inside refused, as libpq
/// does since 17: a URL that was cut or pasted together fails loudly.
fn decode(text: &str) -> Result<String, ConninfoError> {
    let text = text.trim_matches(' ');
    if text.contains(is_space) {
        return Err(ConninfoError::UrlBlank);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = rest.next().and_then(hex_digit).ok_or(ConninfoError::Percent)?;
        let low = rest.next().and_then(hex_digit).ok_or(ConninfoError::Percent)?;
        if high == 0 && low == 0 {
            return Err(ConninfoError::Nul);
        }
        bytes.push((high << 4) | low);
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::Percent)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn cut_before<'text>(text: &'text str, stops: &[char]) -> (&'text str, &'text str) {
    text.split_at(text.find(stops).unwrap_or(text.len()))
}

/// C's `isspace` in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}
