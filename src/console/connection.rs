//! The console's end of a client's connection: whole frames in, messages out, everything bounded.
//! Frames are cut here by their length; a decoder only ever sees the body of one.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::console::fault::{Fault, refusal};
use crate::error::Error;

/// How long a half-sent message may take, or a client that does not read may hold us up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Output is written out when it reaches this size, so that a long table is not held whole.
const FLUSH_BYTES: usize = 32 * 1024;

/// How much of what a client sends is read while its command is being carried out.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// How long, and for how many bytes, we listen to a client after the last word to it. A socket
/// closed with unread input is reset, and the last word would be lost with it.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 * 1024;

/// Why a step did not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The command is answered with an error, the session goes on.
    Fault(Fault),
    /// The session ends with this refusal.
    Refused(Error),
    /// The client left, or can no longer be spoken to.
    Gone,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// One message from the client: its type byte and its body.
#[derive(Debug)]
pub struct Frame {
    pub tag: u8,
    pub body: Bytes,
}

/// A client's stream with its two buffers.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes the stream over; nothing has been read past the start-up packet.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// The next frame, with a body of at most `bytes_max`. Waits as long as the client is silent;
    /// a frame that has begun must end within [`STALL_TIMEOUT`].
    pub async fn read(&mut self, bytes_max: usize) -> Result<Frame, Stop> {
        if self.input.is_empty() {
            self.fill().await?;
        }
        let rest = async {
            loop {
                if let Some(frame) = self.cut(bytes_max)? {
                    return Ok(frame);
                }
                self.fill().await?;
            }
        };
        timeout(STALL_TIMEOUT, rest).await.unwrap_or(Err(Stop::Refused(Error::ClientStalled)))
    }

    /// Returns when the client has left. What it sends meanwhile is kept, up to a bound; beyond
    /// it, this waits for ever.
    pub async fn left(&mut self) {
        while self.input.len() < AHEAD_BYTES_MAX {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Puts a message behind those that wait to be sent.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), Stop> {
        message.encode(&mut self.output).map_err(|_| Error::Internal)?;
        if self.output.len() >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes everything out.
    pub async fn flush(&mut self) -> Result<(), Stop> {
        let written = async {
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.flush().await
        };
        match timeout(STALL_TIMEOUT, written).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Stop::Gone),
        }
    }

    /// Says a last word, if there is one, and closes.
    pub async fn close(mut self, last_word: Option<&Error>) {
        if let Some(error) = last_word
            && self.send(&refusal(error)).await.is_err()
        {
            return;
        }
        if self.flush().await.is_err() {
            return;
        }
        let farewell = async {
            self.stream.shutdown().await?;
            let mut rest = self.stream.take(FAREWELL_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // The client has what it needs; how it takes the end is its own affair.
        let _ = timeout(FAREWELL_TIME, farewell).await;
    }

    async fn fill(&mut self) -> Result<(), Stop> {
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Stop::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Cuts the first frame off the input, if it is all there.
    fn cut(&mut self, bytes_max: usize) -> Result<Option<Frame>, Stop> {
        let Some((&tag, rest)) = self.input.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        // The length counts itself and not the tag (PostgreSQL manual, 55.7).
        let body_bytes = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| length.checked_sub(4))
            .ok_or(Error::Protocol { what: "invalid message length".into() })?;
        if body_bytes > bytes_max {
            return Err(Error::Protocol { what: "message is too long".into() }.into());
        }
        if rest.len() < 4 + body_bytes {
            return Ok(None);
        }
        self.input.advance(5);
        Ok(Some(Frame { tag, body: self.input.split_to(body_bytes).freeze() }))
    }
}
