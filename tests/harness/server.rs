//! Servers that misbehave: one that answers by a script of the test's, and a hop in front of a real
//! one that alters only what the test wants altered.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::messages::{self, Frame};

/// What a script does about a message.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends these bytes (none at all is fine).
    Send(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Close(Vec<u8>),
}

/// A server of the test's making: it lets everybody in without a password (`require_auth=none` in
/// the route) and then answers by script.
pub struct Scripted {
    pub port: u16,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Each connection answers by a clone of `script`, which is handed every message.
    pub async fn start(script: impl FnMut(Frame) -> Reply + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, script.clone()));
            }
        });
        Self { port, accepting }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What a real server of version 15 says after the password.
pub fn welcome() -> Vec<u8> {
    let told = [
        ("server_version", "15.9"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
        ("session_authorization", "tg_login"),
    ];
    let mut bytes = messages::frame(b'R', &[0, 0, 0, 0]);
    for (name, value) in told {
        bytes.extend(messages::parameter_status(name, value));
    }
    bytes.extend(messages::frame(b'K', &[0, 0, 0, 7, 0, 0, 0, 8]));
    bytes.extend(messages::ready(b'I'));
    bytes
}

async fn serve(mut socket: TcpStream, mut script: impl FnMut(Frame) -> Reply) -> io::Result<()> {
    loop {
        let packet = untagged(&mut socket).await?;
        match packet.get(..4) {
            // SSLRequest and GSSENCRequest are declined, CancelRequest is forgotten.
            Some([4, 210, 22, 47 | 48]) => socket.write_all(b"N").await?,
            Some([4, 210, 22, 46]) => return Ok(()),
            _ => break,
        }
    }
    socket.write_all(&welcome()).await?;
    loop {
        let frame = tagged(&mut socket).await?;
        let ended = frame.tag == b'X';
        match script(frame) {
            Reply::Send(bytes) => socket.write_all(&bytes).await?,
            Reply::Close(bytes) => return socket.write_all(&bytes).await,
        }
        if ended {
            return Ok(());
        }
    }
}

/// A hop in front of a real server, plaintext, that hands every message of the server to the test
/// before it goes on.
pub struct Meddler {
    pub port: u16,
    accepting: JoinHandle<()>,
}

impl Meddler {
    /// `alter` gets the client's message that came last (its start-up packet has tag zero) and the
    /// server's message, and gives the bytes to send instead, or `None` to cut the connection.
    pub async fn start<F>(target: u16, alter: F) -> Self
    where
        F: FnMut(&Frame, Frame) -> Option<Vec<u8>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let alter = Arc::new(Mutex::new(alter));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let alter = Arc::clone(&alter);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", target)).await?;
                    meddle(client, server, move |last, frame| (alter.lock().unwrap())(last, frame))
                        .await
                });
            }
        });
        Self { port, accepting }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn meddle(
    client: TcpStream,
    server: TcpStream,
    mut alter: impl FnMut(&Frame, Frame) -> Option<Vec<u8>>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut into_client) = client.into_split();
    let (mut from_server, mut into_server) = server.into_split();
    let body = untagged(&mut from_client).await?;
    into_server.write_all(&messages::untagged(&body)).await?;
    let last = Mutex::new(Frame { tag: 0, body });
    let up = async {
        loop {
            let frame = tagged(&mut from_client).await?;
            let bytes = frame.bytes();
            *last.lock().unwrap() = frame;
            into_server.write_all(&bytes).await?;
        }
    };
    let down = async {
        loop {
            let frame = tagged(&mut from_server).await?;
            let altered = alter(&last.lock().unwrap(), frame);
            let Some(bytes) = altered else { return Ok(()) };
            into_client.write_all(&bytes).await?;
        }
    };
    // Whichever ends first closes both sockets.
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

async fn tagged(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let tag = from.read_u8().await?;
    let body = untagged(from).await?;
    Ok(Frame { tag, body })
}

async fn untagged(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let length = length.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; usize::try_from(length).unwrap()];
    from.read_exact(&mut body).await?;
    Ok(body)
}
