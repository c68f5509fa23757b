//! Messages a backend sends: those the gate writes to clients, and what it reads of a server's.

use crate::wire::frame::{HEADER_BYTES, cstring};

/// The fields of an ErrorResponse or NoticeResponse that the gate writes or reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'text> {
    pub severity: &'text str,
    pub sqlstate: &'text str,
    pub message: &'text str,
    pub detail: Option<&'text str>,
    pub hint: Option<&'text str>,
}

/// Appends an ErrorResponse (PostgreSQL manual, 55.8: S and V carry the severity).
pub fn put_error(out: &mut Vec<u8>, fields: ErrorFields<'_>) {
    frame(out, b'E', |body| {
        let mut field = |code: u8, text: &str| {
            body.push(code);
            // A NUL inside would end the field early for the reader.
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        };
        field(b'S', fields.severity);
        field(b'V', fields.severity);
        field(b'C', fields.sqlstate);
        field(b'M', fields.message);
        if let Some(detail) = fields.detail {
            field(b'D', detail);
        }
        if let Some(hint) = fields.hint {
            field(b'H', hint);
        }
        body.push(0);
    });
}

/// Appends AuthenticationOk.
pub fn put_authentication_ok(out: &mut Vec<u8>) {
    frame(out, b'R', |body| body.extend_from_slice(&0_u32.to_be_bytes()));
}

/// Appends AuthenticationCleartextPassword.
pub fn put_cleartext_request(out: &mut Vec<u8>) {
    frame(out, b'R', |body| body.extend_from_slice(&3_u32.to_be_bytes()));
}

/// Appends AuthenticationSASL with the names of mechanisms.
pub fn put_sasl<'name>(out: &mut Vec<u8>, mechanisms: impl Iterator<Item = &'name str>) {
    frame(out, b'R', |body| {
        body.extend_from_slice(&10_u32.to_be_bytes());
        for name in mechanisms {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        }
        body.push(0);
    });
}

/// Appends AuthenticationSASLContinue (11) or AuthenticationSASLFinal (12).
pub fn put_sasl_data(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    frame(out, b'R', |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(data);
    });
}

/// Appends ParameterStatus.
pub fn put_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    frame(out, b'S', |body| {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    });
}

/// Appends BackendKeyData.
pub fn put_backend_key(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    frame(out, b'K', |body| {
        body.extend_from_slice(&pid.to_be_bytes());
        body.extend_from_slice(secret);
    });
}

/// Appends NegotiateProtocolVersion: the minor version spoken, and the extensions not known.
pub fn put_negotiate(out: &mut Vec<u8>, minor: u16, extensions: &[String]) {
    frame(out, b'v', |body| {
        body.extend_from_slice(&(0x3_0000 | u32::from(minor)).to_be_bytes());
        body.extend_from_slice(&(extensions.len() as u32).to_be_bytes());
        for extension in extensions {
            body.extend_from_slice(extension.as_bytes());
            body.push(0);
        }
    });
}

/// What a NegotiateProtocolVersion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The minor version of protocol 3 that is spoken.
    pub minor: u16,
    /// How many extensions are not known.
    pub extensions: usize,
}

/// Reads a NegotiateProtocolVersion body.
pub fn read_negotiate(body: &[u8]) -> Option<Negotiated> {
    let (version, rest) = body.split_first_chunk::<4>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let (version, count) = (u32::from_be_bytes(*version), u32::from_be_bytes(*count));
    let extensions = usize::try_from(count).ok()?;
    for _ in 0..extensions {
        (_, rest) = cstring(rest)?;
    }
    let minor = version as u16;
    (version >> 16 == 3 && rest.is_empty()).then_some(Negotiated { minor, extensions })
}

/// Appends ReadyForQuery; `status` is `I`, `T` or `E`.
pub fn put_ready(out: &mut Vec<u8>, status: u8) {
    frame(out, b'Z', |body| body.push(status));
}

/// Appends NotificationResponse; `rest` is the channel and the payload as they stand on the wire.
pub fn put_notification(out: &mut Vec<u8>, pid: i32, rest: &[u8]) {
    frame(out, b'A', |body| {
        body.extend_from_slice(&pid.to_be_bytes());
        body.extend_from_slice(rest);
    });
}

/// Appends CommandComplete.
pub fn put_complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, b'C', |body| {
        body.extend_from_slice(tag.as_bytes());
        body.push(0);
    });
}

/// Appends an ErrorResponse with a body that was read before.
pub fn put_raw_error(out: &mut Vec<u8>, fields: &[u8]) {
    frame(out, b'E', |body| body.extend_from_slice(fields));
}

/// Appends a ParameterDescription; `types` as they stand on the wire, count included.
pub fn put_parameter_description(out: &mut Vec<u8>, types: &[u8]) {
    frame(out, b't', |body| body.extend_from_slice(types));
}

/// A column of a result: its name, and type, length and modifier as they stand on the wire.
pub type Column<'frame> = (&'frame [u8], &'frame [u8]);

/// What a RowDescription body says of a result. Where a column comes from is left out. `None`
/// if the layout is wrong.
pub fn columns(body: &[u8]) -> Option<Vec<Column<'_>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (name, after) = cstring(rest)?;
        let (facts, after) = after.split_first_chunk::<18>()?;
        columns.push((name, facts.get(6..16)?));
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

/// SQLSTATE and severity of a server's ErrorResponse body. A missing field is empty, never a
/// failure to read on (CVE-2026-6666: an error without SQLSTATE).
pub fn read_error(body: &[u8]) -> ReadError {
    let mut read = ReadError::default();
    let mut rest = body;
    while let Some((&code, after)) = rest.split_first() {
        let Some((text, next)) = cstring(after).filter(|_| code != 0) else { break };
        let text = String::from_utf8_lossy(text).into_owned();
        match code {
            b'V' => read.severity = text,
            b'S' if read.severity.is_empty() => read.severity = text,
            b'C' => read.sqlstate = text,
            b'M' => read.message = text,
            _ => {}
        }
        rest = next;
    }
    read
}

/// What [`read_error`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadError {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
}

impl ReadError {
    /// Whether the server ends the connection with this.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// Name and value of a ParameterStatus body.
pub fn read_parameter_status(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = cstring(body)?;
    let (value, rest) = cstring(rest)?;
    let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
    rest.is_empty().then_some((name, value))
}

/// The columns of a DataRow body in text format; `None` in the list is SQL's null.
pub fn read_row(body: &[u8]) -> Option<Row<'_>> {
    let (count, cells) = body.split_first_chunk::<2>()?;
    let row = Row { count: u16::from_be_bytes(*count), cells };
    let mut rest = row;
    while rest.count > 0 {
        rest.next_cell()?;
    }
    rest.cells.is_empty().then_some(row)
}

/// The cells of a DataRow message whose layout was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'body> {
    count: u16,
    cells: &'body [u8],
}

impl<'body> Row<'body> {
    /// The value in a column, counted from 0; `None` for NULL, and where there is no such column.
    pub fn value(mut self, column: usize) -> Option<&'body [u8]> {
        if column >= usize::from(self.count) {
            return None;
        }
        for _ in 0..column {
            self.next_cell()?;
        }
        self.next_cell()?
    }

    /// Takes the first cell off; `None` if there is none, or half of one.
    fn next_cell(&mut self) -> Option<Option<&'body [u8]>> {
        self.count = self.count.checked_sub(1)?;
        let (length, after) = self.cells.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let bytes = if length == -1 { 0 } else { usize::try_from(length).ok()? };
        let (value, rest) = after.split_at_checked(bytes)?;
        self.cells = rest;
        Some((length != -1).then_some(value))
    }
}

/// Appends a frame whose body `write` makes.
pub fn frame(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    write(out);
    let length = (out.len() - start - 1) as u32;
    if let Some(field) = out.get_mut(start + 1..start + HEADER_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_and_one_without_fields_is_empty() {
        let mut out = Vec::new();
        let fields = ErrorFields { severity: "FATAL", sqlstate: "57P01", ..Default::default() };
        put_error(&mut out, fields);
        let read = read_error(&out[HEADER_BYTES..]);
        assert!(read.is_fatal());
        assert_eq!(read.sqlstate, "57P01");
        assert_eq!(read_error(b"\0"), ReadError::default());
        assert_eq!(read_error(b"Sno end"), ReadError::default());
    }

    #[test]
    fn a_negotiation_reads_back_and_lies_are_refused() {
        let mut out = Vec::new();
        put_negotiate(&mut out, 2, &["_pq_.a".to_owned(), "_pq_.b".to_owned()]);
        let told = Negotiated { minor: 2, extensions: 2 };
        assert_eq!(read_negotiate(&out[HEADER_BYTES..]), Some(told));
        assert_eq!(read_negotiate(&out[HEADER_BYTES..out.len() - 1]), None);
        assert_eq!(read_negotiate(b"\0\x02\0\0\0\0\0\0"), None);
        assert_eq!(read_negotiate(b"\0\x03\0\0\xff\xff\xff\xff"), None);
    }

    #[test]
    fn columns_are_read_without_where_they_come_from() {
        let column =
            |table: u8, kind: u8| [b"a\0\0\0\0", &[table, 0, 1, 0, 0, 0, kind][..]].concat();
        let body = |table, kind| {
            [b"\0\x01", &column(table, kind)[..], b"\0\x04\xff\xff\xff\xff\0\0"].concat()
        };
        let (one, other) = (body(7, 23), body(8, 23));
        assert_eq!(columns(&one).unwrap(), columns(&other).unwrap());
        assert_ne!(columns(&one).unwrap(), columns(&body(7, 20)).unwrap());
        assert_eq!(columns(&one[..one.len() - 1]), None);
        assert_eq!(columns(b"\0\0"), Some(Vec::new()));
        assert_eq!(columns(b"\0\0x"), None);
    }

    #[test]
    fn rows_are_read_and_lies_refused() {
        let row = read_row(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff").unwrap();
        let values: Vec<_> = (0..3).map(|column| row.value(column)).collect();
        assert_eq!(values, [Some(&b"a"[..]), None, None]);
        assert_eq!(read_row(b"\0\x01\0\0\0\x05a"), None);
        assert_eq!(read_row(b"\0\x01\xff\xff\xff\xfe"), None);
        assert_eq!(read_row(b"\0\x00x"), None);
    }

    #[test]
    fn random_bodies_never_panic() {
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..50_000 {
            let length = random.usize(..32);
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..3)).collect();
            let _ = (read_error(&bytes), read_row(&bytes), read_parameter_status(&bytes));
            let _ = (read_negotiate(&bytes), columns(&bytes));
        }
    }
}
