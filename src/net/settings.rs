//! What the settings say about a listener.

use std::net::SocketAddr;
use std::path::PathBuf;

/// One `[[listen]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    pub address: SocketAddr,
    /// Default: [`TlsPolicy::Require`].
    pub tls: TlsPolicy,
    /// Certificate chain and key, both PEM files. There unless `tls` is disabled.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether a token may come without TLS; only for loopback addresses. Default false.
    pub plaintext_password: bool,
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
