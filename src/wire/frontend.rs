//! Messages a frontend sends: what the relay reads of them, and the few the gate writes itself.

use crate::wire::frame::{HEADER_BYTES, cstring};

/// A Parse message: the statement's name, its text, and the rest (parameter types) undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'frame> {
    pub name: &'frame [u8],
    pub text: &'frame [u8],
    pub types: &'frame [u8],
}

/// Reads the body of a complete Parse message; `None` if its layout is wrong.
pub fn parse(body: &[u8]) -> Option<Parse<'_>> {
    let (name, rest) = cstring(body)?;
    let (text, types) = cstring(rest)?;
    let (count, oids) = types.split_first_chunk::<2>()?;
    (oids.len() == usize::from(u16::from_be_bytes(*count)) * 4).then_some(Parse {
        name,
        text,
        types,
    })
}

/// Reads the text of a complete Query message's body: one NUL, and it is the last byte.
pub fn query(body: &[u8]) -> Option<&[u8]> {
    let (text, rest) = cstring(body)?;
    rest.is_empty().then_some(text)
}

/// Portal and statement name at the front of a Bind message's body; `None` while they are not
/// complete in `body`.
pub fn bind_names(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (portal, rest) = cstring(body)?;
    let (statement, _) = cstring(rest)?;
    Some((portal, statement))
}

/// The values in a complete Bind message's body, NULLs left out; `None` if its layout is wrong.
pub fn bind_values(body: &[u8]) -> Option<Vec<&[u8]>> {
    let (_, rest) = cstring(body)?;
    let (_, rest) = cstring(rest)?;
    let (formats, rest) = rest.split_first_chunk::<2>()?;
    let formats = usize::from(u16::from_be_bytes(*formats)) * 2;
    let (count, mut rest) = rest.get(formats..)?.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        // A negative length is NULL.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = after;
            continue;
        };
        values.push(after.get(..length)?);
        rest = after.get(length..)?;
    }
    Some(values)
}

/// The first value of a FunctionCall, of whose body the beginning is here; `None` if there is none,
/// it is NULL, or it has not come whole.
pub fn call_value(body: &[u8]) -> Option<&[u8]> {
    let (formats, rest) = body.get(4..)?.split_first_chunk::<2>()?;
    let formats = usize::from(u16::from_be_bytes(*formats)) * 2;
    let (count, rest) = rest.get(formats..)?.split_first_chunk::<2>()?;
    if *count == [0; 2] {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)
}

/// A complete Bind message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind<'frame> {
    pub portal: &'frame [u8],
    pub statement: &'frame [u8],
    /// NULL is `None`.
    pub values: Vec<Option<&'frame [u8]>>,
    /// The formats its columns are asked for in.
    pub results: Vec<i16>,
}

/// Reads the body of a complete Bind message; `None` if its layout is wrong.
pub fn bind(body: &[u8]) -> Option<Bind<'_>> {
    let (portal, rest) = cstring(body)?;
    let (statement, rest) = cstring(rest)?;
    let (_, rest) = shorts(rest)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let bytes = if length == -1 { 0 } else { usize::try_from(length).ok()? };
        let (value, after) = after.split_at_checked(bytes)?;
        values.push((length != -1).then_some(value));
        rest = after;
    }
    let (results, rest) = shorts(rest)?;
    rest.is_empty().then_some(Bind { portal, statement, values, results })
}

/// A count and as many numbers of two bytes.
fn shorts(bytes: &[u8]) -> Option<(Vec<i16>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let (numbers, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * 2)?;
    let (numbers, _) = numbers.as_chunks::<2>();
    Some((numbers.iter().map(|number| i16::from_be_bytes(*number)).collect(), rest))
}

/// What a Describe or Close message is about: `S` (statement) or `P` (portal), and its name.
pub fn target(body: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, rest) = body.split_first()?;
    let (name, rest) = cstring(rest)?;
    (rest.is_empty() && matches!(kind, b'S' | b'P')).then_some((kind, name))
}

/// The portal an Execute message runs.
pub fn execute_portal(body: &[u8]) -> Option<&[u8]> {
    let (portal, rest) = cstring(body)?;
    (rest.len() == 4).then_some(portal)
}

/// Appends a Query message.
pub fn put_query(out: &mut Vec<u8>, text: &[u8]) {
    put(out, b'Q', &[text, b"\0"]);
}

/// Appends a Parse message; `types` as they stand on the wire, count included.
pub fn put_parse(out: &mut Vec<u8>, message: Parse<'_>) {
    put(out, b'P', &[message.name, b"\0", message.text, b"\0", message.types]);
}

/// Appends a FunctionCall: a function by its OID, its arguments in these formats, its result as
/// text (PostgreSQL manual, 55.2.5). `formats` says for each whether it is text (0) or binary (1).
pub fn put_function_call(out: &mut Vec<u8>, oid: u32, formats: &[i16], values: &[&[u8]]) {
    let mut body = oid.to_be_bytes().to_vec();
    put_values(&mut body, formats, values);
    body.extend_from_slice(&[0, 0]);
    put(out, b'F', &[&body]);
}

/// Formats and values, as Bind and FunctionCall have them.
fn put_values(body: &mut Vec<u8>, formats: &[i16], values: &[&[u8]]) {
    body.extend_from_slice(&(formats.len() as i16).to_be_bytes());
    formats.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
    body.extend_from_slice(&(values.len() as i16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as i32).to_be_bytes());
        body.extend_from_slice(value);
    }
}

/// Appends a Describe message for a prepared statement.
pub fn put_describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    put(out, b'D', &[b"S", name, b"\0"]);
}

/// Appends a Close message for a prepared statement.
pub fn put_close_statement(out: &mut Vec<u8>, name: &[u8]) {
    put(out, b'C', &[b"S", name, b"\0"]);
}

/// Appends Close messages for a prepared statement and a portal of the same name.
pub fn put_close_both(out: &mut Vec<u8>, name: &[u8]) {
    put_close_statement(out, name);
    put(out, b'C', &[b"P", name, b"\0"]);
}

/// Appends what runs a text without values as a statement and a portal of this name, in the place
/// of whatever had it. The answers: two CloseComplete, ParseComplete, BindComplete, and the end.
pub fn put_run(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    put_close_both(out, name);
    put_parse(out, Parse { name, text, types: &[0, 0] });
    put(out, b'B', &[name, b"\0", name, b"\0", &[0; 6]]);
    put(out, b'E', &[name, b"\0", &[0; 4]]);
}

/// Appends a Bind of the unnamed portal to a statement; `values` is what stands behind the names.
pub fn put_bind(out: &mut Vec<u8>, name: &[u8], values: &[u8]) {
    put(out, b'B', &[b"\0", name, b"\0", values]);
}

/// Appends a Sync message.
pub fn put_sync(out: &mut Vec<u8>) {
    put(out, b'S', &[]);
}

/// Appends a Flush message.
pub fn put_flush(out: &mut Vec<u8>) {
    put(out, b'H', &[]);
}

/// Appends a Terminate message.
pub fn put_terminate(out: &mut Vec<u8>) {
    put(out, b'X', &[]);
}

/// A CancelRequest packet (no tag).
pub fn cancel_request(pid: i32, secret: &[u8]) -> Vec<u8> {
    let length = (12 + secret.len()) as u32;
    let mut out = Vec::with_capacity(12 + secret.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&80_877_102_u32.to_be_bytes());
    out.extend_from_slice(&pid.to_be_bytes());
    out.extend_from_slice(secret);
    out
}

fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_BYTES + body);
    out.push(tag);
    out.extend_from_slice(&((body + 4) as u32).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_message_reads_back_as_written() {
        let mut out = Vec::new();
        let message = Parse { name: b"s1", text: b"select $1", types: &[0, 1, 0, 0, 0, 25] };
        put_parse(&mut out, message);
        assert_eq!(parse(&out[HEADER_BYTES..]), Some(message));
        assert_eq!(parse(&out[HEADER_BYTES..out.len() - 1]), None);
    }

    #[test]
    fn a_query_has_one_nul_and_it_is_last() {
        assert_eq!(query(b"select 1\0"), Some(&b"select 1"[..]));
        assert_eq!(query(b"select 1"), None);
        assert_eq!(query(b"select\x001\0"), None);
    }

    #[test]
    fn the_first_value_of_a_call_is_read_from_its_beginning() {
        let call = b"\0\0\x08\x1e\0\x01\0\x01\0\x03\0\0\0\x02ab\0\0\0\x01c";
        assert_eq!(call_value(call), Some(&b"ab"[..]));
        assert_eq!(call_value(&call[..16]), Some(&b"ab"[..]));
        assert_eq!(call_value(&call[..15]), None);
        assert_eq!(call_value(b"\0\0\0\x01\0\0\0\0\0\0\0\0"), None);
        assert_eq!(call_value(b"\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(call_value(b"\0\0\0\x01\xff\xff"), None);
    }

    #[test]
    fn values_of_a_bind_are_read_and_nulls_left_out() {
        let mut out = Vec::new();
        put_values(&mut out, &[0, 1], &[b"my.name", b"v"]);
        let body = &[b"\0\0", &out[..], b"\0\0"].concat();
        assert_eq!(bind_values(body), Some(vec![&b"my.name"[..], b"v"]));
        assert_eq!(bind_values(&body[..body.len() - 4]), None);
        let read = bind(body).unwrap();
        assert_eq!(read.values, [Some(&b"my.name"[..]), Some(b"v")]);
        assert!(read.results.is_empty() && bind(&body[..body.len() - 1]).is_none());
        assert_eq!(bind_values(b"p\0s\0\0\0\0\x01\xff\xff\xff\xff\0\0"), Some(Vec::new()));
    }

    #[test]
    fn random_bodies_never_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..50_000 {
            let length = random.usize(..24);
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..4) * 25).collect();
            let _ = (parse(&bytes), query(&bytes), bind_names(&bytes));
            let _ = (target(&bytes), execute_portal(&bytes), bind_values(&bytes));
            let _ = call_value(&bytes);
            let _ = bind(&bytes);
        }
    }
}
