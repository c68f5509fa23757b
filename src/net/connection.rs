//! [`Connection`]: a stream with what was read but not used and what is written but not sent.
//! Reading and sending are polled, so that the relay can wait on four things at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::buffer::{Buffer, Buffers, ROOM_BYTES_MIN};
use crate::net::stream::Stream;
use crate::net::watch::Watch;
use crate::wire::frame::{self, Header};

/// A stream and its two buffers. Buffers belong to the worker's [`Buffers`] and are given back
/// when empty, so an idle connection costs its socket and this struct.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffers: Buffers,
    /// Bytes read and not yet used.
    pub input: Buffer,
    /// Bytes to send before anything else.
    pub output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// TLS holds bytes back until it is flushed.
    unflushed: bool,
    /// Bytes read and written so far.
    pub received: u64,
    pub transmitted: u64,
    /// While the other side is not read.
    watch: Option<Box<Watch>>,
    /// What is unread is all that will come.
    ended: bool,
}

/// Up to so many bytes are tried at once, without asking to be woken: they nearly always fit. More
/// may not, and then a second try would cost a call.
const TRIED_BYTES_MAX: usize = 4 * 1024;

/// An output buffer that grew beyond this is not kept when it is empty again.
const OUTPUT_KEPT_BYTES: usize = 4 * 1024;

impl Connection {
    /// Wraps a stream registered with the runtime of this thread.
    pub fn new(stream: Stream, buffers: Buffers) -> Self {
        Self {
            stream,
            buffers,
            input: Buffer::default(),
            output: Vec::new(),
            sent: 0,
            unflushed: false,
            received: 0,
            transmitted: 0,
            watch: None,
            ended: false,
        }
    }

    /// Gives the stream up for another thread's runtime, if nothing is unread or unsent.
    pub fn depart(mut self) -> Result<Stream, Box<Self>> {
        self.unwatch();
        match self.input.is_empty() && self.is_sent() && self.stream.detach().is_ok() {
            true => {
                self.buffers.take_back(&mut self.input);
                Ok(self.stream)
            }
            false => Err(Box::new(self)),
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Most looks find nothing: no buffer is fetched for those.
        match self.stream.poll_readable(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.buffers.take_back(&mut self.input);
                return Poll::Pending;
            }
        }
        self.buffers.lend(&mut self.input);
        let mut room = ReadBuf::new(self.input.room(ROOM_BYTES_MIN));
        match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
            Poll::Ready(Ok(())) => {
                let count = room.filled().len();
                self.input.filled(count);
                self.received += count as u64;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.buffers.take_back(&mut self.input);
                Poll::Pending
            }
        }
    }

    /// For whoever does not read: ready once the other side has ended its stream, however much of
    /// it is unread. That costs a descriptor until [`Self::unwatch`]; without one nothing is seen.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.is_none() && !self.ended {
            self.watch = Watch::new(self.stream.socket()).ok().map(Box::new);
        }
        match &self.watch {
            Some(watch) => ready!(watch.poll_ended(cx)),
            None if !self.ended => return Poll::Pending,
            None => {}
        }
        self.ended = true;
        Poll::Ready(())
    }

    /// Whether the other side was seen to have ended its stream.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// It is read again.
    #[inline]
    pub fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Whether nothing was read that waits to be used, and nothing is there to be read.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.input.is_empty() && !self.stream.may_be_readable()
    }

    /// Gives back most of the room that a short message takes, while it has to wait for long.
    pub fn compact(&mut self) {
        self.buffers.compact(&mut self.input);
    }

    /// Whether everything written was handed to the kernel.
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.output.is_empty() && !self.unflushed
    }

    /// Sends what `output` holds.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let rest = self.output.get(self.sent..).unwrap_or_default();
            let count = ready!(write(&mut self.stream, rest, cx))?;
            self.wrote(count)?;
            self.sent += count;
        }
        self.sent = 0;
        match self.output.capacity() > OUTPUT_KEPT_BYTES {
            true => self.output = Vec::new(),
            false => self.output.clear(),
        }
        self.poll_flush_stream(cx)
    }

    /// Gives the room of what was sent back to the allocator, if nothing as long comes again soon.
    pub fn rest(&mut self) {
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Sends up to `count` bytes of `from`'s input, straight from its buffer. What `output` holds
    /// goes first. Returns how many were sent; they are consumed.
    pub fn poll_pass(
        &mut self,
        from: &mut Connection,
        count: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let bytes = from.input.data().get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sent = ready!(write(&mut self.stream, bytes, cx))?;
        self.wrote(sent)?;
        from.input.consume(sent);
        // A flush that must wait is finished by the next poll_send.
        let _ = self.poll_flush_stream(cx)?;
        Poll::Ready(Ok(sent))
    }

    /// Sends everything in `output`, waiting as long as it takes.
    pub async fn send(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Waits for a whole frame of at most `bytes_max` bytes at the front of the input.
    pub async fn frame(&mut self, bytes_max: usize) -> io::Result<Header> {
        loop {
            if let Some(header) = self.peek()? {
                if header.length > bytes_max {
                    return Err(invalid("message is too long"));
                }
                if self.input.len() >= header.length {
                    return Ok(header);
                }
            }
            if poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The header at the front of the input, if five bytes are there.
    pub fn peek(&self) -> io::Result<Option<Header>> {
        frame::header(self.input.data()).map_err(|error| invalid(&error.to_string()))
    }

    /// Whether the last that was read is a Terminate, so that the end of the stream is no surprise.
    pub fn ends_in_goodbye(&self) -> bool {
        self.input.data().ends_with(b"X\0\0\0\x04")
    }

    /// Reads to the end of the stream and throws it away.
    pub async fn drain(&mut self) -> io::Result<()> {
        while poll_fn(|cx| self.poll_fill(cx)).await? > 0 {
            self.input.consume(self.input.len());
        }
        Ok(())
    }

    /// Says goodbye to the transport: TLS close_notify and the end of our half.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }

    fn wrote(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.transmitted += count as u64;
        self.unflushed = self.stream.is_secure();
        Ok(())
    }

    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[inline]
fn write(stream: &mut Stream, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    if bytes.len() <= TRIED_BYTES_MAX
        && let Some(Ok(count)) = stream.try_write(bytes)
    {
        return Poll::Ready(Ok(count));
    }
    // What went wrong goes wrong again, and whoever must wait is woken.
    Pin::new(stream).poll_write(cx, bytes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
