//! Protocol messages as bytes, written by hand so that wrong ones are as easy as right ones, and
//! frames read back in a short notation (PostgreSQL manual, 55.7).

use std::fmt;

/// What `SELECT 1` answers outside of a transaction.
pub const ONE: &str = "T D(1) C(SELECT 1) Z(I)";

/// A message from a server: its tag and what follows the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    /// The field of an ErrorResponse or NoticeResponse, by its letter: `C` SQLSTATE, `M` message,
    /// `D` detail, `H` hint, `S` severity.
    pub fn field(&self, letter: char) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        fields.find_map(|field| {
            let (first, rest) = field.split_first()?;
            (char::from(*first) == letter).then(|| text(rest))
        })
    }

    /// The columns of a DataRow as text; `None` for NULL.
    pub fn columns(&self) -> Vec<Option<String>> {
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes([self.body[0], self.body[1]]) {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            let Ok(length) = usize::try_from(length) else {
                columns.push(None);
                continue;
            };
            columns.push(Some(text(&rest[..length])));
            rest = &rest[length..];
        }
        columns
    }

    /// The body's NUL-terminated texts.
    pub fn texts(&self) -> Vec<String> {
        self.body.split(|byte| *byte == 0).map(text).collect()
    }

    /// The bytes as they travelled.
    pub fn bytes(&self) -> Vec<u8> {
        frame(self.tag, &self.body)
    }
}

/// The notation: `Z(I)`, `C(SELECT 1)`, `D(1,acme)`, `E(42501)`, `N(01000)`, `S(TimeZone=UTC)`; any
/// other message is its tag alone.
impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        let inside = match self.tag {
            b'Z' => text(&self.body),
            b'C' => self.texts().swap_remove(0),
            b'E' | b'N' => self.field('C').unwrap_or_default(),
            b'S' => self.texts()[..2].join("="),
            b'D' => {
                let columns = self.columns().into_iter();
                columns.map(|one| one.unwrap_or("NULL".into())).collect::<Vec<_>>().join(",")
            }
            _ => return write!(out, "{tag}"),
        };
        write!(out, "{tag}({inside})")
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        write!(out, "{tag}[{}]", String::from_utf8_lossy(&self.body).escape_debug())
    }
}

/// That a SELECT was cancelled: before or after its rows were described.
#[track_caller]
pub fn assert_cancelled(frames: &[Frame]) {
    let cancelled = transcript(frames);
    assert!(["T E(57014) Z(I)", "E(57014) Z(I)"].contains(&&*cancelled), "{cancelled}");
}

/// Frames in the notation, with blanks between: `T D(1) C(SELECT 1) Z(I)`.
pub fn transcript(frames: &[Frame]) -> String {
    frames.iter().map(Frame::to_string).collect::<Vec<_>>().join(" ")
}

/// A message with a correct length.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    lying_frame(tag, body.len() + 4, body)
}

/// A message that says it is `length` long (the length counts itself, as the protocol has it).
pub fn lying_frame(tag: u8, length: usize, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// A start-up packet of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_version(3, 0, parameters)
}

/// A start-up packet of any protocol version.
pub fn startup_version(major: u16, minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = [major.to_be_bytes(), minor.to_be_bytes()].concat();
    for (name, value) in parameters {
        body.extend_from_slice(&[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    untagged(&body)
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    untagged(&80_877_103_u32.to_be_bytes())
}

/// GSSENCRequest.
pub fn gss_request() -> Vec<u8> {
    untagged(&80_877_104_u32.to_be_bytes())
}

/// CancelRequest.
pub fn cancel_request(pid: i32, secret: i32) -> Vec<u8> {
    cancel_request_with(pid, &secret.to_be_bytes())
}

/// CancelRequest with a secret of any length (protocol 3.2).
pub fn cancel_request_with(pid: i32, secret: &[u8]) -> Vec<u8> {
    let code = 80_877_102_u32.to_be_bytes();
    untagged(&[&code[..], &pid.to_be_bytes(), secret].concat())
}

/// A password, or anything else with tag `p`, with its NUL.
pub fn password(text: &str) -> Vec<u8> {
    frame(b'p', &with_nul(text))
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &with_nul(sql))
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[&with_nul(name)[..], &with_nul(sql), &[0, 0]].concat())
}

/// Bind with parameters and results as text.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let mut body = [with_nul(portal), with_nul(statement)].concat();
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        let Some(value) = parameter else {
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        };
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    frame(b'B', &body)
}

/// Describe of a statement (`b'S'`) or portal (`b'P'`).
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind], &with_nul(name)[..]].concat())
}

/// Execute; zero rows means all.
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    frame(b'E', &[&with_nul(portal)[..], &rows_max.to_be_bytes()].concat())
}

/// Close of a statement (`b'S'`) or portal (`b'P'`).
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind], &with_nul(name)[..]].concat())
}

/// Parse, Bind, Describe, Execute and Sync with unnamed statement and portal.
pub fn extended(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let run = [bind("", "", parameters), describe(b'P', ""), execute("", 0), sync()].concat();
    [parse("", sql), run].concat()
}

/// Sync.
pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

/// CopyData.
pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    frame(b'd', bytes)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    frame(b'c', &[])
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    frame(b'f', &with_nul(reason))
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    frame(b'X', &[])
}

/// ReadyForQuery: `b'I'`, `b'T'` or `b'E'`.
pub fn ready(status: u8) -> Vec<u8> {
    frame(b'Z', &[status])
}

/// CommandComplete.
pub fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', &with_nul(tag))
}

/// ErrorResponse.
pub fn error(severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0");
    frame(b'E', fields.as_bytes())
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', &[with_nul(name), with_nul(value)].concat())
}

/// RowDescription of text columns.
pub fn row_description(names: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(names.len()).unwrap().to_be_bytes().to_vec();
    for name in names {
        body.extend_from_slice(&with_nul(name));
        // No table, no attribute; type text (25), variable length, no modifier, text format.
        body.extend_from_slice(&[
            0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0,
        ]);
    }
    frame(b'T', &body)
}

/// DataRow of text columns.
pub fn data_row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |text| i32::try_from(text.len()).unwrap());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default().as_bytes());
    }
    frame(b'D', &body)
}

/// A packet that has a length and no tag.
pub fn untagged(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&length[..], body].concat()
}

fn with_nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
