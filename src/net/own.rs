//! [`OwnPlaces`]: where this gate listens itself. A connection to a server that led there would go
//! round in circles, or reach what is not for those who may write a route.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use crate::net::{ListenAddress, UnixAddress};

/// The gate's own addresses; none without a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPlaces(Arc<[ListenAddress]>);

impl OwnPlaces {
    /// Those of all listeners, of the HTTP endpoint too.
    pub fn new(all: impl IntoIterator<Item = ListenAddress>) -> Self {
        Self(all.into_iter().collect())
    }

    /// These and others.
    pub fn and(&self, others: &Self) -> Self {
        let more = others.0.iter().filter(|other| !self.0.contains(other));
        Self(self.0.iter().chain(more).cloned().collect())
    }

    /// Whether it listens at a port at all.
    pub fn has_port(&self, port: u16) -> bool {
        self.0.iter().any(|own| match own {
            ListenAddress::Tcp(own) => own.port() == port,
            ListenAddress::Unix(own) => own.port == port,
        })
    }

    /// Whether a TCP connection to this address ends at the gate. One that listens at all addresses
    /// is at each of this machine's.
    pub fn has(&self, address: SocketAddr) -> bool {
        let ip = match address.ip().to_canonical() {
            // No address at all leads to the machine itself.
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        self.0.iter().any(|own| match own {
            ListenAddress::Tcp(own) if own.port() == address.port() => {
                let listens = own.ip().to_canonical();
                listens == ip || listens.is_unspecified() && is_of_this_machine(ip)
            }
            _ => false,
        })
    }

    /// The same of a Unix socket.
    pub fn has_socket(&self, folder: &Path, port: u16) -> bool {
        self.0.iter().any(|own| match own {
            ListenAddress::Unix(own) if own.port == port => is_same(own, folder),
            _ => false,
        })
    }
}

/// A socket can only be bound to an address of this machine: the kernel knows them all, those of
/// every interface and the whole of 127.0.0.0/8. Where it has been told otherwise
/// (`net.ipv4.ip_nonlocal_bind`), and so takes one that is nobody's (RFC 5737, RFC 3849) as well,
/// it is asked from where it would go there: to an own address from that very one.
fn is_of_this_machine(ip: IpAddr) -> bool {
    let (nobodys, any): (IpAddr, IpAddr) = match ip {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => {
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::UNSPECIFIED.into())
        }
    };
    if ip.is_loopback() || !can_bind(ip) {
        return ip.is_loopback();
    }
    let goes_from_itself = || {
        let way = UdpSocket::bind((any, 0))?;
        way.connect((ip, 9))?;
        way.local_addr()
    };
    !can_bind(nobodys) || goes_from_itself().is_ok_and(|from| from.ip() == ip)
}

fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether it is the same folder, by whatever links.
fn is_same(own: &UnixAddress, folder: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    own.folder == folder || real(&own.folder).is_some_and(|own| Some(own) == real(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> ListenAddress {
        ListenAddress::Tcp(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_the_gates_where_it_listens() {
        let own = OwnPlaces::new(["127.0.0.1:6432", "192.0.2.7:6433", "[::1]:6434"].map(tcp));
        let has = |text: &str| own.has(text.parse().unwrap());
        for place in [
            "127.0.0.1:6432",
            "192.0.2.7:6433",
            "[::1]:6434",
            "[::ffff:127.0.0.1]:6432",
            "0.0.0.0:6432",
        ] {
            assert!(has(place), "{place}");
        }
        // A server may have the same port at another address of the machine.
        for place in ["127.0.0.2:6432", "127.0.0.1:6433", "192.0.2.8:6433", "[::1]:6432"] {
            assert!(!has(place), "{place}");
        }
        assert!(!OwnPlaces::default().has("127.0.0.1:6432".parse().unwrap()));
    }

    #[test]
    fn where_it_listens_stays_its_own_whatever_is_added() {
        let old = OwnPlaces::new([tcp("127.0.0.1:6432")]);
        let all = old.and(&OwnPlaces::new([tcp("127.0.0.1:6433")]));
        assert!(all.has_port(6432) && all.has_port(6433));
        assert_eq!(old.and(&old), old, "nothing is another where nothing was added");
    }

    #[test]
    fn one_that_listens_everywhere_is_at_each_address_of_this_machine() {
        // The address by which this machine would leave, if it has any; nothing is sent.
        let way_out = UdpSocket::bind("0.0.0.0:0").unwrap();
        let lan = way_out.connect("192.0.2.1:9").and_then(|()| way_out.local_addr());
        let lan = lan.map_or_else(|_| IpAddr::from([127, 0, 0, 1]), |address| address.ip());
        for all in ["0.0.0.0:6432", "[::]:6432"] {
            let own = OwnPlaces::new([tcp(all)]);
            for ip in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::ffff:127.0.0.1"] {
                assert!(own.has((ip.parse::<IpAddr>().unwrap(), 6432).into()), "{ip}");
            }
            assert!(own.has((lan, 6432).into()), "{lan}");
            assert!(!own.has((lan, 6433).into()), "{lan}");
            // For documentation (RFC 5737): nobody's.
            assert!(!own.has("192.0.2.1:6432".parse().unwrap()));
        }
    }

    #[test]
    fn a_socket_is_the_gates_by_every_way_to_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let address = UnixAddress { folder: real.clone(), port: 6432, mode: 0o777 };
        let own = OwnPlaces::new([ListenAddress::Unix(address)]);
        assert!(own.has_socket(&real, 6432) && own.has_socket(&link, 6432));
        assert!(!own.has_socket(&real, 5432) && !own.has_socket(folder.path(), 6432));
    }
}
