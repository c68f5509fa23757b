//! [`Warded`]: a stream that a library logs in on, held to the ways that the connection string
//! allows. The library would answer a server that asks for the password in clear.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready as done};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::net::Stream;
use crate::server::conninfo::{self, Conninfo, RequireAuth};
use crate::server::program::Also;

/// Looks at the first authentication request, and lets nothing through that is not allowed.
#[derive(Debug)]
pub struct Warded {
    stream: Stream,
    /// The hash of the server's certificate, if it has shown one.
    end_point: Option<Vec<u8>>,
    allowed: RequireAuth,
    /// What has come of the message that is coming.
    head: Vec<u8>,
    /// What is still to come of one that asks for nothing.
    left: usize,
    asked: bool,
}

impl Warded {
    pub(super) fn new((stream, end_point): (Stream, Option<Vec<u8>>), conninfo: &Conninfo) -> Self {
        let allowed = match conninfo.channel_binding {
            // Nothing but SCRAM binds a channel, as in libpq.
            conninfo::ChannelBinding::Require => {
                RequireAuth { md5: false, password: false, none: false, ..conninfo.require_auth }
            }
            _ => conninfo.require_auth,
        };
        Self { stream, end_point, allowed, head: Vec::new(), left: 0, asked: false }
    }

    /// Lets the server ask in one more way.
    pub(super) fn allow(mut self, also: Also, local: bool) -> Self {
        match also {
            Also::Nothing => {}
            Also::Peer => self.allowed.none |= local,
            Also::Token => self.allowed.password = true,
        }
        self
    }

    /// Reads on in what the server says.
    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !self.asked && !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            bytes = bytes.get(passed..).unwrap_or_default();
            self.left -= passed;
            let Some((first, rest)) = bytes.split_first() else { break };
            self.head.push(*first);
            bytes = rest;
            let [tag, length @ ..] = self.head.as_slice() else { continue };
            let Some((length, kind)) = length.split_first_chunk::<4>() else { continue };
            match (tag, kind.first_chunk::<4>()) {
                (b'R', None) => {}
                (b'R', Some(kind)) => {
                    self.judge(u32::from_be_bytes(*kind))?;
                    self.asked = true;
                }
                _ => {
                    let length = u32::from_be_bytes(*length) as usize;
                    self.left = length.saturating_sub(4);
                    self.head.clear();
                }
            }
        }
        Ok(())
    }

    fn judge(&self, kind: u32) -> io::Result<()> {
        let RequireAuth { scram, md5, password, none } = self.allowed;
        let (allowed, what) = match kind {
            0 => (none, "no authentication (trust)"),
            3 => (password, "a password in clear (password)"),
            5 => (md5, "an MD5 password (md5)"),
            10 => (scram, "SCRAM (scram-sha-256)"),
            _ => (false, "a method the gate does not know"),
        };
        match allowed {
            true => Ok(()),
            false => {
                let text = "which require_auth of the connection string does not allow";
                let refused = format!("server asks for {what}, {text}");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
            }
        }
    }
}

impl AsyncRead for Warded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        done!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.look(new))
    }
}

impl AsyncWrite for Warded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for Warded {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// Hands the library a stream that is what the connection string asks for already, with TLS or
/// without.
#[derive(Debug)]
pub(super) struct AsItIs;

impl TlsConnect<Warded> for AsItIs {
    type Stream = Warded;
    type Error = io::Error;
    type Future = Ready<io::Result<Warded>>;

    fn connect(self, stream: Warded) -> Self::Future {
        ready(Ok(stream))
    }
}
