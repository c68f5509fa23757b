//! Connection strings as libpq reads them: what a route says about where its server is and how to
//! log in. Parsing lies in `conninfo/parse.rs`.

mod keys;
mod parse;
mod split;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::ConninfoError;
pub use target::Target;

use crate::net::OwnPlaces;
use crate::net::tls::{Connectors, Pin};
use crate::secret::{self, Secret};

/// A checked connection string. Keys and defaults are libpq's (PostgreSQL manual, 34.1.2) except
/// where `docs/configuration.md` says otherwise: `sslmode` is `verify-full` for hosts that are not
/// on this machine, and `require_auth` is `scram-sha-256`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conninfo {
    /// Tried in order until one accepts. Never empty.
    pub hosts: Vec<Host>,
    /// What a host must be.
    pub target: Target,
    /// Hosts, and the addresses of each, are tried in random order: libpq's `load_balance_hosts`.
    pub balanced: bool,
    pub dbname: String,
    pub user: String,
    pub password: Option<Secret>,
    pub tls: TlsWish,
    pub channel_binding: ChannelBinding,
    /// Which ways of logging in this route allows its server to ask for.
    pub require_auth: RequireAuth,
    /// How long one address of a host may take to connect and log in, and the look-up of its name;
    /// default 15 s.
    pub connect_timeout: Duration,
    /// What the TCP socket is told; Unix sockets ignore it.
    pub tcp: TcpWish,
    pub protocol: Protocol,
    /// It comes from a row of a table: whatever its hosts' names turn out to be, a special address
    /// ([`is_special`]) is not spoken to.
    pub guarded: bool,
    /// Where the gate itself is: a host that turns out to be there is not spoken to either.
    pub own: OwnPlaces,
}

impl Conninfo {
    /// Reads one of the settings: relative paths begin in `folder`, and `password=file:PATH`,
    /// `env:NAME` and `credential:NAME` are read now. Never for rows of a table: what is in such a
    /// place goes to the server that the string names.
    ///
    /// # Errors
    ///
    /// As [`Conninfo::parse`]; or the password is not where it should be.
    pub fn read(text: &str, folder: &Path) -> Result<Self, ConninfoError> {
        let mut conninfo = Self::parse(text)?.in_folder(folder);
        let found = conninfo.password.take().map(|text| secret::password(text, folder));
        conninfo.password = found.transpose().map_err(ConninfoError::Password)?;
        Ok(conninfo)
    }

    /// The same, which must not lead to where the gate itself is.
    pub fn away_from(self, own: &OwnPlaces) -> Self {
        Self { own: own.clone(), ..self }
    }

    /// The same, with files that were given by a relative path looked for in `folder`.
    fn in_folder(mut self, folder: &Path) -> Self {
        let place = |file: PathBuf| folder.join(file);
        self.tls.root_file = self.tls.root_file.map(place);
        self.tls.identity = self.tls.identity.map(|(cert, key)| (place(cert), place(key)));
        self
    }

    /// The places of its hosts, in the order in which they are tried this time.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        if self.balanced {
            fastrand::shuffle(&mut order);
        }
        order
    }

    /// Whether an attempt at the same host would be made in the same way, so that what happened to
    /// one is known of the other. Who logs in, and where to, does not matter.
    pub fn reaches_as(&self, other: &Self) -> bool {
        self.tls == other.tls
            && self.channel_binding == other.channel_binding
            && self.connect_timeout == other.connect_timeout
            && self.tcp == other.tcp
            && self.protocol == other.protocol
            && self.guarded == other.guarded
            && self.own == other.own
    }
}

/// Whether an address is one that no PostgreSQL has and that machines keep things at which are not
/// for strangers: link-local ones, those of cloud metadata, none at all, multicast, broadcast.
pub fn is_special(address: IpAddr) -> bool {
    /// Outside of link-local: Alibaba Cloud's, Azure's, Oracle Cloud's.
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    /// Amazon's and its container service's, Google Cloud's.
    const METADATA_V6: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets().first() == Some(&0)
                || METADATA_V4.contains(&address)
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || METADATA_V6.contains(&address)
                || within(address).is_some_and(|inner| is_special(IpAddr::V4(inner)))
        }
    }
}

/// The IPv4 address that a translated or tunnelled one leads to: `64:ff9b::/96` (RFC 6052),
/// `2002::/16` (RFC 3056), and `::a.b.c.d`.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let four = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(four(high, low)),
        [0x2002, high, low, ..] => Some(four(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 1) => Some(four(high, low)),
        _ => None,
    }
}

/// One place a server may be found at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// `name` is what the certificate must match; `address` (libpq's `hostaddr`) skips the look-up.
    Tcp { name: String, address: Option<IpAddr>, port: u16 },
    /// The folder of the socket file `.s.PGSQL.<port>`; one that starts with `@` is in Linux's
    /// abstract namespace.
    Unix { folder: PathBuf, port: u16 },
}

/// For people: `db.internal:5432`, `/run/postgresql:5432`.
impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(out, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(out, "{name}:{port}"),
            Self::Unix { folder, port } => write!(out, "{}:{port}", folder.display()),
        }
    }
}

impl Host {
    /// Whether both are the same but for the port.
    pub fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { name, address, .. }, Self::Tcp { name: other, address: at, .. }) => {
                name == other && address == at
            }
            (Self::Unix { folder, .. }, Self::Unix { folder: other, .. }) => folder == other,
            _ => false,
        }
    }

    /// Whether this place is on this machine. A name other than `localhost` is not looked up.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { address: Some(address), .. } => address.to_canonical().is_loopback(),
            Self::Tcp { name, address: None, .. } => {
                let address = name.parse::<IpAddr>();
                name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
                    || address.is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }

    /// The port, whatever the kind.
    pub fn port(&self) -> u16 {
        match self {
            Self::Unix { port, .. } | Self::Tcp { port, .. } => *port,
        }
    }
}

/// Which minor versions of protocol 3 may be spoken: libpq's `min_protocol_version` and
/// `max_protocol_version`. Both 0 unless they are given, as in libpq 18: what stands between may
/// know no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    pub minor_min: u16,
    /// Asked for; a server may know less.
    pub minor_max: u16,
}

/// libpq's TCP keys together; `None` leaves the operating system's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpWish {
    /// libpq's `keepalives`; default true.
    pub keepalives: bool,
    pub keepalives_idle: Option<Duration>,
    pub keepalives_interval: Option<Duration>,
    /// How many lost probes end a connection.
    pub keepalives_count: Option<u32>,
    /// libpq's `tcp_user_timeout`.
    pub user_timeout: Option<Duration>,
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
    /// The server's key is one of these, whatever else is verified; none stands for any.
    pub pins: Vec<Pin>,
    /// Whether the host name is sent in the handshake (libpq's `sslsni`); default true.
    pub sni: bool,
    /// What these keys were made into.
    pub connectors: Connectors,
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
