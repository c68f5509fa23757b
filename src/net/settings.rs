//! What the settings say about a listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One `[[listen]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    pub address: ListenAddress,
    /// Default: [`TlsPolicy::Require`]. A Unix socket has no TLS, as in PostgreSQL.
    pub tls: TlsPolicy,
    /// Certificate chain and key, both PEM files. There unless `tls` is disabled.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether a token may come without TLS; only for loopback addresses, where the default is
    /// false, and Unix sockets, where it is always true.
    pub plaintext_password: bool,
    /// The name of the socket that the service manager hands over for this listener
    /// (systemd.socket(5), FileDescriptorName=), whatever its address.
    pub systemd: Option<String>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(UnixAddress),
}

/// A Unix socket by libpq's rule: a folder, and a name in it that holds the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixAddress {
    /// An absolute path, or `@name` for a socket outside of the file system (unix(7), abstract).
    pub folder: PathBuf,
    /// Default 6432.
    pub port: u16,
    /// Permissions of the socket file; default 0777, as PostgreSQL's.
    pub mode: u32,
}

impl UnixAddress {
    /// The socket's path; an abstract one still starts with `@`.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Whether the socket has a name and no file.
    pub fn is_abstract(&self) -> bool {
        self.folder.as_os_str().as_encoded_bytes().starts_with(b"@")
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(unix) => unix.path().display().fmt(f),
        }
    }
}

/// Whether clients use TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// Connections without TLS are refused.
    #[default]
    Require,
    /// The client chooses.
    Allow,
    /// TLS is not offered.
    Disable,
}
