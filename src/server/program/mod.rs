//! Connections of the gate's own programs to servers, by a library: who installs, looks or reads.

mod warded;

use std::io;

use tokio_postgres::config::{self, SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, Connection};

use crate::server::conninfo::{ChannelBinding, Conninfo, Host};
use crate::server::dial::{DialError, Way, dial};
use warded::{AsItIs, Warded};

/// Who connects, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Program<'words> {
    /// For `application_name`.
    pub name: &'words str,
    pub dbname: &'words str,
    pub password: Option<&'words [u8]>,
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
}

/// A connection of a program, which is the caller's to run.
pub type Opened = (Client, Connection<Warded, Warded>);

/// Logs in at one of the hosts, in the ways that the connection string allows.
///
/// # Errors
///
/// The server was not reached in the way that its sslmode says, or lets nobody in.
pub async fn open(
    conninfo: &Conninfo,
    host: usize,
    program: Program<'_>,
) -> Result<Opened, OpenError> {
    let dialled = dial(conninfo, host, Way::only(conninfo, host)).await?;
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
    config.connect_raw(warded, AsItIs).await.map_err(|error| {
        let cause = std::error::Error::source(&error);
        let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.filter(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
            Some(refused) => OpenError::NotAllowed(refused.to_string()),
            None => error.into(),
        }
    })
}
