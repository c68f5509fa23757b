//! The listeners: opened before anything else starts, so that a taken address is an error of the
//! start, and accepted from by the door.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Type};
use tokio_util::sync::CancellationToken;

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

/// How long to rest after an accept that failed for want of something (descriptors, memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A listener of the gate and what is in force on it.
pub struct Listener {
    socket: ListenSocket,
    /// A reload replaces them; who is shaking hands keeps the old ones.
    pub terms: Arc<Live<Terms>>,
    /// Somebody else opened it, and keeps it for the next process.
    is_inherited: bool,
    file: Mutex<Option<SocketFile>>,
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
        None => http::listen(settings)
            .with_context(|| format!("could not listen on {address}, address of [http]"))?,
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
    Ok(Listener { socket, terms, is_inherited, file: Mutex::new(file) })
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
enum Incoming {
    Tcp(tokio::net::TcpListener),
    Unix { socket: tokio::net::UnixListener, port: u16 },
}

impl Listener {
    /// Gives one connection after the other to `let_in`, on the runtime of the thread that calls,
    /// until it is to close. Whoever is in the queue then is the next process's, if there will be
    /// one that has the same socket, and else let in as well: nobody else would ever accept.
    ///
    /// # Errors
    ///
    /// The listener is of no use.
    pub async fn accept(
        &self,
        closing: &CancellationToken,
        let_in: impl Fn(Socket, Peer),
    ) -> io::Result<()> {
        let incoming = self.incoming()?;
        loop {
            let accepted = tokio::select! {
                // First, or a busy listener would take from the next process.
                biased;
                () = closing.cancelled() => break,
                accepted = incoming.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => let_in(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        // Nobody finds it by its file any more.
        drop(self.file.lock().take());
        // As many as a queue holds: who comes after that finds nobody. One that is gone already
        // does not keep those behind it out.
        for taken in (0..=BACKLOG).map_while(|_| self.take_queued().transpose()) {
            match taken {
                Ok((socket, peer)) => let_in(socket, peer),
                Err(error) => tracing::debug!(%error, "a client left while it stood in line"),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn incoming(&self) -> io::Result<Incoming> {
        match &self.socket {
            ListenSocket::Tcp(socket) => {
                Ok(Incoming::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?))
            }
            ListenSocket::Unix(socket, port) => {
                let socket = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
                Ok(Incoming::Unix { socket, port: *port })
            }
        }
    }

    /// One who is in the queue of a socket that ends with this process. Does not wait.
    fn take_queued(&self) -> io::Result<Option<(Socket, Peer)>> {
        if self.is_inherited {
            return Ok(None);
        }
        let taken = match &self.socket {
            ListenSocket::Tcp(socket) => socket.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                let stream = tokio::net::TcpStream::from_std(stream)?;
                Ok((Socket::Tcp(stream), Peer::Tcp(peer)))
            }),
            ListenSocket::Unix(socket, port) => socket.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                unix_client(tokio::net::UnixStream::from_std(stream)?, *port)
            }),
        };
        match taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            taken => taken.map(Some),
        }
    }
}

fn unix_client(stream: tokio::net::UnixStream, port: u16) -> io::Result<(Socket, Peer)> {
    let cred = stream.peer_cred()?;
    let own_uid = rustix::process::geteuid().as_raw();
    let peer = UnixPeer { port, uid: cred.uid(), pid: cred.pid(), own_uid };
    Ok((Socket::Unix(stream), Peer::Unix(peer)))
}

impl Incoming {
    /// The next connection, and who it is.
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Socket::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix { socket, port } => unix_client(socket.accept().await?.0, *port),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpStream;

    use tokio::runtime::Builder;

    use super::*;

    /// One on a port of its own.
    fn listener(is_inherited: bool) -> Listener {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let (socket, file) = bind(&address).unwrap();
        let tls = DoorTls { policy: TlsPolicy::Disable, acceptor: None };
        let (rules, sni_suffix, proxies) = (Vec::new(), None, Origins::default());
        let terms = Terms { tls, plaintext_password: true, rules, sni_suffix, proxies };
        let terms = Arc::new(Live::new(terms));
        Listener { socket, terms, is_inherited, file: Mutex::new(file) }
    }

    #[test]
    fn who_is_in_the_queue_when_the_door_closes_is_let_in_or_left_to_the_next_process() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        for (is_inherited, wanted) in [(false, 3), (true, 0)] {
            let listener = listener(is_inherited);
            let ListenSocket::Tcp(socket) = &listener.socket else { panic!("it is TCP") };
            let address = socket.local_addr().unwrap();
            let _queued: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            let (closing, came) = (CancellationToken::new(), Cell::new(0));
            closing.cancel();
            let let_in = |_, _| came.set(came.get() + 1);
            runtime.block_on(listener.accept(&closing, let_in)).unwrap();
            assert_eq!(came.get(), wanted);
            let left = (0..4).take_while(|_| socket.accept().is_ok()).count();
            assert_eq!(left, 3 - wanted);
        }
    }
}
