//! Answer a server's authentication request. Only the ways the route allows are answered: a server
//! in between that asks for the password in clear gets none.

use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use crate::net::Connection;
use crate::server::conninfo::{ChannelBinding, Conninfo, Protocol, RequireAuth};
use crate::server::simple::unexpected;
use crate::wire::backend;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::startup::SECRET_BYTES;

/// Longest message a server may send before it has accepted the login.
pub(super) const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Most messages before ReadyForQuery.
const FRAMES_MAX: usize = 1000;

/// Why a login did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("server said {severity} {sqlstate}: {message}")]
    Server { severity: String, sqlstate: String, message: String },
    #[error("server asks for {0}, which require_auth of this route does not allow")]
    NotAllowed(&'static str),
    #[error("server asks for a password and the route has none")]
    PasswordMissing,
    #[error("channel binding is required and the server does not offer it")]
    ChannelBinding,
    #[error("server speaks protocol 3.{minor}, min_protocol_version of this route is 3.{least}")]
    Protocol { minor: u16, least: u16 },
}

/// What a server says of itself at the end of a login.
#[derive(Debug, Default)]
pub struct Welcome {
    pub pid: i32,
    pub secret: Vec<u8>,
    pub greeting: Vec<(String, String)>,
}

/// Logs in on a connection whose startup message was sent. `end_point` is the hash of the server's
/// certificate, if the connection has one.
pub async fn login(
    connection: &mut Connection,
    conninfo: &Conninfo,
    end_point: Option<Vec<u8>>,
) -> Result<Welcome, LoginError> {
    let mut proof = Proof::default();
    let mut welcome = Welcome::default();
    let mut negotiated = false;
    for _ in 0..FRAMES_MAX {
        let (tag, body) = frame(connection).await?;
        match tag {
            b'R' if welcome.pid == 0 && welcome.greeting.is_empty() => {
                authentication(connection, conninfo, &end_point, &body, &mut proof).await?;
            }
            b'N' => {}
            b'v' if !negotiated && !proof.given && !proof.accepted => {
                negotiated = true;
                version(&body, conninfo.protocol)?;
            }
            b'S' => {
                let read = backend::read_parameter_status(&body);
                let (name, value) = read.ok_or_else(|| unexpected(b'S'))?;
                welcome.greeting.push((name.to_owned(), value.to_owned()));
            }
            b'K' => {
                let key = body.split_first_chunk::<4>();
                let key = key.filter(|(_, secret)| SECRET_BYTES.contains(&secret.len()));
                let (pid, secret) = key.ok_or_else(|| unexpected(b'K'))?;
                (welcome.pid, welcome.secret) = (i32::from_be_bytes(*pid), secret.to_vec());
            }
            b'Z' if proof.accepted && body == b"I" => return Ok(welcome),
            other => return Err(unexpected(other).into()),
        }
    }
    Err(unexpected(b'Z').into())
}

/// The server speaks an older version than it was asked for, or not all that it was asked for.
fn version(body: &[u8], wish: Protocol) -> Result<(), LoginError> {
    let told = backend::read_negotiate(body).ok_or_else(|| unexpected(b'v'))?;
    let minor = told.minor;
    // The gate asks for no extensions, so there is none to be unknown.
    if told.extensions > 0 || minor >= wish.minor_max {
        return Err(unexpected(b'v').into());
    }
    match minor < wish.minor_min {
        true => Err(LoginError::Protocol { minor, least: wish.minor_min }),
        false => Ok(()),
    }
}

/// How far a login has come.
#[derive(Debug, Default)]
struct Proof {
    /// The server asked in a way the route allows, and was answered.
    given: bool,
    /// The server has accepted.
    accepted: bool,
}

/// Answers one authentication request.
async fn authentication(
    connection: &mut Connection,
    conninfo: &Conninfo,
    end_point: &Option<Vec<u8>>,
    body: &[u8],
    proof: &mut Proof,
) -> Result<(), LoginError> {
    let mut allowed = conninfo.require_auth;
    if conninfo.channel_binding == ChannelBinding::Require {
        // Nothing but SCRAM binds a channel, as in libpq.
        allowed = RequireAuth { md5: false, password: false, none: false, ..allowed };
    }
    let (kind, rest) = body.split_first_chunk::<4>().ok_or_else(|| unexpected(b'R'))?;
    match u32::from_be_bytes(*kind) {
        0 if allowed.none || proof.given => {
            proof.accepted = true;
            return Ok(());
        }
        0 => return Err(LoginError::NotAllowed("no authentication (trust)")),
        _ if proof.given => return Err(unexpected(b'R').into()),
        3 if allowed.password => password(connection, secret(conninfo)?).await?,
        5 if allowed.md5 => {
            let salt = rest.first_chunk::<4>().ok_or_else(|| unexpected(b'R'))?;
            let hash = md5_hash(conninfo.user.as_bytes(), secret(conninfo)?, *salt);
            password(connection, hash.as_bytes()).await?;
        }
        10 if allowed.scram => {
            scram(connection, conninfo, end_point, rest).await?;
            proof.accepted = true;
        }
        3 => return Err(LoginError::NotAllowed("a password in clear (password)")),
        5 => return Err(LoginError::NotAllowed("an MD5 password (md5)")),
        10 => return Err(LoginError::NotAllowed("SCRAM (scram-sha-256)")),
        _ => return Err(LoginError::NotAllowed("a method the gate does not know")),
    }
    proof.given = true;
    Ok(())
}

/// The whole SCRAM exchange; it proves the server to us as well as us to the server.
async fn scram(
    connection: &mut Connection,
    conninfo: &Conninfo,
    end_point: &Option<Vec<u8>>,
    offered: &[u8],
) -> Result<(), LoginError> {
    let offers = |name: &str| offered.split(|byte| *byte == 0).any(|it| it == name.as_bytes());
    let wish = conninfo.channel_binding;
    let hash = end_point.clone().filter(|_| wish != ChannelBinding::Disable);
    let plus = hash.filter(|_| offers(SCRAM_SHA_256_PLUS));
    let (mechanism, binding) = match plus {
        Some(hash) => (SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)),
        None if wish == ChannelBinding::Require => return Err(LoginError::ChannelBinding),
        // "y" (could, but you did not offer) is only true where the server does not offer PLUS.
        None if end_point.is_some() && !offers(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256, Binding::unrequested())
        }
        None => (SCRAM_SHA_256, Binding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(LoginError::NotAllowed("a SASL mechanism other than SCRAM-SHA-256"));
    }
    let mut scram = ScramSha256::new(secret(conninfo)?, binding);
    put(connection, |out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    let challenge = continuation(connection, 11).await?;
    scram.update(&challenge)?;
    put(connection, |out| frontend::sasl_response(scram.message(), out)).await?;
    let verdict = continuation(connection, 12).await?;
    scram.finish(&verdict)?;
    // Only now has the server proved to know the password, so only now does its R(0) count.
    match frame(connection).await? {
        (b'R', body) if body == [0; 4] => Ok(()),
        (tag, _) => Err(unexpected(tag).into()),
    }
}

async fn continuation(connection: &mut Connection, wanted: u32) -> Result<Vec<u8>, LoginError> {
    let (tag, body) = frame(connection).await?;
    match body.split_first_chunk::<4>() {
        Some((kind, rest)) if tag == b'R' && u32::from_be_bytes(*kind) == wanted => {
            Ok(rest.to_vec())
        }
        _ => Err(unexpected(tag).into()),
    }
}

async fn password(connection: &mut Connection, password: &[u8]) -> io::Result<()> {
    put(connection, |out| frontend::password_message(password, out)).await
}

async fn put(
    connection: &mut Connection,
    write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    write(&mut out)?;
    connection.output.extend_from_slice(&out);
    connection.send().await
}

fn secret(conninfo: &Conninfo) -> Result<&[u8], LoginError> {
    let password = conninfo.password.as_ref().ok_or(LoginError::PasswordMissing)?;
    Ok(password.expose())
}

/// The next frame, taken off the input. A server's error ends the login.
async fn frame(connection: &mut Connection) -> Result<(u8, Vec<u8>), LoginError> {
    let header = connection.frame(FRAME_BYTES_MAX).await?;
    let frame = connection.input.data();
    let body = frame.get(HEADER_BYTES..header.length).unwrap_or_default().to_vec();
    connection.input.consume(header.length);
    if header.tag == b'E' {
        let read = backend::read_error(&body);
        let (severity, sqlstate, message) = (read.severity, read.sqlstate, read.message);
        return Err(LoginError::Server { severity, sqlstate, message });
    }
    Ok((header.tag, body))
}
