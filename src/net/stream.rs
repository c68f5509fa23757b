//! [`Stream`]: TCP, Unix and TLS as one type, and the move of a live stream from one thread's
//! runtime to another's.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A socket registered with a runtime, or on its way to another one.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Taken from one runtime and not yet given to the next; nobody reads or writes it.
    Moving(std::net::TcpStream),
    MovingUnix(std::os::unix::net::UnixStream),
    /// What is left in a stream while its socket is being swapped.
    Gone,
}

/// A socket, with or without TLS around it.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    Accepted(Box<server::TlsStream<Socket>>),
    Connected(Box<client::TlsStream<Socket>>),
}

impl Stream {
    /// Whether bytes travel encrypted.
    pub fn is_secure(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// The TLS session that a client began, if there is one.
    pub fn accepted(&self) -> Option<&rustls::ServerConnection> {
        match self {
            Self::Accepted(tls) => Some(tls.get_ref().1),
            Self::Plain(_) | Self::Connected(_) => None,
        }
    }

    /// Ready when a read may find something. With TLS around it only a read can tell, so it always
    /// is.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(Socket::Tcp(tcp)) => tcp.poll_read_ready(cx),
            Self::Plain(Socket::Unix(unix)) => unix.poll_read_ready(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whether a read may find something, as far as the runtime has heard; nobody is woken when
    /// that changes. With TLS around it only a read can tell.
    #[inline]
    pub fn may_be_readable(&self) -> bool {
        match self {
            Self::Plain(Socket::Tcp(tcp)) => tcp.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Self::Plain(Socket::Unix(unix)) => unix.try_io(Interest::READABLE, || Ok(())).is_ok(),
            _ => true,
        }
    }

    /// Writes what the socket takes at once; nobody is woken when it takes more. `None` where that
    /// cannot be tried: with TLS around it.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        match self {
            Self::Plain(Socket::Tcp(tcp)) => Some(tcp.try_write(bytes)),
            Self::Plain(Socket::Unix(unix)) => Some(unix.try_write(bytes)),
            _ => None,
        }
    }

    /// Our own address, where it has one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.socket() {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Moving(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) | Socket::MovingUnix(_) | Socket::Gone => None,
        }
    }

    /// Takes the socket off this thread's runtime, so that the stream may be sent to another
    /// thread. The TLS session around it stays as it is.
    pub fn detach(&mut self) -> io::Result<()> {
        let socket = self.socket_mut();
        *socket = match std::mem::replace(socket, Socket::Gone) {
            Socket::Tcp(tcp) => Socket::Moving(tcp.into_std()?),
            Socket::Unix(unix) => Socket::MovingUnix(unix.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Registers a detached socket with the runtime of the thread that calls.
    pub fn attach(&mut self) -> io::Result<()> {
        let socket = self.socket_mut();
        *socket = match std::mem::replace(socket, Socket::Gone) {
            Socket::Moving(tcp) => Socket::Tcp(TcpStream::from_std(tcp)?),
            Socket::MovingUnix(unix) => Socket::Unix(UnixStream::from_std(unix)?),
            other => other,
        };
        Ok(())
    }

    /// What the bytes travel over.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Accepted(tls) => tls.get_ref().0,
            Self::Connected(tls) => tls.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Accepted(tls) => tls.get_mut().0,
            Self::Connected(tls) => tls.get_mut().0,
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Accepted(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Connected(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Accepted(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Connected(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Accepted(tls) => Pin::new(tls).poll_flush(cx),
            Self::Connected(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Accepted(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Connected(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// What reading or writing a socket that is between two runtimes answers.
fn between_runtimes<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "socket is between two threads")))
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Moving(_) | Self::MovingUnix(_) | Self::Gone => between_runtimes(),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Moving(_) | Self::MovingUnix(_) | Self::Gone => between_runtimes(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Moving(_) | Self::MovingUnix(_) | Self::Gone => between_runtimes(),
        }
    }
}
