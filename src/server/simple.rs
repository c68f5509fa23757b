//! Run a statement of the gate's own and collect what comes back as text rows.

use std::io;

use crate::net::Connection;
use crate::wire::backend::{self, ReadError};
use crate::wire::frame::HEADER_BYTES;

/// Longest frame a server may answer one of the gate's own statements with. The longest real one
/// is a row of settings; a hostile server shall not make the gate hold more.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// What a row of one column begins with.
const ONE_COLUMN: [u8; 2] = [0, 1];

/// Most frames in one reply, for the same reason.
const FRAMES_MAX: usize = 10_000;

/// Most bytes of one reply, for the same reason.
const REPLY_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Everything a server said between a Query and its ReadyForQuery.
#[derive(Debug, Default)]
pub struct Reply {
    /// The body of the first row's message, empty without one, and how many rows there were.
    row: Vec<u8>,
    pub rows: usize,
    pub error: Option<ReadError>,
    /// NotificationResponses that came along, whole.
    pub heard: Vec<u8>,
    /// ParameterStatus that came along.
    pub parameters: Vec<(String, String)>,
    /// Statements that were completed.
    pub completed: usize,
    /// `I`, `T` or `E`.
    pub status: u8,
}

impl Reply {
    /// A column of the first row, as text.
    pub fn text(&self, column: usize) -> Option<&str> {
        let value = backend::read_row(&self.row)?.value(column)?;
        std::str::from_utf8(value).ok()
    }

    /// Whether all of it succeeded and no transaction is open.
    pub fn is_clean(&self) -> bool {
        self.error.is_none() && self.status == b'I' && self.completed > 0
    }
}

/// Reads the reply to a Query. An unknown or misplaced message is an error: the caller closes.
pub async fn reply(connection: &mut Connection) -> io::Result<Reply> {
    read(connection, false).await
}

/// Reads the reply to a FunctionCall: its result is the only column of the only row.
pub async fn called(connection: &mut Connection) -> io::Result<Reply> {
    read(connection, true).await
}

async fn read(connection: &mut Connection, called: bool) -> io::Result<Reply> {
    let mut reply = Reply::default();
    let mut bytes = 0;
    for _ in 0..FRAMES_MAX {
        let header = connection.frame(FRAME_BYTES_MAX).await?;
        bytes += header.length;
        if bytes > REPLY_BYTES_MAX {
            break;
        }
        let frame = connection.input.data();
        let body = frame.get(HEADER_BYTES..header.length).unwrap_or_default();
        match header.tag {
            b'N' => {}
            b'A' => reply.heard.extend_from_slice(frame.get(..header.length).unwrap_or_default()),
            b'V' if called && reply.completed == 0 => {
                // A value stands there as it does in a row.
                reply.row = [&ONE_COLUMN[..], body].concat();
                backend::read_row(&reply.row).ok_or_else(|| unexpected(header.tag))?;
                (reply.rows, reply.completed) = (1, 1);
            }
            b'T' | b'I' | b'C' | b'D' if called => return Err(unexpected(header.tag)),
            b'T' => {}
            b'I' | b'C' => reply.completed += 1,
            b'D' => {
                backend::read_row(body).ok_or_else(|| unexpected(header.tag))?;
                if reply.rows == 0 {
                    reply.row = body.to_vec();
                }
                reply.rows += 1;
            }
            b'E' => reply.error = Some(backend::read_error(body)),
            b'S' => {
                let read = backend::read_parameter_status(body);
                let (name, value) = read.ok_or_else(|| unexpected(header.tag))?;
                reply.parameters.push((name.to_owned(), value.to_owned()));
            }
            b'Z' => {
                let [status @ (b'I' | b'T' | b'E')] = body else { return Err(unexpected(b'Z')) };
                reply.status = *status;
                connection.input.consume(header.length);
                return Ok(reply);
            }
            other => return Err(unexpected(other)),
        }
        connection.input.consume(header.length);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "reply is too long"))
}

/// A message that has no business where it came.
pub fn unexpected(tag: u8) -> io::Error {
    let what = format!("unexpected message \"{}\"", tag.escape_ascii());
    io::Error::new(io::ErrorKind::InvalidData, what)
}
