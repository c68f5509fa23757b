//! Connection strings as libpq reads them: what a route says about where its server is and how to
//! log in. Parsing lies in `conninfo/parse.rs`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// A checked connection string. Keys and defaults are libpq's (PostgreSQL manual, 34.1.2) except
/// where `docs/configuration.md` says otherwise: `sslmode` is `verify-full` for hosts that are not
/// on this machine, and `require_auth` is `scram-sha-256`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conninfo {
    /// Tried in order until one accepts. Never empty.
    pub hosts: Vec<Host>,
    pub dbname: String,
    pub user: String,
    pub password: Option<Secret>,
    pub tls: TlsWish,
    pub channel_binding: ChannelBinding,
    /// Which ways of logging in this route allows its server to ask for.
    pub require_auth: RequireAuth,
    /// How long one host may take to connect and log in; default 15 s.
    pub connect_timeout: Duration,
}

/// One place a server may be found at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `name` is what the certificate must match; `address` (libpq's `hostaddr`) skips the look-up.
    Tcp { name: String, address: Option<IpAddr>, port: u16 },
    /// The folder of the socket file `.s.PGSQL.<port>`.
    Unix { folder: PathBuf, port: u16 },
}

/// libpq's TLS keys together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsWish {
    pub mode: SslMode,
    pub negotiation: SslNegotiation,
    /// Certificates to trust: a PEM file; `None` means the system's.
    pub root_file: Option<PathBuf>,
    /// Certificate and key to show, both PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the host name is sent in the handshake (libpq's `sslsni`); default true.
    pub sni: bool,
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslNegotiation {
    Postgres,
    Direct,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// libpq's `require_auth`, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequireAuth {
    pub scram: bool,
    pub md5: bool,
    pub password: bool,
    /// The server may ask for nothing (`trust`, `peer`, a client certificate).
    pub none: bool,
}
