//! [`Watch`]: tells that the other side has ended its stream while bytes it sent before are still
//! unread. A read cannot: it would have to take them first.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

use crate::net::stream::Socket;

/// A second handle of a socket, registered by itself. The runtime hears once of bytes that have
/// come: who asked the first handle and left them there would never be told of them again.
#[derive(Debug)]
pub enum Watch {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Watch {
    /// Watches this socket, on the runtime of the thread that calls.
    pub fn new(socket: &Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(tcp) => {
                let own = tcp.as_fd().try_clone_to_owned()?;
                TcpStream::from_std(own.into()).map(Self::Tcp)
            }
            Socket::Unix(unix) => {
                let own = unix.as_fd().try_clone_to_owned()?;
                UnixStream::from_std(own.into()).map(Self::Unix)
            }
            Socket::Moving(_) | Socket::MovingUnix(_) | Socket::Gone => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Ready once nothing more can come: the other side's half is closed, or the connection broke.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error means that the runtime ends.
            let ready = ready!(self.poll_readable(cx)).unwrap_or(Ready::READ_CLOSED);
            if ready.is_read_closed() {
                return Poll::Ready(());
            }
            // More bytes, which are not for us.
            self.forget_readable();
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match self {
            Self::Tcp(tcp) => {
                ready!(tcp.poll_read_ready(cx))?;
                pin!(tcp.ready(Interest::READABLE)).poll(cx)
            }
            Self::Unix(unix) => {
                ready!(unix.poll_read_ready(cx))?;
                pin!(unix.ready(Interest::READABLE)).poll(cx)
            }
        }
    }

    fn forget_readable(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, nothing),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, nothing),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The end is seen behind bytes that nobody has read, and they can all be read afterwards.
    async fn sees_the_end(mut near: Socket, mut far: Socket) {
        let watch = Watch::new(&near).unwrap();
        for _ in 0..3 {
            far.write_all(&[7; 1000]).await.unwrap();
            // The runtime hears of them, here and there.
            poll_fn(|cx| match &near {
                Socket::Tcp(tcp) => tcp.poll_read_ready(cx),
                Socket::Unix(unix) => unix.poll_read_ready(cx),
                _ => unreachable!("it is a socket"),
            })
            .await
            .unwrap();
            tokio::task::yield_now().await;
            let mut nobody = Context::from_waker(Waker::noop());
            assert!(watch.poll_ended(&mut nobody).is_pending());
        }
        drop(far);
        poll_fn(|cx| watch.poll_ended(cx)).await;
        let late = Watch::new(&near).unwrap();
        poll_fn(|cx| late.poll_ended(cx)).await;
        let mut read = Vec::new();
        near.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [7; 3000]);
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_what_is_unread() {
        let (near, far) = UnixStream::pair().unwrap();
        sees_the_end(Socket::Unix(near), Socket::Unix(far)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        sees_the_end(Socket::Tcp(near), Socket::Tcp(far)).await;
    }
}
