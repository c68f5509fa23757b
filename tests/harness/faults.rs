//! A TCP hop that cuts, stalls or drips what passes through it, each direction by itself.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a hop does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands them on.
    Pass,
    /// Reads nothing more until the mode changes.
    Stall,
    /// Hands them on one at a time, each in a segment of its own.
    Drip,
    /// Closes every connection, both ways, and every new one.
    Cut,
}

/// A hop in front of a port of 127.0.0.1, for as long as it is not dropped.
pub struct Hop {
    pub port: u16,
    to_server: watch::Sender<Mode>,
    to_client: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Hop {
    /// A hop that passes everything on to `target` until told otherwise.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to_server, up) = watch::channel(Mode::Pass);
        let (to_client, down) = watch::channel(Mode::Pass);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, into_client) = client.into_split();
                let (from_server, into_server) = server.into_split();
                // Each pump waits for the other's end too, so that a cut ends both.
                let over = Arc::new(tokio::sync::Notify::new());
                tokio::spawn(pump(from_client, into_server, up.clone(), Arc::clone(&over)));
                tokio::spawn(pump(from_server, into_client, down.clone(), over));
            }
        });
        Self { port, to_server, to_client, accepting }
    }

    /// Both directions from now on.
    pub fn set(&self, mode: Mode) {
        self.set_to_server(mode);
        self.set_to_client(mode);
    }

    /// Bytes towards the server from now on.
    pub fn set_to_server(&self, mode: Mode) {
        self.to_server.send_replace(mode);
    }

    /// Bytes towards the client from now on.
    pub fn set_to_client(&self, mode: Mode) {
        self.to_client.send_replace(mode);
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.set(Mode::Cut);
        self.accepting.abort();
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut into: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    over: Arc<tokio::sync::Notify>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mode = *modes.borrow_and_update();
        let reading = async {
            match mode {
                Mode::Stall => std::future::pending().await,
                _ => from.read(&mut buffer).await,
            }
        };
        tokio::select! {
            changed = modes.changed() => {
                if changed.is_err() || *modes.borrow() == Mode::Cut {
                    break;
                }
            }
            () = over.notified() => break,
            read = reading => match read {
                Ok(0) if into.shutdown().await.is_ok() => return,
                Ok(length) if mode != Mode::Cut => {
                    if pass(&mut into, &buffer[..length], mode).await.is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    over.notify_one();
}

async fn pass(into: &mut OwnedWriteHalf, bytes: &[u8], mode: Mode) -> std::io::Result<()> {
    if mode != Mode::Drip {
        return into.write_all(bytes).await;
    }
    for byte in bytes {
        into.write_all(&[*byte]).await?;
        // Lets the reader run, so that it really meets a single byte.
        tokio::task::yield_now().await;
    }
    Ok(())
}
