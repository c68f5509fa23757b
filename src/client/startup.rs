//! From a fresh socket to a client that has said who it claims to be: TLS, versions, start-up
//! parameters. Everything is read to the exact byte, so nothing sent ahead of a handshake survives
//! it (CVE-2021-23222), and everything has a bound.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::client::settings::ClientSettings;
use crate::error::Error;
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
    pub acceptor: Option<TlsAcceptor>,
}

/// Requests for encryption a client may make before it must start: one of each kind.
const REQUESTS_MAX: usize = 2;

/// Reads first packets until the client starts a session or asks for a cancel.
pub async fn negotiate(
    socket: Socket,
    tls: &DoorTls,
    settings: &ClientSettings,
) -> Result<Hello, Ended> {
    let mut stream = Stream::Plain(socket);
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

async fn shake_hands(mut stream: Stream, acceptor: &TlsAcceptor) -> io::Result<Stream> {
    stream.write_all(b"S").await?;
    let Stream::Plain(socket) = stream else { return Err(io::ErrorKind::InvalidInput.into()) };
    Ok(Stream::Accepted(Box::new(acceptor.accept(socket).await?)))
}

async fn start(mut stream: Stream, startup: Startup, policy: TlsPolicy) -> Result<Hello, Ended> {
    if policy == TlsPolicy::Require && !stream.is_secure() {
        return Err(Ended::Refused(Box::new(stream), Error::TlsRequired));
    }
    if startup.minor > MINOR_MAX || !startup.extensions.is_empty() {
        let mut out = Vec::new();
        backend::put_negotiate(&mut out, MINOR_MAX, &startup.extensions);
        stream.write_all(&out).await?;
        stream.flush().await?;
    }
    Ok(Hello::Start { stream, startup })
}
