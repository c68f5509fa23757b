//! [`Peer`]: who is at the other end of a client's connection, as the kernel says.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The other end of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// Behind a load balancer, which says from where, or that it does not know. Never taken for
    /// one of this machine.
    Proxied(Option<SocketAddr>),
    Unix(UnixPeer),
}

/// A process that connected to a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// The port in the name of the socket; PgBouncer shows it as the client's.
    pub port: u16,
    /// Its effective user at the time of the connect.
    pub uid: u32,
    /// Its process id; 0 if it lives where our process ids mean nothing, `None` if the system does
    /// not tell.
    pub pid: Option<i32>,
    /// The uid this process runs with.
    pub own_uid: u32,
}

/// What the kernel says for users of another user namespace that have no number in ours
/// (user_namespaces(7)): many different people.
const OVERFLOW_UID: u32 = 65534;

impl Peer {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Proxied(_) => false,
            Self::Unix(_) => true,
        }
    }

    /// Its address, where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) | Self::Proxied(Some(address)) => Some(address.ip().to_canonical()),
            Self::Proxied(None) | Self::Unix(_) => None,
        }
    }

    /// Where it comes from: whoever has one IPv6 address has 2^64 of them. `None` as in [`ip`].
    ///
    /// [`ip`]: Self::ip
    pub fn network(&self) -> Option<IpAddr> {
        match self.ip()? {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Some(IpAddr::V6(network.into()))
            }
            v4 => Some(v4),
        }
    }

    /// Whether it is surely the user who runs this process, who may read its memory anyway. A peer
    /// in another process namespace (its id reads as 0) only has the same number.
    pub fn is_owner(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Proxied(_) => false,
            Self::Unix(UnixPeer { uid, pid, own_uid, .. }) => {
                uid == own_uid && *uid != OVERFLOW_UID && *pid != Some(0)
            }
        }
    }

    /// Address and port as the console shows them.
    pub fn address(&self) -> (String, u16) {
        match self {
            Self::Tcp(address) | Self::Proxied(Some(address)) => {
                (address.ip().to_string(), address.port())
            }
            Self::Proxied(None) => ("unknown".to_owned(), 0),
            Self::Unix(peer) => ("unix".to_owned(), peer.port),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Proxied(Some(address)) => address.fmt(f),
            Self::Proxied(None) => f.write_str("unknown"),
            Self::Unix(peer) => write!(f, "unix(uid {})", peer.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(uid: u32, pid: Option<i32>, own_uid: u32) -> Peer {
        Peer::Unix(UnixPeer { port: 6432, uid, pid, own_uid })
    }

    #[test]
    fn the_owner_is_known_by_uid_on_a_unix_socket_only() {
        assert!(unix(1000, Some(7), 1000).is_owner() && unix(0, None, 0).is_owner());
        assert!(!unix(1001, Some(7), 1000).is_owner() && !unix(0, Some(7), 1000).is_owner());
        assert!(!Peer::Tcp(([127, 0, 0, 1], 5000).into()).is_owner());
    }

    #[test]
    fn a_uid_from_another_namespace_proves_nothing() {
        assert!(!unix(1000, Some(0), 1000).is_owner(), "its pid is not visible from here");
        assert!(!unix(65534, Some(7), 65534).is_owner(), "the number of users without a number");
    }

    #[test]
    fn an_ipv6_network_is_one_and_an_ipv4_address_is_one() {
        let network = |address: &str| Peer::Tcp(address.parse().unwrap()).network().unwrap();
        assert_eq!(network("[2001:db8::1]:1"), network("[2001:db8::2]:9"));
        assert_ne!(network("[2001:db8::1]:1"), network("[2001:db8:0:1::1]:1"));
        assert_ne!(network("10.0.0.1:1"), network("10.0.0.2:1"));
        assert_eq!(network("[::ffff:10.0.0.1]:1"), network("10.0.0.1:2"));
    }

    #[test]
    fn local_is_loopback_in_every_notation_and_unix() {
        for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(Peer::Tcp(local.parse().unwrap()).is_local(), "{local}");
        }
        for far in ["10.0.0.1:1", "[2001:db8::1]:1", "0.0.0.0:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!Peer::Tcp(far.parse().unwrap()).is_local(), "{far}");
        }
        assert!(!Peer::Proxied("127.0.0.1:1".parse().ok()).is_local());
        assert!(unix(1, Some(1), 2).is_local());
        assert_eq!(unix(1, Some(1), 2).address(), ("unix".to_owned(), 6432));
    }
}
