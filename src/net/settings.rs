//! What the settings say about a listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::net::Origins;

/// One `[[listen]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    pub address: ListenAddress,
    /// Default: [`TlsPolicy::Require`]. A Unix socket has no TLS, as in PostgreSQL.
    pub tls: TlsPolicy,
    /// Certificate chains and keys, all PEM files, the first for clients that name no host of
    /// another. At least one unless `tls` is disabled.
    pub identities: Vec<(PathBuf, PathBuf)>,
    /// Whom clients' certificates must come from, a PEM file; without it none is asked for.
    pub client_authority: Option<PathBuf>,
    /// What stands behind the tenant's id in the host that clients name in the TLS handshake.
    pub sni_suffix: Option<String>,
    /// Load balancers, whose connections begin with a PROXY header.
    pub proxies: Origins,
    /// How clients log in: the first rule that fits. Without any it is by password.
    pub rules: Vec<LoginRule>,
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

/// How users of a name log in at a listener, as a line of pg_hba.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRule {
    /// The whole user name as clients send it; `*` stands for any letters or none.
    pub user: String,
    pub method: LoginMethod,
    /// What else clients must show.
    pub client_certificate: Option<ClientCertificate>,
}

/// How a client proves who it is, by PostgreSQL's words (manual, 20.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginMethod {
    /// A token where the password goes; over TLS, or where `plaintext_password` allows it.
    Password,
    /// A password that is proved and never sent, also without TLS.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// A token in a SASL message (OAUTHBEARER); where `password` is taken, and nowhere else.
    Oauth,
    /// The client's certificate, and nothing else.
    Cert,
    Reject,
}

impl LoginMethod {
    /// The word used in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::ScramSha256 => "scram-sha-256",
            Self::Oauth => "oauth",
            Self::Cert => "cert",
            Self::Reject => "reject",
        }
    }
}

/// How much a client's certificate must say, by PostgreSQL's words (manual, 18.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// That the listener's authority signed it.
    VerifyCa,
    /// That it stands for the very tenant that the client logs in to.
    VerifyFull,
}

impl LoginRule {
    /// Whether the rule is for a user.
    pub fn is_for(&self, user: &str) -> bool {
        let mut parts = self.user.split('*');
        let Some(mut rest) = user.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // What stands between two stars is taken at its first place: that leaves most to the rest.
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        let fits = |pattern: &str, user: &str| {
            let (user_pattern, method) = (pattern.to_owned(), LoginMethod::Password);
            LoginRule { user: user_pattern, method, client_certificate: None }.is_for(user)
        };
        for (pattern, users) in [
            ("*", &["", "app", "app.acme"][..]),
            ("app", &["app"]),
            ("app*", &["app", "app.acme"]),
            ("*.acme", &["app.acme", ".acme"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"]),
            ("a**c", &["ac", "abc"]),
        ] {
            assert!(users.iter().all(|user| fits(pattern, user)), "{pattern}");
        }
        for (pattern, user) in
            [("app", "app.acme"), ("app", "xapp"), ("a*a", "a"), ("a*b*c", "acb"), ("", "a")]
        {
            assert!(!fits(pattern, user), "{pattern} {user}");
        }
    }
}
