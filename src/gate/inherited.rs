//! Sockets that the service manager opened and handed over (sd_listen_fds(3)), matched to the
//! listeners of the settings. One that fits none is an error: somebody expects us to serve it.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::{fs, io, process};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use socket2::SockRef;

use crate::net::{ListenAddress, ListenSettings};

/// More sockets than any gate listens on.
const SOCKETS_MAX: usize = 64;

/// What was handed over and not yet taken.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Handed>);

#[derive(Debug)]
struct Handed {
    /// FileDescriptorName of the socket unit, or the unit's own.
    name: String,
    socket: HandedSocket,
}

/// A listening socket that somebody else opened.
#[derive(Debug)]
pub enum HandedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    /// As the environment says. To be called before there are threads, which must not read the
    /// environment while it is cleared.
    pub fn from_env() -> anyhow::Result<Self> {
        let number = |name: &str| env::var(name).ok()?.parse::<usize>().ok();
        let pid = number("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok());
        let count = number("LISTEN_FDS").unwrap_or(0);
        // Meant for a parent of ours otherwise, or for a child.
        if pid != Some(process::id()) || count == 0 {
            return Ok(Self::default());
        }
        if count > SOCKETS_MAX {
            bail!("LISTEN_FDS is {count}, at most {SOCKETS_MAX} sockets are taken");
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut fds = ListenFd::from_env();
        let mut handed = Vec::new();
        for index in 0..count {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = HandedSocket::take(&mut fds, index)
                .with_context(|| format!("inherited socket {index} ({name}) is of no use"))?;
            handed.push(Handed { name, socket });
        }
        Ok(Self(handed))
    }

    /// The socket for this listener: of the name it asks for, or at its address.
    pub fn take(&mut self, settings: &ListenSettings) -> anyhow::Result<Option<HandedSocket>> {
        let wanted = settings.systemd.as_deref();
        let named = |handed: &Handed| wanted == Some(handed.name.as_str());
        let found = self.0.iter().position(named);
        let found = found.or_else(|| self.0.iter().position(|it| it.is_at(&settings.address)));
        let Some(found) = found else { return Ok(None) };
        let handed = self.0.remove(found);
        let fits = match (&handed.socket, &settings.address) {
            (HandedSocket::Tcp(socket), ListenAddress::Tcp(_)) => {
                let address = socket.local_addr()?;
                if settings.plaintext_password && !address.ip().to_canonical().is_loopback() {
                    bail!("plaintext_password is for loopback addresses, not {address}");
                }
                true
            }
            (HandedSocket::Unix(_), ListenAddress::Unix(_)) => true,
            _ => false,
        };
        if !fits {
            let (handed, address) = (handed.place(), &settings.address);
            bail!("inherited socket {handed} is not of the kind of {address}");
        }
        Ok(Some(handed.socket))
    }

    /// The socket at a TCP address.
    pub fn take_tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let address = ListenAddress::Tcp(address);
        let found = self.0.iter().position(|handed| handed.is_at(&address))?;
        match self.0.remove(found).socket {
            HandedSocket::Tcp(socket) => Some(socket),
            HandedSocket::Unix(_) => None,
        }
    }

    /// That nothing is left over: clients would wait in its queue for ever.
    pub fn finish(self) -> anyhow::Result<()> {
        let Some(handed) = self.0.first() else { return Ok(()) };
        let place = handed.place();
        let more = match &handed.socket {
            HandedSocket::Tcp(_) => "address",
            HandedSocket::Unix(_) => "unix and port",
        };
        bail!(
            "inherited socket {place} fits no [[listen]]\n\
             hint: write a [[listen]] with this {more}, or one with systemd = \"{}\"",
            handed.name
        );
    }
}

impl HandedSocket {
    fn take(fds: &mut ListenFd, index: usize) -> anyhow::Result<Self> {
        let socket = match fds.take_unix_listener(index) {
            Ok(Some(socket)) => Self::Unix(socket),
            _ => match fds.take_tcp_listener(index)? {
                Some(socket) => Self::Tcp(socket),
                None => bail!("it was taken already"),
            },
        };
        let listens = match &socket {
            Self::Tcp(socket) => SockRef::from(socket).is_listener(),
            Self::Unix(socket) => SockRef::from(socket).is_listener(),
        };
        if !listens? {
            bail!("it does not listen; a socket unit needs Accept=no");
        }
        match &socket {
            Self::Tcp(socket) => socket.set_nonblocking(true)?,
            Self::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(socket)
    }
}

impl Handed {
    fn is_at(&self, address: &ListenAddress) -> bool {
        match (&self.socket, address) {
            (HandedSocket::Tcp(socket), ListenAddress::Tcp(address)) => {
                socket.local_addr().is_ok_and(|local| local == *address)
            }
            (HandedSocket::Unix(socket), ListenAddress::Unix(unix)) => {
                unix_name(socket).is_ok_and(|name| is_same(Path::new(&name), &unix.path()))
            }
            _ => false,
        }
    }

    /// Where it listens, and its name, for a person.
    fn place(&self) -> String {
        let address = match &self.socket {
            HandedSocket::Tcp(socket) => socket.local_addr().map(|address| address.to_string()),
            HandedSocket::Unix(socket) => unix_name(socket),
        };
        format!("{} ({})", address.unwrap_or_default(), self.name)
    }
}

/// The path of a Unix socket; an abstract name starts with `@`.
fn unix_name(socket: &UnixListener) -> io::Result<String> {
    let address = socket.local_addr()?;
    if let Some(path) = address.as_pathname() {
        return Ok(path.display().to_string());
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(&address) {
        return Ok(format!("@{}", String::from_utf8_lossy(name)));
    }
    Ok(String::new())
}

/// Whether two paths lead to one socket: /var/run is often a link to /run.
fn is_same(one: &Path, other: &Path) -> bool {
    let same_file = || fs::canonicalize(one).ok()?.eq(&fs::canonicalize(other).ok()?).then_some(());
    one == other || same_file().is_some()
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::net::{TlsPolicy, UnixAddress};

    fn settings(address: ListenAddress, plaintext_password: bool) -> ListenSettings {
        let systemd = Some("front".to_owned());
        let tls = TlsPolicy::Disable;
        let (identities, rules) = (Vec::new(), Vec::new());
        let (client_authority, sni_suffix) = (None, None);
        ListenSettings {
            address,
            tls,
            identities,
            client_authority,
            sni_suffix,
            proxies: crate::net::Origins::default(),
            rules,
            plaintext_password,
            systemd,
        }
    }

    /// A socket with an address that nobody can connect to: it does not listen.
    fn handed(address: &str) -> Inherited {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
        let socket = HandedSocket::Tcp(socket.into());
        Inherited(vec![Handed { name: "front".to_owned(), socket }])
    }

    #[test]
    fn tokens_in_clear_are_not_taken_on_a_socket_that_is_open_to_the_network() {
        let local = ListenAddress::Tcp("127.0.0.1:1".parse().unwrap());
        let error = handed("0.0.0.0:0").take(&settings(local.clone(), true)).unwrap_err();
        assert!(error.to_string().starts_with("plaintext_password is for loopback"), "{error}");
        assert!(handed("127.0.0.1:0").take(&settings(local.clone(), true)).unwrap().is_some());
        assert!(handed("0.0.0.0:0").take(&settings(local, false)).unwrap().is_some());
    }

    #[test]
    fn a_name_does_not_make_a_tcp_socket_a_unix_one() {
        let unix = UnixAddress { folder: "/run/tenantgate".into(), port: 6432, mode: 0o777 };
        let settings = settings(ListenAddress::Unix(unix), true);
        let error = handed("127.0.0.1:0").take(&settings).unwrap_err();
        assert!(error.to_string().contains("is not of the kind of /run/tenantgate/"), "{error}");
    }

    #[test]
    fn the_http_socket_is_known_by_its_address() {
        let mut inherited = handed("127.0.0.1:0");
        let HandedSocket::Tcp(socket) = &inherited.0[0].socket else { panic!("it is TCP") };
        let address = socket.local_addr().unwrap();
        assert!(inherited.take_tcp("127.0.0.1:1".parse().unwrap()).is_none());
        assert!(inherited.take_tcp(address).is_some());
        inherited.finish().unwrap();
    }
}
