//! From a fresh socket to a client that has said who it claims to be: TLS (asked for or direct),
//! versions, start-up parameters. Everything is read to the exact byte, so nothing sent ahead of a
//! handshake survives it (CVE-2021-23222), and everything has a bound.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::settings::ClientSettings;
use crate::error::Error;
use crate::net::tls::{ALPN, Acceptor};
use crate::net::{Socket, Stream, TlsPolicy};
use crate::wire::backend;
use crate::wire::startup::{self, MINOR_MAX, Packet, Startup};

/// What a new connection turned out to be.
#[derive(Debug)]
pub enum Hello {
    /// The stream is closed when the cancel has been delivered.
    Cancel {
        stream: Stream,
        pid: i32,
        secret: Vec<u8>,
    },
    Start {
        stream: Stream,
        startup: Startup,
    },
}

/// Why a connection ended before it had a session.
#[derive(Debug)]
pub enum Ended {
    /// The client hung up or the transport failed; nothing to answer.
    Gone(io::Error),
    /// The client is told why, over the stream as far as it got.
    Refused(Box<Stream>, Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// How a listener speaks TLS.
#[derive(Clone)]
pub struct DoorTls {
    pub policy: TlsPolicy,
    pub acceptor: Option<Acceptor>,
}

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Requests for encryption a client may make before it must start: one of each kind.
const REQUESTS_MAX: usize = 2;

/// Reads first packets until the client starts a session or asks for a cancel.
pub async fn negotiate(
    socket: Socket,
    tls: &DoorTls,
    settings: &ClientSettings,
) -> Result<Hello, Ended> {
    let direct = begins_with_tls(&socket).await?;
    let mut stream = match &tls.acceptor {
        Some(acceptor) if direct && tls.policy != TlsPolicy::Disable => {
            accept_direct(socket, acceptor).await?
        }
        _ if direct => return Err(not_offered().into()),
        _ => Stream::Plain(socket),
    };
    for _ in 0..=REQUESTS_MAX {
        match packet(&mut stream, settings.startup_bytes).await? {
            Ok(Packet::Cancel { pid, secret }) => {
                return Ok(Hello::Cancel { stream, pid, secret });
            }
            Ok(Packet::Startup(startup)) => return start(stream, startup, tls.policy).await,
            Ok(Packet::Gss) if !stream.is_secure() => stream.write_all(b"N").await?,
            Ok(Packet::Ssl) if !stream.is_secure() => match &tls.acceptor {
                Some(acceptor) if tls.policy != TlsPolicy::Disable => {
                    stream = shake_hands(stream, acceptor).await?;
                }
                _ => stream.write_all(b"N").await?,
            },
            Ok(Packet::Gss | Packet::Ssl) => {
                let what = "encryption is already in use".into();
                return Err(Ended::Refused(Box::new(stream), Error::InvalidStartup { what }));
            }
            Err(error) => {
                let what = error.to_string().into();
                return Err(Ended::Refused(Box::new(stream), Error::InvalidStartup { what }));
            }
        }
    }
    let what = "too many requests for encryption".into();
    Err(Ended::Refused(Box::new(stream), Error::InvalidStartup { what }))
}

/// Whether the first byte is a TLS handshake's: as the length of a start-up packet it would stand
/// for hundreds of megabytes. As in PostgreSQL, Unix sockets have no TLS.
async fn begins_with_tls(socket: &Socket) -> io::Result<bool> {
    let Socket::Tcp(tcp) = socket else { return Ok(false) };
    let mut first = [0];
    // Looked at, not taken: the handshake needs it.
    Ok(tcp.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE])
}

/// TLS without asking first (`sslnegotiation=direct`). The client must have named the protocol in
/// the handshake: one that was made to speak to this port by mistake or malice has not.
async fn accept_direct(socket: Socket, acceptor: &Acceptor) -> io::Result<Stream> {
    let accepted = acceptor.tls.accept(socket).await?;
    if accepted.get_ref().1.alpn_protocol() != Some(ALPN) {
        let what = "direct TLS without the protocol name \"postgresql\" (ALPN)";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Stream::Accepted(Box::new(accepted)))
}

fn not_offered() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "direct TLS where none is offered")
}

async fn packet(
    stream: &mut Stream,
    bytes_max: usize,
) -> io::Result<Result<Packet, startup::BadPacket>> {
    let length = stream.read_u32().await? as usize;
    if !(8..=bytes_max).contains(&length) {
        return Ok(Err(startup::BadPacket::Length));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(startup::packet(&body))
}

async fn shake_hands(mut stream: Stream, acceptor: &Acceptor) -> io::Result<Stream> {
    stream.write_all(b"S").await?;
    let Stream::Plain(socket) = stream else { return Err(io::ErrorKind::InvalidInput.into()) };
    Ok(Stream::Accepted(Box::new(acceptor.tls.accept(socket).await?)))
}

async fn start(mut stream: Stream, startup: Startup, policy: TlsPolicy) -> Result<Hello, Ended> {
    if policy == TlsPolicy::Require && !stream.is_secure() {
        return Err(Ended::Refused(Box::new(stream), Error::TlsRequired));
    }
    if startup.minor > MINOR_MAX || !startup.extensions.is_empty() {
        let mut out = Vec::new();
        backend::put_negotiate(&mut out, startup.spoken(), &startup.extensions);
        stream.write_all(&out).await?;
        stream.flush().await?;
    }
    Ok(Hello::Start { stream, startup })
}
