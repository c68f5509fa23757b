//! Connections of the gate's own programs to servers, by a library: who installs, looks or reads.

mod warded;

use std::io;
use std::time::Duration;

use tokio_postgres::config::{self, SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Connection};

use crate::server::conninfo::{ChannelBinding, Conninfo, Host, Target};
use crate::server::dial::{DialError, Spot, Way, dial, spots};
use warded::{AsItIs, Warded};

/// Who connects, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Program<'words> {
    /// For `application_name`.
    pub name: &'words str,
    pub dbname: &'words str,
    pub password: Option<&'words [u8]>,
    /// The longest that one address may take.
    pub limit: Duration,
    pub also: Also,
}

/// How a server may ask a program for proof beside what `require_auth` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Also {
    Nothing,
    /// Not at all, at a Unix socket: the server asks the system who connects (`peer`).
    Peer,
    /// For the password in clear: it is a tenant's token, and the server a gate.
    Token,
}

/// Why a program has no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// The server asks for a proof that require_auth does not allow.
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}, target_session_attrs wants another")]
    Role(&'static str),
    #[error("no login within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// A connection of a program, which is the caller's to run.
pub type Opened = (Client, Connection<Warded, Warded>);

/// Logs in at the first host that lets us in and is what `target_session_attrs` asks for.
///
/// # Errors
///
/// Of the last host that was tried.
pub async fn open(conninfo: &Conninfo, program: Program<'_>) -> Result<Opened, OpenError> {
    let mut last = OpenError::Timeout(program.limit);
    for target in conninfo.target.rounds() {
        for host in conninfo.order() {
            match open_host(conninfo, (host, *target), program).await {
                Ok(opened) => return Ok(opened),
                // As in libpq: another host would say the same.
                Err(error) if error.is_of_login() => return Err(error),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

impl OpenError {
    /// Whether a server answered and turned the login away, other than for the moment.
    fn is_of_login(&self) -> bool {
        match self {
            Self::NotAllowed(_) => true,
            Self::Postgres(error) => {
                error.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW)
            }
            _ => false,
        }
    }
}

async fn open_host(
    conninfo: &Conninfo,
    to: (usize, Target),
    program: Program<'_>,
) -> Result<Opened, OpenError> {
    let late = |_| OpenError::Timeout(program.limit);
    let spots = tokio::time::timeout(program.limit, spots(conninfo, to.0)).await;
    let spots = spots.map_err(late)?.map_err(DialError::Io)?;
    let mut last = OpenError::Timeout(program.limit);
    for spot in &spots {
        let attempt = open_spot(conninfo, to, spot, program);
        match tokio::time::timeout(program.limit, attempt).await.map_err(late) {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) if error.is_of_login() => return Err(error),
            Ok(Err(error @ OpenError::Role(_))) => return Err(error),
            Ok(Err(error)) | Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open_spot(
    conninfo: &Conninfo,
    (host, target): (usize, Target),
    spot: &Spot,
    program: Program<'_>,
) -> Result<Opened, OpenError> {
    let dialled = dial(conninfo, host, spot, Way::only(conninfo, host)).await?;
    let mut config = Config::new();
    config.user(&conninfo.user).dbname(program.dbname).application_name(program.name);
    if let Some(password) = program.password {
        config.password(password);
    }
    config.channel_binding(match conninfo.channel_binding {
        ChannelBinding::Disable => config::ChannelBinding::Disable,
        ChannelBinding::Prefer => config::ChannelBinding::Prefer,
        ChannelBinding::Require => config::ChannelBinding::Require,
    });
    // The stream has the TLS that the connection string asks for, or none: nothing is negotiated.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let local = matches!(conninfo.hosts.get(host), Some(Host::Unix { .. }));
    let warded = Warded::new(dialled, conninfo).allow(program.also, local);
    let opened = config.connect_raw(warded, AsItIs).await.map_err(|error| {
        let cause = std::error::Error::source(&error);
        let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.filter(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
            Some(refused) => OpenError::NotAllowed(refused.to_string()),
            None => error.into(),
        }
    })?;
    target.accept(|name| opened.1.parameter(name)).map_err(OpenError::Role)?;
    Ok(opened)
}
