//! The listeners: opened before anything else starts, so that a taken address is an error of the
//! start, and accepted from by the door.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Type};

use crate::catalog::Live;
use crate::client::DoorTls;
use crate::gate::inherited::{HandedSocket, Inherited};
use crate::net::tls::{AcceptPlan, Acceptor, TlsError};
use crate::net::unix::{self, SocketFile};
use crate::net::{
    ListenAddress, ListenSettings, LoginRule, Origins, Peer, Socket, TlsPolicy, UnixPeer,
};
use crate::telemetry::HttpSettings;
use crate::telemetry::http;

/// Most connections that a listener keeps ready before they are accepted.
const BACKLOG: i32 = 1024;

/// A listener of the gate, what is in force on it, and the file it leaves when it is dropped.
pub struct Listener {
    socket: ListenSocket,
    /// A reload replaces them; who is shaking hands keeps the old ones.
    pub terms: Arc<Live<Terms>>,
    _file: Option<SocketFile>,
}

/// What holds for the clients of a listener.
pub struct Terms {
    pub tls: DoorTls,
    pub plaintext_password: bool,
    pub rules: Vec<LoginRule>,
    pub sni_suffix: Option<String>,
    pub proxies: Origins,
}

impl Terms {
    /// Reads the certificate and its key, if there are any.
    pub fn new(settings: &ListenSettings) -> Result<Self, TlsError> {
        let identities = settings.identities.as_slice();
        let client_authority = settings.client_authority.as_deref();
        let acceptor = match settings.tls {
            TlsPolicy::Disable => None,
            _ => Some(Acceptor::new(AcceptPlan { identities, client_authority })?),
        };
        Ok(Self {
            tls: DoorTls { policy: settings.tls, acceptor },
            plaintext_password: settings.plaintext_password,
            rules: settings.rules.clone(),
            sni_suffix: settings.sni_suffix.clone(),
            proxies: settings.proxies.clone(),
        })
    }
}

enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener, u16),
}

/// Opens all listeners, or takes those that were handed over.
pub fn open(
    settings: &[ListenSettings],
    inherited: &mut Inherited,
) -> anyhow::Result<Vec<Listener>> {
    settings.iter().map(|settings| listener(settings, inherited)).collect()
}

/// Opens the HTTP listener, or takes the one that was handed over.
pub fn http(settings: &HttpSettings, inherited: &mut Inherited) -> anyhow::Result<TcpListener> {
    let address = settings.address;
    let socket = match inherited.take_tcp(address) {
        Some(socket) => socket,
        None => http::listen(settings).with_context(|| format!("could not listen on {address}"))?,
    };
    tracing::info!(%address, "serving metrics");
    Ok(socket)
}

fn listener(settings: &ListenSettings, inherited: &mut Inherited) -> anyhow::Result<Listener> {
    let address = &settings.address;
    let terms = Arc::new(Live::new(Terms::new(settings)?));
    let handed = inherited.take(settings)?;
    let is_inherited = handed.is_some();
    let (socket, file) = match handed {
        Some(handed) => (ListenSocket::handed(handed, address), None),
        None => bind(address).with_context(|| format!("could not listen on {address}"))?,
    };
    tracing::info!(%address, tls = ?settings.tls, inherited = is_inherited, "listening");
    Ok(Listener { socket, terms, _file: file })
}

impl ListenSocket {
    fn handed(socket: HandedSocket, address: &ListenAddress) -> Self {
        let port = match address {
            ListenAddress::Tcp(address) => address.port(),
            ListenAddress::Unix(unix) => unix.port,
        };
        match socket {
            HandedSocket::Tcp(socket) => Self::Tcp(socket),
            HandedSocket::Unix(socket) => Self::Unix(socket, port),
        }
    }
}

fn bind(address: &ListenAddress) -> io::Result<(ListenSocket, Option<SocketFile>)> {
    match address {
        ListenAddress::Tcp(address) => {
            let domain = Domain::for_address(*address);
            let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            Ok((ListenSocket::Tcp(socket.into()), None))
        }
        ListenAddress::Unix(address) => {
            let (socket, file) = unix::listen(address, BACKLOG)?;
            Ok((ListenSocket::Unix(socket, address.port), file))
        }
    }
}

/// A listener registered with the runtime of a door.
pub enum Incoming {
    Tcp(tokio::net::TcpListener),
    Unix { socket: tokio::net::UnixListener, port: u16, own_uid: u32 },
}

impl Listener {
    /// Registers the listener with the runtime of the thread that calls.
    pub fn incoming(&self) -> io::Result<Incoming> {
        match &self.socket {
            ListenSocket::Tcp(socket) => {
                Ok(Incoming::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?))
            }
            ListenSocket::Unix(socket, port) => {
                let socket = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
                let own_uid = rustix::process::geteuid().as_raw();
                Ok(Incoming::Unix { socket, port: *port, own_uid })
            }
        }
    }
}

impl Incoming {
    /// The next connection, and who it is.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Socket::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix { socket, port, own_uid } => {
                let (stream, _) = socket.accept().await?;
                let cred = stream.peer_cred()?;
                let (uid, pid) = (cred.uid(), cred.pid());
                let peer = UnixPeer { port: *port, uid, pid, own_uid: *own_uid };
                Ok((Socket::Unix(stream), Peer::Unix(peer)))
            }
        }
    }
}
