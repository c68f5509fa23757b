//! Connections of the gate's own programs to servers, by a library: who installs, looks or reads.

use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls};

use crate::net::Stream;
use crate::server::conninfo::Conninfo;
use crate::server::dial::{DialError, Way, dial};

/// Who connects, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Program<'words> {
    /// For `application_name`.
    pub name: &'words str,
    pub dbname: &'words str,
    pub password: Option<&'words [u8]>,
}

/// Why a program has no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
}

/// Logs in at one of the hosts. The connection is the caller's to run.
///
/// # Errors
///
/// The server was not reached in the way that its sslmode says, or lets nobody in.
pub async fn open(
    conninfo: &Conninfo,
    host: usize,
    program: Program<'_>,
) -> Result<(Client, Connection<Stream, NoTlsStream>), OpenError> {
    let (stream, _) = dial(conninfo, host, Way::only(conninfo, host)).await?;
    let mut config = Config::new();
    config.user(&conninfo.user).dbname(program.dbname).application_name(program.name);
    if let Some(password) = program.password {
        config.password(password);
    }
    // The stream has the TLS that the connection string asks for.
    config.ssl_mode(SslMode::Disable);
    Ok(config.connect_raw(stream, NoTls).await?)
}
