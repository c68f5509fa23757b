//! The way to a server: a socket, and TLS as libpq's sslmode says.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::net::tls::{self, ConnectorPlan, TlsError, Verify};
use crate::net::{Socket, Stream};
use crate::server::conninfo::{
    Conninfo, Host, SslMode, SslNegotiation, TcpWish, TlsWish, is_special,
};

/// Why a server was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// Whether a connection has TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    /// If the server has it.
    Offered,
    Tls,
}

impl Way {
    /// The ways that a host's sslmode tries, in order: `allow` and `prefer` have two, and take the
    /// second where the first ends before the login does (PostgreSQL manual, 34.1.2).
    pub fn all(conninfo: &Conninfo, host: usize) -> &'static [Self] {
        let tcp = matches!(conninfo.hosts.get(host), Some(Host::Tcp { .. }));
        match conninfo.tls.mode {
            _ if !tcp => &[Self::Plain],
            SslMode::Disable => &[Self::Plain],
            SslMode::Allow => &[Self::Plain, Self::Tls],
            SslMode::Prefer => &[Self::Offered, Self::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Self::Tls],
        }
    }

    /// The one way of a program that tries no second.
    pub fn only(conninfo: &Conninfo, host: usize) -> Self {
        match Self::all(conninfo, host) {
            [way] => *way,
            _ => Self::Offered,
        }
    }
}

/// Where exactly a server listens: one address of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Most addresses of one name that are tried; each costs up to `connect_timeout`.
const SPOTS_MAX: usize = 16;

/// The addresses of a host, in the order in which they are tried. A name is looked up on a thread
/// beside the runtime's, so a resolver that does not answer holds up nobody else.
///
/// # Errors
///
/// The name is not known, or leads only to the gate itself or where connections of a row must not.
pub async fn spots(conninfo: &Conninfo, host: usize) -> io::Result<Vec<Spot>> {
    let host = conninfo.hosts.get(host).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut found: Vec<SocketAddr> = match host {
        Host::Unix { folder, port } => {
            if conninfo.own.has_socket(folder, *port) {
                return Err(to_itself());
            }
            return Ok(vec![Spot::Unix(folder.join(format!(".s.PGSQL.{port}")))]);
        }
        Host::Tcp { address: Some(address), port, .. } => vec![(*address, *port).into()],
        Host::Tcp { name, port, .. } => {
            lookup_host((name.as_str(), *port)).await?.take(SPOTS_MAX).collect()
        }
    };
    if conninfo.guarded {
        found.retain(|address| !is_special(address.ip()));
        if found.is_empty() {
            let message = "host turned out to be a link-local or special address";
            return Err(io::Error::other(message));
        }
    }
    found.retain(|address| !conninfo.own.has(*address));
    if found.is_empty() {
        return Err(to_itself());
    }
    if conninfo.balanced {
        fastrand::shuffle(&mut found);
    }
    Ok(found.into_iter().map(Spot::Tcp).collect())
}

fn to_itself() -> io::Error {
    io::Error::other("host turned out to be this gate itself")
}

/// A connected stream and the hash of the server's certificate, if there is one.
pub async fn dial(
    conninfo: &Conninfo,
    host: usize,
    spot: &Spot,
    way: Way,
) -> Result<(Stream, Option<Vec<u8>>), DialError> {
    let host = conninfo.hosts.get(host).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let socket = match spot {
        Spot::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        Spot::Tcp(address) => tcp(TcpStream::connect(address).await?, &conninfo.tcp)?,
    };
    let (Host::Tcp { name, .. }, Way::Offered | Way::Tls) = (host, way) else {
        return Ok((Stream::Plain(socket), None));
    };
    match (secure(socket, name, &conninfo.tls).await?, way) {
        (Ok(secured), _) => Ok(secured),
        (Err(plain), Way::Offered) => Ok((Stream::Plain(plain), None)),
        (Err(_), _) => {
            Err(io::Error::other("server does not support TLS, sslmode requires it").into())
        }
    }
}

/// A server whose machine is gone is noticed after about two minutes, also when idle, unless the
/// connection string says otherwise.
fn tcp(stream: TcpStream, wish: &TcpWish) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    if wish.keepalives {
        let keepalive = TcpKeepalive::new()
            .with_time(wish.keepalives_idle.unwrap_or(Duration::from_secs(60)))
            .with_interval(wish.keepalives_interval.unwrap_or(Duration::from_secs(15)))
            .with_retries(wish.keepalives_count.unwrap_or(4));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(wish.user_timeout)?;
    Ok(Socket::Tcp(stream))
}

type Secured = (Stream, Option<Vec<u8>>);

/// Asks for TLS and shakes hands. The inner error is the untouched socket of a server without TLS.
async fn secure(
    mut socket: Socket,
    name: &str,
    wish: &TlsWish,
) -> Result<Result<Secured, Socket>, DialError> {
    if wish.negotiation == SslNegotiation::Postgres {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // Exactly one byte: what an attacker puts behind it must not count as the server's
        // encrypted words (CVE-2021-23222).
        match socket.read_u8().await? {
            b'S' => {}
            b'N' => return Ok(Err(socket)),
            _ => return Err(io::Error::other("server answered the TLS request wrongly").into()),
        }
    }
    let direct = wish.negotiation == SslNegotiation::Direct;
    let connector = wish.connectors.connector(ConnectorPlan {
        verify: verify(wish),
        root_file: wish.root_file.as_deref().filter(|file| *file != Path::new("system")),
        identity: wish.identity.as_ref(),
        pins: &wish.pins,
        sni: wish.sni,
        alpn: true,
    })?;
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other("host is not a name a certificate can have"))?;
    let stream = connector.connect(server_name, socket).await?;
    let session = stream.get_ref().1;
    if direct && session.alpn_protocol() != Some(tls::ALPN) {
        return Err(io::Error::other("server did not agree on ALPN \"postgresql\"").into());
    }
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let end_point = leaf.and_then(|leaf| tls::server_end_point(leaf));
    Ok(Ok((Stream::Connected(Box::new(stream)), end_point)))
}

fn verify(wish: &TlsWish) -> Verify {
    match wish.mode {
        SslMode::VerifyFull => Verify::Host,
        SslMode::VerifyCa => Verify::Authority,
        // As libpq: require with a root file verifies the authority (PostgreSQL manual, 34.19.1).
        SslMode::Require if wish.root_file.is_some() => Verify::Authority,
        _ => Verify::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ListenAddress, OwnPlaces};

    /// Numbers that only a look-up takes for addresses stand for names that lead there.
    async fn found(host: &str, guarded: bool, own: &str) -> Result<usize, String> {
        let text = format!("host={host} port=6432 user=u dbname=d sslmode=disable");
        let own = OwnPlaces::new([ListenAddress::Tcp(own.parse().unwrap())]);
        let conninfo = Conninfo { guarded, ..Conninfo::parse(&text).unwrap().away_from(&own) };
        let found = spots(&conninfo, 0).await;
        found.map(|spots| spots.len()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_row_leads_to_no_special_address_by_a_name_either() {
        let elsewhere = "127.0.0.1:1";
        for host in ["2852039166", "0xa9fea9fe", "169.254.43518", "169.254.169.254", "0"] {
            let refused = found(host, true, elsewhere).await.unwrap_err();
            assert!(refused.contains("link-local"), "{host}: {refused}");
            // The settings' own are their author's business.
            assert_eq!(found(host, false, elsewhere).await, Ok(1), "{host}");
        }
        assert_eq!(found("0x7f000001", true, elsewhere).await, Ok(1));
    }

    #[tokio::test]
    async fn no_route_leads_to_the_gate_itself_by_whatever_name() {
        for (host, own) in [
            ("0x7f000001", "127.0.0.1:6432"),
            ("127.1", "0.0.0.0:6432"),
            ("127.0.0.1", "127.0.0.1:6432"),
            ("localhost", "0.0.0.0:6432"),
            ("localhost", "[::]:6432"),
            ("x hostaddr=127.0.0.7", "0.0.0.0:6432"),
        ] {
            for guarded in [true, false] {
                let refused = found(host, guarded, own).await.unwrap_err();
                assert_eq!(refused, to_itself().to_string(), "{host}");
            }
        }
        // A server may have the port at an address of its own.
        assert_eq!(found("0x7f000001", true, "127.0.0.2:6432").await, Ok(1));
    }
}
